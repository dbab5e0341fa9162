"""The last layers of a head: from its last values to an answer of its task."""

from __future__ import annotations

import math
from typing import Any

import keras

from exporters.contract import BINARY, BOXES, MULTICLASS, MULTILABEL, ORDINAL, REGRESSION, SEGMENTATION

ACTIVATIONS = {
    MULTICLASS: "softmax",
    BINARY: "sigmoid",
    MULTILABEL: "sigmoid",
    ORDINAL: "sigmoid",
    REGRESSION: "linear",
    BOXES: "sigmoid",
    SEGMENTATION: "softmax",
}


def answer(name: str, task: str, units: int, l2: float, seed: int, value: keras.KerasTensor) -> keras.KerasTensor:
    """Append the dense layer that answers a task; it bears the head's name and computes in float32.

    An ordinal answer (Cao, Mirjalili and Raschka 2020, arXiv:1901.07884, CORAL) has the probabilities that the rank is above
    the first, the second ... label: while it is trained, one kernel does for all of them and the biases fall, so that the
    probabilities fall too. It begins with ranks that are equally frequent: from equal biases the way to there is long.

    Args:
        name: of the head.
        task: one of ACTIVATIONS.
        units: how many numbers the answer has.
        l2: of the kernel.
        seed: of the initial weights.
        value: float (N, width).

    Returns:
        float32 (N, units).
    """
    ordinal = task == ORDINAL
    above = [(units - rank) / (units + 1) for rank in range(units)]
    start = keras.initializers.Constant([math.log(share / (1 - share)) for share in above]) if ordinal else "zeros"
    layer = keras.layers.Dense(
        units,
        ACTIVATIONS[task],
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        bias_initializer=start,
        kernel_regularizer=regularizer(l2),
        kernel_constraint=OneKernel() if ordinal else None,
        bias_constraint=Falling() if ordinal else None,
        name=name,
        dtype="float32",
    )
    return layer(value)


def regularizer(l2: float) -> keras.regularizers.Regularizer | None:
    """Return the penalty on squares of weights, or None for 0."""
    return keras.regularizers.L2(l2) if l2 else None


class OneKernel(keras.constraints.Constraint):
    """Keeps the columns of a kernel (inputs, units) equal, to their mean."""

    def __call__(self, w: Any) -> Any:
        return keras.ops.zeros_like(w) + keras.ops.mean(w, axis=-1, keepdims=True)


class Falling(keras.constraints.Constraint):
    """Keeps the numbers of a bias (units,) in falling order."""

    def __call__(self, w: Any) -> Any:
        return -keras.ops.sort(-w)
