"""Losses and metrics of boxes and label maps: against what numpy counts, and by what they teach."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from exporters.contract import UNKNOWN_PIXEL
from exporters.overlaps import box_iou
from pipeline.config import HeadSection, TrainingSection
from pipeline.losses import LOSSES, METRICS, loss_of, metrics_of
from pipeline.region_losses import BOX_BETA, Dice, GeneralisedIoU, PixelCrossentropy, SmoothL1

RNG = np.random.default_rng(0)


def some_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.6, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.05, 0.4, (count, 2))], axis=1).astype(np.float32)


def numbers(values: object) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(values), np.float64)


def test_generalised_iou_is_what_the_paper_counts() -> None:
    one, other = some_boxes(200, 1).astype(np.float64), some_boxes(200, 2).astype(np.float64)
    shares = box_iou(one, other)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (one, other)]
    union = sum(areas) / (1 + shares)
    hull = np.prod(np.maximum(one[:, 2:], other[:, 2:]) - np.minimum(one[:, :2], other[:, :2]), axis=1)
    expected = 1 - (shares - (hull - union) / hull)
    assert np.allclose(numbers(GeneralisedIoU().call(one, other)), expected, atol=1e-4)
    assert np.allclose(numbers(GeneralisedIoU().call(one, one)), 0, atol=1e-4)
    assert expected.max() > 1.2


def test_smooth_l1_bends_at_a_tenth() -> None:
    true = np.zeros((3, 4), np.float32)
    found = np.array([[0.05] * 4, [BOX_BETA] * 4, [0.6] * 4], np.float32)
    assert np.allclose(numbers(SmoothL1().call(true, found)), [0.0125, 0.05, 0.55], atol=1e-6)


@pytest.mark.parametrize("loss", list(LOSSES["boxes"]))
def test_a_loss_brings_any_box_to_the_true_one(loss: str) -> None:
    true = some_boxes(32, 3)
    # Far away, and half of them end before they begin.
    found = keras.Variable(np.where(np.arange(32)[:, None] % 2, true[:, [2, 3, 0, 1]], some_boxes(32, 4)))
    row, model = keras.Input((32,)), keras.layers.Dense(4, use_bias=False)
    trained = keras.Model(row, model(row))
    model.set_weights([np.asarray(found.numpy())])
    section = HeadSection(kind="boxes", loss=loss)
    trained.compile(keras.optimizers.Adam(0.03), loss_of(section, TrainingSection()), metrics=metrics_of(section))
    before = box_iou(true.astype(np.float64), np.asarray(model.get_weights()[0], np.float64)).mean()
    # Thirteen times ten steps, each with every box: an epoch of one step takes Keras as long as one of ten.
    shown, wanted = np.tile(np.eye(32, dtype=np.float32), (10, 1)), np.tile(true, (10, 1))
    history = trained.fit(shown, wanted, batch_size=32, epochs=13, shuffle=False, verbose=0).history
    after = box_iou(true.astype(np.float64), np.asarray(model.get_weights()[0], np.float64))
    assert before < 0.2
    # None is left behind where the IoU alone would show no way, and the steps of the optimizer are as large as small boxes.
    assert after.min() > 0.4 and after.mean() > 0.8
    assert history["iou"][-1] == pytest.approx(after.mean(), abs=0.05)


def maps() -> tuple[np.ndarray, np.ndarray]:
    truth = RNG.integers(0, 3, (4, 6, 5)).astype(np.uint8)
    logits = RNG.normal(size=(4, 6, 5, 3))
    found = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return truth, found.astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_pixels_is_that_of_keras(smoothing: float) -> None:
    truth, found = maps()
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)(np.eye(3)[truth], found)
    assert float(PixelCrossentropy(smoothing)(truth, found)) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("loss", [PixelCrossentropy(0.05), Dice()], ids=["crossentropy", "dice"])
def test_what_nobody_knows_changes_nothing(loss: keras.losses.Loss) -> None:
    truth, found = maps()
    truth[:, :2], other = UNKNOWN_PIXEL, found.copy()
    other[:, :2] = [1, 0, 0]
    assert float(loss(truth, found)) == pytest.approx(float(loss(truth, other)), abs=1e-6)
    truth[:, 2, 2] = 1
    first = float(loss(truth, found))
    found[:, 2, 2] = [0, 1, 0]
    assert float(loss(truth, found)) < first
    assert np.isfinite(float(loss(np.full_like(truth, UNKNOWN_PIXEL), found)))


def test_dice_of_right_and_of_wrong_answers() -> None:
    truth = np.zeros((2, 20, 20), np.uint8)
    truth[:, :10] = 1
    right = np.eye(2, dtype=np.float32)[truth]
    assert float(Dice()(truth, right)) == pytest.approx(0, abs=1e-3)
    assert float(Dice()(truth, 1 - right)) == pytest.approx(1, abs=1e-2)


def test_metrics_count_as_numpy_does() -> None:
    truth, found = maps()
    truth[1] = UNKNOWN_PIXEL
    truth[0, :3] = UNKNOWN_PIXEL
    (metric,) = metrics_of(HeadSection(kind="segmentation"))
    metric.update_state(truth, found)
    known = truth != UNKNOWN_PIXEL
    right = (found.argmax(-1) == truth) & known
    expected = [right[index].sum() / max(known[index].sum(), 1) for index in range(4)]
    assert float(metric.result()) == pytest.approx(np.mean(expected), abs=1e-5)
    one, other = some_boxes(50, 5), some_boxes(50, 6)
    (metric,) = metrics_of(HeadSection(kind="boxes"))
    metric.update_state(one, other)
    assert float(metric.result()) == pytest.approx(box_iou(one.astype(float), other.astype(float)).mean(), abs=1e-4)


def test_losses_are_saved_and_loaded() -> None:
    loss = keras.losses.deserialize(keras.losses.serialize(PixelCrossentropy(0.1)))
    assert loss.label_smoothing == 0.1
    assert isinstance(keras.losses.deserialize(keras.losses.serialize(GeneralisedIoU())), GeneralisedIoU)
    assert set(METRICS["segmentation"]) == {"pixel_accuracy"}
