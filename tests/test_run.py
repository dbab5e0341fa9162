"""From drawings to judged artifacts and back again, on a very small set: what a user sees, and what lies on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, cutpoint, start
from pictures import ACTIVE, SMALL, write_drawings

from exporters.contract import FORMATS

FORMATS_HERE = ("tfjs-float32", "tflite-float32", "tflite-int8", "onnx-float32")
FLOAT = tuple(name for name in FORMATS_HERE if name.endswith("float32"))
RESULTS = {
    "model.keras",
    "card.json",
    "report.json",
    "report.md",
    "report.html",
    "report.xml",
    "log.txt",
    "artifacts",
    "golden",
}
PAPERS = {"card.json", "labels.txt", "README.md"}


def digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def stages_of(report: dict[str, Any]) -> dict[str, bool]:
    """Stage -> whether the cache answered."""
    return {stage["name"]: stage["cached"] for stage in report["stages"]}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def data(here: Path) -> Path:
    folder = write_drawings(here / "drawings")
    (folder / ACTIVE[0] / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(here: Path) -> Any:
    """A cache for this file's runs alone, which begins empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUTPOINT_CACHE", str(here / "cache"))
        yield here / "cache"


def arguments(data: Path, out: Path, formats: tuple[str, ...] = FORMATS_HERE, seed: int = 0) -> list[object]:
    return ["run", "--data", data, "--out", out, *SMALL, "--formats", ",".join(formats), "--seed", seed]


@pytest.fixture(scope="module")
def first(here: Path, data: Path) -> tuple[Outcome, Path]:
    return cutpoint(*arguments(data, here / "first")), here / "first"


@pytest.fixture(scope="module")
def second(here: Path, data: Path, first: tuple[Outcome, Path]) -> tuple[Outcome, Path]:
    """The same once more, into another folder, as JSON."""
    return cutpoint(*arguments(data, here / "second"), "--json"), here / "second"


@pytest.fixture(scope="module")
def judged(first: tuple[Outcome, Path]) -> dict[str, Any]:
    """name -> the artifact's entry of the first report."""
    return {artifact["name"]: artifact for artifact in report_of(first[1])["artifacts"]}


# --- the first run -------------------------------------------------------------------------------------------------


def test_the_exit_code_is_that_of_the_report(first: tuple[Outcome, Path]) -> None:
    outcome, out = first
    report = report_of(out)
    assert outcome.exit_code == report["exit_code"], outcome.stderr
    assert report["verdict"] == {0: "verified", 1: "failed", 3: "not_verified"}[report["exit_code"]]


def test_the_result_folder_is_whole(first: tuple[Outcome, Path]) -> None:
    out = first[1]
    assert {path.name for path in out.iterdir()} == RESULTS | {".cutpoint"}
    assert {path.name for path in (out / "artifacts").iterdir()} == set(FORMATS_HERE)
    for folder in (out / "artifacts").iterdir():
        present = {path.name for path in folder.iterdir()}
        assert PAPERS | {FORMATS[folder.name.partition("-")[0]].file} <= present
        assert (folder / "labels.txt").read_bytes() == "".join(f"{label}\n" for label in sorted(ACTIVE)).encode()
    assert {path.name for path in (out / ".cutpoint").iterdir()} == {"run.json", "calibration.npz", "selection.npz"}


def test_results_go_to_stdout_and_all_else_to_stderr(first: tuple[Outcome, Path]) -> None:
    outcome, out = first
    for name in FORMATS_HERE:
        assert name.partition("-")[0] in outcome.stdout
    assert "report" in outcome.stdout
    for word in ("features:", "data:", "WARNING", "INFO", "E0000", "Saved", "Traceback"):
        assert word not in outcome.stdout
    for word in ("data: ", "features: ", "heads: ", "export tflite-int8", "verify: "):
        assert word in outcome.stderr
    for chatter in ("WARNING", "INFO:", "E0000", "oneDNN", "Saved artifact", "Traceback"):
        assert chatter not in outcome.stderr
    assert (out / "log.txt").stat().st_size > 0


