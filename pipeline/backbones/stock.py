"""Brings a backbone of keras.applications into the form that the rest relies on: flat, stock layers, names of its own.

keras.applications numbers unnamed layers by a counter of the process, nests models, and has layer classes of its own,
which nothing but Keras's own code can load again. Here each becomes what does the very same in stock layers.
"""

from __future__ import annotations

import re
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
        if prefix == _snake_case(type(layer).__name__):
            found.setdefault(prefix, []).append((int(number or 0), layer))
    return {prefix: [layer for _, layer in sorted(each, key=lambda pair: pair[0])] for prefix, each in found.items()}


def _snake_case(name: str) -> str:
    # As Keras itself does it: Conv2D is conv2d, ReLU is re_lu, GlobalAveragePooling2D is global_average_pooling2d.
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def to_stock_layers(model: keras.Model) -> keras.Model:
    """Return a model of the same answers, layer names and order, in which every layer is flat and of a stock class.

    Args:
        model: of keras.applications, functional, without its top, its weights loaded; not touched.

    Returns:
        The given model where nothing is to be done. Else a new one: Sequentials laid flat; ConvNeXt's LayerScale as a
        1 x 1 DepthwiseConv2D of its name; InceptionResNetV2's CustomScaleLayer as Rescaling and Add; EfficientNet with the
        scaling that its ImageNet weights need (1 for other weights) behind its Normalization.
    """
    special = {layer.name: type(layer).__name__ for layer in model.layers if _is_special(layer)}
    normalization = _scaled_by_deviation(model)
    if not special and normalization is None:
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer).__name__ == "LayerScale":
            return keras.layers.DepthwiseConv2D(1, use_bias=False, name=layer.name)
        if type(layer).__name__ == "CustomScaleLayer":
            return keras.layers.Add(name=layer.name)
        return type(layer).from_config(layer.get_config())

    def call(layer: keras.layers.Layer, *arguments: Any, **options: Any) -> Any:
        if special.get(layer.name) == "CustomScaleLayer":
            shortcut, branch = arguments[0]
            scale = model.get_layer(layer.name).scale
            return layer([shortcut, keras.layers.Rescaling(scale, name=f"{layer.name}_scale")(branch)])
        if isinstance(layer, keras.Sequential):
            value = arguments[0]
            for inner in layer.layers:
                value = type(inner).from_config(inner.get_config())(value)
            return value
        value = layer(*arguments, **options)
        if layer is not None and layer.name == normalization:
            scale = _missing_scale(model.get_layer(layer.name))
            return keras.layers.Rescaling(scale, name="rescaling_1")(value)
        return value

    flat = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in leaves(model):
        if layer.weights:
            _copy_weights(layer, flat.get_layer(layer.name))
    return flat


def _is_special(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Sequential) or type(layer).__name__ in ("LayerScale", "CustomScaleLayer")


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
