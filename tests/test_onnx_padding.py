"""What is padded with 0 and then max-pooled answers in ONNX as in Keras, also where everything around is negative."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from exporters.contract import ArtifactName, Backbone, Card, Output, Resize
from exporters.export import export_artifact
from exporters.runners.onnx import OnnxRunner
from exporters.saved_model import write_saved_model

SIDE = 16
OUTPUTS = (Output("label", "linear", "regression", (5,), activation="linear"),)
CARD = Card("padded", Resize(SIDE, SIDE), OUTPUTS, Backbone("padded", None, "", "tf"), ())
# Relative to the largest answer; padding with the least number of all would be off by a tenth and more.
LARGEST = {"float32": 1e-5, "float16": 5e-3, "int8": 0.05}


@pytest.fixture(scope="module")
def padded() -> keras.Model:
    """A convolution that answers below 0 nearly everywhere, padded and pooled as ResNetV2 does it."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    value = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="pixel_scaling")(image)
    bias = keras.initializers.Constant(-1.5)
    value = keras.layers.Conv2D(8, 3, padding="same", bias_initializer=bias, name="conv")(value)
    value = keras.layers.ZeroPadding2D(1, name="pad")(value)
    value = keras.layers.MaxPooling2D(3, 2, name="pool")(value)
    value = keras.layers.GlobalAveragePooling2D(name="pooled")(value)
    return keras.Model(image, {"label": keras.layers.Dense(5, name="label")(value)}, name="padded")


@pytest.mark.parametrize("precision", LARGEST)
def test_padding_stays_0(padded: keras.Model, precision: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3)).astype(np.uint8)
    saved = write_saved_model(padded, {}, tmp_path / "saved")
    folder = export_artifact(ArtifactName("onnx", precision), saved, CARD, tmp_path / "artifacts", images)
    expected = np.asarray(padded(images.astype(np.float32))["label"])
    with OnnxRunner(folder) as runner:
        found = runner.predict(images)["label"]
    assert np.ptp(expected) > 0
    assert np.abs(found - expected).max() <= LARGEST[precision] * np.abs(expected).max()
    assert any(node.op_type == "Pad" for node in onnx.load(folder / "model.onnx").graph.node)
