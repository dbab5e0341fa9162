"""Brings the channels of a feature map to like ranges, so that one scale of 8 bits for all of them serves each of them.

The method is cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721, section 4.1), which scales a channel where it is
made and scales it back where it is taken: ReLU(s x) is s ReLU(x). Here it goes through additions too, as all that is added
together is scaled alike, and stops at ReLU6's ceiling, which is not scaled along. Ranges are measured on real images rather
than read off the weights, and the factors are the square root of what would make ranges equal, as Xiao et al. 2022
(arXiv:2211.10438) split the difference between activations and weights; before a depthwise convolution, whose kernel has
a scale for each channel, nothing has to be split. Where channels are a thousand times as large as others, half of that is
still too much, and nothing is split anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from exporters.cloning import clone
from exporters.compiled import in_batches
from exporters.correction import is_weighted
from exporters.inputs import Inputs
from exporters.keras_graph import answers_of, calls_of, walk
from exporters.simulation import activation_bounds

IMAGES = 96
# How much further than on the images seen values may go before ReLU6's ceiling cuts them off.
MARGIN = 1.25
LARGEST_FACTOR = 100.0
SPLIT, WHOLE_SPLIT = 0.5, 1.0
# Operations whose answer is scaled as all that they take is, channel by channel.
_PASSING = (
    *(keras.layers.ReLU, keras.layers.Activation, keras.layers.Add, keras.layers.ZeroPadding2D, keras.layers.Identity),
    *(keras.layers.MaxPooling2D, keras.layers.AveragePooling2D),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
)


@dataclasses.dataclass
class _Stream:
    """Tensors whose channels have to be scaled alike.

    `ceiling` is what activations cut them off at, None for none; `fixed` says that they must stay as they are; `stored`
    are those which are there after activations, thus the ones that get a scale.
    """

    makers: list[Any]
    takers: list[Any]
    stored: list[Any]
    ceiling: float | None = None
    fixed: bool = False


def equalise(folded: keras.Model, inputs: Inputs, kept: Collection[str] = (), split: float = SPLIT) -> keras.Model:
    """Return a model that answers alike, with the ranges of its channels nearer to each other.

    Args:
        folded: a functional model, as `fold` gives it; not touched.
        inputs: pictures, uint8 (N, height, width, 3), 96 of which tell the ranges, and their columns.
        kept: layers whose output stays as it is, such as those of the cuts.
        split: how much of the difference is taken from the activations, 1 all of it; the rest is left to weights' scales.

    Returns:
        A new model with the same layers. It answers as the given one does, but for roundings, and for values of a ReLU6's
        channel over 1.25 times the largest one of the images.
    """
    copy = clone(folded)
    streams = [each for each in _streams(copy, kept) if each.makers and each.takers and not each.fixed]
    if not streams:
        return copy
    for stream, largest in zip(streams, _largest(copy, streams, inputs.sample(IMAGES)), strict=True):
        factors = _factors(stream, largest, split)
        for layer in stream.makers:
            _scale_outputs(layer, factors)
        for layer in stream.takers:
            _scale_inputs(layer, 1 / factors)
    return copy


def _streams(model: keras.Model, kept: Collection[str]) -> list[_Stream]:
    streams: dict[int, _Stream] = {}

    def of(tensor: Any) -> _Stream:
        return streams.setdefault(id(tensor), _Stream([], [], [tensor]))

    for node in calls_of(model):
        operation, found = node.operation, [of(each) for each in (*node.input_tensors, *node.outputs)]
        if is_weighted(operation):
            found[0].takers.append(operation)
            found[-1].makers.append(operation)
            _limit(found[-1], operation)
        elif isinstance(operation, _PASSING) and node.outputs[0].shape[-1] == node.input_tensors[0].shape[-1]:
            joined = _join(found, streams)
            _limit(joined, operation)
            if isinstance(operation, keras.layers.ReLU | keras.layers.Activation):
                # Activations are computed with what they stand behind: their input is never stored.
                joined.stored = [each for each in joined.stored if each is not node.input_tensors[0]]
        else:
            for each in found:
                each.fixed = True
        if operation.name in kept:
            of(node.outputs[0]).fixed = True
    for tensor in (*model.inputs, *model.outputs):
        of(tensor).fixed = True
    return list({id(each): each for each in streams.values()}.values())


def _join(found: list[_Stream], streams: dict[int, _Stream]) -> _Stream:
    """Make one stream of several."""
    different = list({id(each): each for each in found}.values())
    ceilings = [each.ceiling for each in different if each.ceiling is not None]
    joined = _Stream(
        [layer for each in different for layer in each.makers],
        [layer for each in different for layer in each.takers],
        [tensor for each in different for tensor in each.stored],
        min(ceilings, default=None),
        any(each.fixed for each in different),
    )
    for key, each in streams.items():
        if any(each is other for other in different):
            streams[key] = joined
    return joined


def _limit(stream: _Stream, operation: Any) -> None:
    """Note what an operation's activation does with scaled values."""
    activation = getattr(operation, "activation", None)
    if not isinstance(operation, keras.layers.ReLU) and activation in (None, keras.activations.linear):
        return
    bounds = activation_bounds(operation)
    if bounds is None:
        stream.fixed = True
    elif np.isfinite(bounds[1]):
        stream.ceiling = bounds[1] if stream.ceiling is None else min(stream.ceiling, bounds[1])


def _largest(model: keras.Model, streams: list[_Stream], inputs: Inputs) -> list[np.ndarray]:
    """Return the largest size of each channel of each stream, float64 (channels,)."""
    wanted = {id(tensor) for stream in streams for tensor in stream.stored}

    def compute(given: list[Any]) -> list[Any]:
        found: dict[int, Any] = {}

        def look(tensor: Any, value: Any) -> Any:
            if id(tensor) in wanted:
                found[id(tensor)] = keras.ops.max(keras.ops.abs(value), axis=tuple(range(len(value.shape) - 1)))
            return value

        walk(model, given, answers_of, look)
        return [keras.ops.max([found[id(tensor)] for tensor in stream.stored], axis=0) for stream in streams]

    parts = list(in_batches(compute, inputs, model))
    return [np.max(each, axis=0).astype(np.float64) for each in zip(*parts, strict=True)]


def _factors(stream: _Stream, largest: np.ndarray, split: float) -> np.ndarray:
    alive = largest > 1e-6
    sizes = np.where(alive, largest, 1.0)
    room = sizes[alive].max(initial=1e-6) / sizes
    if stream.ceiling is not None:
        # Scaled up only: a channel that is scaled down would be cut off later than it was.
        room = np.maximum(stream.ceiling / (sizes * MARGIN), 1.0)
    depthwise = all(isinstance(each, keras.layers.DepthwiseConv2D) for each in stream.takers)
    factors = np.minimum(room ** (1.0 if depthwise else split), LARGEST_FACTOR ** (split / SPLIT))
    return np.where(alive, factors, 1.0)


def _scale_outputs(layer: keras.layers.Layer, factors: np.ndarray) -> None:
    kernel, *bias = layer.get_weights()
    shape = kernel.shape[2:] if isinstance(layer, keras.layers.DepthwiseConv2D) else kernel.shape[-1:]
    layer.set_weights([_times(kernel, factors.reshape(shape)), *(_times(each, factors) for each in bias)])


def _scale_inputs(layer: keras.layers.Layer, factors: np.ndarray) -> None:
    kernel, *bias = layer.get_weights()
    layer.set_weights([_times(kernel, factors[:, None]), *bias])


def _times(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return (values.astype(np.float64) * factors).astype(np.float32)
