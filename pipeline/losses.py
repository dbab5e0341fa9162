"""Losses, metrics and optimizers by name, and what a loss takes of a truth. Keras only, with any backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from exporters.contract import BINARY, BOXES, EMBEDDING, MULTICLASS, MULTILABEL, ORDINAL, REGRESSION, SEGMENTATION
from exporters.errors import InputError, nearest
from pipeline.config import HeadSection, TrainingSection
from pipeline.heads import task_of
from pipeline.region_losses import Dice, GeneralisedIoU, PixelCrossentropy, SmoothL1, iou_metric, pixel_accuracy_metric

# How sharply like and unlike pictures are told apart; Khosla et al. 2020 found 0.1 to do best.
TEMPERATURE = 0.1
# Targets that a regression learns are in units of their deviation: an error of one and more counts linearly.
HUBER_DELTA = 1.0


@keras.saving.register_keras_serializable(package="cutpoint")
class SupervisedContrastive(keras.losses.Loss):
    """Draws pictures of one label together and apart from others: Khosla et al. 2020 (arXiv:2004.11362), the loss L_out.

    Takes labels int (N,) and vectors float (N, width) of length 1. A picture whose label no other of the batch has counts 0.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each picture, float (N,)."""
        labels = keras.ops.reshape(keras.ops.cast(y_true, "int32"), (-1,))
        vectors = keras.ops.cast(y_pred, "float32")
        count = keras.ops.shape(vectors)[0]
        others = 1.0 - keras.ops.eye(count)
        alike = keras.ops.cast(keras.ops.equal(labels[:, None], labels[None]), "float32") * others
        likeness = keras.ops.matmul(vectors, keras.ops.transpose(vectors)) / TEMPERATURE
        # A picture is no neighbour of its own.
        masked = likeness - 1e9 * (1.0 - others)
        log_shares = likeness - keras.ops.logsumexp(masked, axis=1, keepdims=True)
        positives = keras.ops.sum(alike, axis=1)
        return -keras.ops.sum(alike * log_shares, axis=1) / keras.ops.maximum(positives, 1.0)


def _classes(smoothing: float) -> keras.losses.Loss:
    return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)


def _decisions(smoothing: float) -> keras.losses.Loss:
    return keras.losses.BinaryCrossentropy(label_smoothing=smoothing)


_OF_DECISIONS: dict[str, Callable[[float], keras.losses.Loss]] = {
    "crossentropy": _decisions,
    "focal": lambda smoothing: keras.losses.BinaryFocalCrossentropy(label_smoothing=smoothing),
}
# Task -> name -> loss, given the label smoothing; the first is the usual one.
LOSSES: dict[str, dict[str, Callable[[float], keras.losses.Loss]]] = {
    MULTICLASS: {
        "crossentropy": _classes,
        "focal": lambda smoothing: keras.losses.CategoricalFocalCrossentropy(label_smoothing=smoothing),
    },
    BINARY: _OF_DECISIONS,
    MULTILABEL: _OF_DECISIONS,
    ORDINAL: {"crossentropy": _decisions},
    REGRESSION: {
        "huber": lambda smoothing: keras.losses.Huber(delta=HUBER_DELTA),
        "mean_squared_error": lambda smoothing: keras.losses.MeanSquaredError(),
        "mean_absolute_error": lambda smoothing: keras.losses.MeanAbsoluteError(),
    },
    EMBEDDING: {"supervised_contrastive": lambda smoothing: SupervisedContrastive()},
    BOXES: {"smooth_l1": lambda smoothing: SmoothL1(), "iou": lambda smoothing: GeneralisedIoU()},
    SEGMENTATION: {"crossentropy": PixelCrossentropy, "dice": lambda smoothing: Dice()},
}
_OF_SIGMOIDS: dict[str, Callable[[], keras.metrics.Metric]] = {
    "accuracy": lambda: keras.metrics.BinaryAccuracy(name="accuracy"),
    "auc": lambda: keras.metrics.AUC(name="auc"),
    "precision": lambda: keras.metrics.Precision(name="precision"),
    "recall": lambda: keras.metrics.Recall(name="recall"),
    "f1": lambda: keras.metrics.F1Score(average="macro", threshold=0.5, name="f1"),
}
# Task -> name -> metric; the first is always measured.
METRICS: dict[str, dict[str, Callable[[], keras.metrics.Metric]]] = {
    MULTICLASS: {
        "accuracy": lambda: keras.metrics.CategoricalAccuracy(name="accuracy"),
        "top_5_accuracy": lambda: keras.metrics.TopKCategoricalAccuracy(5, name="top_5_accuracy"),
        "auc": lambda: keras.metrics.AUC(name="auc"),
        "f1": lambda: keras.metrics.F1Score(average="macro", name="f1"),
    },
    BINARY: _OF_SIGMOIDS,
    MULTILABEL: _OF_SIGMOIDS,
    ORDINAL: {"accuracy": lambda: keras.metrics.BinaryAccuracy(name="accuracy")},
    REGRESSION: {
        "mean_absolute_error": lambda: keras.metrics.MeanAbsoluteError(name="mean_absolute_error"),
        "root_mean_squared_error": lambda: keras.metrics.RootMeanSquaredError(name="root_mean_squared_error"),
        "r2": lambda: keras.metrics.R2Score(name="r2"),
    },
    EMBEDDING: {},
    BOXES: {
        "iou": iou_metric,
        "mean_absolute_error": lambda: keras.metrics.MeanAbsoluteError(name="mean_absolute_error"),
    },
    SEGMENTATION: {"pixel_accuracy": pixel_accuracy_metric},
}
OPTIMIZERS: dict[str, Callable[[float], keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "rmsprop": keras.optimizers.RMSprop,
}


def loss_of(section: HeadSection, settings: TrainingSection) -> keras.losses.Loss:
    """Return the loss of a head; raises InputError for a name that its task has not."""
    known = LOSSES[task_of(section)]
    return _named(known, section.loss, "loss", "heads.NAME.loss")(settings.label_smoothing)


def metrics_of(section: HeadSection) -> list[keras.metrics.Metric]:
    """Return new metrics of a head: its task's first and those that are asked for; raises InputError for unknown names."""
    known = METRICS[task_of(section)]
    names = dict.fromkeys([*list(known)[:1], *section.metrics])
    return [_named(known, name, "metric", "heads.NAME.metrics")() for name in names]


