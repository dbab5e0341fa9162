"""Artifacts made in two processes are those of one, byte by byte; what goes wrong in either ends as it would in one."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import small_models

from exporters.contract import ArtifactName, parse_formats
from exporters.errors import InputError
from exporters.inputs import Inputs
from pipeline import bundle, run, side_by_side
from pipeline.assembly import save_model
from pipeline.orders import Made, Order, groups_of
from pipeline.terminal import Terminal
from pipeline.workers import cores

NAMES = parse_formats(("tfjs-float16", "tflite-float32", "tflite-int8", "onnx-float32", "onnx-int8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of a result folder as making artifacts needs."""
    return result_folder(tmp_path_factory.mktemp("made") / "run", small_models.small().model)


def result_folder(out: Path, model: keras.Model) -> Path:
    one = small_models.small()
    (out / bundle.MARK).mkdir(parents=True)
    bundle.write_inputs(out / bundle.MARK, bundle.CALIBRATION, Inputs(one.calibration_images))
    bundle.write_inputs(out / bundle.MARK, bundle.SELECTION, Inputs(one.images[:16]))
    save_model(model, out / bundle.MODEL)
    one.card.write(out / bundle.CARD)
    return out


def order(folder: Path, cache: Path) -> Order:
    return Order(folder, small_models.CARD, cache, "key", features_everywhere=False)


def make(order: Order, said: Callable[[str], None] = lambda line: None) -> dict[ArtifactName, Made]:
    return {each.name: each for each in side_by_side.make_all(order, NAMES, said)}


def digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def leftovers(order: Order) -> list[str]:
    """What lies about beside artifacts and what they are made from."""
    hidden = [path.name for path in order.cache.iterdir() if path.name.startswith(".")]
    return hidden + [path.name for path in (order.out / bundle.MARK).iterdir() if path.suffix != ".npz"]


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, str]:
    """The files that one process makes."""
    patch = pytest.MonkeyPatch()
    patch.setattr(side_by_side, "cores", lambda: 1)
    mine = order(folder, folder.parent / "alone")
    made = make(mine)
    patch.undo()
    assert list(made) == [name for group in groups_of(NAMES) for name in group]
    assert not leftovers(mine)
    return digests(mine.cache)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)


def test_groups_share_a_rounding() -> None:
    groups = groups_of(parse_formats(("tfjs", "tflite", "onnx")))
    assert [{name.precision for name in group} for group in groups] == [
        {"int8"},
        {"uint8", "dynamic_int8"},
        {"float16"},
        {"float32"},
    ]


def test_two_processes_make_the_same_bytes_as_one(folder: Path, alone: dict[str, str], two_cores: None) -> None:
    mine, said = order(folder, folder.parent / "together"), []
    made = make(mine, said.append)
    assert digests(mine.cache) == alone and len(alone) > 3 * len(NAMES)
    assert sorted(said) == sorted(f"export {name}: converting" for name in NAMES)
    for each in made.values():
        assert each.stage.name == f"export {each.name}" and not each.stage.cached
        assert each.stage.wall_s > 0 and each.stage.peak_memory_bytes > 1e8
    assert not leftovers(mine) and not multiprocessing.active_children()


def test_a_process_that_is_killed_leaves_its_work_to_the_other(
    folder: Path, alone: dict[str, str], two_cores: None
) -> None:
    mine, killed = order(folder, folder.parent / "killed"), []

    def kill(line: str) -> None:
        # The longest group is this process's own.
        if "int8" not in line and not killed:
            killed.extend(multiprocessing.active_children())
            for child in killed:
                child.kill()

    assert set(make(mine, kill)) == set(NAMES) and len(killed) == 1
    assert digests(mine.cache) == alone
    assert not leftovers(mine)


def test_stopping_stops_the_other_process(folder: Path, two_cores: None) -> None:
    mine = order(folder, folder.parent / "stopped")

    def interrupt(line: str) -> None:
        if "int8" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(mine, interrupt)
    assert not multiprocessing.active_children()
    assert not leftovers(mine)


def test_little_memory_means_one_process(
    folder: Path, alone: dict[str, str], two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "free_memory", lambda: 2**30)
    mine, said = order(folder, folder.parent / "narrow"), []
    make(mine, said.append)
    assert said == [f"export {name}: converting" for group in groups_of(NAMES) for name in group]
    assert digests(mine.cache) == alone


def test_what_one_format_cannot_hold_the_others_still_can(
    tmp_path: Path, two_cores: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("CUTPOINT_CACHE", str(tmp_path / "cache"))
    plain = small_models.small().model
    # TFLite has no inverse hyperbolic sine; ONNX and TF.js have one.
    outputs = {name: keras.ops.arcsinh(value) for name, value in plain.output.items()}
    out = result_folder(tmp_path / "run", keras.Model(plain.inputs, outputs, name="small"))
    small_models.write_golden_of(out, small_models.small())
    bundle.write_state(out / bundle.MARK, {"limits": {}, "stages": []})
    stale = out / "artifacts" / "tflite-float32"
    stale.mkdir(parents=True)
    with pytest.raises(InputError, match=r"TFLite cannot hold this model.*Asinh"):
        run.export(out, tuple(map(str, NAMES)), Terminal())
    # Whoever catches the error says it, once.
    said = capsys.readouterr().err
    assert "cannot hold this model" not in said and "cannot be made" in said
    assert {path.name for path in (out / "artifacts").iterdir()} == {"tfjs-float16", "onnx-float32", "onnx-int8"}
    assert (out / "golden" / "manifest.json").is_file()
    assert [stage["name"] for stage in bundle.read_state(out)["stages"]] == [f"export {name}" for name in NAMES]


def test_cores_are_those_that_this_process_may_use() -> None:
    assert cores() >= 1
