"""A result folder with one small TF.js artifact that has everything in it that can go wrong, and its Keras model."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import types
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from exporters.contract import Backbone, Card, Output, Resize

SIDE_PX = 32
LABELS = ("circle", "square", "star", "heart", "triangle")
# Two heads of one shape, the first in the model being the last by name: whoever pairs by position is found out.
HEADS = ("zebra", "apple")
UNUSED_BY_TENSORFLOWJS = (
    "tensorflow_decision_forests",
    "jax",
    "jax.experimental",
    "jax.experimental.jax2tf",
    "tensorflow_hub",
    "tf_keras",
)


@functools.cache
def shared_result(session_folder: Path) -> tuple[Path, keras.Model]:
    """One result for all tests of a session, which leave it as it is; see `write_result`."""
    out = session_folder / "tiny"
    return out, write_result(out)


def write_result(out: Path) -> keras.Model:
    """Write `out/artifacts/tfjs-float32` (model.json, weights, card.json).

    Returns:
        The model behind it: (N, 32, 32, 3) float32 0..255 to `{"zebra", "apple", "features"}`.
    """
    model = _model()
    folder = out / "artifacts" / "tfjs-float32"
    folder.mkdir(parents=True)
    saved = out / "saved_model"
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, SIDE_PX, SIDE_PX, 3), tf.float32, name="image")]
    archive.add_endpoint("serving_default", lambda image: model(image, training=False), input_signature=signature)
    archive.write_out(str(saved), verbose=False)
    _converter().convert_tf_saved_model(
        str(saved),
        str(folder),
        signature_def="serving_default",
        saved_model_tags="serve",
        use_structured_outputs_names=True,
    )
    _settle_names(folder / "model.json")
    _card().write(folder / "card.json")
    return model


def pictures(count: int) -> np.ndarray:
    """Blurred noise, (count, 32, 32, 3) uint8, of which no two have the same answer."""
    coarse = np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    sized = [Image.fromarray(each).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR) for each in coarse]
    return np.stack([np.asarray(each) for each in sized])


def reference(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Keras's own answers, float32 by output name."""
    answers = model(images.astype(np.float32), training=False)
    return {name: np.asarray(answer) for name, answer in answers.items()}


def _model() -> keras.Model:
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = keras.layers.Rescaling(1 / 127.5, -1)(image)
    for filters, stride in ((8, 2), (16, 2)):
        values = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(values)
        values = keras.layers.BatchNormalization()(values)
        values = keras.layers.ReLU(6)(values)
        values = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(values)
        values = keras.layers.BatchNormalization()(values)
    pooled = keras.layers.GlobalAveragePooling2D()(values)
    outputs = {name: keras.layers.Dense(len(LABELS), activation="softmax", name=name)(pooled) for name in HEADS}
    model = keras.Model(image, {**outputs, "features": values})
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma, variance = generator.uniform(0.5, 1.5, count), generator.uniform(0.05, 0.3, count)
            layer.set_weights([gamma, generator.normal(0, 0.5, count), generator.normal(0, 0.2, count), variance])
    # Heads on features brought to mean 0 and deviation 1: else every picture had the same answer.
    found = np.asarray(keras.Model(image, pooled)(pictures(64).astype(np.float32)))
    for name in HEADS:
        kernel = generator.normal(0, 0.6, (found.shape[1], len(LABELS))) / (found.std(0)[:, None] + 0.1)
        model.get_layer(name).set_weights([kernel, -found.mean(0) @ kernel])
    return model


def _card() -> Card:
    heads = [Output(name, "linear", "multiclass", (len(LABELS),), labels=LABELS) for name in sorted(HEADS)]
    return Card("tiny", Resize(SIDE_PX, SIDE_PX), tuple(heads), Backbone("tiny", None, "", "tf"), ("last",))


def _settle_names(path: Path) -> None:
    """Give the signature its names back, in the order of the structured output keys, which TF.js pairs it with."""
    model = json.loads(path.read_text(encoding="utf-8"))
    nodes = {entry["name"]: entry for entry in model["signature"]["outputs"].values()}
    keys = model["userDefinedMetadata"]["structuredOutputKeys"]
    in_order = [f"Identity_{i}:0" if i else "Identity:0" for i in range(len(keys))]
    model["signature"]["outputs"] = {key: nodes[node] for key, node in zip(keys, in_order, strict=True)}
    path.write_text(json.dumps(model, sort_keys=True), encoding="utf-8")


def _converter() -> types.ModuleType:
    missing = [name for name in UNUSED_BY_TENSORFLOWJS if name not in sys.modules]
    sys.modules.update({name: types.ModuleType(name) for name in missing})
    try:
        return importlib.import_module("tensorflowjs.converters.tf_saved_model_conversion_v2")
    finally:
        for name in missing:
            del sys.modules[name]
