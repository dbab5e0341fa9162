"""Paddings go into the convolutions behind them, and means over small maps become poolings; the answers stay the same."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters import tfjs
from exporters.audit.auditing import read_contents
from exporters.contract import FORMATS, ArtifactName, Backbone, Card, Output, Resize
from exporters.export import export_artifact
from exporters.runners.chromium import close_session
from exporters.runners.tfjs import TfjsRunner
from exporters.runtimes import open_runtime
from exporters.saved_model import write_saved_model

layers = keras.layers
SIDE_PX = 24
CUT = "cut"
OUTPUTS = (Output("label", "linear", "regression", (5,), activation="linear"),)
# Relative to the largest answer.
ROUNDING = 1e-5
WEBGL_ROUNDING = 1e-4


def strided(values: keras.KerasTensor) -> keras.KerasTensor:
    """What MobileNets do before they halve a map."""
    return layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D(((0, 1), (0, 1)), name=CUT)(values))


def wide(values: keras.KerasTensor) -> keras.KerasTensor:
    """What ResNets begin with; no `same` of TensorFlow's pads so."""
    return layers.Conv2D(8, 7, strides=2, activation="relu")(layers.ZeroPadding2D(3, name=CUT)(values))


def uneven(values: keras.KerasTensor) -> keras.KerasTensor:
    """Another number on each side."""
    return layers.Conv2D(8, (3, 2), strides=2)(layers.ZeroPadding2D(((2, 0), (1, 3)), name=CUT)(values))


def with_holes(values: keras.KerasTensor) -> keras.KerasTensor:
    """A convolution with holes, before which TensorFlow puts a step of its own."""
    return layers.Conv2D(8, 3, dilation_rate=2)(layers.ZeroPadding2D(((2, 0), (1, 3)), name=CUT)(values))


def branches(values: keras.KerasTensor) -> keras.KerasTensor:
    """One padding before two convolutions."""
    padded = layers.ZeroPadding2D(1, name=CUT)(values)
    return layers.Concatenate()([layers.Conv2D(4, 3)(padded), layers.DepthwiseConv2D(3)(padded)])


def pooled_too(values: keras.KerasTensor) -> keras.KerasTensor:
    """A padding before a convolution and before a pooling, which needs the padded map."""
    padded = layers.ZeroPadding2D(1, name=CUT)(values)
    return layers.Concatenate()([layers.Conv2D(4, 3)(padded), layers.MaxPooling2D(3, 1)(padded)])


def padding_again(values: keras.KerasTensor) -> keras.KerasTensor:
    """A padding before a convolution that pads for itself."""
    return layers.Conv2D(4, 3, padding="same")(layers.ZeroPadding2D(1, name=CUT)(values))


def gated(values: keras.KerasTensor) -> keras.KerasTensor:
    """Squeeze and excite: the mean keeps its axes."""
    small = layers.MaxPooling2D(2)(values)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True, name=CUT)(small))
    return layers.Multiply()([small, gate])


def large(values: keras.KerasTensor) -> keras.KerasTensor:
    """A map of more pixels than one window shall have."""
    return layers.Add()([values, layers.GlobalAveragePooling2D(keepdims=True, name=CUT)(values)])


def by_columns(values: keras.KerasTensor) -> keras.KerasTensor:
    """A mean over the height alone."""
    return layers.Conv2D(4, 1)(keras.ops.mean(values, axis=1, keepdims=True))


# What is left of a graph: paddings, means, poolings by the mean, beside the last layer's own mean.
LEFT = {
    strided: (0, 0, 1),
    wide: (0, 0, 1),
    uneven: (0, 0, 1),
    with_holes: (1, 1, 0),
    branches: (0, 1, 0),
    pooled_too: (1, 1, 0),
    padding_again: (1, 1, 0),
    gated: (0, 0, 2),
    large: (0, 2, 0),
    by_columns: (0, 1, 1),
}