def test_float_artifacts_are_verified(judged: dict[str, Any]) -> None:
    for name in FLOAT:
        for runtime in judged[name]["runtimes"]:
            assert runtime["status"] == "verified", (name, runtime["backend"], runtime["reason"])
            figures = runtime["outputs"]["label"]
            assert figures["max_abs"] <= 1e-4
            assert figures["agreement"] == 1.0
            assert runtime["images"] in (report_images(judged), 16)
        assert judged[name]["audit"]["status"] == "verified", judged[name]["audit"]["reason"]
        assert judged[name]["audit"]["constants"]["layers"] == 53


def report_images(judged: dict[str, Any]) -> int:
    return next(iter(judged.values()))["runtimes"][0]["images"]


def test_int8_is_judged_and_says_so(judged: dict[str, Any]) -> None:
    runtime = judged["tflite-int8"]["runtimes"][0]
    assert runtime["status"] in ("verified", "failed", "not_verified", "not_enough_images", "degenerate")
    assert runtime["status"] == "verified" or runtime["reason"]
    assert runtime["images"] == report_images(judged)


def test_the_head_has_learnt_something(first: tuple[Outcome, Path]) -> None:
    assert report_of(first[1])["reference"]["accuracy"]["label"] >= 0.6


def test_report_json_has_the_keys_of_interfaces(first: tuple[Outcome, Path]) -> None:
    report = report_of(first[1])
    promised = {
        "schema_version",
        "verdict",
        "exit_code",
        "cutpoint_version",
        "seed",
        "data",
        "stages",
        "reference",
        "artifacts",
    }
    assert promised <= set(report)
    assert report["schema_version"] == 1
    assert report["seed"] == 0
    assert {"train", "val", "test", "labels", "skipped", "fingerprint"} == set(report["data"])
    assert report["data"]["labels"] == {"label": sorted(ACTIVE)}
    (skipped,) = report["data"]["skipped"]
    assert skipped["path"].endswith("broken.png")
    assert skipped["reason"].startswith("not an image")
    counts = report["data"]["train"], report["data"]["val"], report["data"]["test"]
    assert counts == (84, 18, 18)
    assert report["data"]["fingerprint"].startswith("sha256:")
    for stage in report["stages"]:
        chosen = {"ways_s"} if stage["name"] == "export tflite-int8" else set()
        assert set(stage) == {"name", "wall_s", "peak_memory_bytes", "cached"} | chosen
        assert all(0 < seconds < stage["wall_s"] for seconds in stage.get("ways_s", {}).values())
        assert stage["peak_memory_bytes"] > 0
    names = [stage["name"] for stage in report["stages"]]
    assert names == [
        "data",
        "backbone",
        "features",
        "heads",
        "assembly",
        "reference",
        *(f"export {n}" for n in FORMATS_HERE),
        "verify",
    ]
    assert not any(stages_of(report).values())


def test_the_entries_of_artifacts_have_the_keys_of_interfaces(
    first: tuple[Outcome, Path], judged: dict[str, Any]
) -> None:
    assert list(judged) == list(FORMATS_HERE)
    for name, artifact in judged.items():
        promised = {"name", "format", "precision", "size_bytes", "gzip_bytes", "sha256", "runtimes"}
        assert promised <= set(artifact)
        assert f"{artifact['format']}-{artifact['precision']}" == name
        folder = first[1] / "artifacts" / name
        assert artifact["size_bytes"] == sum((folder / file).stat().st_size for file in artifact["sha256"])
        assert 0 < artifact["gzip_bytes"] < artifact["size_bytes"] * 1.01
        assert artifact["sha256"].items() <= digests(folder).items()
        for runtime in artifact["runtimes"]:
            promised = {"runner", "version", "backend", "images", "latency_ms", "status", "reason", "outputs"}
            assert promised <= set(runtime)
            assert set(runtime["latency_ms"]) == {"median", "p95"}
            figures = {"max_abs", "mean_abs", "cosine", "agreement", "near_ties", "accuracy", "accuracy_drop", "limits"}
            assert figures | {"smallest_passing_limits"} <= set(runtime["outputs"]["label"])


