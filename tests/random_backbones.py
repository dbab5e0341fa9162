"""Gives any backbone weights that are random and yet not tame: every layer is settled on what really reaches it.

Initial weights make most of a network's answers the same for every picture, and then every comparison passes. Here the graph
is walked once, operation by operation, with pictures inside: kernels are scaled until what comes out varies by about one,
normalisations get the statistics of what they take, and biases, gammas and betas are of their own, so that activations
neither die nor explode and gates are neither all open nor all shut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from exporters.keras_graph import graph_of, run

# What comes out of a layer: how far channels vary, and around what. Where half of what reaches a ReLU is negative, every
# layer makes a difference some 1.2 times larger (Yang et al. 2019, arXiv:1902.08129), and after thirty layers a rounding of
# weights is all that is left: trained networks are not so, and this one shall not be. A tenth is cut off here.
SPREADS = (0.5, 1.0)
CENTRE = 1.0
# How much the taps of a kernel differ, beside what they have in common.
UNLIKE_TAPS = 0.5
COLORS = {
    "blue": (40, 60, 230),
    "green": (30, 180, 60),
    "grey": (90, 90, 90),
    "red": (230, 30, 40),
    "yellow": (235, 200, 30),
}
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_WITH_KERNEL = (
    *(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Dense),
    *(keras.layers.Conv2DTranspose,),
)


def settle(model: keras.Model, images: np.ndarray, seed: int = 0) -> keras.Model:
    """Give every layer with weights random ones that suit what it takes, in one walk through the graph.

    Args:
        model: functional, with one input; its kernels are drawn anew.
        images: (N, height, width, channels) as the model takes them, some twenty of them, as unlike as what it shall see.
        seed: of the weights.

    Returns:
        The same model.
    """
    generator = np.random.default_rng(seed)

    def settled(operation: Any) -> Callable:
        if isinstance(operation, keras.Model):
            return lambda value, **options: _walk(operation, value, settled)

        def settle_and_call(*arguments: Any, **options: Any) -> Any:
            if isinstance(operation, keras.layers.Layer) and operation.weights:
                _settle_layer(operation, arguments, generator)
            return operation(*arguments, **options)

        return settle_and_call

    _walk(model, keras.ops.convert_to_tensor(images.astype(np.float32)), settled)
    return model


def _walk(model: keras.Model, value: Any, settled: Callable) -> Any:
    return run(model, keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, [value]), settled)


def _settle_layer(layer: keras.layers.Layer, arguments: tuple, generator: np.random.Generator) -> None:
    if isinstance(layer, keras.layers.BatchNormalization):
        _settle_batch_norm(layer, keras.ops.convert_to_numpy(arguments[0]), generator)
    elif isinstance(layer, keras.layers.LayerNormalization):
        _assign(layer, "gamma", generator.uniform(0.7, 1.5, layer.gamma.shape))
        _assign(layer, "beta", generator.normal(0.1, 0.3, layer.gamma.shape))
    elif isinstance(layer, keras.layers.Normalization):
        value = keras.ops.convert_to_numpy(arguments[0])
        if hasattr(layer, "adapt_mean"):
            # Otherwise the statistics were given to the constructor, and are no weights.
            layer.adapt_mean.assign(value.mean((0, 1, 2)))
            layer.adapt_variance.assign(value.var((0, 1, 2)))
            layer.finalize_state()
    elif isinstance(layer, _WITH_KERNEL):
        _settle_kernel(layer, arguments, generator)
    else:
        for weight in layer.weights:
            weight.assign(generator.uniform(0.3, 1.2, weight.shape))


def _settle_batch_norm(
    layer: keras.layers.BatchNormalization, value: np.ndarray, generator: np.random.Generator
) -> None:
    axes = tuple(range(value.ndim - 1))
    mean, variance = value.mean(axes, dtype=np.float64), value.var(axes, dtype=np.float64)
    layer.moving_mean.assign(mean)
    # A channel that is the same everywhere stays so, but is not blown up.
    layer.moving_variance.assign(np.maximum(variance, 1e-2 * variance.mean() + 1e-6))
    if layer.scale:
        _assign(layer, "gamma", generator.uniform(*SPREADS, mean.shape))
    if layer.center:
        _assign(layer, "beta", generator.normal(_centre(layer), 0.4, mean.shape))


def _settle_kernel(layer: keras.layers.Layer, arguments: tuple, generator: np.random.Generator) -> None:
    one_tap = isinstance(layer, keras.layers.DepthwiseConv2D) and tuple(layer.kernel_size) == (1, 1)
    if one_tap:
        # A scale for each channel: all of one sign, as that of a residual branch.
        layer.kernel.assign(generator.uniform(0.2, 0.6, layer.kernel.shape))
        return
    for name in _KERNELS:
        weight = getattr(layer, name, None)
        if weight is not None:
            weight.assign(_drawn(weight.shape, generator))
    bias = getattr(layer, "bias", None)
    if bias is not None:
        bias.assign(np.zeros(bias.shape))
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        found = keras.ops.convert_to_numpy(layer(*arguments))
    finally:
        layer.activation = activation
    axes = tuple(range(found.ndim - 1))
    last = next(getattr(layer, name) for name in reversed(_KERNELS) if getattr(layer, name, None) is not None)
    spread = found.std(axes).reshape(last.shape[2:] if _is_depthwise(layer) else (-1,))
    # Channels may differ in size, as trained ones do, but only so far.
    wanted = generator.uniform(*SPREADS, spread.shape) / np.maximum(spread, 0.1 * spread.mean() + 1e-6)
    last.assign(keras.ops.convert_to_numpy(last) * wanted)
    if bias is not None:
        centre = found.mean(axes) * wanted.ravel()
        bias.assign(generator.normal(_centre(layer), 0.4, bias.shape) - centre)


def _drawn(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw a kernel whose taps are alike, as those of blurs are: a network of edge filters sees no colour any more."""
    across = generator.normal(0, 1, shape)
    if len(shape) != 4:
        return across
    return generator.normal(0, 1, (1, 1, *shape[2:])) + UNLIKE_TAPS * across


