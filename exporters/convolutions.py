"""Convolutions and dense layers that some format cannot hold, made of those that every format holds; and GELU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from exporters.cloning import set_weights

# Hands out a name that no layer bears yet, like a given one.
Unused = Callable[[str], str]
LINEAR = (None, keras.activations.linear)


@keras.saving.register_keras_serializable(package="cutpoint")
def gelu(values: Any) -> Any:
    """GELU by the error function, which every format holds: TensorFlow's own is made of its complement, `Erfc`.

    Hendrycks and Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    return values * 0.5 * (1.0 + keras.ops.erf(values * np.float32(np.sqrt(0.5))))


def known(activation: Any) -> Any:
    """Return an activation that every format holds: the exact GELU becomes `gelu`, all others stay."""
    return gelu if is_exact_gelu(activation) else activation


def is_exact_gelu(activation: Any) -> bool:
    """Tell whether an activation is Keras's GELU by the error function."""
    # `approximate` is False unless somebody wrapped the function, which then is another one.
    return activation is keras.activations.gelu


def with_weights(layer: keras.layers.Layer, weights: list[np.ndarray]) -> Callable:
    """Return what calls a new layer and, once the first call has built it, sets its weights."""
    built = []

    def call(*arguments: Any, **options: Any) -> Any:
        found = layer(*arguments, **options)
        if not built and weights:
            set_weights(layer, weights)
        built.append(True)
        return found

    return call


def _in_turn(*calls: Callable) -> Callable:
    def call(value: Any, **options: Any) -> Any:
        for each in calls:
            value = each(value)
        return value

    return call


def separable(layer: keras.layers.SeparableConv2D, name: str, unused: Unused) -> Callable:
    """Return what does a separable convolution by a depthwise one and one of 1 x 1, which bears the name."""
    depthwise, pointwise, *bias = layer.get_weights()
    first = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        name=unused(f"{name}_depthwise"),
    )
    second = keras.layers.Conv2D(
        layer.filters, 1, activation=known(layer.activation), use_bias=layer.use_bias, name=name
    )
    return _in_turn(with_weights(first, [depthwise]), with_weights(second, [pointwise, *bias]))


def grouped(layer: keras.layers.Conv2D, name: str, unused: Unused) -> Callable:
    """Return what does a convolution in groups: a depthwise one for a group a channel, else one convolution each."""
    kernel, *bias = layer.get_weights()
    each_in, each_out = kernel.shape[2], layer.filters // layer.groups
    shared = {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "use_bias": layer.use_bias,
    }
    # TensorFlow's depthwise convolution takes the same stride along both sides only.
    if each_in == 1 and layer.strides[0] == layer.strides[1]:
        depthwise = keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            depth_multiplier=each_out,
            activation=known(layer.activation),
            name=name,
            **shared,
        )
        values = kernel.reshape(*kernel.shape[:2], layer.groups, each_out)
        return with_weights(depthwise, [values, *bias])
    parts = []
    for index in range(layer.groups):
        own = slice(index * each_out, (index + 1) * each_out)
        part = keras.layers.Conv2D(each_out, layer.kernel_size, name=unused(f"{name}_group_{index}"), **shared)
        parts.append(with_weights(part, [kernel[..., own], *(each[own] for each in bias)]))
    joined = keras.layers.Concatenate(name=name)
    if layer.activation in LINEAR:
        behind: Callable = lambda value: value  # noqa: E731
    else:
        joined.name = unused(f"{name}_joined")
        behind = keras.layers.Activation(known(layer.activation), name=name)

    def call(value: Any, **options: Any) -> Any:
        pieces = keras.ops.split(value, len(parts), axis=-1)
        return behind(joined([part(piece) for part, piece in zip(parts, pieces, strict=True)]))

    return call


def dense(layer: keras.layers.Dense, name: str) -> Callable:
    """Return what does a dense layer: on feature maps a convolution of 1 x 1."""
    kernel, *bias = layer.get_weights()
    settings = {"activation": known(layer.activation), "use_bias": layer.use_bias, "name": name}
    flat = with_weights(keras.layers.Dense(layer.units, **settings), [kernel, *bias])
    pointwise = with_weights(keras.layers.Conv2D(layer.units, 1, **settings), [kernel[None, None], *bias])
    return lambda value, **options: (pointwise if len(value.shape) == 4 else flat)(value)
