"""Models that ask more of the audit's readers than the small one does, and files of every format made for one feature."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from exporters.contract import Backbone, Card, Output, Resize
from exporters.folding import fold
from exporters.saved_model import write_saved_model

SIDE_PX = 16
OUTPUTS = (
    Output("angle", "mlp", "regression", (3,), activation="linear"),
    Output("kind", "mlp", "multiclass", (4,), labels=("a", "b", "c", "d")),
)
CARD = Card("branched", Resize(SIDE_PX, SIDE_PX), OUTPUTS, Backbone("branched", None, "", "tf"), ())


@functools.cache
def branched(groups: int = 1, first_padding: str = "same") -> keras.Model:
    """A skip connection, valid padding, a depth multiplier, layers without a bias, two deep heads.

    On a CPU, TF.js and ONNX cannot be had of a model with `groups` above 1: Keras compiles its convolution.
    """
    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Rescaling(1 / 127.5, offset=-1.0, name="pixel_scaling")(image)
    first = layers.Conv2D(8, 3, activation="relu", padding=first_padding, name="first")(values)
    second = layers.Conv2D(8, (1, 3), padding="same", use_bias=False, name="flat")(first)
    values = layers.ReLU(name="joined_relu")(layers.Add()([first, second]))
    values = layers.DepthwiseConv2D(3, 2, depth_multiplier=2, activation="relu6", name="multiplied")(values)
    values = layers.Conv2D(8, 3, groups=groups, name="valid")(values)
    values = layers.ReLU(6.0, name="valid_relu")(values)
    values = layers.Flatten()(values)
    values = layers.Dense(6, activation="relu", name="hidden")(values)
    outputs = {
        "angle": layers.Dense(3, use_bias=False, name="angle")(values),
        "kind": layers.Dense(4, activation="softmax", name="kind")(values),
    }
    model = keras.Model(image, outputs, name="branched")
    generator = np.random.default_rng(3)
    for layer in model.layers:
        if layer.weights:
            kernel, *bias = layer.get_weights()
            layer.set_weights([kernel, *(generator.normal(0.2, 0.2, each.shape) for each in bias)])
    # Folding would take the groups apart, and readers have to know grouped convolutions of others.
    # What is wanted itself stays as it is: a converter has to find a scaling that it can fold.
    return model if groups > 1 else fold(model, ["pixel_scaling"]).model


def branched_images(count: int = 32) -> np.ndarray:
    """Noise, uint8 (count, 16, 16, 3)."""
    return np.random.default_rng(4).integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


@functools.cache
def branched_saved_model(session_folder: Path, groups: int = 1, first_padding: str = "same") -> Path:
    """The branched model's SavedModel."""
    folder = session_folder / f"branched {groups} {first_padding}"
    return write_saved_model(branched(groups, first_padding), None, folder)


def write_tflite(function: tf.types.experimental.PolymorphicFunction, out: Path, *, flex: bool = False) -> Path:
    """Convert a function of float32 (1, 4), `flex` with TensorFlow's own operators where TFLite has none."""
    concrete = function.get_concrete_function(tf.TensorSpec((1, 4), tf.float32, name="image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if flex:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.tflite").write_bytes(converter.convert())
    return out


def write_onnx(
    out: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    shape: tuple = (1, 4, 8, 8),
    **options: int,
) -> Path:
    """Write a graph from `image`, float32 of `shape`, to `answer`; `opset` 17 unless given."""
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "graph", [given], [answer], tensors)
    opsets = [helper.make_opsetid("", options.get("opset", 17)), helper.make_opsetid("com.microsoft", 1)]
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), out / "model.onnx")
    return out


def write_tfjs(out: Path, nodes: list[dict], weights: list[tuple[dict, bytes]]) -> Path:
    """Write a graph model from `image` to the last of `nodes`; `weights` are entries of the manifest with their bytes."""
    constants = [{"name": entry["name"], "op": "Const", "attr": {}} for entry, _ in weights]
    placeholder = {"name": "image", "op": "Placeholder", "attr": {"dtype": {"type": "DT_FLOAT"}}}
    shape = {"dim": [{"size": str(size)} for size in (-1, 8, 8, 4)]}
    model = {
        "format": "graph-model",
        "modelTopology": {"node": [*constants, placeholder, *nodes], "library": {}},
        "signature": {
            "inputs": {"image": {"name": "image:0", "dtype": "DT_FLOAT", "tensorShape": shape}},
            "outputs": {"answer": {"name": f"{nodes[-1]['name']}:0", "dtype": "DT_FLOAT", "tensorShape": shape}},
        },
        "weightsManifest": [{"paths": ["weights.bin"], "weights": [entry for entry, _ in weights]}],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.json").write_text(json.dumps(model), encoding="utf-8")
    (out / "weights.bin").write_bytes(b"".join(content for _, content in weights))
    return out
