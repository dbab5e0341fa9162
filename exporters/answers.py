"""What one image's answer says, in figures that a report can put into words. Numpy only; no limit and no status is known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from exporters.contract import BINARY, BOXES, MULTICLASS, MULTILABEL, ORDINAL, REGRESSION, SEGMENTATION, Output

# A probability over it is a yes.
DECIDES = 0.5
Say = Callable[[np.ndarray, int], dict[str, Any]]


def ranks(probabilities: np.ndarray) -> np.ndarray:
    """Return the ranks that cumulative probabilities (N, labels - 1) stand for: how many of them are over 0.5, int (N,)."""
    return (probabilities > DECIDES).sum(-1)


def columns_of(output: Output) -> list[str]:
    """Return a name for every number of an answer: its column, its label, or its place counted from 0.

    A threshold between two ranks is called after the label that it is above.
    """
    count = int(np.prod(output.shape, dtype=int))
    names = [f"above {label}" for label in output.labels[:-1]] if output.task == ORDINAL else list(output.labels)
    names = list(output.columns) or names
    return names if len(names) == count else [str(index) for index in range(count)]


def sayer(output: Output, units: np.ndarray | None = None) -> Say | None:
    """Return what puts a flat answer and the place of its largest difference into a dict; None: as a bare number.

    Args:
        output: whose answer.
        units: what the numbers of a regression's answer have been divided by, of its shape; None: by nothing.

    Returns:
        A function that gives `{"label": index, "probability"}` of a label, with `"yes"` where several may hold;
        `{"label": rank, "value"}` of an ordinal answer, the value being the rank that is expected;
        `{"box": [x_min, y_min, x_max, y_max]}`; `{"value", "column"}` of a number.
    """
    names = columns_of(output) if output.task == REGRESSION else []

    def binary(row: np.ndarray, place: int) -> dict[str, Any]:
        yes = bool(row[0] > DECIDES)
        return {"label": int(yes), "probability": float(row[0] if yes else 1 - row[0])}

    def multilabel(row: np.ndarray, place: int) -> dict[str, Any]:
        return {"label": place, "probability": float(row[place]), "yes": bool(row[place] > DECIDES)}

    def number(row: np.ndarray, place: int) -> dict[str, Any]:
        size = 1.0 if units is None else float(units.reshape(-1)[place])
        return {"value": float(row[place]) * size} | ({"column": names[place]} if len(names) > 1 else {})

    def pixel(row: np.ndarray, place: int) -> dict[str, Any]:
        classes = output.shape[-1]
        first = row[place - place % classes :][:classes]
        return {"label": int(first.argmax()), "probability": float(first.max())}

    return {
        MULTICLASS: lambda row, place: {"label": int(row.argmax()), "probability": float(row.max())},
        BINARY: binary,
        MULTILABEL: multilabel,
        ORDINAL: lambda row, place: {"label": int(ranks(row)), "value": float(row.sum())},
        REGRESSION: number,
        BOXES: lambda row, place: {"box": [float(each) for each in row]},
        SEGMENTATION: pixel,
    }.get(output.task)