def model_of(middle: Callable) -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    # Far from 0 at the edges too: a padding that were lost, or on another side, would show.
    values = layers.Conv2D(8, 3, padding="same", bias_initializer="ones")(layers.Rescaling(1 / 255)(image))
    pooled = layers.GlobalAveragePooling2D(name="pooled")(middle(values))
    return keras.Model(image, {"label": layers.Dense(5, name="label")(pooled)}, name="small")


def exported(model: keras.Model, folder: Path, cut: str | None = None) -> Path:
    card = Card("small", Resize(SIDE_PX, SIDE_PX), OUTPUTS, Backbone("small", None, "", "tf"), (cut,) if cut else ())
    saved = write_saved_model(model, cut, folder / "saved")
    return export_artifact(ArtifactName("tfjs", "float32"), saved, card, folder / "artifacts", images())


def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3), np.uint8)


def counts(artifact: Path) -> tuple[int, ...]:
    operators = read_contents(artifact, "tfjs").operators
    return tuple(operators.get(name, 0) for name in ("Pad", "Mean", "AvgPool"))


@pytest.mark.parametrize("middle", LEFT)
def test_answers_stay(middle: Callable, tmp_path: Path) -> None:
    model = model_of(middle)
    artifact = exported(model, tmp_path)
    assert counts(artifact) == LEFT[middle]
    expected = np.asarray(model(images().astype(np.float32))["label"])
    for backend in ("wasm", "cpu"):
        with TfjsRunner(artifact, backend=backend) as runner:
            found = runner.predict(images())["label"]
        assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max(), backend


@pytest.mark.parametrize("middle", [strided, gated])
def test_a_cut_is_still_given(middle: Callable, tmp_path: Path) -> None:
    model = model_of(middle)
    artifact = exported(model, tmp_path, CUT)
    # The padded map is an output of its own; a pooling bears the name of its mean.
    assert counts(artifact)[0] == (middle is strided)
    expected = np.asarray(keras.Model(model.input, model.get_layer(CUT).output)(images().astype(np.float32)))
    with TfjsRunner(artifact) as runner:
        found = runner.features(images())["features"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("middle", [strided, wide, uneven, gated])
def test_answers_stay_on_webgl(middle: Callable, tmp_path: Path) -> None:
    if os.environ.get("CUTPOINT_NO_BROWSER", "0") not in ("", "0"):
        pytest.skip("CUTPOINT_NO_BROWSER=1: not run")
    model = model_of(middle)
    artifact = exported(model, tmp_path)
    expected = np.asarray(model(images().astype(np.float32))["label"])
    webgl = next(each for each in FORMATS["tfjs"].runtimes if each.browser and each.backend == "webgl")
    with open_runtime(webgl, artifact) as runner:
        found = runner.predict(images())["label"]
    assert np.abs(found - expected).max() <= WEBGL_ROUNDING * np.abs(expected).max()
    close_session()


def test_nothing_is_stored_that_is_not_used(tmp_path: Path) -> None:
    artifact = exported(model_of(strided), tmp_path)
    model = json.loads((artifact / "model.json").read_text())
    nodes = model["modelTopology"]["node"]
    used = {name for node in nodes for name in node.get("input", ())}
    stored = [each for group in model["weightsManifest"] for each in group["weights"]]
    assert {each["name"] for each in stored} == used & {node["name"] for node in nodes if node["op"] == "Const"}
    sizes = collections.Counter(each["dtype"] for each in stored)
    # The sides of the padding and the axes of the mean went with them: 4 bytes for each of 8 and 2 numbers.
    assert sizes["int32"] == 0
    shards = sum((artifact / name).stat().st_size for group in model["weightsManifest"] for name in group["paths"])
    assert shards == sum(4 * int(np.prod(each["shape"])) for each in stored)


def test_what_gains_nothing_keeps_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(large)
    ours = exported(model, tmp_path / "ours")
    monkeypatch.setattr(tfjs, "settle_maps", lambda *_: None)
    plain = exported(model, tmp_path / "plain")
    assert {each.name for each in ours.iterdir()} == {each.name for each in plain.iterdir()}
    for path in ours.iterdir():
        assert path.read_bytes() == (plain / path.name).read_bytes(), path.name
