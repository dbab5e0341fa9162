"""`cutpoint verify --layers` on whole result folders: every artifact is traced, and the broken layer is told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from exporters.contract import CEILINGS
from exporters.errors import InputError
from exporters.golden import write_manifest
from exporters.layers.folder import trace_folder
from tests import small_models
from tests.commands import cutpoint


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of the small result folder with two artifacts, one of which has a dead filter in the layer `point`."""
    whole = small_models.result_folder(tmp_path_factory.getbasetemp())
    for name in ("tflite-float32", "onnx-float32"):
        shutil.copytree(whole / "artifacts" / name, tmp_path / "artifacts" / name)
    shutil.copytree(whole / "golden", tmp_path / "golden")
    for name in ("card.json", "model.keras"):
        shutil.copy(whole / name, tmp_path / name)
    path = tmp_path / "artifacts" / "onnx-float32" / "model.onnx"
    model = onnx.load(path)
    (kernel,) = (each for each in model.graph.initializer if list(each.dims) == [24, 12, 1, 1])
    values = numpy_helper.to_array(kernel).copy()
    values[3] = 0
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    onnx.save(model, path)
    write_manifest(tmp_path, small_models.CARD, CEILINGS)
    return tmp_path


def test_the_command_names_the_broken_layer(folder: Path) -> None:
    outcome = cutpoint("verify", folder, "--layers", "--runtimes", "local")
    assert outcome.exit_code == 1, outcome.stderr
    assert "onnx-float32 leaves the Keras model at the layer 'point'." in outcome.stdout
    assert "tflite-float32 leaves" not in outcome.stdout
    assert "at the layer &#39;point&#39;" in (folder / "report.html").read_text(encoding="utf-8")
    report = cutpoint("verify", folder, "--layers", "--runtimes", "local", "--json").json()
    traced = {each["name"]: each["layers"] for each in report["artifacts"]}
    assert {name: each["first_off"] for name, each in traced.items()} == {
        "tflite-float32": None,
        "onnx-float32": "point",
    }
    names = ["first", "deep", "point", "deep_2", "point_2", "apple", "zebra"]
    for each in traced.values():
        assert (each["status"], each["images"]) == ("traced", 12)
        assert sorted(row["name"] for row in each["rows"]) == sorted(names)
    assert [stage["name"] for stage in report["stages"]][-2:] == ["verify", "layers"]


def test_an_artifact_that_was_not_loaded_is_not_traced(folder: Path) -> None:
    entries = [{"name": "tflite-float32", "format": "tflite"}]
    trace_folder(folder, entries)
    assert entries[0]["layers"]["status"] == "not_traced" and "not loaded" in entries[0]["layers"]["reason"]


@pytest.mark.parametrize("damage", ["missing", "another model", "no model"])
def test_layers_need_the_model_that_the_artifacts_were_made_from(damage: str, folder: Path) -> None:
    path = folder / "model.keras"
    if damage == "missing":
        path.unlink()
    elif damage == "no model":
        path.write_bytes(b"PK\x03\x04 nothing")
    else:
        small_models.small(1).model.save(path)
    with pytest.raises(InputError, match=r"model\.keras"):
        trace_folder(folder, [])
    outcome = cutpoint("verify", folder, "--layers", "--runtimes", "onnxruntime")
    assert outcome.exit_code == 2 and "--layers" in outcome.stderr and "Traceback" not in outcome.stderr


def test_without_keras_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "exporters.layers.reference", None)
    outcome = cutpoint("verify", folder, "--layers", "--runtimes", "local")
    # What was found out without Keras stands: one of the two artifacts is broken.
    assert outcome.exit_code == 1 and "cutpoint[train]" in outcome.stdout
    assert "Layers cannot be compared" in (folder / "report.md").read_text(encoding="utf-8")
    shutil.rmtree(folder / "artifacts" / "onnx-float32")
    write_manifest(folder, small_models.CARD, CEILINGS)
    assert cutpoint("verify", folder, "--layers", "--runtimes", "local").exit_code == 3
