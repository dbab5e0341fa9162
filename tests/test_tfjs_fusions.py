"""What TensorFlow's optimiser fuses and TF.js cannot run fused is taken apart; numbers that float16 cannot hold are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from small_models import CARD

from exporters.audit.auditing import read_contents
from exporters.contract import ArtifactName
from exporters.export import export_artifact
from exporters.runners.keras import KerasRunner
from exporters.runners.onnx import OnnxRunner
from exporters.runners.tfjs import TfjsRunner
from exporters.saved_model import write_saved_model

layers = keras.layers
SIDE_PX = 32
ROUNDING = 2e-5


def skip(values: keras.KerasTensor) -> keras.KerasTensor:
    """A convolution without a bias, and a sum behind it."""
    return layers.Add()([layers.Conv2D(8, 3, padding="same", use_bias=False)(values), values])


def skip_and_relu(values: keras.KerasTensor) -> keras.KerasTensor:
    """The same with an activation behind, which is fused too."""
    return layers.ReLU()(skip(values))


def skip_of_depthwise(values: keras.KerasTensor) -> keras.KerasTensor:
    """The same behind a depthwise convolution."""
    return layers.Add()([layers.DepthwiseConv2D(3, padding="same", use_bias=False)(values), values])


def one_number(values: keras.KerasTensor) -> keras.KerasTensor:
    """A single number that is added to a single channel."""
    return layers.Conv2D(1, 1, use_bias=False)(values) + 0.5


def hard_swish(values: keras.KerasTensor) -> keras.KerasTensor:
    """The activation of MobileNetV3."""
    return layers.Conv2D(8, 3, activation="hard_silu", bias_initializer="ones")(values)


def tanh(values: keras.KerasTensor) -> keras.KerasTensor:
    """An activation that TensorFlow fuses into a dense layer, and no backend of TF.js does."""
    hidden = layers.Dense(8, activation="tanh", bias_initializer="ones")(layers.Flatten()(values))
    return layers.UpSampling2D(6)(layers.Reshape((1, 1, 8))(hidden))


def model_of(middle: Callable) -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Conv2D(8, 3, bias_initializer="ones", name="first")(layers.Rescaling(1 / 255)(image))
    values = layers.Flatten()(layers.AveragePooling2D(6)(middle(values)))
    return keras.Model(
        image, {name: layers.Dense(5, activation="softmax", name=name)(values) for name in ("apple", "zebra")}
    )


def exported(model: keras.Model, name: ArtifactName, folder: Path) -> Path:
    saved = write_saved_model(model, {}, folder / "saved")
    return export_artifact(name, saved, dataclasses.replace(CARD, cut=()), folder, np.zeros((0, 32, 32, 3), np.uint8))


def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (6, SIDE_PX, SIDE_PX, 3), np.uint8)


@pytest.mark.parametrize("middle", [skip, skip_and_relu, skip_of_depthwise, one_number, hard_swish, tanh])
def test_tfjs_answers_as_keras_does(middle: Callable, tmp_path: Path) -> None:
    model = model_of(middle)
    artifact = exported(model, ArtifactName("tfjs", "float32"), tmp_path)
    contents = read_contents(artifact, "tfjs")
    assert not contents.custom_operators
    with KerasRunner(model) as keras_runner, TfjsRunner(artifact) as runner:
        expected, found = keras_runner.predict(images()), runner.predict(images())
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= ROUNDING
    nodes = [each["name"] for each in json.loads((artifact / "model.json").read_text())["modelTopology"]["node"]]
    # Something was fused that had to be taken apart: otherwise the test would show nothing.
    assert any(each.endswith("/bare") for each in nodes)


def test_numbers_beside_the_layers_stay_exact_in_float16(tmp_path: Path) -> None:
    model = model_of(hard_swish)
    stored = read_contents(exported(model, ArtifactName("tfjs", "float16"), tmp_path / "tfjs"), "tfjs")
    assert {layer.kernel.dtype for layer in stored.layers} == {"float16"}
    numbers = [float(each.values.ravel()[0]) for each in stored.constants if each.values.size == 1]
    assert any(abs(each - 1 / 255) < 1e-9 for each in numbers)
    artifact = exported(model, ArtifactName("onnx", "float16"), tmp_path / "onnx")
    contents = read_contents(artifact, "onnx")
    # Divided by 255, which float16 holds, and told as what it multiplies with.
    assert contents.operators.get("Div", 0) >= 1
    numbers = [float(each.values.ravel()[0]) for each in contents.constants if each.values.size == 1]
    assert any(abs(each - 1 / 255) < 1e-9 for each in numbers)
    with KerasRunner(model) as keras_runner, OnnxRunner(artifact) as runner:
        expected, found = keras_runner.predict(images()), runner.predict(images())
    assert all(np.abs(found[name] - values).max() < 2e-3 for name, values in expected.items())
