"""Folds scales and shifts of channels into the layer before: fewer operators, and weights as they will be rounded.

The arithmetic for BatchNorm is that of Jacob et al. 2018 (arXiv:1712.05877), section 3.2, done once, in float64, before any
format. Rescaling and depthwise convolutions of one tap, which are residual branches' scales, go the same way.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import keras
import numpy as np

from exporters.convolutions import with_weights
from exporters.keras_graph import calls_of, consumers_of, copy_of, each_once, rebuild
from exporters.rewriting import rescaling, rewrite

FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_LINEAR = (None, keras.activations.linear)


@dataclasses.dataclass(frozen=True)
class Folded:
    """An inference model, and where the layers that are gone went: name of a folded layer -> the one that holds it."""

    model: keras.Model
    renamed: dict[str, str]

    def layer_name(self, name: str) -> str:
        """Return the layer whose output is that of the original model's layer `name`."""
        return self.renamed.get(name, name)


def fold(model: keras.Model, keep: Collection[str] = ()) -> Folded:
    """Return a fresh float32 model of the same answers, rewritten (see `rewrite`) and with folded what can be.

    Args:
        model: a functional model; what cannot be folded is left alone.
        keep: names of layers whose outputs are wanted, so that nothing behind them is folded into them.

    Returns:
        The new model; the given one is not touched.
    """
    rewritten = rewrite(model)
    kept = {rewritten.renamed.get(name, name) for name in keep}
    plan, factors = _plan(rewritten.model, kept)
    forward = _forward(rewritten.model, kept, {*plan, *factors})
    dropped = {*plan, *(gate for gate, *_ in forward.values())}

    def replace(operation: Any) -> Callable:
        if operation.name in dropped:
            return lambda value, *arguments, **options: value
        if not isinstance(operation, keras.layers.Layer):
            return operation
        scale, shift = factors.get(operation.name, (np.ones(1), np.zeros(1)))
        if operation.name in factors or operation.name in forward:
            _, *before = forward.get(operation.name, ("", np.ones(1), np.zeros(1)))
            return _folded_layer(operation, scale, shift, *before)
        return with_weights(copy_of(operation), operation.get_weights())

    folded = rebuild(rewritten.model, each_once(replace))
    renamed = {name: plan.get(into, into) for name, into in rewritten.renamed.items()}
    return Folded(folded, {**renamed, **plan})