def _centre(layer: keras.layers.Layer) -> float:
    """Return around what a layer's channels shall vary: what is added up along a chain of skips must not pile up there."""
    sums = [node.operation for node in layer._outbound_nodes if isinstance(node.operation, keras.layers.Add)]
    return 0.0 if any(_is_in_chain(each) for each in sums) else CENTRE


def _is_in_chain(sum_: keras.layers.Add) -> bool:
    """Tell whether one sum goes into another, or comes from another, with nothing between that sets a mean anew."""
    return _meets_sum(sum_, lambda each: [node.operation for node in each._outbound_nodes]) or _meets_sum(
        sum_, lambda each: [node.operation for node in each._inbound_nodes[0].parent_nodes]
    )


def _meets_sum(operation: Any, neighbours: Callable) -> bool:
    for each in neighbours(operation):
        if isinstance(each, keras.layers.Add):
            return True
        sets_mean = isinstance(each, (keras.layers.Concatenate, keras.Model)) or each.weights
        if not sets_mean and _meets_sum(each, neighbours):
            return True
    return False


def _is_depthwise(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _assign(layer: keras.layers.Layer, name: str, values: np.ndarray) -> None:
    weight = getattr(layer, name)
    if weight is not None:
        weight.assign(values)


def pictures(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw grounds in five colours, unevenly lit, with darker waves on them.

    Args:
        count: how many.
        side: in px.
        seed: of everything that is drawn.

    Returns:
        uint8 (count, side, side, 3), and int64 (count,), which of COLORS the ground has.
    """
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, len(COLORS), count)
    grounds = np.array(list(COLORS.values()), np.float64)
    return np.stack([_picture(grounds[label], side, generator) for label in truth]), truth


def _picture(ground: np.ndarray, side: int, generator: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] / side
    angle, count = generator.uniform(0, np.pi), generator.uniform(2, 6)
    waves = np.sin(2 * np.pi * count * (np.cos(angle) * rows + np.sin(angle) * columns) + generator.uniform(0, 6))
    inside = (waves > generator.uniform(0.2, 0.9))[..., None]
    shade = 1 - generator.uniform(0, 0.2) * (rows * generator.choice((-1, 1)) + 1)[..., None] / 2
    drawn = np.where(inside, ground * generator.uniform(0.3, 0.8), ground) * shade
    return np.clip(drawn + generator.normal(0, 5, drawn.shape), 0, 255).astype(np.uint8)
