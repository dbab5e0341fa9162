"""Parts of one conversion: each answers as its layer does, holds nothing else, and is as large as the exporter's file."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from small_models import CUT, small

from exporters.contract import ArtifactName
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.runners.tflite import TfliteRunner
from exporters.tflite_parts import Part, convert_parts
from pipeline.advice.latency import measure

INNER = ("deep_relu", "point_relu", CUT)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The small model with a head of five classes at three of its layers."""
    inner = small().model
    answers = {
        f"cut_{index}": keras.layers.Dense(5, "softmax")(
            keras.layers.GlobalAveragePooling2D()(inner.get_layer(layer).output)
        )
        for index, layer in enumerate(INNER)
    }
    return keras.Model(inner.inputs, answers)


@pytest.fixture(scope="module")
def parts(model: keras.Model) -> dict[str, Part]:
    """What one conversion gives."""
    return convert_parts(model)


def operators(content: bytes) -> list[int]:
    """The operators of a TFLite file."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    return [model.operatorCodes[each.opcodeIndex].builtinCode for each in model.subgraphs[0].operators]


def test_each_part_answers_as_its_layer_does(model: keras.Model, parts: dict[str, Part]) -> None:
    images = small().images[:4]
    expected = model(images.astype(np.float32), training=False)
    assert list(parts) == ["cut_0", "cut_1", "cut_2"]
    for name, part in parts.items():
        with TfliteRunner(part.content) as runner:
            answers = runner.predict(images)
        assert list(answers) == [name]
        np.testing.assert_allclose(answers[name], np.asarray(expected[name]), atol=1e-5)


def test_a_part_holds_what_it_needs_and_no_more(parts: dict[str, Part]) -> None:
    counts = [len(operators(part.content)) for part in parts.values()]
    assert counts == sorted(counts)
    weighted = [
        sum(
            each in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
            for each in operators(part.content)
        )
        for part in parts.values()
    ]
    assert weighted == [2, 3, 5]
    sizes = [len(part.content) for part in parts.values()]
    assert sizes == sorted(sizes)


def test_sizes_are_those_of_the_exporters_files(tmp_path: Path) -> None:
    one = small()
    heads = {
        f"cut_{index}": output
        for index, output in enumerate([keras.layers.Concatenate()(list(one.model.output.values()))])
    }
    part = convert_parts(keras.Model(one.model.inputs, heads))["cut_0"]
    models = InferenceModels(one.model, CUT, one.calibration_images, tmp_path, features_everywhere=False)
    for precision, found in (("float32", len(part.content)), ("int8", part.int8_bytes)):
        saved = models.saved_model(precision)
        made = export_artifact(ArtifactName("tflite", precision), saved, one.card, tmp_path, one.calibration_images)
        # Of so small a file the names are a large part: of the networks that are advised on, it is a per cent.
        assert found == pytest.approx((made / "model.tflite").stat().st_size, rel=0.1)


def test_latency_is_measured_in_turn(parts: dict[str, Part]) -> None:
    found = measure({name: part.content for name, part in parts.items()}, small().images[0], seconds=0.05)
    assert list(found.median_ms) == list(parts)
    assert min(found.median_ms.values()) > 0
    assert found.rounds >= 7
    assert found.threads >= 1


def test_models_that_do_not_fit_at_once_are_measured_in_sets(
    parts: dict[str, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.advice.latency.MOST_BYTES_LOADED", len(parts["cut_2"].content) + 1)
    found = measure({name: part.content for name, part in parts.items()}, small().images[0], seconds=0.02)
    assert sorted(found.median_ms) == sorted(parts)