def test_the_card_is_that_of_interfaces(first: tuple[Outcome, Path]) -> None:
    card = json.loads((first[1] / "card.json").read_text(encoding="utf-8"))
    assert set(card) == {
        *(
            "schema_version",
            "name",
            "input",
            "resize",
            "outputs",
            "backbone",
            "cut",
            "precision",
            "versions",
            "created_from",
        )
    }
    assert card["input"] == {
        "name": "image",
        "shape": [None, 96, 96, 3],
        "dtype": "float32",
        "range": [0, 255],
        "color": "RGB",
        "layout": "NHWC",
    }
    assert set(card["backbone"]) == {"name", "alpha", "weights_sha256", "pixel_scaling"}
    (output,) = card["outputs"]
    assert set(output) == {"name", "kind", "task", "shape", "dtype", "activation", "labels", "unit", "columns"}
    assert card["cut"] == ["out_relu"]
    int8 = json.loads((first[1] / "artifacts" / "tflite-int8" / "card.json").read_text(encoding="utf-8"))
    assert (int8["precision"], int8["input"]["dtype"], int8["outputs"][0]["dtype"]) == ("int8", "uint8", "uint8")


def test_the_manifest_names_every_file(first: tuple[Outcome, Path]) -> None:
    out = first[1]
    manifest = json.loads((out / "golden" / "manifest.json").read_text(encoding="utf-8"))
    present = {f"{top}/{name}": value for top in ("artifacts", "golden") for name, value in digests(out / top).items()}
    present.pop("golden/manifest.json")
    assert manifest["files"] == present


# --- again ---------------------------------------------------------------------------------------------------------


def test_the_second_run_takes_all_from_the_cache(second: tuple[Outcome, Path]) -> None:
    outcome, out = second
    report = outcome.json()
    assert report == report_of(out)
    assert outcome.exit_code == report["exit_code"]
    cached = stages_of(report)
    assert cached["features"]
    assert cached["heads"]
    assert all(cached[f"export {name}"] for name in FORMATS_HERE)


def test_the_same_run_makes_the_same_bytes(first: tuple[Outcome, Path], second: tuple[Outcome, Path]) -> None:
    assert digests(first[1] / "artifacts") == digests(second[1] / "artifacts")
    assert digests(first[1] / "golden") == digests(second[1] / "golden")
    cards = [json.loads((each[1] / "card.json").read_text()) for each in (first, second)]
    assert cards[0] == cards[1]


@pytest.fixture(scope="module")
def reseeded(data: Path, second: tuple[Outcome, Path]) -> tuple[Outcome, Path, dict[str, str]]:
    """Another seed and fewer formats, into the folder of the second run."""
    before = digests(second[1])
    return cutpoint(*arguments(data, second[1], ("onnx-float32",), seed=1)), second[1], before


def test_another_seed_trains_again(reseeded: tuple[Outcome, Path, dict[str, str]]) -> None:
    outcome, out, before = reseeded
    report = report_of(out)
    assert outcome.exit_code == report["exit_code"]
    assert report["seed"] == 1
    cached = stages_of(report)
    assert cached["features"]
    assert not cached["heads"]
    assert not cached["export onnx-float32"]
    after = digests(out)
    assert after["artifacts/onnx-float32/model.onnx"] != before["artifacts/onnx-float32/model.onnx"]
    assert after["golden/reference.npz"] != before["golden/reference.npz"]


def test_formats_no_longer_asked_for_are_gone(reseeded: tuple[Outcome, Path, dict[str, str]]) -> None:
    out = reseeded[1]
    assert [path.name for path in (out / "artifacts").iterdir()] == ["onnx-float32"]
    manifest = json.loads((out / "golden" / "manifest.json").read_text(encoding="utf-8"))
    assert not any("tflite" in name or "tfjs" in name for name in manifest["files"])
    assert [artifact["name"] for artifact in report_of(out)["artifacts"]] == ["onnx-float32"]