def optimizer_of(name: str, rate: float) -> keras.optimizers.Optimizer:
    """Return a new optimizer; raises InputError for an unknown name."""
    return _named(OPTIMIZERS, name, "optimizer", "training.optimizer or heads.NAME.optimizer")(rate)


def _named(known: dict[str, Any], name: str, what: str, key: str) -> Any:
    if not name and known:
        return next(iter(known.values()))
    if name not in known:
        raise InputError(f"There is no {what} '{name}' here.", _one_of(name, known), f"correct {key}")
    return known[name]


def _one_of(name: str, known: Iterable[str]) -> str:
    names = list(known)
    return nearest(name, names) if names else "none: this task has no other"


def learned(task: str, truth: np.ndarray, units: int) -> np.ndarray:
    """Return what a loss takes of a truth.

    Args:
        task: of the head.
        truth: as `exporters.contract.TASKS` describes it.
        units: how many numbers an answer has.

    Returns:
        float32 (N, units): one-hot classes, decisions, whether the rank is above each one; regressions and boxes as they are,
        labels of embeddings as int64 (N,), label maps as uint8 (N, height, width).
    """
    if task == MULTICLASS:
        return np.eye(units, dtype=np.float32)[truth]
    if task == ORDINAL:
        return (truth[:, None] > np.arange(units)).astype(np.float32)
    if task == BINARY:
        return truth[:, None].astype(np.float32)
    return truth if task in (EMBEDDING, SEGMENTATION) else truth.astype(np.float32)
