"""Computes with many pictures a few at a time, so that TensorFlow never holds what a layer gives for all of them.

TensorFlow keeps whatever memory its tensors have ever taken, for those to come (its oneDNN allocator, seen in 2.21). What is
held for many pictures is therefore held in arrays, whose memory goes back to the system, and only slices of them are tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from exporters.keras_graph import answers_of

# What a call takes and gives at a time.
SLICE_BYTES = 2**24
# What numpy works on at a time.
PART_VALUES = 2**17


def bytes_per_image(node: Any) -> int:
    """Return how many bytes a call of a graph takes and gives for one picture, in float32."""
    return 4 * sum(int(np.prod([size or 1 for size in each.shape])) for each in (*node.input_tensors, *node.outputs))


def answers_in_slices(node: Any, values: Mapping[int, np.ndarray], count: int) -> list[np.ndarray]:
    """Return what a call gives for many pictures, as `keras_graph.answers_of` does, in new arrays.

    Args:
        node: a call of a graph.
        values: id of a symbolic tensor -> array with the pictures along its first axis, for what the call takes.
        count: how many pictures there are.
    """
    taken = {id(tensor): values[id(tensor)] for tensor in node.input_tensors}

    def compute(parts: list[Any]) -> list[Any]:
        return answers_of(node, dict(zip(taken, parts, strict=True)))

    apart = all(tensor.shape and tensor.shape[0] is None for tensor in (*node.input_tensors, *node.outputs))
    return in_slices(compute, list(taken.values()), count, bytes_per_image(node) if apart else 0)


def in_slices(
    compute: Callable[[list[Any]], Sequence[Any]], given: Sequence[np.ndarray], count: int, each_bytes: int
) -> list[np.ndarray]:
    """Return what a function gives for many pictures, computed a few at a time, in new arrays.

    Args:
        compute: tensors, slices of `given` along their first axis -> tensors.
        given: arrays whose first axis has an equal number of rows for each picture, one behind the other.
        count: how many pictures there are.
        each_bytes: what one picture takes; 0 where the pictures cannot be told apart.
    """
    if not each_bytes or any(len(each) % count for each in given):
        return [np.array(value) for value in compute(list(map(keras.ops.convert_to_tensor, given)))]
    size = max(1, SLICE_BYTES // each_bytes)
    whole: list[np.ndarray] = []
    for start in range(0, count, size):
        found = compute([keras.ops.convert_to_tensor(_rows(each, start, size, count)) for each in given])
        for place, value in enumerate(map(np.asarray, found)):
            if not start:
                whole.append(np.empty((len(value) * count // min(size, count), *value.shape[1:]), value.dtype))
            _rows(whole[place], start, size, count)[...] = value
    return whole


def _rows(values: np.ndarray, start: int, size: int, count: int) -> np.ndarray:
    """Return the rows of some pictures: as many for each, where there are several for one."""
    each = len(values) // count
    return values[start * each : (start + size) * each]


def in_parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Give an array's values part after part, in views that stay in the processor's cache while they are worked on.

    Raises:
        ValueError: the values do not lie one behind the other.
    """
    if not values.flags.c_contiguous:
        raise ValueError("values of an array that is not contiguous have no views one behind the other")
    flat = values.reshape(-1)
    for start in range(0, flat.size, PART_VALUES):
        yield flat[start : start + PART_VALUES]


def clip(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Bring an array's values between two bounds, in place."""
    for part in in_parts(values):
        np.clip(part, *bounds, out=part)
    return values