def test_export_adds_a_format_to_a_trained_folder(reseeded: tuple[Outcome, Path, dict[str, str]]) -> None:
    out = reseeded[1]
    outcome = cutpoint("export", out, "--formats", "onnx-float32,tflite-float32", "--json")
    report = outcome.json()
    assert outcome.exit_code == report["exit_code"]
    assert [artifact["name"] for artifact in report["artifacts"]] == ["tflite-float32", "onnx-float32"]
    assert stages_of(report)["export onnx-float32"]
    assert not stages_of(report)["export tflite-float32"]


@pytest.mark.parametrize(
    "flag", [("--seed", "3"), ("--data", "photos"), ("--set", "seed=3"), ("--pixel-scaling", "tf")]
)
def test_export_refuses_what_training_fixed(first: tuple[Outcome, Path], flag: tuple[str, str]) -> None:
    outcome = cutpoint("export", first[1], *flag)
    assert outcome.exit_code == 2
    assert f"{flag[0]} does not go with a trained result folder" in outcome.stderr


# --- elsewhere -----------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(first: tuple[Outcome, Path], tmp_path: Path) -> Path:
    """The result folder as it arrives at somebody else's: without `.cutpoint`."""
    return shutil.copytree(first[1], tmp_path / "copy", ignore=shutil.ignore_patterns(".cutpoint"))


def test_verify_says_the_same_elsewhere(first: tuple[Outcome, Path], copied: Path) -> None:
    outcome = cutpoint("verify", copied, "--json")
    report, before = outcome.json(), report_of(first[1])
    assert outcome.exit_code == before["exit_code"]
    assert report["verdict"] == before["verdict"]
    for mine, theirs in zip(report["artifacts"], before["artifacts"], strict=True):
        assert mine["runtimes"][0]["outputs"] == theirs["runtimes"][0]["outputs"]
        assert mine["sha256"] == theirs["sha256"]
    assert report["data"] == before["data"]
    assert report["reference"] == before["reference"]


def test_verify_fails_when_a_file_was_changed(copied: Path) -> None:
    with (copied / "artifacts" / "onnx-float32" / "labels.txt").open("a") as stream:
        stream.write("extra\n")
    outcome = cutpoint("verify", copied)
    assert outcome.exit_code == 1
    assert report_of(copied)["verdict"] == "failed"


