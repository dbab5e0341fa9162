"""Rounds the weights of a folded model as a precision will, such that the answers change least.

Rounding weights to the nearest value moves the means of channels, and every later layer inherits the shift. Here the
network is gone through layer by layer, the float one and the rounded one side by side on real images:

- each weight's rounding error is made up for by the weights not yet rounded, by least squares on the layer's inputs
  (Frantar et al. 2022, arXiv:2210.17323, which calls it GPTQ);
- each bias then takes back the mean difference that is left in its channel (Nagel et al. 2019, arXiv:1906.04721,
  section 4.2, with measured instead of estimated means). Where a ReLU or ReLU6 follows, only positions count at which
  the float value lies inside its range, and the step is repeated: what is cut off needs no correction.

Where activations are whole numbers too, the rounded side's are rounded as they will be: what a layer is then given is what
it will be given on the device, and kernel and bias make up for that as well.

The converters compute their scales from the largest weights: those stay as they are, so that every converter arrives at
the same scales and finds nothing left to round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np

from exporters.cloning import clone
from exporters.columns_encoder import encoder_of
from exporters.inputs import Inputs, as_inputs
from exporters.keras_graph import calls_of, consumers_of, let_go
from exporters.rounding import ACTIVATION_STEPS, GRIDS, round_in_parts
from exporters.simulation import (
    Bounds,
    Ranges,
    activation_bounds,
    answers_in_arrays,
    followers_of,
    in_steps,
    is_in_place,
    is_stored,
    range_of,
    taken_once,
)
from exporters.slices import PART_VALUES, bytes_per_image, clip, in_slices

REPEATS = 4
# MobileNetV2's features on photographs: with 96 images 0.1 dB nearer than with these, with 24 of them 0.2 dB further off.
IMAGES = 48
LEAST_IMAGES = 16
# Of large networks fewer images are looked at, such that a layer's inputs and outputs on both sides take this at most.
MOST_BYTES = 1_000_000_000
# Rows of a layer's input that its least squares look at: more change nothing, fewer lose precision.
ROWS = 8_192
LEAST_ROWS = 512
MOST_PATCH_VALUES = 2**25
# What is worked on at a time where the whole would be large.
IMAGES_AT_ONCE = 8

# What a tensor holds of the float network, and of the rounded one.
Pair = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer's kernel as (groups, inputs, outputs) and back: one group, or one for each channel of a depthwise one."""

    depthwise: bool
    shape: tuple[int, ...]

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        if self.depthwise:
            height, width, channels, multiplier = self.shape
            return kernel.reshape(height * width, channels, multiplier).transpose(1, 0, 2).astype(np.float64)
        return kernel.reshape(1, -1, self.shape[-1]).astype(np.float64)

    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        if self.depthwise:
            return matrix.transpose(1, 0, 2).reshape(self.shape).astype(np.float32)
        return matrix.reshape(self.shape).astype(np.float32)


# Precisions that store biases in as few bits as kernels.
BIAS_TOO = frozenset({"float16"})


def correct(folded: keras.Model, precision: str, images: Inputs | np.ndarray) -> keras.Model:
    """Return the model with rounded weights and corrected biases.

    Args:
        folded: a functional model, as `fold` gives it; not touched.
        precision: a key of `rounding.GRIDS`.
        images: uint8 (N, height, width, 3), with columns where the model takes them; 48 of them are looked at.

    Returns:
        A new model with the same layers.
    """
    return correct_and_measure(folded, precision, images)[0]


def correct_and_measure(
    folded: keras.Model, precision: str, images: Inputs | np.ndarray, *, exact_inputs: bool = False
) -> tuple[keras.Model, Ranges]:
    """Return what `correct` does, and the ranges that its activations had where they are stored in steps.

    With `exact_inputs` kernels are rounded by least squares on what layers take in float; biases make up for the rest as always.
    """
    rounded, ranges = clone(folded), {}
    images = as_inputs(images).sample(_images_for(folded))
    given = images.named().values()
    values: dict[int, Pair] = {id(tensor): (each, each) for tensor, each in zip(folded.inputs, given, strict=True)}
    followers, once = followers_of(folded), taken_once(folded)
    remaining = consumers_of(folded)
    for call, node in enumerate(calls_of(folded)):
        layer = node.operation
        if is_weighted(layer):
            inputs, twin = values[id(node.input_tensors[0])], rounded.get_layer(layer.name)
            # What gives a regression's numbers stays in float32 where all else is float16, which ends at 65,504.
            keep = precision in BIAS_TOO and is_last_and_linear(layer, folded)
            given = inputs[0 if exact_inputs else 1]
            found = [_round_layer(layer, twin, inputs, None if keep else precision, _bounds(layer, followers), given)]
        else:
            found = _apply(node, values, len(images), once)
        if precision in ACTIVATION_STEPS:
            for place, (tensor, (_, value)) in enumerate(zip(node.outputs, found, strict=True)):
                if is_stored(followers.get(id(tensor), [])):
                    ranges[call, place] = range_of(value)
                    in_steps(value, ACTIVATION_STEPS[precision], ranges[call, place])
        values |= {id(tensor): pair for tensor, pair in zip(node.outputs, found, strict=True)}
        let_go(node, values, remaining)
    return rounded, ranges


