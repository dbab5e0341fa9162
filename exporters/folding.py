"""Folds BatchNorm into the convolution or dense layer before it: fewer operators, and weights as they will be rounded.

The arithmetic is that of Jacob et al. 2018 (arXiv:1712.05877), section 3.2, done once, in float64, before any format.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from exporters.cloning import set_weights

FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_INERT = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise, keras.layers.GaussianDropout)


@dataclasses.dataclass(frozen=True)
class Folded:
    """An inference model, and where the layers that are gone went: name of a folded BatchNorm -> its producer."""

    model: keras.Model
    renamed: dict[str, str]

    def layer_name(self, name: str) -> str:
        """Return the layer whose output is that of the original model's layer `name`."""
        return self.renamed.get(name, name)


def fold(model: keras.Model) -> Folded:
    """Return a fresh float32 model of the same answers, without the BatchNorms that can be folded and without dropout.

    Args:
        model: a functional model whose layers are each called once; what cannot be folded is left alone.

    Returns:
        The new model; the given one is not touched.
    """
    pairs = _foldable_pairs(model)
    gone = set(pairs)
    producers = set(pairs.values())

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.name in producers:
            settings = {**settings, "use_bias": True}
        return type(layer).from_config(settings)

    def call(layer: keras.layers.Layer, *arguments: Any, **options: Any) -> Any:
        if layer.name in gone or isinstance(layer, _INERT):
            return arguments[0]
        return layer(*arguments, **options)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    kept = {layer.name for layer in folded.layers}
    for layer in model.layers:
        if layer.name in kept and layer.name not in producers and layer.weights:
            set_weights(folded.get_layer(layer.name), layer.get_weights())
    for normalization, producer in pairs.items():
        values = folded_weights(model.get_layer(producer), model.get_layer(normalization))
        folded.get_layer(producer).set_weights(values)
    return Folded(folded, pairs)


def _foldable_pairs(model: keras.Model) -> dict[str, str]:
    """Return BatchNorm -> producer for every pair that can become one layer."""
    consumers: dict[int, int] = {}
    for layer in model.layers:
        for tensor in _inputs_of(layer):
            consumers[id(tensor)] = consumers.get(id(tensor), 0) + 1
    for tensor in model.outputs:
        consumers[id(tensor)] = consumers.get(id(tensor), 0) + 1
    pairs = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization) or not _inputs_of(layer):
            continue
        source = _inputs_of(layer)[0]
        producer = source._keras_history.operation
        linear = getattr(producer, "activation", None) in (None, keras.activations.linear)
        last_axis = layer.axis in (-1, len(source.shape) - 1)
        if type(producer) in FOLDABLE and linear and last_axis and consumers[id(source)] == 1:
            pairs[layer.name] = producer.name
    return pairs


def _inputs_of(layer: keras.layers.Layer) -> list[keras.KerasTensor]:
    try:
        return keras.tree.flatten(layer.input)
    except AttributeError:
        # A layer that is called several times has no one input; it is left as it is.
        return []


def folded_weights(producer: keras.layers.Layer, normalization: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias, float32, of a layer that does what `producer` and `normalization` do one after another."""
    kernel, *bias = (np.asarray(values, np.float64) for values in producer.get_weights())
    scale, shift = scale_and_shift(normalization)
    if bias:
        shift = shift + bias[0] * scale
    depthwise = isinstance(producer, keras.layers.DepthwiseConv2D)
    factor = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return [(kernel * factor).astype(np.float32), shift.astype(np.float32)]


def scale_and_shift(normalization: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 (channels,) each: a BatchNorm in inference is values * scale + shift."""
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(values), np.float64)
        for values in (normalization.moving_mean, normalization.moving_variance)
    )
    scale = 1 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        scale = scale * np.asarray(keras.ops.convert_to_numpy(normalization.gamma), np.float64)
    shift = -mean * scale
    if normalization.center:
        shift = shift + np.asarray(keras.ops.convert_to_numpy(normalization.beta), np.float64)
    return scale, shift
