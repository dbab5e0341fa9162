"""Model files as Keras 2 wrote them, by hand: nothing but h5py and JSON, and what the network in them answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

PX, CLASSES = 32, 3
_OF_KERAS_2 = "tf_keras.src.engine.functional"


def weights(seed: int = 10) -> dict[str, list[np.ndarray]]:
    """Weights of the network below, none of them at rest: layer -> arrays in Keras's order."""
    draw = np.random.default_rng(seed)

    def normalization(channels: int) -> list[np.ndarray]:
        return [draw.uniform(0.5, 1.5, channels), draw.normal(0, 0.3, channels), draw.normal(0, 0.3, channels)] + [
            draw.uniform(0.5, 1.5, channels)
        ]

    values = {
        "Conv1": [draw.normal(0, 0.4, (3, 3, 3, 8))],
        "bn_Conv1": normalization(8),
        "depthwise/one": [draw.normal(0, 0.4, (3, 3, 8, 1))],
        "depthwise/BN": normalization(8),
        "dense": [draw.normal(0, 1.5, (8, CLASSES)), draw.normal(0, 0.5, CLASSES)],
    }
    return {name: [each.astype(np.float32) for each in arrays] for name, arrays in values.items()}


def answers(images: np.ndarray) -> np.ndarray:
    """What the network gives, by a model of today's Keras that was built by itself: float32 (N, classes)."""
    values = weights()
    image = keras.Input((PX, PX, 3))
    value = image
    for name, layer in (
        ("Conv1", keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)),
        ("bn_Conv1", keras.layers.BatchNormalization(epsilon=1e-3)),
        ("", keras.layers.ReLU(6.0)),
        ("depthwise/one", keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)),
        ("depthwise/BN", keras.layers.BatchNormalization(epsilon=1e-3)),
        ("", keras.layers.ReLU(6.0)),
        ("", keras.layers.GlobalAveragePooling2D()),
        ("dense", keras.layers.Dense(CLASSES, "softmax")),
    ):
        value = layer(value)
        if name:
            layer.set_weights(values[name])
    return np.asarray(keras.Model(image, value)(images, training=False))


def teachable_machine(path: Path, *, changed: dict[str, Any] | None = None) -> Path:
    """Write a Sequential of Sequentials around a functional model, with `groups` in its DepthwiseConv2D, as `.h5`.

    Args:
        path: where it goes.
        changed: settings laid over those of the depthwise layer.
    """
    trunk = [
        _node("InputLayer", {"batch_input_shape": [None, PX, PX, 3], "name": "input_1", "ragged": False}, None),
        _node("Conv2D", _convolution("Conv1", filters=8, strides=[2, 2]), "input_1"),
        _node("BatchNormalization", _normalization("bn_Conv1"), "Conv1"),
        _node("ReLU", {"name": "Conv1_relu", "max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0}, "bn_Conv1"),
        _node("DepthwiseConv2D", _convolution("depthwise/one", **{"groups": 1, **(changed or {})}), "Conv1_relu"),
        _node("BatchNormalization", _normalization("depthwise/BN"), "depthwise/one"),
        _node("ReLU", {"name": "out_relu", "max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0}, "depthwise/BN"),
    ]
    functional = {"name": "model1", "trainable": True, "layers": trunk}
    functional |= {"input_layers": [["input_1", 0, 0]], "output_layers": [["out_relu", 0, 0]]}
    features = _sequential(
        "sequential_1",
        _input([None, PX, PX, 3], "model1_input"),
        {"module": _OF_KERAS_2, "class_name": "Functional", "config": functional, "registered_name": "Functional"},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool", "keepdims": False}},
    )
    dense = {"name": "dense", "units": CLASSES, "activation": "softmax", "batch_input_shape": [None, 8]}
    head = _sequential("sequential_3", _input([None, 8], "dense_input"), {"class_name": "Dense", "config": dense})
    config = _sequential("sequential_4", _input([None, PX, PX, 3], "sequential_1_input"), features, head)
    values = weights()
    trainable = [("Conv1", "kernel"), ("bn_Conv1", "gamma"), ("bn_Conv1", "beta")]
    trainable += [("depthwise/one", "depthwise_kernel"), ("depthwise/BN", "gamma"), ("depthwise/BN", "beta")]
    rest = [(name, kind) for name in ("bn_Conv1", "depthwise/BN") for kind in ("moving_mean", "moving_variance")]
    order = {"gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}
    inner = {f"{name}/{kind}:0": values[name][order.get(kind, 0)] for name, kind in trainable + rest}
    outer = {"dense/kernel:0": values["dense"][0], "dense/bias:0": values["dense"][1]}
    write_h5(path, config, {"sequential_1": inner, "sequential_3": outer})
    return path


def write_h5(path: Path, config: dict[str, Any], groups: dict[str, dict[str, np.ndarray]]) -> None:
    """Write a model's description and its weights, layer -> name -> values, as Keras 2 lays them out."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in groups]
        root.attrs["keras_version"], root.attrs["backend"] = "2.15.0", "tensorflow"
        for layer, arrays in groups.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, values in arrays.items():
                group.create_dataset(name, data=values)


def with_operations(path: Path, *operations: dict[str, Any]) -> Path:
    """Write a functional model of a picture, operations of TensorFlow one after another, and global pooling."""
    layers = [_node("InputLayer", {"batch_input_shape": [None, PX, PX, 3], "name": "photo"}, None)]
    for number, operation in enumerate(operations):
        kind = "SlicingOpLambda" if "getitem" in operation["function"] else "TFOpLambda"
        name = f"tf.{operation['function']}_{number}"
        node = [layers[-1]["config"]["name"], 0, 0, operation["options"]]
        settings = {"name": name, "function": operation["function"], "trainable": True, "dtype": "float32"}
        layers.append({"class_name": kind, "config": settings, "name": name, "inbound_nodes": [node]})
    layers.append(_node("AveragePooling2D", {"name": "pool", "pool_size": [2, 2]}, layers[-1]["config"]["name"]))
    ends = {"input_layers": [["photo", 0, 0]], "output_layers": [["pool", 0, 0]]}
    write_h5(path, {"class_name": "Functional", "config": {"name": "model", "layers": layers, **ends}}, {})
    return path


def _sequential(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def _input(shape: list[int | None], name: str) -> dict[str, Any]:
    return {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "name": name, "ragged": False}}


def _node(kind: str, settings: dict[str, Any], source: str | None) -> dict[str, Any]:
    nodes = [] if source is None else [[[source, 0, 0, {}]]]
    return {"class_name": kind, "config": settings, "name": settings["name"], "inbound_nodes": nodes}


def _convolution(name: str, **more: Any) -> dict[str, Any]:
    settings = {"name": name, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "use_bias": False}
    return {**settings, "data_format": "channels_last", "dilation_rate": [1, 1], "activation": "linear", **more}


def _normalization(name: str) -> dict[str, Any]:
    return {"name": name, "axis": [3], "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True}
