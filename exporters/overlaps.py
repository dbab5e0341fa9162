"""How much boxes, and the regions of label maps, have in common: intersection over union (IoU). Numpy only."""

from __future__ import annotations

import numpy as np


def has_area(boxes: np.ndarray) -> np.ndarray:
    """Tell which boxes (N, 4), x_min, y_min, x_max, y_max, have an area: bool (N,)."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each box with the other of its row, 0..1.

    Args:
        boxes, others: (N, 4), x_min, y_min, x_max, y_max in any unit.

    Returns:
        float64 (N,). A box without area (x_max <= x_min, or y_max <= y_min) has 0 in common with anything.
    """
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    common = np.maximum(high - low, 0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (boxes, others)]
    union = areas[0] + areas[1] - common
    valid = has_area(boxes) & has_area(others)
    return np.where(valid, common / np.where(valid, union, 1), 0.0)


def pair_counts(one: np.ndarray, other: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by their class in one label map (rows) and in the other (columns).

    Args:
        one, other: int arrays of one shape, class indices.
        classes: how many classes there are.

    Returns:
        int64 (classes, classes).
    """
    pairs = one.astype(np.int64).reshape(-1) * classes + other.astype(np.int64).reshape(-1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every class: float64 (classes,), NaN for a class that neither map has.

    Args:
        counts: as `pair_counts` gives them, of one image or summed over several.
    """
    common = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), np.nan)


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean of `class_iou` over the classes that either map has; NaN where there is none."""
    each = class_iou(counts)
    return float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")