def _plan(model: keras.Model, keep: set[str]) -> tuple[dict[str, str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return layer that is folded -> the one that it is folded into, and that one -> all of it, as (scale, shift)."""
    consumers, calls = consumers_of(model), calls_of(model)
    counts = collections.Counter(id(node.operation) for node in calls)
    producers = {node.operation.name: node.operation for node in calls}
    plan: dict[str, str] = {}
    factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for node in calls:
        affine = _as_affine(node) if counts[id(node.operation)] == 1 else None
        if affine is None:
            continue
        source = node.input_tensors[0]
        before = source._keras_history.operation
        name = plan.get(before.name, before.name)
        producer = producers.get(name)
        alone = consumers[id(source)] == 1 and counts[id(producer)] == 1
        if not alone or before.name in keep or not _can_hold(producer):
            continue
        plan[node.operation.name] = name
        scale, shift = factors.get(name, (np.ones(1), np.zeros(1)))
        factors[name] = scale * affine[0], shift * affine[0] + affine[1]
    return plan, factors


def _forward(model: keras.Model, keep: set[str], taken: set[str]) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Return layer -> (the Rescaling whose work its weights take over, that one's scale and offset).

    So goes a pixel scaling before a convolution without padding, which TFLite's converter would fold after weights have
    been rounded. And so goes the number that a gate is multiplied with: what is multiplied by a gate goes into one
    convolution, mostly, and that may as well do the gate's scaling, which in 16 bits is off in the same way everywhere, as
    1 / 6 in a hard sigmoid is.
    """
    consumers, calls = consumers_of(model), calls_of(model)
    counts = collections.Counter(id(node.operation) for node in calls)
    takers = {id(tensor): node for node in calls for tensor in node.input_tensors}
    found: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}
    for node in calls:
        if type(node.operation) is not keras.layers.Rescaling or node.operation.name in taken:
            continue
        scale, offset = _scale_and_offset(node.operation)
        way = [node, _only_taker(node, consumers, takers)]
        if way[-1] is not None and isinstance(way[-1].operation, keras.layers.Multiply):
            if np.any(offset) or np.size(scale) > 1:
                continue
            way.append(_only_taker(way[-1], consumers, takers))
        if way[-1] is None or any(counts[id(each.operation)] > 1 for each in way):
            continue
        holder = way[-1].operation
        names = {each.operation.name for each in way[:-1]}
        if names & keep or holder.name in found or not _can_rescale_inputs(holder, offset):
            continue
        found[holder.name] = node.operation.name, scale, offset
    return found


def _scale_and_offset(layer: keras.layers.Rescaling) -> tuple[np.ndarray, np.ndarray]:
    scale, offset = (np.asarray(each, np.float64).ravel() for each in (layer.scale, layer.offset))
    return scale, offset


def _can_rescale_inputs(layer: keras.layers.Layer, offset: np.ndarray) -> bool:
    """Tell whether what is added to a layer's inputs can be in its bias: not where a padding with 0 comes between."""
    if type(layer) not in FOLDABLE:
        return False
    return not np.any(offset) or getattr(layer, "padding", "valid") == "valid"


def _only_taker(node: Any, consumers: dict[int, int], takers: dict[int, Any]) -> Any:
    output = id(node.outputs[0])
    return takers.get(output) if consumers.get(output) == 1 else None


def _as_affine(node: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (scale, shift), float64 (channels,) or (1,), of a call that does nothing but `values * scale + shift`."""
    layer = node.operation
    if isinstance(layer, keras.layers.BatchNormalization):
        return scale_and_shift(layer) if layer.axis in (-1, len(node.outputs[0].shape) - 1) else None
    if type(layer) is keras.layers.Rescaling:
        return _scale_and_offset(layer)
    if type(layer) is keras.layers.DepthwiseConv2D and layer.activation in _LINEAR:
        kernel, *bias = (np.asarray(values, np.float64) for values in layer.get_weights())
        if kernel.shape[:2] + kernel.shape[3:] == (1, 1, 1) and set(layer.strides) == {1}:
            scale = kernel.ravel()
            return scale, bias[0] if bias else np.zeros_like(scale)
    return None


def _can_hold(layer: keras.layers.Layer) -> bool:
    if type(layer) is keras.layers.Rescaling:
        return True
    return type(layer) in FOLDABLE and layer.activation in _LINEAR


def _folded_layer(
    layer: keras.layers.Layer, scale: np.ndarray, shift: np.ndarray, before: np.ndarray, offset: np.ndarray
) -> Callable:
    if type(layer) is keras.layers.Rescaling:
        own_scale, own_offset = _scale_and_offset(layer)
        return rescaling(layer.name, own_scale * scale, own_offset * scale + shift)
    weights = folded_weights(layer, scale, shift, before, offset)
    return with_weights(copy_of(layer, use_bias=len(weights) > 1), weights)


def folded_weights(
    layer: keras.layers.Layer,
    scale: np.ndarray,
    shift: np.ndarray,
    before: np.ndarray | float = 1.0,
    offset: np.ndarray | float = 0.0,
) -> list[np.ndarray]:
    """Return the weights, float32, of a layer that does what `layer` and `values * scale + shift` do one after another.

    Args:
        layer: a convolution, depthwise convolution or dense layer; with a scale or shift, one without activation.
        scale, shift: float64 (channels,) or (1,).
        before, offset: what the layer's inputs are multiplied by and what is added then, one number or one for each
            channel of the inputs; `offset` only where the layer pads nothing.

    Returns:
        Kernel and bias; no bias where there is none to hold.
    """
    kernel, *bias = (np.asarray(values, np.float64) for values in layer.get_weights())
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    shape = kernel.shape[2:] if depthwise else kernel.shape[-1:]
    channels = int(np.prod(shape))
    # The axis of a kernel that a convolution's inputs run along is the last but one, a dense layer's the first of two.
    before, offset = (np.broadcast_to(each, kernel.shape[-2]).reshape(-1, 1) for each in (before, offset))
    factor = np.broadcast_to(scale, (channels,)).reshape(shape)
    from_offset = (kernel * offset).sum(tuple(range(kernel.ndim - (2 if depthwise else 1)))).ravel()
    if bias or np.any(from_offset):
        shift = shift + ((bias[0] if bias else 0.0) + from_offset) * scale
    values = [(kernel * factor * before).astype(np.float32)]
    if bias or np.any(shift):
        values.append(np.broadcast_to(shift, (channels,)).astype(np.float32))
    return values


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
