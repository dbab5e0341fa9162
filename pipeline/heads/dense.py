"""Dense layers one behind the other: those of `mlp`, and those that heads share."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from pipeline.heads.answers import regularizer


def hidden_layers(
    name: str,
    value: keras.KerasTensor,
    widths: Sequence[int],
    *,
    batch_norm: bool,
    dropout: float,
    l2: float,
    seed: int,
) -> keras.KerasTensor:
    """Append dense layers with ReLU, each with BatchNorm between the two if asked for, and with dropout behind it.

    Args:
        name: what the layers' names begin with.
        value: float (N, width).
        widths: of the layers.
        batch_norm, dropout, l2: as configured.
        seed: of initial weights and dropout.

    Returns:
        float (N, last width).
    """
    for index, units in enumerate(widths, 1):
        value = keras.layers.Dense(
            units,
            None if batch_norm else "relu",
            kernel_initializer=keras.initializers.HeUniform(seed=seed + index),
            kernel_regularizer=regularizer(l2),
            name=f"{name}_hidden_{index}",
        )(value)
        if batch_norm:
            value = keras.layers.BatchNormalization(name=f"{name}_batch_norm_{index}")(value)
            value = keras.layers.ReLU(name=f"{name}_relu_{index}")(value)
        value = keras.layers.Dropout(dropout, seed=seed + index, name=f"{name}_dropout_{index}")(value)
    return value
