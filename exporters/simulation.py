"""What a model answers where activations are whole numbers, computed in float: one walk through its graph, no converter.

Converters store every activation in equal steps between the least and the largest value that calibration images bring about.
Rounding to such steps in float gives what the device will give, up to the last step of some values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from exporters import compiled
from exporters.compiled import batch_of, in_batches
from exporters.inputs import Inputs
from exporters.keras_graph import answers_of, calls_of, consumers_of, walk, walk_by_calls
from exporters.rounding import ACTIVATION_STEPS
from exporters.slices import answers_in_slices, clip, in_parts

Bounds = tuple[float, float] | None
# (number of a call in the graph's order, place of one of its outputs) -> the least and the largest value that it has there.
Ranges = Mapping[tuple[int, int], tuple[float, float]]
# Where two models are walked at once.
FEW = 8
_RANGES = {keras.activations.relu: (0.0, float("inf")), keras.activations.relu6: (0.0, 6.0)}
# What only moves values about differs as they do.
_MOVING = (
    *(keras.layers.ZeroPadding2D, keras.layers.Cropping2D, keras.layers.Reshape, keras.layers.Flatten),
    *(keras.layers.Permute, keras.layers.Identity, keras.layers.Dropout),
)


def answers_in_steps(
    model: keras.Model, inputs: Inputs, precision: str, ranges: Ranges | None = None
) -> list[np.ndarray]:
    """Return what a model answers in a precision, without the rounding of its weights.

    Args:
        model: functional, as `fold` gives it, its weights rounded already or not.
        inputs: uint8 (N, height, width, 3), with columns where the model takes them.
        precision: a key of `rounding.ACTIVATION_STEPS`, or another one, whose activations are not rounded.
        ranges: between which the steps lie, as calibration images have them; None: those of each batch.

    Returns:
        One float32 array (N, ...) for each of the model's outputs.
    """
    rounding = _rounding(model, ACTIVATION_STEPS.get(precision), ranges)
    parts = in_batches(lambda given: walk(model, given, answers_of, rounding), inputs, model)
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def ratios_in_steps(
    model: keras.Model, rounded: keras.Model, inputs: Inputs, precision: str, ranges: Ranges | None = None
) -> dict[str, float | None]:
    """Return how much larger than its differences every value is that a device stores, layer by layer.

    Args:
        model: functional, before its weights were rounded.
        rounded: the same layers with rounded weights, as `correct` gives them.
        inputs, precision, ranges: as `answers_in_steps` takes them.

    Returns:
        operation -> ratio of signal to noise in decibels, in the order of the graph; None where nothing differs. Operations
        that only move values about are left out.
    """
    roundings = _rounding(model, None, None), _rounding(rounded, ACTIVATION_STEPS.get(precision), ranges)
    followers, size = followers_of(model), min(FEW, batch_of(model))
    powers: dict[str, np.ndarray] = {}
    for start in range(0, len(inputs), size):
        # Not compiled: it would take longer than so few pictures do.
        given = list(map(keras.ops.convert_to_tensor, inputs[start : start + size].named().values()))
        sides = (_walk(each, given, change) for each, change in zip((model, rounded), roundings, strict=True))
        for (node, expected), (_, found) in zip(*sides, strict=True):
            stored = [is_stored(followers.get(id(tensor), [])) for tensor in node.outputs]
            if any(stored) and not isinstance(node.operation, _MOVING):
                pairs = [pair for pair, kept in zip(zip(expected, found, strict=True), stored, strict=True) if kept]
                powers[node.operation.name] = powers.get(node.operation.name, 0) + sum(_powers(*pair) for pair in pairs)
    return {name: _decibels(*both) for name, both in powers.items()}


def _powers(expected: Any, found: Any) -> np.ndarray:
    """Return the sums of squares of a tensor and of its differences."""
    mine, theirs = (keras.ops.convert_to_numpy(each).ravel() for each in (expected, found))
    apart = theirs - mine
    return np.array([np.dot(mine, mine), np.dot(apart, apart)], np.float64)


def _decibels(signal: float, noise: float) -> float | None:
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None


def _walk(model: keras.Model, given: list[Any], change: Callable[[Any, Any], Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Give every call of the graph in order, with its values as they are stored."""
    values = {id(tensor): each for tensor, each in zip(model.inputs, given, strict=True)}
    return walk_by_calls(model, values, answers_of, change)


