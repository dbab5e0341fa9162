"""What one answer says to people: labels and probabilities, numbers by their names, boxes and areas of the picture.

`web_demo/explain.js` says the same in JavaScript; the two are tested equal.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from exporters.contract import (
    BINARY,
    BOXES,
    EMBEDDING,
    MULTILABEL,
    ORDINAL,
    SEGMENTATION,
    Output,
    Resize,
)
from exporters.pixels import window

# A probability over it is a yes.
DECIDES = 0.5
SIDES = ("x_min", "y_min", "x_max", "y_max")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model saw of a picture: its `width` and `height` in px, as it was before it was resized as `resize` says."""

    width: int
    height: int
    resize: Resize


def explain(answer: np.ndarray, output: Output, seen: Seen, top: int) -> dict[str, Any]:
    """Say what one output's answer to one picture means.

    Args:
        answer: float32 of `output.shape`.
        output: task, labels, columns and unit.
        seen: the picture.
        top: how many labels to give.

    Returns:
        By the task:
        multiclass, binary: `{"top": [{"label", "probability"}]}`, likeliest first, equal ones in index order;
        multilabel: `{"labels": [...], "top": [...]}`, `labels` being those over 0.5;
        ordinal: `{"label", "rank", "top": [...]}`, see `class_probabilities`; the rank counts from 0;
        regression: `{"values": {column: number}, "unit"}`;
        embedding: `{"vector": [number]}`;
        boxes: `{"box": {"x_min", ...}, "box_px": {...}}` in shares 0..1 and in px of the picture before it was resized;
        segmentation: `{"areas": [{"label", "share"}]}`, largest first, in shares of what the model saw of the picture.
        Without labels, where a task needs them, the indices stand for them.
    """
    numbers = np.asarray(answer, np.float64)
    if output.task == BOXES:
        return _box(numbers.ravel(), seen)
    if output.task == SEGMENTATION:
        return {"areas": _areas(classes_of(answer), numbers.shape[-1], output, seen)}
    if output.task == EMBEDDING:
        return {"vector": numbers.ravel().tolist()}
    if output.task == BINARY:
        return {"top": _top(np.array([1 - numbers.ravel()[0], numbers.ravel()[0]]), output, top)}
    if output.task == MULTILABEL:
        found = _top(numbers, output, len(numbers))
        return {"labels": [each for each in found if each["probability"] > DECIDES], "top": found[:top]}
    if output.task == ORDINAL:
        rank = int((numbers > DECIDES).sum())
        return {"label": _label(output, rank), "rank": rank, "top": _top(class_probabilities(numbers), output, top)}
    if output.labels:
        return {"top": _top(numbers, output, top)}
    return {
        "values": dict(zip(_columns(output, numbers.size), numbers.ravel().tolist(), strict=True)),
        "unit": output.unit,
    }


def class_probabilities(above: np.ndarray) -> np.ndarray:
    """Return the probability of each rank from the probabilities that it is above the first, the second ... one.

    Args:
        above: float (ranks - 1,) in 0..1, which a trained head gives in falling order; where it does not, no rank is less
            likely than impossible.

    Returns:
        float64 (ranks,), which add up to 1.
    """
    differences = np.maximum(-np.diff(np.concatenate([[1.0], above, [0.0]])), 0.0)
    return differences / differences.sum()


def classes_of(answer: np.ndarray) -> np.ndarray:
    """Return the likeliest class of each pixel, uint8 (height, width), of an answer (height, width, classes)."""
    return answer.argmax(-1).astype(np.uint8)


def _box(shares: np.ndarray, seen: Seen) -> dict[str, Any]:
    left, top, right, bottom = window(seen.width, seen.height, seen.resize)
    sizes = (seen.width, seen.height) * 2
    places = (left, top) * 2, (right - left, bottom - top) * 2
    px = [
        min(max(start + share * extent, 0.0), size)
        for share, start, extent, size in zip(shares.tolist(), *places, sizes, strict=True)
    ]
    return {
        "box": {side: value / size for side, value, size in zip(SIDES, px, sizes, strict=True)},
        "box_px": dict(zip(SIDES, px, strict=True)),
    }


def _areas(classes: np.ndarray, count: int, output: Output, seen: Seen) -> list[dict[str, Any]]:
    left, top, right, bottom = window(seen.width, seen.height, seen.resize)
    height, width = classes.shape
    # Where the middles of rows and columns are in the picture; what is filled up with black is no part of it.
    rows = top + (np.arange(height) + 0.5) / height * (bottom - top)
    columns = left + (np.arange(width) + 0.5) / width * (right - left)
    inside = ((rows >= 0) & (rows < seen.height))[:, None] & ((columns >= 0) & (columns < seen.width))[None, :]
    counted = np.bincount(classes[inside], minlength=count)
    total = max(1, int(counted.sum()))
    order = np.argsort(-counted, kind="stable")
    return [
        {"label": _label(output, int(each)), "share": int(counted[each]) / total} for each in order if counted[each]
    ]


def _top(probabilities: np.ndarray, output: Output, top: int) -> list[dict[str, Any]]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"label": _label(output, int(each)), "probability": float(probabilities[each])} for each in order]


def _label(output: Output, index: int) -> str:
    return output.labels[index] if index < len(output.labels) else str(index)


def _columns(output: Output, count: int) -> list[str]:
    if len(output.columns) == count:
        return list(output.columns)
    return [output.name] if count == 1 else [str(index) for index in range(count)]
