"""How well the Keras model answers, by each task's own measures. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters import measures, overlaps
from exporters.contract import (
    BINARY,
    BOXES,
    EMBEDDING,
    MULTICLASS,
    MULTILABEL,
    ORDINAL,
    REGRESSION,
    SEGMENTATION,
    UNKNOWN_PIXEL,
)
from pipeline.targets import Target


def score(target: Target, truth: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """Return measure -> figure, the one that says most first.

    Args:
        target: what was learned.
        truth, answers: (N, ...) as `exporters.contract.TASKS` describes them, N > 0.

    Returns:
        Shares 0..1 (`accuracy`, `f1`, `auc`, `recall_at_1`, `mean_iou`), errors in the targets' own units, and for labels
        `confusion`; a regression of several columns has a figure for each, by the column's name, and label maps by the label.
    """
    if target.task == SEGMENTATION:
        return _label_maps(target.labels, truth, answers)
    answers = answers.astype(np.float64)
    if target.task == BOXES:
        shares = overlaps.box_iou(truth.astype(np.float64), answers)
        return {"mean_iou": float(shares.mean()), "iou_over_half": float((shares > 0.5).mean())}
    if target.task == REGRESSION:
        return _regression(target.columns, truth.astype(np.float64), answers)
    if target.task == MULTILABEL:
        return _multilabel(truth, answers)
    if target.task == EMBEDDING:
        nearest = measures.similarities(answers).argmax(-1)
        return {"recall_at_1": float((truth[nearest] == truth).mean())}
    named = ranks(target.task, answers)
    figures: dict[str, Any] = {"accuracy": float((named == truth).mean())}
    if target.task == BINARY:
        figures["auc"] = auc(truth, answers[:, 0])
    if target.task == ORDINAL:
        figures["mean_rank_error"] = float(np.abs(named - truth).mean())
    count = len(target.labels)
    table = np.zeros((count, count), int)
    np.add.at(table, (truth, named), 1)
    return {**figures, "confusion": table.tolist()}


def ranks(task: str, answers: np.ndarray) -> np.ndarray:
    """Return the index of the label that each answer names, int (N,): of multiclass, binary and ordinal answers (N, ...)."""
    if task == MULTICLASS:
        return answers.argmax(-1)
    return (answers > 0.5).sum(-1)


def auc(truth: np.ndarray, answers: np.ndarray) -> float | None:
    """Return the area under the ROC curve, 0..1; None where only one of the two classes is there.

    It is the share of pairs of a right and a wrong picture that the answers order rightly (Hanley and McNeil 1982,
    doi:10.1148/radiology.143.1.7063747), ties counting half.

    Args:
        truth: 0 or 1, (N,).
        answers: float (N,).
    """
    right = int(truth.sum())
    wrong = len(truth) - right
    if not right or not wrong:
        return None
    _, inverse, counts = np.unique(answers, return_inverse=True, return_counts=True)
    mean_ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((mean_ranks[truth == 1].sum() - right * (right + 1) / 2) / (right * wrong))


def _multilabel(truth: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    said = answers > 0.5
    both, either = (said & (truth == 1)).sum(0), said.sum(0) + truth.sum(0)
    # A label that nobody has and nobody names is neither right nor wrong.
    f1 = 2 * both[either > 0] / either[either > 0]
    return {
        "accuracy": float((said == (truth == 1)).mean()),
        "all_labels_right": float((said == (truth == 1)).all(-1).mean()),
        "f1": float(f1.mean()) if len(f1) else None,
    }


def _label_maps(labels: tuple[str, ...], truth: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """Return the figures of label maps: of the pixels of all pictures together, those left out whose class nobody knows."""
    counts = np.zeros((len(labels),) * 2, np.int64)
    for true, answer in zip(truth, answers, strict=True):
        known = true != UNKNOWN_PIXEL
        counts += overlaps.pair_counts(true[known], answer.argmax(-1)[known], len(labels))
    if not counts.any():
        return {"mean_iou": None}
    shares = zip(labels, overlaps.class_iou(counts).tolist(), strict=True)
    return {
        "mean_iou": overlaps.mean_iou(counts),
        "pixel_accuracy": float(np.trace(counts) / counts.sum()),
        "iou_of_classes": {label: None if np.isnan(share) else share for label, share in shares},
    }


def _regression(columns: tuple[str, ...], truth: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    errors = answers - truth
    spread = np.square(truth - truth.mean(0)).sum(0)
    explained = 1 - np.square(errors).sum(0) / np.where(spread > 0, spread, np.nan)
    figures = {
        "mean_absolute_error": np.abs(errors).mean(0),
        "root_mean_squared_error": np.sqrt(np.square(errors).mean(0)),
        "r2": explained,
    }

    def shown(values: np.ndarray) -> Any:
        plain = [float(value) if np.isfinite(value) else None for value in values]
        return plain[0] if len(columns) == 1 else dict(zip(columns, plain, strict=True))

    return {name: shown(values) for name, values in figures.items()}


def told(figures: dict[str, Any]) -> str:
    """Return the first figure in words, such as `accuracy 0.932`."""
    name, value = next(iter(figures.items()))
    words = name.replace("_", " ")
    if isinstance(value, dict):
        return f"{words} " + ", ".join(f"{column} {each:.3g}" for column, each in value.items())
    return f"{words} {value:.3f}" if 0 <= value <= 1 else f"{words} {value:.4g}"
