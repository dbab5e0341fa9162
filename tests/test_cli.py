"""The command line: help, exit codes, what is printed where, and the commands that are small."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from commands import Outcome, cutpoint, in_fresh_process, start
from pictures import write_noise

from exporters.contract import FORMATS
from exporters.errors import CutpointError, InputError, NotVerifiedError, ParityError
from pipeline import cli
from pipeline.backbones import BACKBONES

COMMANDS = ("run", "train", "export", "verify", "layers", "predict", "demo", "site", "doctor", "cache")
FLAGS = {
    "run": (
        "--data",
        "--backbone",
        "--weights",
        "--cut",
        "--head",
        "--formats",
        "--out",
        "--seed",
        "--device",
        "--set",
        "--json",
    ),
    "train": ("--data", "--backbone", "--out", "--seed", "--device", "--set", "--json"),
    "export": ("--data", "--formats", "--out", "--pixel-scaling", "--set", "--json"),
    "verify": ("--reference", "--artifact", "--data", "--json"),
    "layers": ("--input-size", "--set", "--json"),
    "predict": ("--json",),
    "demo": ("--port", "--host", "--open"),
    "site": ("--out",),
    "doctor": ("--json",),
    "cache": ("--clear", "--json"),
}


@pytest.fixture(scope="module")
def helped() -> dict[str, Outcome]:
    rows = [{"arguments": [*command.split(), "--help"]} for command in ("", *COMMANDS)]
    return dict(zip(("", *COMMANDS), in_fresh_process(rows), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help(helped: dict[str, Outcome], command: str) -> None:
    outcome = helped[command]
    assert (outcome.exit_code, outcome.stderr, outcome.loaded) == (0, "", ())
    for flag in FLAGS[command]:
        assert flag in outcome.stdout


def test_help_of_all_lists_every_command(helped: dict[str, Outcome]) -> None:
    assert helped[""].exit_code == 0
    listed = typer.main.get_command(cli.app).commands
    assert set(COMMANDS) <= set(listed)
    for command in listed:
        assert command in helped[""].stdout


# --- exit codes ----------------------------------------------------------------------------------------------------


def ending_with(fault: BaseException) -> Callable[..., Any]:
    def work(*_: object, **__: object) -> None:
        raise fault

    return work


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (InputError("no data", "data", "give some"), 2, "cutpoint: no data\nExpected: data\nTo mend it: give some\n"),
        (
            ParityError("too far apart", "nearer", "look"),
            1,
            "cutpoint: too far apart\nExpected: nearer\nTo mend it: look\n",
        ),
        (NotVerifiedError("no node", "node", "get it"), 3, "cutpoint: no node\nExpected: node\nTo mend it: get it\n"),
        (CutpointError("ours", "none", "report"), 70, "cutpoint: ours\nExpected: none\nTo mend it: report\n"),
        (KeyboardInterrupt(), 130, "Interrupted. Finished stages are kept: the same command goes on from them.\n"),
    ],
)
def test_what_goes_wrong_becomes_a_message_and_a_code(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException, code: int, said: str
) -> None:
    from pipeline import doctor

    monkeypatch.setattr(doctor, "examine", ending_with(fault))
    outcome = cutpoint("doctor")
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (code, "", said)
    if isinstance(fault, CutpointError):
        outcome = cutpoint("doctor", "--json")
        assert outcome.exit_code == code
        assert outcome.json()["exit_code"] == code
        assert outcome.json()["error"]["what"] == fault.what


def test_a_package_that_is_missing_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import doctor

    monkeypatch.setattr(doctor, "examine", ending_with(ModuleNotFoundError("No module named 'keras'", name="keras")))
    outcome = cutpoint("doctor")
    assert outcome.exit_code == 2
    assert "A package is missing: keras." in outcome.stderr
    assert "pip install 'cutpoint[train]'" in outcome.stderr


@pytest.mark.parametrize(
    "fault", [ValueError("of two\nlines"), RecursionError(), OSError(28, "No space left on device")]
)
def test_an_internal_error_is_one_line_and_a_log(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    from pipeline import doctor

    monkeypatch.setattr(doctor, "examine", ending_with(fault))
    outcome = cutpoint("doctor")
    assert outcome.exit_code == 70
    assert outcome.stderr.startswith(f"cutpoint: An internal error: {type(fault).__name__}")
    assert "Traceback" not in outcome.stderr
    log = Path(outcome.stderr.rpartition("report it with ")[2].strip())
    assert type(fault).__name__ in log.read_text(encoding="utf-8")
    log.unlink()


@pytest.mark.parametrize(
    "arguments",
    [["rnu"], ["run", "--fromats", "onnx"], ["run", "--seed", "many"], ["predict"], ["demo", "--port", "x"]],
)
def test_a_command_line_that_cannot_be_read(arguments: list[str]) -> None:
    outcome = cutpoint(*arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert "--help" in outcome.stderr


def test_the_door_can_be_entered_as_a_module() -> None:
    process = start("cache")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "empty" in out or "MiB" in out


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT on Windows")
def test_ctrl_c_early(tmp_path: Path) -> None:
    """Interrupted while Keras is being loaded: no traceback of an import."""
    write_noise(tmp_path / "photos", {"cat": 3, "dog": 3})
    process = start("train", "--data", tmp_path / "photos", "--weights", "none", "--out", tmp_path / "out")
    assert process.stderr
    for line in process.stderr:
        if line.startswith("data: 6 pictures"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "Interrupted." in rest
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {".cutpoint", "log.txt"}
    assert list((tmp_path / "out" / ".cutpoint").iterdir()) == []


# --- layers --------------------------------------------------------------------------------------------------------


def layers(*arguments: str) -> dict[str, dict[str, Any]]:
    outcome = cutpoint("layers", *arguments, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    rows = outcome.json()
    assert [row["index"] for row in rows] == list(range(len(rows)))
    keys = {"index", "name", "type", "shape", "reduction", "params", "macs", "part", "usual", "candidate"}
    assert all(set(row) == keys for row in rows)
    return {row["name"]: row for row in rows}


def test_layers_of_mobilenet() -> None:
    rows = layers("mobilenet", "--set", "backbone.alpha=0.25")
    assert rows["conv_pw_13_relu"]["shape"] == [7, 7, 256]
    assert rows["conv_pw_13_relu"]["reduction"] == 32
    assert rows["conv_pw_13_relu"]["params"] == 218_544
    assert rows["conv_pw_13_relu"]["usual"]


def test_layers_of_mobilenet_v2() -> None:
    rows = layers("mobilenet_v2", "--set", "backbone.alpha=0.35")
    assert rows["out_relu"]["shape"] == [7, 7, 1280]
    assert rows["out_relu"]["params"] == 410_208
    assert layers("mobilenet_v2", "--set", "backbone.alpha=0.35", "--input-size", "96")["out_relu"]["shape"] == [
        3,
        3,
        1280,
    ]


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v2", "vgg16"])
def test_layers_as_a_table(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = cutpoint("layers", name, "--input-size", "64")
    assert outcome.exit_code == 0
    assert outcome.stderr == ""
    lines = outcome.stdout.splitlines()
    columns = ["index", "layer", "type", "shape", "reduction", "params", "MACs", "part", "cut", "(*", "usual)"]
    assert lines[0].split() == columns
    (usual,) = [line for line in lines if f" {BACKBONES[name].usual_cut} " in line]
    assert usual.rstrip().endswith("*")
    # The log of a command that went well is not left behind.
    assert list(tmp_path.iterdir()) == []


# --- doctor, cache -------------------------------------------------------------------------------------------------


def test_doctor() -> None:
    outcome = cutpoint("doctor", "--json")
    rows = {row["name"]: row for row in outcome.json()}
    assert outcome.exit_code == (3 if any(row["state"] == "missing" for row in rows.values()) else 0)
    assert {row["state"] for row in rows.values()} <= {"ok", "optional", "missing"}
    assert rows["python"]["detail"] == sys.version.split()[0]
    for package in ("numpy", "onnxruntime", "ai-edge-litert", "tensorflow"):
        assert rows[package]["state"] == "ok"
    assert {"node", "tfjs", "chromium", "cache"} <= set(rows)
    plain = cutpoint("doctor")
    assert plain.exit_code == outcome.exit_code
    assert [line.split()[0] for line in plain.stdout.splitlines()] == list(rows)


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import doctor

    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "LIGHT", ("numpy", "no-such-package"))
    monkeypatch.setenv("CUTPOINT_CACHE", "/proc/cutpoint")
    outcome = cutpoint("doctor", "--json")
    rows = {row["name"]: row for row in outcome.json()}
    assert outcome.exit_code == 3
    assert rows["no-such-package"]["state"] == "missing"
    assert rows["node"]["state"] == "optional"
    assert "nodejs" in rows["node"]["detail"]
    assert rows["cache"]["state"] == "missing"


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTPOINT_CACHE", str(tmp_path))
    for name in (
        "cutpoint-features/abc/rows.f32",
        "cutpoint-heads/abc/history.json",
        "features/thesis.txt",
        "photos/cat.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 1000)
    outcome = cutpoint("cache", "--json")
    assert outcome.json() == {"path": str(tmp_path), "size_bytes": {"features": 1000, "heads": 1000}}
    assert f"{tmp_path}: features 0.0 MiB" in cutpoint("cache").stdout
    assert cutpoint("cache", "--clear", "--json").json() == {"path": str(tmp_path), "size_bytes": {}}
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"features/thesis.txt", "photos/cat.jpg"}


def test_formats_of_the_help_exist(helped: dict[str, Outcome]) -> None:
    assert "For example tfjs,onnx-float32." in " ".join(helped["run"].stdout.split())
    assert {"tfjs", "onnx"} <= set(FORMATS)
    assert json.loads(json.dumps(list(FORMATS)))
