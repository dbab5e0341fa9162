"""What a head is taught: truth as its loss takes it, and how much each picture weighs. Used in both phases of training."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from exporters.cloning import set_weights
from exporters.contract import BINARY, MULTICLASS, ORDINAL, REGRESSION
from pipeline.config import HeadSection, TrainingSection
from pipeline.geometry import Grid
from pipeline.heads import task_of
from pipeline.losses import learned

# (deviation, mean) of each column of a regression's targets, float32 (columns,).
Range = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What one head is taught: how it is configured, the truth of the pictures, how many numbers its answer has.

    `grid` has the shapes of a head that takes feature maps.
    """

    section: HeadSection
    train: np.ndarray
    val: np.ndarray
    units: int
    grid: Grid | None = None

    @property
    def task(self) -> str:
        """The head's task."""
        return task_of(self.section)


def target_range(lesson: Lesson) -> Range | None:
    """Return (deviation, mean) of each column of a regression's training targets, float32 (columns,); None for others."""
    if lesson.task != REGRESSION:
        return None
    deviation, mean = lesson.train.std(0, dtype=np.float64), lesson.train.mean(0, dtype=np.float64)
    return np.where(deviation > 0, deviation, 1.0).astype(np.float32), mean.astype(np.float32)


def truth_for_loss(lesson: Lesson, truth: np.ndarray) -> np.ndarray:
    """Return truth as the head's loss takes it: see `pipeline.losses.learned`; of a regression in units of its spread."""
    values, range_ = learned(lesson.task, truth, lesson.units), target_range(lesson)
    return values if range_ is None else (values - range_[1]) / range_[0]


def answer_in_own_units(last: keras.layers.Layer, range_: Range) -> None:
    """Make a dense, linear layer, or a normalisation's inverse, answer in the units of the targets, in place."""
    if isinstance(last, keras.layers.Normalization):
        set_weights(last, [range_[1], np.square(range_[0]), np.zeros(())])
        return
    kernel, bias = (np.asarray(values, np.float64) for values in last.get_weights())
    last.set_weights([(kernel * range_[0]).astype(np.float32), (bias * range_[0] + range_[1]).astype(np.float32)])


def answer_in_spread(last: keras.layers.Layer, range_: Range) -> None:
    """Undo `answer_in_own_units`, in place."""
    if isinstance(last, keras.layers.Normalization):
        set_weights(last, [np.zeros_like(range_[1]), np.ones_like(range_[0]), np.zeros(())])
        return
    kernel, bias = (np.asarray(values, np.float64) for values in last.get_weights())
    last.set_weights([(kernel / range_[0]).astype(np.float32), ((bias - range_[1]) / range_[0]).astype(np.float32)])


def picture_weights(lesson: Lesson, settings: TrainingSection) -> np.ndarray:
    """Return how much each training picture weighs in the loss, float32 (N,)."""
    if not settings.class_weights or lesson.task not in (MULTICLASS, BINARY, ORDINAL):
        return np.ones(len(lesson.train), np.float32)
    classes = lesson.units if lesson.task == MULTICLASS else lesson.units + 1
    weights = class_weights(lesson.train, classes)
    return np.array([weights[index] for index in range(classes)], np.float32)[lesson.train]


def class_weights(labels: np.ndarray, classes: int) -> dict[int, float]:
    """Return class index -> weight such that every class weighs the same in the loss, 1.0 on average over pictures."""
    counts = np.bincount(labels, minlength=classes)
    return {index: float(len(labels) / (classes * count)) if count else 1.0 for index, count in enumerate(counts)}


def curves_of(history: dict[str, list[float]], name: str, heads: int) -> dict[str, list[float]]:
    """Return the curves of one head of several, under the names that they would have if it were alone."""
    curves = {}
    for key, values in history.items():
        plain = key.removeprefix("val_")
        if heads == 1 or plain.startswith(f"{name}_"):
            curves[("val_" if key.startswith("val_") else "") + plain.removeprefix(f"{name}_")] = list(values)
    return curves
