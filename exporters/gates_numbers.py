"""Judges numbers: regressions, each column by its own spread, and bounding boxes, by what they have in common."""

from __future__ import annotations

import numpy as np

from exporters.answers import columns_of
from exporters.contract import Limits, Output
from exporters.gates import (
    LARGEST_SHARE_OF_NEAR_TIES,
    MOST_TOLD,
    ending_by_truth,
    judge_difference,
    judge_fall,
    judge_share,
)
from exporters.overlaps import box_iou, has_area
from exporters.statuses import DEGENERATE, FINE, NOT_VERIFIED, Ending

# A column hardly varies whose values lie nearer together than this share of the largest of them: float32 tells them apart badly,
# and a constant would come as near.
LEAST_SPREAD = 1e-3


def judge_regression(
    expected: np.ndarray,
    answer: np.ndarray,
    output: Output,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
) -> tuple[list[str], Ending]:
    """Judge the error of each column (N, columns) in shares of its own spread, see `spread`: that of the true values where
    they are known, else of the Keras model's. Which error, `Limits.relative_error` says.

    Against `truth` (N, columns), where there is one, the mean absolute error and R2 of Keras and of the artifact are told.

    Returns:
        What is wrong, and how the comparison ends where nothing is.
    """
    names, flat, found = columns_of(output), [each.reshape(len(each), -1) for each in (expected, answer)], []
    for index, name in enumerate(names):
        true = None if truth is None else truth.reshape(len(truth), -1)[:, index].astype(np.float64)
        found.append({"name": name, **_column(flat[0][:, index], flat[1][:, index], true, limits)})
    worst = max(found, key=lambda column: column["relative_error"])
    _note(figures, worst["relative_error"], max(column["worst_relative_error"] for column in found), limits)
    if len(found) > 1:
        figures["columns"] = found
    else:
        known = ("mean_absolute_error", "mean_absolute_error_of_keras", "r2", "r2_of_keras")
        figures |= {key: found[0][key] for key in known if key in found[0]}
    told = [
        f"{words}{_of(column, found)} is {column[key]:.2%} of the "
        f"{'spread' if column['spread'] else 'largest value'}, over {limit:.2%}"
        for key, words, limit in _limited(limits)
        for column in sorted(found, key=lambda column: -column[key])[:MOST_TOLD]
        if column[key] > limit
    ]
    still = [column["name"] for column in found if not column["spread"]]
    if not still:
        return told, FINE
    which = f" in the column{'s' if len(still) > 1 else ''} {', '.join(still)}" if len(found) > 1 else ""
    return told, (DEGENERATE, f"the Keras model's answers hardly vary{which}: a constant would agree")


def _limited(limits: Limits) -> list[tuple[str, str, float]]:
    """Return the figures that are limited, what they are called, and their limits."""
    if limits.worst_relative_error is None:
        return [("relative_error", "the largest error", limits.relative_error)]
    return [
        ("relative_error", "the error (root of the mean of squares)", limits.relative_error),
        ("worst_relative_error", "the largest error", limits.worst_relative_error),
    ]


def _note(figures: dict[str, object], relative: float, largest: float, limits: Limits) -> None:
    figures |= {"relative_error": relative, "worst_relative_error": largest}
    figures["smallest_passing_limits"] |= {"relative_error": relative}
    if limits.worst_relative_error is not None:
        figures["smallest_passing_limits"] |= {"worst_relative_error": largest}


def _errors(gaps: np.ndarray, limits: Limits) -> tuple[float, float]:
    """Return the error that `relative_error` limits, and the largest one, of absolute differences (N, ...)."""
    largest = float(gaps.max())
    return (largest if limits.worst_relative_error is None else float(np.sqrt(np.square(gaps).mean()))), largest


def _of(column: dict[str, object], found: list[dict[str, object]]) -> str:
    return f" of '{column['name']}'" if len(found) > 1 else ""