@pytest.mark.parametrize("form", ["folder", "artifact", "file"])
def test_predict(first: tuple[Outcome, Path], data: Path, form: str) -> None:
    out = first[1]
    named = {
        "folder": out,
        "artifact": out / "artifacts" / "onnx-float32",
        "file": out / "artifacts" / "tfjs-float32" / "model.json",
    }[form]
    pictures = [data / label / f"{number:03d}.png" for label in ACTIVE for number in range(5)]
    outcome = cutpoint("predict", named, *pictures, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    answers = outcome.json()
    assert [Path(answer["path"]) for answer in answers] == pictures
    expected = {"folder": "tflite-float32", "artifact": "onnx-float32", "file": "tfjs-float32"}[form]
    assert {answer["artifact"] for answer in answers} == {expected}
    right = 0
    for answer, picture in zip(answers, pictures, strict=True):
        top = answer["outputs"]["label"]["top"]
        assert {each["label"] for each in top} == set(ACTIVE)
        assert sum(each["probability"] for each in top) == pytest.approx(1, abs=1e-3)
        assert [each["probability"] for each in top] == sorted((each["probability"] for each in top), reverse=True)
        right += top[0]["label"] == picture.parent.name
    assert right >= 9
    lines = cutpoint("predict", named, pictures[0], "--top", "1").stdout.splitlines()
    assert lines == [f"{pictures[0]}  label: {answers[0]['outputs']['label']['top'][0]['label']} "
                     f"{answers[0]['outputs']['label']['top'][0]['probability']:.3f}"]  # fmt: skip


@pytest.mark.parametrize("broken", ["missing.png", "empty.png"])
def test_predict_refuses_what_is_no_picture(first: tuple[Outcome, Path], tmp_path: Path, broken: str) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    outcome = cutpoint("predict", first[1] / "artifacts" / "onnx-float32", tmp_path / broken)
    assert outcome.exit_code == 2
    assert f"{broken} cannot be used" in outcome.stderr
    assert outcome.stdout == ""


# --- two heads -----------------------------------------------------------------------------------------------------


def test_two_heads_of_the_same_labels_are_scored_by_their_own_targets(here: Path, data: Path) -> None:
    """`round` can be learnt; `odd` is a coin's toss, written with the same two labels."""
    lines = ["path,odd,round"]
    for label in ACTIVE[:2]:
        for number in range(40):
            toss = hashlib.sha256(f"{label}{number}".encode()).digest()[0] % 2
            lines.append(
                f"drawings/{label}/{number:03d}.png,{'yes' if toss else 'no'},{'yes' if label == ACTIVE[0] else 'no'}"
            )
    (here / "two.csv").write_text("\n".join(lines) + "\n")
    (here / "two.toml").write_text(
        '[data]\npath = "two.csv"\n[resize]\nwidth = 96\n[backbone]\nalpha = 0.35\nweights = "quickstart"\n'
        '[heads.first]\ntarget = "odd"\n[heads.second]\ntarget = "round"\nkind = "mlp"\npooling = "max"\n'
    )
    outcome = cutpoint("train", here / "two.toml", "--out", here / "two", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    state = outcome.json()
    assert set(state) == {"name", "data", "training", "reference", "stages"}
    accuracy = state["reference"]["accuracy"]
    assert accuracy["second"] >= 0.8
    assert accuracy["first"] < accuracy["second"]
    assert state["data"]["labels"] == {"first": ["no", "yes"], "second": ["no", "yes"]}


# --- interrupted ---------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_nothing_half_made_and_the_next_run_goes_on(
    here: Path, data: Path, first: tuple[Outcome, Path]
) -> None:
    out = here / "interrupted"
    formats = ("tflite-float32", "onnx-float32")
    process = start(*arguments(data, out, formats, seed=2))
    seen = interrupt_at(process, "export tflite-float32")
    assert process.returncode == 130, seen
    assert "Traceback" not in seen
    assert seen.rstrip().endswith("Interrupted. Finished stages are kept: the same command goes on from them.")
    assert (out / "model.keras").is_file()
    assert not (out / "golden" / "manifest.json").exists()
    left = [path.name for path in (out / "artifacts").iterdir()] if (out / "artifacts").is_dir() else []
    assert set(left) <= set(formats)
    for name in left:
        assert {path.name for path in (out / "artifacts" / name).iterdir()} >= PAPERS
    assert cutpoint("verify", out).exit_code == 2

    outcome = cutpoint(*arguments(data, out, formats, seed=2))
    assert outcome.exit_code in (0, 1, 3), outcome.stderr
    report = report_of(out)
    assert outcome.exit_code == report["exit_code"]
    assert stages_of(report)["features"]
    assert stages_of(report)["heads"]
    assert {path.name for path in (out / "artifacts").iterdir()} == set(formats)


def interrupt_at(process: subprocess.Popen[str], word: str) -> str:
    """Send SIGINT when a line of stderr begins with `word`; return all of stderr."""
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(word):
            os.kill(process.pid, signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[1]
    return "".join(seen) + rest


@pytest.mark.slow
def test_a_name_that_no_graph_could_have(here: Path, data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "meine Fötos (2024)"
    photos.symlink_to(data, target_is_directory=True)
    command = arguments(photos, tmp_path / "out", formats=("tflite-float32",))
    ended = cutpoint(*command, "--set", 'name="_Fötos (2024)"')
    assert ended.exit_code == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))["name"] == "_Fötos (2024)"


def test_another_backend_is_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    ended = cutpoint(*arguments(data, tmp_path / "out"), environment={"KERAS_BACKEND": "jax"})
    assert ended.exit_code == 2
    assert "KERAS_BACKEND is jax" in ended.stderr
    assert not (tmp_path / "out" / "model.keras").exists()
