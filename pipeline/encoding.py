"""Tabular columns as layers of Keras: normalised numbers, ranges and categories one-hot, behind one another.

Keras's preprocessing layers, which took the place of TensorFlow's feature columns: https://keras.io/guides/preprocessing_layers
and https://www.tensorflow.org/guide/migrate/migrating_feature_columns. Any Keras backend.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from exporters.columns import BUCKET, NUMBER, Column
from exporters.contract import COLUMNS_ENCODED, COLUMNS_NAME

# A typing error must neither blow up an answer nor take the range of whole numbers for itself.
MOST_DEVIATIONS = 5.0
PREFIX = f"{COLUMNS_NAME}_"


def columns_input(columns: Sequence[Column]) -> keras.KerasTensor:
    """Return the second input of a model with columns: `columns`, float32 (N, len(columns)), see `exporters.columns`."""
    return keras.Input((len(columns),), name=COLUMNS_NAME)


def encoded(columns: Sequence[Column], value: keras.KerasTensor) -> keras.KerasTensor:
    """Append the layers that make features of columns; all of them bear names that begin with `columns_`.

    A number is brought to mean 0 and deviation 1 and clipped at five deviations. A bucket is the range that it lies in, one-hot.
    A category is one-hot; an unknown one is all zeros, as its own place would never be trained.

    Args:
        columns: one at least.
        value: float32 (N, len(columns)), as `exporters.columns.encode_cells` gives them.

    Returns:
        float32 (N, sum of the columns' widths), the answer of the layer `columns_encoded`.
    """
    parts = [_encoded(column, value[:, place : place + 1]) for place, column in enumerate(columns)]
    return keras.layers.Concatenate(name=COLUMNS_ENCODED, dtype="float32")(parts)


def names_of_layers(columns: Sequence[Column]) -> list[str]:
    """Return the names of the input, the layers and the operations that columns become."""
    value = columns_input(columns)
    return [each.name for each in keras.Model(value, encoded(columns, value)).operations]


def _encoded(column: Column, cell: keras.KerasTensor) -> keras.KerasTensor:
    name = f"{PREFIX}{column.name}"
    cell = _named(cell, f"{name}_cell")
    if column.kind == NUMBER:
        layer = keras.layers.Normalization(
            axis=-1,
            mean=[column.mean],
            variance=[float(np.float64(column.standard_deviation) ** 2)],
            name=f"{name}_normalization",
            dtype="float32",
        )
        return _named(keras.ops.clip(layer(cell), -MOST_DEVIATIONS, MOST_DEVIATIONS), f"{name}_clip")
    if column.kind == BUCKET:
        bounds = list(column.boundaries)
        cell = keras.layers.Discretization(bin_boundaries=bounds, output_mode="int", name=f"{name}_bucket")(cell)
        return _one_hot(len(bounds) + 1, name)(cell)
    return _named(_one_hot(len(column.categories) + 1, name)(cell)[:, 1:], f"{name}_known")


def _one_hot(count: int, name: str) -> keras.layers.Layer:
    return keras.layers.CategoryEncoding(
        num_tokens=count, output_mode="one_hot", name=f"{name}_one_hot", dtype="float32"
    )


def _named(value: keras.KerasTensor, name: str) -> keras.KerasTensor:
    # Keras numbers operations that are no layers through a whole process: the same run would not make the same bytes.
    value._keras_history.operation.name = name
    return value


def encode(columns: Sequence[Column], raw: np.ndarray) -> np.ndarray:
    """Return what the layers make of columns (N, C): float32 (N, sum of the columns' widths), as heads are trained on them."""
    value = columns_input(columns)
    model = keras.Model(value, encoded(columns, value))
    return np.asarray(keras.ops.convert_to_numpy(model(np.asarray(raw, np.float32))), np.float32)