def _column(expected: np.ndarray, answer: np.ndarray, truth: np.ndarray | None, limits: Limits) -> dict[str, object]:
    """Return the figures of one column (N,); `spread` is 0 where it hardly varies, and its error a share of its largest value."""
    apart = spread(expected)
    # Keras may answer less far apart than the truth is, and then a small error looks large.
    size = max(apart, spread(truth) if truth is not None else 0.0) if apart else unit(expected)
    error, gap = _errors(np.abs(expected - answer), limits)
    figures: dict[str, object] = {"relative_error": error / size, "worst_relative_error": gap / size}
    figures |= {"max_abs": gap, "spread": size if apart else 0.0}
    if truth is not None:
        for key, values in (("", answer), ("_of_keras", expected)):
            figures[f"mean_absolute_error{key}"] = float(np.abs(values - truth).mean())
            around = float(np.square(truth - truth.mean()).sum())
            if around:
                figures[f"r2{key}"] = float(1 - np.square(values - truth).sum() / around)
    return figures


def spread(values: np.ndarray) -> float:
    """Return how far the values (N,) of one column of a regression lie apart: from the 2.5th to the 97.5th percentile.

    0 for a column that hardly varies: by less than a thousandth of its largest value.
    """
    apart = float(np.quantile(values, 0.975) - np.quantile(values, 0.025))
    return apart if apart > LEAST_SPREAD * float(np.abs(values).max()) else 0.0


def unit(values: np.ndarray) -> float:
    """Return what an error in one column (N,) is taken as a share of: its spread, else its largest value, else 1."""
    return spread(values) or float(np.abs(values).max()) or 1.0


def units(expected: np.ndarray) -> np.ndarray:
    """Return the `unit` of every column of a regression's answers (N, ...), of the shape of one answer."""
    flat = expected.reshape(len(expected), -1).astype(np.float64)
    return np.array([unit(column) for column in flat.T]).reshape(expected.shape[1:])


def nothing_varies(expected: np.ndarray) -> bool:
    """Return whether no column of (N, columns) varies enough to tell an artifact from a constant."""
    return not any(spread(column) for column in expected.reshape(len(expected), -1).T)


def judge_boxes(
    expected: np.ndarray,
    answer: np.ndarray,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
    sampled: bool,
) -> tuple[list[str], Ending]:
    """Judge boxes (N, 4), x_min, y_min, x_max, y_max in shares of the picture.

    `iou` is the mean over the images of what Keras's box and the artifact's have in common; `relative_error` the difference of
    a coordinate, in shares of the picture (`Limits.relative_error` says which); against `truth` (N, 4) the mean IoU must not
    fall.

    Returns:
        What is wrong, and how the comparison ends where nothing is.
    """
    _note(figures, *_errors(np.abs(expected - answer), limits), limits)
    faults = judge_difference(figures, limits)
    faults += [
        f"{words} of a side of a box is {figures[key]:.2%} of the picture, over {limit:.2%}"
        for key, words, limit in _limited(limits)
        if figures[key] > limit
    ]
    valid = has_area(expected)
    without = int((~valid).sum())
    ending: Ending = FINE
    if without:
        figures["boxes_without_area"] = without
    if without > LARGEST_SHARE_OF_NEAR_TIES * len(expected):
        ending = (DEGENERATE, f"{without} of {len(expected)} boxes of the Keras model itself have no area")
    if valid.any():
        shares = box_iou(expected[valid], answer[valid])
        figures["least_iou"] = float(shares.min())
        least = 0.0 if limits.iou is None else limits.iou
        found = judge_share(shares, float(shares.mean()), least, figures, "iou", sampled)
        faults += [f"the mean IoU with the Keras model's boxes, {found}"] if found else []
    if limits.iou is None:
        ending = (NOT_VERIFIED, "these limits hold no IoU by which boxes are judged")
    too_few = ""
    if truth is not None:
        of_keras, of_artifact = (box_iou(truth.astype(np.float64), each) for each in (expected, answer))
        figures["truth_iou_of_keras"] = float(of_keras.mean())
        fault, too_few = judge_fall(of_keras, of_artifact, limits, figures, "truth_iou", "mean IoU with the true boxes")
        faults += fault
    return faults, ending_by_truth(truth, limits, ending, too_few)
