"""The head of boxes: what it answers at first, and that it learns where things are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import cutpoint
from figures import write_figures
from pictures import SMALL

from exporters.overlaps import box_iou
from pipeline.config import Config, HeadSection, TrainingSection, TrunkSection
from pipeline.heads import build_head, pooling_of
from pipeline.heads.sharing import notes_on_boxes
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


@pytest.mark.parametrize(
    ("head", "trunk", "words"),
    [
        ({}, {}, ""),
        ({}, {"hidden": (16,), "pooling": "flatten"}, ""),
        ({"trunk": False}, {"hidden": (16,)}, ""),
        ({}, {"hidden": (16,)}, 'trunk.pooling = "average".*heads.place.trunk = false'),
        ({"pooling": "max"}, {}, 'heads.place.pooling = "max".*no heads.place.pooling'),
    ],
)
def test_features_without_places_are_warned_of(head: dict, trunk: dict, words: str) -> None:
    config = Config(
        heads={"label": HeadSection(), "place": HeadSection(kind="boxes", **head)}, trunk=TrunkSection(**trunk)
    )
    notes = notes_on_boxes(config)
    assert len(notes) == bool(words)
    assert all(re.search(words, note) for note in notes)


def test_the_warning_is_said_and_stands_in_the_report(tmp_path: Path) -> None:
    data = write_figures(tmp_path / "data", 24)
    boxes = (
        "--set",
        'heads.place.kind="boxes"',
        "--set",
        'heads.place.pooling="average"',
        "--set",
        "training.epochs=1",
    )
    done = cutpoint("train", "--data", data, "--out", tmp_path / "out", *SMALL, *boxes)
    assert done.exit_code == 0, done.stderr
    assert "will learn badly" in " ".join(done.stderr.split())
    state = json.loads((tmp_path / "out" / ".cutpoint" / "run.json").read_text(encoding="utf-8"))
    assert any("will learn badly" in note for note in state["notes"])