def is_last_and_linear(layer: keras.layers.Layer, model: keras.Model) -> bool:
    """Tell whether a layer is a dense one whose values, with no activation, are an answer of the model."""
    linear = isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear
    return linear and any(layer.output is each for each in model.outputs)


def can_correct(model: keras.Model) -> bool:
    """Tell whether `correct` can walk a model: pictures and columns, no model inside, layers with weights called once."""
    calls = [node.operation for node in calls_of(model)]
    several = any(is_weighted(each) and sum(other is each for other in calls) > 1 for each in calls)
    inputs = len(model.inputs) == (1 if encoder_of(model) is None else 2)
    return inputs and not several and not any(isinstance(each, keras.Model) for each in calls)


def working_bytes(model: keras.Model) -> int:
    """Return about how many bytes `correct` would take for what a layer of a model takes and gives, with all of its images."""
    return IMAGES * _bytes_per_image(model)


def _images_for(model: keras.Model) -> int:
    """Return how many images a model's largest layer leaves room for."""
    return int(np.clip(MOST_BYTES // _bytes_per_image(model), LEAST_IMAGES, IMAGES))


def _bytes_per_image(model: keras.Model) -> int:
    once = taken_once(model)
    # Two sides.
    return 2 * max((bytes_per_image(each) for each in calls_of(model) if not is_in_place(each, once)), default=1)


def is_weighted(layer: keras.layers.Layer) -> bool:
    """Tell whether a layer has a kernel that is rounded channel by channel: a convolution in one group, or a dense layer."""
    known = type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return known and getattr(layer, "groups", 1) == 1 and len(layer.output.shape) in (2, 4)


def _apply(node: Any, values: Mapping[int, Pair], count: int, once: Collection[int]) -> list[Pair]:
    sides = [{id(tensor): values[id(tensor)][side] for tensor in node.input_tensors} for side in (0, 1)]
    return list(zip(*(answers_in_arrays(node, side, count, once) for side in sides), strict=True))


def _bounds(layer: keras.layers.Layer, followers: dict[int, list[Any]]) -> Bounds:
    """Return the range inside which the activation in or behind a layer passes values on, where it is a ReLU of its own."""
    if layer.activation is not keras.activations.linear:
        return activation_bounds(layer)
    behind = followers.get(id(layer.output), [])
    return activation_bounds(behind[0]) if len(behind) == 1 else None


def _round_layer(
    layer: keras.layers.Layer,
    twin: keras.layers.Layer,
    inputs: Pair,
    precision: str | None,
    bounds: Bounds,
    given: np.ndarray,
) -> Pair:
    """Round the twin's kernel, let its bias take back what is left of the mean, and return what both layers then give.

    `inputs` are what both layers take, `given` is the one that the least squares look at.
    With `precision` None the kernel is not rounded; the bias still makes up for what the layers before have lost.
    """
    kernel, *bias = layer.get_weights()
    form = _Layer(isinstance(layer, keras.layers.DepthwiseConv2D), kernel.shape)
    matrix = form.to_matrix(kernel)
    rows = _input_rows(layer, given, form)
    rounded = form.to_kernel(round_in_parts(matrix, rows, GRIDS[precision](matrix))) if precision else kernel
    twin.set_weights([rounded, *bias])
    expected, found = (_before_activation(each, value) for each, value in zip((layer, twin), inputs, strict=True))
    if bias:
        # Where biases are stored in few bits too, the next layer's bias makes up for what this one loses.
        dtype = np.float16 if precision in BIAS_TOO else np.float32
        stored = (bias[0] + _mean_difference(expected, found, bounds)).astype(dtype).astype(np.float32)
        twin.set_weights([rounded, stored])
        found += stored - bias[0]
    return _activated(layer, expected), _activated(layer, found)


def _input_rows(layer: keras.layers.Layer, value: np.ndarray, form: _Layer) -> np.ndarray:
    """Return what the layer multiplies its kernel with: (groups, rows, inputs), rows drawn evenly."""
    if isinstance(layer, keras.layers.Dense):
        return value.reshape(1, -1, value.shape[-1])
    height, width = form.shape[:2]
    # A depthwise convolution of many channels has a small problem for each of them, and many rows for all.
    most = min(ROWS, max(LEAST_ROWS, MOST_PATCH_VALUES // (height * width * value.shape[-1])))
    rows = _patches(value, layer, (height, width), most)
    return rows.transpose(2, 0, 1) if form.depthwise else rows.reshape(1, len(rows), -1)


def _patches(values: np.ndarray, layer: keras.layers.Layer, size: tuple[int, int], most: int) -> np.ndarray:
    """Return what lies under a kernel at some `most` places, drawn evenly: float32 (places, taps, channels)."""
    reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(size, layer.dilation_rate, strict=True)]
    margins = [(0, 0), (0, 0)]
    if layer.padding == "same":
        margins = [_margin(*each) for each in zip(values.shape[1:3], reach, layer.strides, strict=True)]
    (down, across), (between_rows, between_columns) = layer.strides, layer.dilation_rate
    height, width = (
        (length + sum(margin) - whole) // stride + 1
        for length, margin, whole, stride in zip(values.shape[1:3], margins, reach, layer.strides, strict=True)
    )
    count = len(values) * height * width
    places = np.arange(0, count, max(1, count // most))
    drawn = []
    for start in range(0, len(values), IMAGES_AT_ONCE):
        padded = np.pad(values[start : start + IMAGES_AT_ONCE], ((0, 0), *margins, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
        windows = windows[:, ::down, ::across, :, ::between_rows, ::between_columns]
        here = places[np.searchsorted(places, start * height * width) :] - start * height * width
        here = here[: np.searchsorted(here, len(padded) * height * width)]
        drawn.append(windows[np.unravel_index(here, windows.shape[:3])])
    drawn = np.concatenate(drawn)
    return drawn.reshape(*drawn.shape[:2], -1).transpose(0, 2, 1)


def _margin(length: int, reach: int, stride: int) -> tuple[int, int]:
    """Return how many zeros `same` puts before and behind, as TensorFlow counts them."""
    whole = max((-(-length // stride) - 1) * stride + reach - length, 0)
    return whole // 2, whole - whole // 2


def _before_activation(layer: keras.layers.Layer, values: np.ndarray) -> np.ndarray:
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return _in_slices(layer, values, bytes_per_image(layer._inbound_nodes[0]))
    finally:
        layer.activation = activation


def _activated(layer: keras.layers.Layer, values: np.ndarray) -> np.ndarray:
    """Return what a layer's activation makes of values, in their place where it is a ReLU of some kind, or none."""
    if layer.activation is keras.activations.linear:
        return values
    bounds = activation_bounds(layer)
    if bounds is None:
        return _in_slices(layer.activation, values, 2 * values[0].nbytes)
    return clip(values, bounds)


def _in_slices(compute: Callable, values: np.ndarray, each_bytes: int) -> np.ndarray:
    (found,) = in_slices(lambda parts: [compute(parts[0])], [values], len(values), each_bytes)
    return found


def _mean_difference(expected: np.ndarray, found: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Return what each channel's bias must rise by, float64 (channels,)."""
    channels = expected.shape[-1]
    size = max(1, PART_VALUES // channels)
    starts = range(0, expected.size // channels, size)
    pairs = [tuple(each.reshape(-1, channels)[start : start + size] for each in (expected, found)) for start in starts]
    if bounds is None:
        return sum(_sums(mine - theirs) for mine, theirs in pairs) / (expected.size // channels)
    counts = sum(((mine > bounds[0]) & (mine < bounds[1])).sum(0) for mine, _ in pairs)
    change = np.zeros(channels)
    for _ in range(REPEATS):
        step = sum(_differences(*pair, change.astype(np.float32), bounds) for pair in pairs) / np.maximum(counts, 1)
        change += np.where(counts > 0, step, 0.0)
    return change


def _differences(expected: np.ndarray, found: np.ndarray, change: np.ndarray, bounds: tuple) -> np.ndarray:
    """Return the sums of what is left of a difference after the activation, where the expected value lies inside its range."""
    left = found + change
    np.clip(left, *bounds, out=left)
    np.subtract(expected, left, out=left)
    left *= (expected > bounds[0]) & (expected < bounds[1])
    return _sums(left)


def _sums(part: np.ndarray) -> np.ndarray:
    """Return the sums of the columns of a part that is small enough for float32: float64 (channels,)."""
    # As a product of matrices: numpy's own sum over rows takes eight times as long.
    return (np.ones(len(part), np.float32) @ part).astype(np.float64)
