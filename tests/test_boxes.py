"""The head of boxes: what it answers at first, and that it learns where things are."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.overlaps import box_iou
from pipeline.config import HeadSection, TrainingSection
from pipeline.heads import build_head, pooling_of
from pipeline.scores import score
from pipeline.targets import BOX_UNIT, USUAL_COLUMNS, Target
from pipeline.training import TrainingData, train_head


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps of 8 x 8 with one rectangle of ones each, flattened, and its box."""
    rng = np.random.default_rng(seed)
    low, size = rng.integers(0, 5, (count, 2)), rng.integers(2, 5, (count, 2))
    high = np.minimum(low + size, 8)
    grid = np.arange(8)
    inside = (grid >= low[..., None]) & (grid < high[..., None])
    maps = inside[:, 1, :, None] & inside[:, 0, None, :]
    return maps.reshape(count, 64).astype(np.float32), np.concatenate([low, high], axis=1).astype(np.float32) / 8


def test_an_untrained_head_answers_with_the_middle() -> None:
    section = HeadSection(kind="boxes")
    head = build_head("place", section, 64, 4, seed=1)
    answers = np.asarray(head(blobs(5, 0)[0]))
    assert pooling_of(section) == "flatten"
    assert answers.dtype == np.float32 and head.layers[-1].name == "place"
    assert np.allclose(answers, [0.25, 0.25, 0.75, 0.75], atol=0.1)


@pytest.mark.parametrize("loss", ["", "iou"])
def test_it_learns_where_things_are(loss: str) -> None:
    (features, boxes), (others, their_boxes) = blobs(400, 1), blobs(80, 2)
    section = HeadSection(kind="boxes", loss=loss, hidden=(64,), dropout=0.0, metrics=("mean_absolute_error",))
    data = TrainingData(features, boxes, others, their_boxes)
    head, history = train_head("place", section, TrainingSection(epochs=25, batch_size=32), data, 4, seed=0)
    answers = np.asarray(head.predict(others, verbose=0))
    by_chance = box_iou(their_boxes.astype(float), np.broadcast_to(boxes.mean(0).astype(float), (80, 4))).mean()
    target = Target("boxes", USUAL_COLUMNS["boxes"], unit=BOX_UNIT)
    figures = score(target, their_boxes, answers)
    assert list(figures) == ["mean_iou", "iou_over_half"]
    assert figures["mean_iou"] > by_chance + 0.3
    assert figures["iou_over_half"] > 0.9
    assert history["val_iou"][history["best_epoch"] - 1] == pytest.approx(figures["mean_iou"], abs=0.02)
    assert {"iou", "mean_absolute_error"} <= set(history)
