"""Brings the encoded columns into the range of the features that they are joined with, for activations in whole numbers.

What is joined has one scale there: beside numbers from -5 to 5, pooled features from 0 to 1 would have 25 steps. The layers
behind take the stretching back in their weights, so that the answers stay the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from exporters.columns_encoder import ColumnsEncoder, encoder_of
from exporters.convolutions import with_weights
from exporters.inputs import Inputs
from exporters.keras_graph import calls_of, copy_of, each_once, rebuild

BATCH = 16


@dataclasses.dataclass(frozen=True)
class _Join:
    """Where encoded columns are joined with features: `start` is their first place in the joined values."""

    start: int
    beside: list[keras.KerasTensor]
    layers: list[keras.layers.Dense]


def fit_to_features(model: keras.Model, inputs: Inputs) -> keras.Model:
    """Return a model of the same answers whose encoded columns lie where the features beside them do.

    Args:
        model: as `fold` gives it.
        inputs: calibration images with their columns, on which the ranges of features are measured.

    Returns:
        A new model; the given one where it takes no columns, or something other than dense layers takes them.
    """
    encoder = encoder_of(model)
    joins = _joins(model, encoder) if encoder is not None and len(inputs) else []
    if not joins:
        return model
    ranges = [_measured(model, join.beside, inputs) for join in joins]
    # The narrowest: the features of no join then get a coarser scale than they would have without columns.
    low, high = min(ranges, key=lambda each: each[1] - each[0])
    if not high > low:
        return model
    least, largest = encoder.span()
    scale = ((high - low) / (largest - least)).astype(np.float32).astype(np.float64)
    shift = (low - least * scale).astype(np.float32).astype(np.float64)
    starts = {id(layer): join.start for join in joins for layer in join.layers}

    def replace(operation: Any) -> Callable:
        if operation is encoder:
            return copy_of(operation, scale=scale.tolist(), shift=shift.tolist())
        if not isinstance(operation, keras.layers.Layer):
            return operation
        weights = operation.get_weights()
        if id(operation) not in starts:
            return with_weights(copy_of(operation), weights)
        taken_back = _taken_back(weights, starts[id(operation)], scale, shift)
        return with_weights(copy_of(operation, use_bias=True), taken_back)

    return rebuild(model, each_once(replace))


def _taken_back(weights: list[np.ndarray], start: int, scale: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
    """Return kernel and bias of a dense layer that takes values * scale + shift for its inputs from `start` on."""
    kernel, bias = weights[0].astype(np.float64), weights[1].astype(np.float64) if len(weights) > 1 else 0.0
    rows = slice(start, start + len(scale))
    kernel[rows] /= scale[:, None]
    return [kernel.astype(np.float32), (bias - shift @ kernel[rows]).astype(np.float32)]


def _joins(model: keras.Model, encoder: ColumnsEncoder) -> list[_Join]:
    """Return where the encoded columns are joined; nothing where anything but that, or but dense layers, takes them."""
    nodes = calls_of(model)
    takers = lambda tensor: [node for node in nodes if any(each is tensor for each in node.input_tensors)]  # noqa: E731
    called = [node.operation for node in nodes]
    found = []
    for node in takers(encoder.output):
        layers = [each.operation for each in takers(node.outputs[0])]
        parts = node.input_tensors
        mine = [place for place, each in enumerate(parts) if each is encoder.output]
        fits = isinstance(node.operation, keras.layers.Concatenate) and len(node.outputs[0].shape) == 2
        dense = all(type(each) is keras.layers.Dense and called.count(each) == 1 for each in layers)
        if not fits or not dense or len(mine) != 1 or any(node.outputs[0] is each for each in model.outputs):
            return []
        start = sum(each.shape[-1] for each in parts[: mine[0]])
        found.append(_Join(start, [each for each in parts if each is not encoder.output], layers))
    return found


def _measured(model: keras.Model, tensors: list[keras.KerasTensor], inputs: Inputs) -> tuple[float, float]:
    """Return the least and the largest value of some tensors, 0 among them, as whole numbers always have it."""
    probe, low, high = keras.Model(model.inputs, tensors), 0.0, 0.0
    for start in range(0, len(inputs), BATCH):
        batch = list(inputs[start : start + BATCH].named().values())
        for value in keras.tree.flatten(probe(batch, training=False)):
            found = keras.ops.convert_to_numpy(value)
            low, high = min(low, float(found.min())), max(high, float(found.max()))
    return low, high
