"""What a model answers where activations are whole numbers, computed in float: one walk through its graph, no converter.

Converters store every activation in equal steps between the least and the largest value that calibration images bring about.
Rounding to such steps in float gives what the device will give, up to the last step of some values.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from exporters.inputs import Inputs
from exporters.keras_graph import calls_of, consumers_of

# Precision -> steps between the least and the largest value of an activation. The 65,535 of int16x8 change next to nothing.
ACTIVATION_STEPS = {"int8": 255}
Bounds = tuple[float, float] | None
_RANGES = {keras.activations.relu: (0.0, float("inf")), keras.activations.relu6: (0.0, 6.0)}
BATCH = 32


def answers_in_steps(model: keras.Model, inputs: Inputs, precision: str) -> list[np.ndarray]:
    """Return what a model answers in a precision, without the rounding of its weights.

    Args:
        model: functional, as `fold` gives it, its weights rounded already or not.
        inputs: uint8 (N, height, width, 3), with columns where the model takes them; the steps are those of each batch.
        precision: a key of ACTIVATION_STEPS, or another one, whose activations are not rounded.

    Returns:
        One float32 array (N, ...) for each of the model's outputs.
    """
    parts = [
        _walk(model, list(inputs[start : start + BATCH].named().values()), ACTIVATION_STEPS.get(precision))
        for start in range(0, len(inputs), BATCH)
    ]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _walk(model: keras.Model, given: list[np.ndarray], steps: int | None) -> list[np.ndarray]:
    values = {id(tensor): keras.ops.convert_to_tensor(each) for tensor, each in zip(model.inputs, given, strict=True)}
    followers, remaining = followers_of(model), consumers_of(model)
    for node in calls_of(model):
        known = {id(tensor): values[id(tensor)] for tensor in node.input_tensors}
        arguments, options = node.arguments.fill_in(known)
        found = keras.tree.flatten(node.operation(*arguments, **options))
        for tensor, value in zip(node.outputs, found, strict=True):
            stored = steps and is_stored(followers.get(id(tensor), []))
            values[id(tensor)] = in_steps(value, steps) if stored else value
        for tensor in node.input_tensors:
            remaining[id(tensor)] -= 1
            if not remaining[id(tensor)]:
                del values[id(tensor)]
    return [keras.ops.convert_to_numpy(values[id(tensor)]) for tensor in model.outputs]


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


def in_steps(value: Any, steps: int) -> Any:
    """Return a tensor rounded to equal steps between the least and the largest of its values, with 0 among the steps."""
    numbers = np.asarray(value)
    low, high = min(0.0, float(numbers.min())), max(0.0, float(numbers.max()))
    if not high > low:
        return value
    step = np.float32((high - low) / steps)
    zero = np.rint(-low / step)
    rounded = np.empty_like(numbers)
    # One picture at a time: of all together every step of this would take as much memory as they do.
    for place, each in enumerate(numbers):
        rounded[place] = (np.clip(np.rint(each / step) + zero, 0, steps) - zero) * step
    return keras.ops.convert_to_tensor(rounded)
