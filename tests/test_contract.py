"""The card there and back, the formats that a user may ask for, and that every row of FORMATS keeps its promises."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.contract import (
    CEILINGS,
    FORMATS,
    QUANTISED,
    ArtifactName,
    Backbone,
    Card,
    Output,
    Resize,
    parse_formats,
    usual_formats,
)
from exporters.errors import InputError

LABELS = ("grün", "red", 'with "quotes"')
CARD = Card(
    name="signs",
    resize=Resize(48, 32, crop="pad"),
    outputs=(
        Output("zebra", "mlp", "multiclass", (3,), dtype="uint8", labels=LABELS),
        Output("apple", "linear", "regression", (1,), activation="linear", unit="mm"),
    ),
    backbone=Backbone("mobilenet", 0.25, "ab" * 32, "tf"),
    cut=("conv_pw_11_relu",),
    precision="int8",
    input_dtype="uint8",
    versions={"numpy": "2.4", "keras": "3.15"},
    created_from="sha256:1",
)


def in_order(card: Card) -> Card:
    """The same card with its outputs sorted, as a card that was read has them."""
    return dataclasses.replace(card, outputs=tuple(sorted(card.outputs, key=lambda output: output.name)))


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    CARD.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == in_order(CARD)
    content = (tmp_path / "card.json").read_bytes()
    assert content.endswith(b"\n") and b"\r" not in content and "grün".encode() in content
    Card.read(tmp_path / "card.json").write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == content, "the same card makes the same bytes"


def test_the_card_has_the_fields_that_interfaces_names() -> None:
    data = CARD.to_json()
    assert set(data) == {
        *("schema_version", "name", "input", "resize", "outputs", "backbone", "cut", "precision", "versions"),
        "created_from",
    }
    assert data["input"] == {
        "name": "image",
        "shape": [None, 32, 48, 3],
        "dtype": "uint8",
        "range": [0, 255],
        "color": "RGB",
        "layout": "NHWC",
    }
    keys = {"name", "kind", "task", "shape", "dtype", "activation", "labels", "unit", "columns"}
    assert set(data["outputs"][0]) == keys
    assert set(data["backbone"]) == {"name", "alpha", "weights_sha256", "pixel_scaling"}
    assert [output["name"] for output in data["outputs"]] == ["apple", "zebra"]
    assert list(data["versions"]) == ["keras", "numpy"]


def test_an_output_is_found_by_its_name() -> None:
    assert CARD.output("zebra").labels == LABELS
    with pytest.raises(KeyError):
        CARD.output("label")


def without(key: str) -> dict:
    return {name: value for name, value in CARD.to_json().items() if name != key}


BROKEN_CARDS = {
    "no outputs": json.dumps(without("outputs")),
    "no input": json.dumps(without("input")),
    "an unknown field in resize": json.dumps(CARD.to_json() | {"resize": {"width": 1, "height": 1, "sides": 4}}),
    "another schema": json.dumps(CARD.to_json() | {"schema_version": 2}),
    "an output without a shape": json.dumps(CARD.to_json() | {"outputs": [{"name": "label"}]}),
    "a list": "[1, 2]",
    "a word": '"card"',
    "cut short": json.dumps(CARD.to_json())[:-20],
    "empty": "",
}


@pytest.mark.parametrize("text", BROKEN_CARDS.values(), ids=BROKEN_CARDS)
def test_a_broken_card_is_an_input_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(InputError) as caught:
        Card.read(tmp_path / "card.json")
    assert caught.value.expected and caught.value.mend


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "not UTF-8"])
def test_a_card_that_cannot_be_read_is_an_input_error(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(InputError, match=r"card\.json cannot be read"):
        Card.read(tmp_path / "card.json")


def test_a_format_alone_means_all_its_precisions_but_those_on_request() -> None:
    for name, row in FORMATS.items():
        usual = [precision for precision in row.precisions if precision not in row.on_request] or row.precisions
        assert parse_formats([name]) == tuple(ArtifactName(name, precision) for precision in usual)
        assert "float32" in usual
        for precision in row.on_request:
            assert parse_formats([f"{name}-{precision}"]) == (ArtifactName(name, precision),)


def test_what_holds_some_models_only_is_asked_for_by_its_own_name() -> None:
    assert set(FORMATS) - set(usual_formats()) == {"tfjs_layers"}
    layers = (ArtifactName("tfjs_layers", "float32"),)
    assert not set(layers) & set(parse_formats(["tfjs"]))
    assert parse_formats(["tfjs_layers"]) == parse_formats(["tfjs_layers-float32"]) == layers


def test_formats_come_in_the_order_of_the_table_and_once() -> None:
    asked = ["onnx-float32", "tflite-int8", " tflite-float32 ", "tfjs-float32", "tflite-int8"]
    found = [str(name) for name in parse_formats(asked)]
    assert found == ["tfjs-float32", "tflite-float32", "tflite-int8", "onnx-float32"]
    assert parse_formats(tuple(FORMATS)) == parse_formats([*reversed(FORMATS), "onnx-float32"])


@pytest.mark.parametrize(
    ("asked", "what", "expected"),
    [
        (["tflit"], "There is no format 'tflit'.", "did you mean 'tflite'"),
        (["coreml"], "There is no format 'coreml'.", "one of tfjs, tflite, onnx"),
        (["tflite-int4"], "The format 'tflite' has no precision 'int4'.", "float32, float16, dynamic_int8, int8"),
        (["tfjs-int8"], "The format 'tfjs' has no precision 'int8'.", "float32, float16, uint8"),
        ([], "No format is asked for.", "at least one of tfjs, tflite, onnx"),
        ([""], "There is no format ''.", "one of tfjs"),
        (["onnx", "TFJS"], "There is no format 'TFJS'.", "one of tfjs"),
        (["tflite-int8-extra"], "There is no variant 'extra' of tflite-int8.", "tflite-int8 or tflite-int8-batch1 or"),
        (["onnx-int8-float_io"], "There is no variant 'float_io' of onnx-int8.", "onnx-int8 or onnx-int8-batch1"),
        (["tflite-batch1"], "The format 'tflite' has no precision 'batch1'.", "float32"),
        (["tfjs-float32-extra"], "There is no variant 'extra' of tfjs-float32.", "tfjs-float32"),
    ],
)
def test_what_is_no_format_is_said_with_what_is(asked: list[str], what: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_formats(asked)
    assert caught.value.what == what
    assert expected in caught.value.expected
    assert caught.value.mend


def attribute_of(named: str) -> object:
    module, _, attribute = named.partition(":")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_an_exporter_with_the_common_signature(name: str) -> None:
    parameters = inspect.signature(attribute_of(FORMATS[name].exporter)).parameters
    assert list(parameters)[:3] == ["saved_model_dir", "card", "out"]
    keywords = {key for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {"precision", "calibration_images"} <= keywords


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_runner_that_is_a_context_manager(name: str, tmp_path: Path) -> None:
    make = attribute_of(FORMATS[name].runner)
    for backend in FORMATS[name].backends:
        runner = make(tmp_path, backend=backend, threads=1)
        assert runner.name and runner.backend == backend
        for method in ("__enter__", "__exit__", "predict", "time_one"):
            assert callable(getattr(runner, method))


@pytest.mark.parametrize("name", FORMATS)
def test_every_precision_has_limits(name: str) -> None:
    row = FORMATS[name]
    assert set(row.precisions) <= set(CEILINGS)
    assert set(row.integer_precisions) <= set(row.precisions) and set(row.on_request) <= set(row.precisions)
    assert all(set(precisions) <= set(row.precisions) for precisions in row.variants.values())
    assert row.precisions[0] == "float32" and row.file and row.backends


def test_the_ceilings_are_those_of_interfaces() -> None:
    found = {name: (each.max_abs, each.agreement, each.accuracy_drop) for name, each in CEILINGS.items()}
    weights_only = (5e-2, 0.98, 0.01)
    assert found == {
        "float32": (1e-4, 1.0, None),
        "float16": (5e-3, 0.995, None),
        "uint8": weights_only,
        "uint16": weights_only,
        "dynamic_int8": weights_only,
        "int16x8": weights_only,
        "int8": (None, 0.95, 0.01),
    }
    for name, each in CEILINGS.items():
        assert each.relative_error == (0.05 if name in QUANTISED else 0.01)
        assert each.worst_relative_error == (0.25 if name in QUANTISED else None)


def test_the_contract_loads_no_framework() -> None:
    code = (
        "import sys, exporters.contract, exporters.verification, exporters.prediction;"
        "print(sorted({'tensorflow', 'keras', 'onnx', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
