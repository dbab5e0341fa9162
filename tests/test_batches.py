"""Epochs by single batches end where Keras's own `fit` does: weights, figures, and what a callback is told."""

from __future__ import annotations

import keras
import msgspec
import numpy as np
import pytest

from pipeline import batches
from pipeline.config import HeadSection, TrainingSection
from pipeline.lessons import Lesson
from pipeline.training import train_heads

SETTINGS = TrainingSection(epochs=4, patience=4, batch_size=32, learning_rate=1e-2)
# 3 batches and a part of one; and as many of validation.
TRAIN, VAL = 110, 70


def features() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, TRAIN + VAL, p=[0.6, 0.3, 0.1])
    values = (np.eye(6)[labels] + generator.normal(0, 0.4, (TRAIN + VAL, 6))).astype(np.float32)
    return values[:TRAIN], values[TRAIN:], labels


def lessons(labels: np.ndarray) -> dict[str, Lesson]:
    section = HeadSection(hidden=(8,), kind="mlp", batch_norm=True, metrics=("f1", "auc"))
    return {"label": Lesson(section, labels[:TRAIN], labels[TRAIN:], 3)}


@pytest.mark.parametrize("weighed", [False, True])
def test_it_is_what_fit_does(weighed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, BatchNorm, weights of classes, metrics that are no means, and a last batch that is smaller."""
    train, val, labels = features()
    found = []
    for suits in (True, False):
        monkeypatch.setattr(batches, "suits", lambda suits=suits: suits)
        settings = msgspec.structs.replace(SETTINGS, class_weights=weighed)
        found.append(train_heads(lessons(labels), settings, (train, val), 0))
    mine, theirs = found
    for one, other in zip(mine.heads["label"].get_weights(), theirs.heads["label"].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert (
        set(mine.histories["label"]) == set(theirs.histories["label"]) >= {"val_f1", "val_auc", "val_loss", "accuracy"}
    )
    for key, values in theirs.histories["label"].items():
        assert mine.histories["label"][key] == pytest.approx(values, rel=1e-5), key


class Told(keras.callbacks.Callback):
    """Notes what it is told, and stops after the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.told.append(("begin", epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.told.append(("end", epoch))
        self.model.stop_training = len(self.told) == 4


def test_a_callback_begins_ends_and_stops() -> None:
    value = keras.Input((2,))
    model = keras.Model(value, {"a": keras.layers.Dense(1)(value)})
    model.compile("sgd", {"a": "mse"})
    x, callback = np.ones((5, 2), np.float32), Told()
    batches.fit(model, lambda: [(x, {"a": x[:, :1]})], {}, range(3, 9), callback)
    assert callback.told == [("begin", 3), ("end", 3), ("begin", 4), ("end", 4)]
