"""What the truth of every task looks like in the golden set. Numpy only.

multiclass, binary, ordinal, embedding   int (N,), class indices; of an embedding any of 0 or more
multilabel                               int (N, labels) of 0 and 1
regression                               float32 (N, columns), in the columns' own units
boxes                                    float32 (N, 4), x_min, y_min, x_max, y_max in shares 0..1 of the model's input
segmentation                             uint8 (N, height, width), class indices, 255 where nobody knows
"""

from __future__ import annotations

import numpy as np

from exporters.contract import (
    BINARY,
    BOXES,
    EMBEDDING,
    MULTILABEL,
    ORDINAL,
    REGRESSION,
    SEGMENTATION,
    UNKNOWN_PIXEL,
    Output,
)

# A box that a crop cut off may reach a little over the edge by rounding.
SLACK_OF_A_BOX = 1e-6


def check_truth(values: np.ndarray, output: Output) -> None:
    """Check that values can be the truth of a head; raises ValueError in words where they cannot.

    Args:
        values: as read from the golden set, the first axis being the images.
        output: the head, as the card has it.
    """
    shape, floats = _shape(output), output.task in (REGRESSION, BOXES)
    if output.task == SEGMENTATION:
        fits = values.dtype == np.uint8
    else:
        fits = values.dtype == np.float32 if floats else np.issubdtype(values.dtype, np.integer)
    if not fits or values.ndim == 0 or values.shape[1:] != shape:
        wanted = "uint8" if output.task == SEGMENTATION else "float32" if floats else "whole numbers"
        size = ", ".join(["N", *map(str, shape)]) + ("," if not shape else "")
        found = f"{values.dtype} {values.shape}"
        raise ValueError(
            f"the labels of '{output.name}' are {found}, and the task '{output.task}' has {wanted} ({size})"
        )
    if values.size == 0:
        return
    if floats:
        _check_numbers(values, output)
        return
    known = values[values != UNKNOWN_PIXEL] if output.task == SEGMENTATION else values
    classes = _classes(output)
    if known.size and (int(known.min()) < 0 or (classes is not None and int(known.max()) >= classes)):
        raise ValueError(f"the labels of '{output.name}' are not indices of its classes")


def _shape(output: Output) -> tuple[int, ...]:
    if output.task == SEGMENTATION:
        return output.shape[:2]
    return output.shape if output.task in (MULTILABEL, REGRESSION, BOXES) else ()


def _classes(output: Output) -> int | None:
    """Return how many values a label may have; None: any of 0 or more."""
    if output.task == EMBEDDING:
        return None
    if output.task in (BINARY, MULTILABEL):
        return 2
    return output.shape[-1] + 1 if output.task == ORDINAL else output.shape[-1] if output.shape else 0


def _check_numbers(values: np.ndarray, output: Output) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"the true numbers of '{output.name}' hold NaN or infinity")
    if output.task == BOXES:
        if values.min() < -SLACK_OF_A_BOX or values.max() > 1 + SLACK_OF_A_BOX:
            raise ValueError(f"the true boxes of '{output.name}' are not in shares 0..1 of the picture")
        if (values[:, 2:] < values[:, :2]).any():
            raise ValueError(f"the true boxes of '{output.name}' end before they begin")
