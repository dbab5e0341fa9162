"""Brings a backbone of keras.applications into the form that the rest relies on: flat, stock layers, names of its own.

keras.applications numbers unnamed layers by a counter of the process, nests models, and has layer classes of its own,
which nothing but Keras's own code can load again. Here each becomes what does the very same in stock layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from exporters.cloning import leaves, set_weights

# What ImageNet's weights of EfficientNet hold where a variance should stand: the deviations. Keras makes up for it by one
# more scaling, but only in a model that loads those weights by itself.
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225])


def settle_names(model: keras.Model) -> None:
    """Rename the layers that Keras named by counting, so that they are counted within the model: `activation_3`.

    They get the names that they would have in a process that has built nothing else.
    """
    for prefix, layers in _counted(model.layers).items():
        for number, layer in enumerate(layers):
            layer.name = f"{prefix}_{number}" if number else prefix


def _counted(layers: list[keras.layers.Layer]) -> dict[str, list[keras.layers.Layer]]:
    """Return prefix -> the layers named by it and a number, in the order in which they were made."""
    found: dict[str, list[tuple[int, keras.layers.Layer]]] = {}
    for layer in layers:
        prefix, number = re.fullmatch(r"(.*?)(?:_([0-9]+))?", layer.name).groups()
        if prefix == snake_case(type(layer).__name__):
            found.setdefault(prefix, []).append((int(number or 0), layer))
    return {prefix: [layer for _, layer in sorted(each, key=lambda pair: pair[0])] for prefix, each in found.items()}


def snake_case(name: str) -> str:
    """Return a class's name as Keras writes it into names of layers and of weights."""
    # As Keras itself does it: Conv2D is conv2d, ReLU is re_lu, GlobalAveragePooling2D is global_average_pooling2d.
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def to_stock_layers(model: keras.Model) -> keras.Model:
    """Return a model of the same answers, layer names and order, in which every layer is flat and of a stock class.

    Args:
        model: of keras.applications, functional, without its top, its weights loaded; not touched.

    Returns:
        The given model where nothing is to be done. Else a new one: Sequentials laid flat; ConvNeXt's LayerScale as a
        1 x 1 DepthwiseConv2D of its name; bare additions and multiplications (ConvNeXt, MobileNetV3) as Add and Rescaling;
        InceptionResNetV2's CustomScaleLayer as both; EfficientNet with the scaling that its ImageNet weights need (1 for
        other weights) behind its Normalization.
    """
    normalization = _scaled_by_deviation(model)
    if normalization is None and all(_is_stock(operation) for operation in model.operations):
        return model
    made: dict[int, keras.layers.Layer] = {}

    def remake(operation: Any) -> Callable[..., Any]:
        if isinstance(operation, keras.Sequential):
            return lambda value, **options: _in_turn(operation.layers, value, remake)
        if type(operation).__name__ == "CustomScaleLayer":
            return lambda values, **options: _scaled_sum(operation, values)
        if not isinstance(operation, keras.layers.Layer):
            return _as_layer(operation)
        layer = made.setdefault(id(operation), _remade(operation))
        if operation.name == normalization:
            scaling = keras.layers.Rescaling(_missing_scale(operation), name="rescaling_1")
            return lambda value, **options: scaling(layer(value, **options))
        return layer

    image = keras.Input(model.inputs[0].shape[1:], name=model.layers[0].name)
    inputs = keras.tree.pack_sequence_as(model._inputs_struct, [image])
    flat = keras.Model(image, model._run_through_graph(inputs, operation_fn=remake), name=model.name)
    for layer in leaves(model):
        if layer.weights:
            _copy_weights(layer, flat.get_layer(layer.name))
    return flat


def _is_stock(operation: Any) -> bool:
    layer = isinstance(operation, keras.layers.Layer) and not isinstance(operation, keras.Sequential)
    return layer and type(operation).__name__ not in ("LayerScale", "CustomScaleLayer")


def _remade(layer: keras.layers.Layer) -> keras.layers.Layer:
    if type(layer).__name__ == "LayerScale":
        return keras.layers.DepthwiseConv2D(1, use_bias=False, name=layer.name)
    return type(layer).from_config(layer.get_config())


def _in_turn(layers: list[keras.layers.Layer], value: Any, remake: Callable[[Any], Callable[..., Any]]) -> Any:
    for layer in layers:
        value = remake(layer)(value)
    return value


def _scaled_sum(layer: keras.layers.Layer, values: list) -> Any:
    shortcut, branch = values
    scaled = keras.layers.Rescaling(layer.scale, name=f"{layer.name}_scale")(branch)
    return keras.layers.Add(name=layer.name)([shortcut, scaled])


def _as_layer(operation: Any) -> Callable[..., Any]:
    """Return what does a bare `a + b`, `a + 3` or `a * 2` as a layer, which has a name and can be cut at."""
    kind = type(operation).__name__

    def compute(value: Any, other: Any) -> Any:
        source = value._keras_history.operation.name
        if not isinstance(other, int | float):
            branch = other._keras_history.operation.name.removesuffix("_identity")
            return keras.layers.Add(name=f"{branch}_add")([value, other])
        if kind == "Add":
            return keras.layers.Rescaling(1.0, offset=other, name=f"{source}_shifted")(value)
        return keras.layers.Rescaling(other, name=f"{source}_scaled")(value)

    return compute if kind in ("Add", "Multiply") else operation


def _scaled_by_deviation(model: keras.Model) -> str | None:
    """Return the name of EfficientNet's Normalization where Keras left the scaling behind it out, else None."""
    if not re.fullmatch(r"efficientnetb[0-7]", model.name):
        return None
    names = [layer.name for layer in model.layers]
    return None if "rescaling_1" in names else "normalization"


def _missing_scale(normalization: keras.layers.Normalization) -> list[float]:
    variance = np.asarray(keras.ops.convert_to_numpy(normalization.variance)).reshape(-1)
    of_imagenet = np.allclose(variance, _IMAGENET_DEVIATION, atol=1e-4)
    return (1 / np.sqrt(_IMAGENET_DEVIATION)).tolist() if of_imagenet else [1.0, 1.0, 1.0]


def _copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    values = source.get_weights()
    if type(source).__name__ == "LayerScale":
        values = [values[0][None, None, :, None]]
    set_weights(target, values)