def _rounding(model: keras.Model, steps: int | None, ranges: Ranges | None) -> Callable[[Any, Any], Any]:
    """Return what `keras_graph.walk` takes as `change`, such that tensors are rounded as they are stored."""
    followers = followers_of(model)
    places = {
        id(tensor): (call, place)
        for call, node in enumerate(calls_of(model))
        for place, tensor in enumerate(node.outputs)
    }

    def change(tensor: Any, value: Any) -> Any:
        if not steps or not is_stored(followers.get(id(tensor), [])):
            return value
        return compiled.in_steps(value, steps, None if ranges is None else ranges[places[id(tensor)]])

    return change


def answers_in_arrays(
    node: Any, values: Mapping[int, np.ndarray], count: int, once: Collection[int]
) -> list[np.ndarray]:
    """Return what a call gives for `count` pictures, as `answers_in_slices` does; some work in the array that they take.

    `once` has the ids of the symbolic tensors whose arrays may be so changed, see `taken_once`.
    """
    if is_in_place(node, once):
        return [clip(values[id(node.input_tensors[0])], activation_bounds(node.operation))]
    return answers_in_slices(node, values, count)


def is_in_place(node: Any, once: Collection[int]) -> bool:
    """Tell whether a call is a ReLU's, and the only one that takes its input."""
    alone = isinstance(node.operation, keras.layers.ReLU | keras.layers.Activation)
    return alone and activation_bounds(node.operation) is not None and id(node.input_tensors[0]) in once


def taken_once(model: keras.Model) -> set[int]:
    """Return the ids of the symbolic tensors that one call takes, and that are no inputs or outputs of the model."""
    return {each for each, count in consumers_of(model).items() if count == 1} - {
        id(each) for each in (*model.inputs, *model.outputs)
    }


def followers_of(model: keras.Model) -> dict[int, list[Any]]:
    """Return id of a symbolic tensor -> the operations that take it."""
    followers: dict[int, list[Any]] = {}
    for node in calls_of(model):
        for tensor in node.input_tensors:
            followers.setdefault(id(tensor), []).append(node.operation)
    return followers


def activation_bounds(operation: Any) -> Bounds:
    """Return the range inside which an operation's activation passes values on, where it is a ReLU of some kind; else None."""
    if not isinstance(operation, keras.layers.ReLU):
        return _RANGES.get(getattr(operation, "activation", None))
    if operation.negative_slope or operation.threshold:
        return None
    return 0.0, float("inf") if operation.max_value is None else float(operation.max_value)


def is_stored(followers: list[Any]) -> bool:
    """Tell whether a value is ever stored: not where nothing takes it, nor where a ReLU is computed along with what makes it."""
    if len(followers) != 1:
        return bool(followers)
    alone = isinstance(followers[0], keras.layers.ReLU | keras.layers.Activation)
    return not (alone and activation_bounds(followers[0]) is not None)


def range_of(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest number in an array."""
    return float(values.min()), float(values.max())


def in_steps(values: np.ndarray, steps: int, ends: tuple[float, float] | None = None) -> np.ndarray:
    """Round an array, in place, to equal steps, 0 being one, between two ends, by default its least and largest value."""
    least, largest = range_of(values) if ends is None else ends
    low, high = min(0.0, least), max(0.0, largest)
    if high > low:
        step = np.float32((high - low) / steps)
        zero = np.rint(-low / step)
        for part in in_parts(values):
            np.rint(np.divide(part, step, out=part), out=part)
            part += zero
            np.clip(part, 0, steps, out=part)
            part -= zero
            part *= step
    return values
