"""How weights were made is told, kept with the artifacts, and the same from the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_models

from exporters.contract import CEILINGS, parse_formats
from exporters.golden import read_golden, read_manifest
from exporters.inputs import Inputs
from exporters.report_ways import told
from exporters.ways import WAYS
from pipeline import bundle, run
from pipeline.assembly import save_model
from pipeline.stages import StageLog
from pipeline.terminal import Terminal

NAMES = ("tflite-float32", "tflite-int8", "onnx-int8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder in which training has ended."""
    out, one = tmp_path_factory.mktemp("shipped") / "run", small_models.small()
    (out / bundle.MARK).mkdir(parents=True)
    truth = {name: values[:64] for name, values in one.truth.items()}
    bundle.write_inputs(out / bundle.MARK, bundle.CALIBRATION, Inputs(one.calibration_images))
    bundle.write_inputs(out / bundle.MARK, bundle.SELECTION, Inputs(one.images[:64]), truth)
    save_model(one.model, out / bundle.MODEL)
    one.card.write(out / bundle.CARD)
    small_models.write_golden_of(out, one)
    limits = {precision: vars(each) for precision, each in CEILINGS.items()}
    bundle.write_state(out / bundle.MARK, {"limits": limits, "stages": [], "formats": list(NAMES)})
    return out


@pytest.fixture(scope="module")
def exported(out: Path, cache: Path) -> tuple[list[str], dict[str, Any]]:
    """What was said, and `ways.json`, after a first export."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUTPOINT_CACHE", str(cache))
        patch.setattr(Terminal, "say", lambda self, text: said.append(text))
        run.export(out, NAMES, Terminal())
    return said, json.loads((out / "golden" / WAYS).read_text())


def test_the_choice_is_said_and_kept(out: Path, exported: tuple[list[str], dict[str, Any]]) -> None:
    said, kept = exported
    made = kept["precisions"]["int8"]
    assert list(kept["precisions"]) == ["int8"] and made["images"] == 64
    assert [way["name"] for way in made["ways"]] == ["corrected", "equalised"]
    # Judged by the labels too.
    assert all("accuracy_drop" in way["outputs"]["apple"] for way in made["ways"])
    assert f"export tflite-int8: {told(made)}" in said and f"export onnx-int8: {told(made)}" in said
    assert not any("wall_s" in way for way in made["ways"])
    manifest = read_manifest(out)
    assert f"golden/{WAYS}" in manifest["files"] and read_golden(out, manifest).ways == kept["precisions"]
    # One of the two was perhaps converted by a process that did not make the weights.
    for name in ("tflite-int8", "onnx-int8"):
        assert f"Weights: {told(made)}" in (out / "artifacts" / name / "README.md").read_text()
    assert "Weights:" not in (out / "artifacts" / "tflite-float32" / "README.md").read_text()


def test_the_report_has_it_with_its_seconds(out: Path, exported: tuple[list[str], dict[str, Any]]) -> None:
    report = run.verify(out, Terminal(), runtimes=("local",))
    of_name = {each["name"]: each for each in report["artifacts"]}
    assert "made" not in of_name["tflite-float32"]
    assert of_name["tflite-int8"]["made"] == of_name["onnx-int8"]["made"]
    ways = of_name["onnx-int8"]["made"]["ways"]
    assert all(way.pop("wall_s") > 0 for way in ways)
    assert ways == exported[1]["precisions"]["int8"]["ways"]
    assert "Weights of tflite-int8, onnx-int8: ways measured" in (out / "report.md").read_text()


def test_from_the_cache_it_is_the_same(
    out: Path, cache: Path, exported: tuple[list[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUTPOINT_CACHE", str(cache))
    said: list[str] = []
    monkeypatch.setattr(Terminal, "say", lambda self, text: said.append(text))
    before, _ = exported
    run.export(out, NAMES, Terminal())
    assert "export tflite-int8: from the cache" in said
    assert {line for line in said if "(error" in line} == {line for line in before if "(error" in line}
    assert json.loads((out / "golden" / WAYS).read_text()) == exported[1]
    # Nothing was chosen where nothing had a choice, and nothing of it stays behind.
    run.export(out, ("tflite-float32",), Terminal())
    assert not (out / "golden" / WAYS).exists()
    run.export(out, NAMES, Terminal())
    assert json.loads((out / "golden" / WAYS).read_text()) == exported[1]


def test_other_limits_or_labels_are_another_choice(out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTPOINT_CACHE", str(cache))
    from pipeline import shipping

    state, card = bundle.read_state(out), bundle.read_card(out)
    key = shipping._key(out, card, [], state)
    assert key == shipping._key(out, card, [], state)
    assert key != shipping._key(out, card, [], state | {"limits": {}})
    one = small_models.small()
    kept = (out / bundle.MARK / bundle.SELECTION).read_bytes()
    bundle.write_inputs(
        out / bundle.MARK, bundle.SELECTION, Inputs(one.images[:64]), {"apple": one.truth["apple"][1:65]}
    )
    other = shipping._key(out, card, [], state)
    (out / bundle.MARK / bundle.SELECTION).write_bytes(kept)
    assert other != key == shipping._key(out, card, [], state)


def test_parse_and_stage_names_are_the_folders(exported: tuple[list[str], dict[str, Any]], out: Path) -> None:
    stages = [each for each in bundle.read_state(out)["stages"] if each["name"].startswith("export")]
    assert [each["name"] for each in stages] == [f"export {name}" for name in parse_formats(NAMES)]
    assert StageLog(print).to_json() == []
