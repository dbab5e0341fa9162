"""Losses and metrics of boxes and of label maps. Keras only, with any backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from exporters.contract import UNKNOWN_PIXEL

# Errors of a side from here on count linearly, in shares of the picture.
BOX_BETA = 0.1
# Of a box, in shares of the picture: about a pixel of a small input.
LEAST_SIDE = 0.01
_TINY = 1e-7


@keras.saving.register_keras_serializable(package="cutpoint")
class SmoothL1(keras.losses.Loss):
    """Smooth L1 of boxes: Girshick 2015 (arXiv:1504.08083), equation 3, with the bend at BOX_BETA of the picture.

    Takes boxes float (N, 4) in shares of the picture, true and answered.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each box, float (N,)."""
        error = ops.abs(ops.cast(y_pred, "float32") - ops.cast(y_true, "float32"))
        bent = ops.where(error < BOX_BETA, 0.5 * ops.square(error) / BOX_BETA, error - 0.5 * BOX_BETA)
        return ops.mean(bent, axis=-1)


@keras.saving.register_keras_serializable(package="cutpoint")
class GeneralisedIoU(keras.losses.Loss):
    """One less the generalised IoU: Rezatofighi et al. 2019 (arXiv:1902.09630), algorithm 2.

    Takes boxes float (N, 4), x_min, y_min, x_max, y_max, true and answered. A box that ends before it begins has no area,
    and the IoU shows no way back from there: what its sides lack of LEAST_SIDE is added.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each box, float (N,): 0 to 2, and more for boxes that end before they begin."""
        true, found = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        common, union = _common_and_union(true, found)
        low, high = ops.minimum(true[:, :2], found[:, :2]), ops.maximum(true[:, 2:], found[:, 2:])
        hull = ops.prod(ops.maximum(high - low, 0.0), axis=-1)
        generalised = common / (union + _TINY) - (hull - union) / (hull + _TINY)
        lacking = ops.relu(LEAST_SIDE - (found[:, 2:] - found[:, :2]))
        return 1.0 - generalised + ops.sum(lacking, axis=-1)


def iou_metric() -> keras.metrics.Metric:
    """Return a metric of boxes: the mean of their IoU with the true ones, 0..1."""

    def iou(y_true: Any, y_pred: Any) -> Any:
        common, union = _common_and_union(ops.cast(y_true, "float32"), ops.cast(y_pred, "float32"))
        return common / (union + _TINY)

    return keras.metrics.MeanMetricWrapper(iou, name="iou")


def _common_and_union(one: Any, other: Any) -> tuple[Any, Any]:
    sides = ops.minimum(one[:, 2:], other[:, 2:]) - ops.maximum(one[:, :2], other[:, :2])
    common = ops.prod(ops.maximum(sides, 0.0), axis=-1)
    areas = [ops.prod(ops.maximum(each[:, 2:] - each[:, :2], 0.0), axis=-1) for each in (one, other)]
    return common, areas[0] + areas[1] - common


@keras.saving.register_keras_serializable(package="cutpoint")
class PixelCrossentropy(keras.losses.Loss):
    """The mean cross-entropy of the pixels whose class is known.

    Takes class indices (N, height, width), UNKNOWN_PIXEL where nobody knows, and probabilities (N, height, width, classes).
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "pixel_crossentropy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.label_smoothing = label_smoothing

    def get_config(self) -> dict[str, Any]:
        """Return what the loss was made with."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, float (N,); 0 for one of which nothing is known."""
        known, true, found = _known(y_true, y_pred)
        smooth = true * (1.0 - self.label_smoothing) + self.label_smoothing / found.shape[-1]
        entropy = -ops.sum(smooth * ops.log(ops.clip(found, _TINY, 1.0)), axis=-1)
        return ops.sum(entropy * known, axis=(1, 2)) / ops.maximum(ops.sum(known, axis=(1, 2)), 1.0)


@keras.saving.register_keras_serializable(package="cutpoint")
class Dice(keras.losses.Loss):
    """One less the mean over the classes of the soft Dice coefficient: Milletari et al. 2016 (arXiv:1606.04797), equation 1.

    Takes what `PixelCrossentropy` takes; small classes count as much as large ones.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, float (N,), 0..1."""
        known, true, found = _known(y_true, y_pred)
        true, found = true * known[..., None], found * known[..., None]
        both = ops.sum(true * found, axis=(1, 2))
        # The 1 lets a class that is neither there nor answered count as right.
        each = (2.0 * both + 1.0) / (ops.sum(true, axis=(1, 2)) + ops.sum(found, axis=(1, 2)) + 1.0)
        return 1.0 - ops.mean(each, axis=-1)


def pixel_accuracy_metric() -> keras.metrics.Metric:
    """Return a metric of label maps: the mean over the images of the share of known pixels with the right class, 0..1."""

    def pixel_accuracy(y_true: Any, y_pred: Any) -> Any:
        known, true, found = _known(y_true, y_pred)
        right = ops.cast(ops.equal(ops.argmax(found, axis=-1), ops.argmax(true, axis=-1)), "float32")
        return ops.sum(right * known, axis=(1, 2)) / ops.maximum(ops.sum(known, axis=(1, 2)), 1.0)

    return keras.metrics.MeanMetricWrapper(pixel_accuracy, name="pixel_accuracy")


def _known(y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
    """Return 1 where the class is known (N, height, width), the one-hot truth and the answers (N, height, width, classes)."""
    found, labels = ops.cast(y_pred, "float32"), ops.cast(y_true, "int32")
    known = ops.not_equal(labels, UNKNOWN_PIXEL)
    true = ops.one_hot(ops.where(known, labels, 0), found.shape[-1], dtype="float32")
    return ops.cast(known, "float32"), true, found
