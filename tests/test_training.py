"""Training a head: the same each time, killed or not, the best weights kept, standardisation folded away without a trace."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest

from exporters.errors import InputError
from pipeline import epochs, training
from pipeline.config import HeadSection, TrainingSection, TrunkSection
from pipeline.epochs import Keeping
from pipeline.heads import build_head
from pipeline.lessons import Lesson, class_weights
from pipeline.training import TrainingData, check_device, fold_standardisation, train_head, train_heads

SETTINGS = TrainingSection(epochs=10, patience=5, batch_size=16, learning_rate=2e-2)
LINEAR = HeadSection(kind="linear", dropout=0.2)
MLP = HeadSection(kind="mlp", hidden=(16,), dropout=0.2)
WIDTH, CLASSES = 12, 3


def clusters(count: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of different scales, far from zero, around a centre for each class."""
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH)) * 2
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    scales = np.logspace(-0.5, 0.5, WIDTH)
    values = (centres[labels] + generator.normal(size=(count, WIDTH)) * spread) * scales + 9
    return values.astype(np.float32), labels.astype(np.int64)


def data(count: int = 120, spread: float = 1.0) -> TrainingData:
    return TrainingData(*clusters(count, 1, spread), *clusters(60, 2, spread))


def train(
    section: HeadSection = LINEAR,
    settings: TrainingSection = SETTINGS,
    seed: int = 0,
    given: TrainingData | None = None,
):
    return train_head("label", section, settings, given or data(), CLASSES, seed)


def accuracy(head: keras.Model, features: np.ndarray, labels: np.ndarray) -> float:
    return float((np.asarray(head(features)).argmax(1) == labels).mean())


@pytest.mark.parametrize("section", [LINEAR, MLP], ids=["linear", "mlp"])
def test_it_learns_from_features_as_they_are(section: HeadSection) -> None:
    head, history = train(section)
    assert accuracy(head, *clusters(300, 3)) > 0.9
    assert history["parameters"] == head.count_params()
    assert history["epochs"] == list(range(1, len(history["loss"]) + 1))
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "best_epoch"} <= set(history)


@pytest.mark.parametrize("section", [MLP], ids=["mlp"])
def test_the_same_seed_makes_the_same_head(section: HeadSection) -> None:
    settings = TrainingSection(epochs=2, batch_size=16)
    first, history = train(section, settings, seed=5)
    again, same_history = train(section, settings, seed=5)
    other, _ = train(section, settings, seed=6)
    assert history == same_history
    assert all(
        np.array_equal(mine, theirs) for mine, theirs in zip(first.get_weights(), again.get_weights(), strict=True)
    )
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_early_stopping_keeps_the_best_weights() -> None:
    # Few pictures, many steps, no dropout: the head learns them by heart, and the validation loss rises again.
    given = TrainingData(*clusters(24, 1, spread=3.0), *clusters(300, 2, spread=3.0))
    settings = TrainingSection(epochs=60, patience=3, batch_size=4, learning_rate=5e-2, label_smoothing=0.0)
    section = HeadSection(kind="mlp", hidden=(32,), dropout=0.0)
    head, history = train(section, settings, given=given)
    losses = history["val_loss"]
    best = int(np.argmin(losses))
    assert history["best_epoch"] == best + 1
    assert len(losses) == best + 1 + settings.patience < 60
    assert losses[-1] > losses[best]
    answers = np.asarray(head(given.val_features), np.float64)
    loss = -np.log(answers[np.arange(300), given.val_labels]).mean()
    assert loss == pytest.approx(losses[best], rel=1e-3)


def test_the_best_weights_are_kept_also_where_nothing_stopped() -> None:
    given = TrainingData(*clusters(24, 1, spread=3.0), *clusters(300, 2, spread=3.0))
    section = HeadSection(kind="mlp", hidden=(32,), dropout=0.0)
    settings = TrainingSection(epochs=8, patience=50, batch_size=4, learning_rate=5e-2, label_smoothing=0.0)
    head, history = train(section, settings, given=given)
    best = int(np.argmin(history["val_loss"]))
    assert len(history["loss"]) == 8
    assert best < 7
    assert history["best_epoch"] == best + 1
    answers = np.asarray(head(given.val_features), np.float64)
    loss = -np.log(answers[np.arange(300), given.val_labels]).mean()
    assert loss == pytest.approx(history["val_loss"][best], rel=1e-3)


def test_without_validation_pictures_the_loss_itself_is_watched() -> None:
    empty = np.empty((0, WIDTH), np.float32), np.empty((0,), np.int64)
    head, history = train(given=TrainingData(*clusters(100, 1), *empty))
    assert "val_loss" not in history
    assert history["best_epoch"] == int(np.argmin(history["loss"])) + 1
    assert accuracy(head, *clusters(300, 3)) > 0.9


@pytest.mark.parametrize("section", [LINEAR, MLP], ids=["linear", "mlp"])
def test_folding_is_exact(section: HeadSection) -> None:
    head = build_head("label", section, WIDTH, CLASSES, seed=1)
    features, _ = clusters(200, 4)
    mean, deviation = features.mean(0), features.std(0)
    before = np.asarray(head(((features - mean) / deviation).astype(np.float32)))
    fold_standardisation(head, mean, deviation)
    assert np.abs(np.asarray(head(features)) - before).max() < 2e-5


def test_features_that_never_vary_do_no_harm() -> None:
    given = data()
    dead = np.array([0, 3])
    for features in (given.train_features, given.val_features):
        features[:, dead] = 1e-9
    head, _ = train(given=given)
    moved = given.val_features.copy()
    moved[:, dead] += 1e-7
    assert np.isfinite(head.get_weights()[0]).all()
    assert np.abs(np.asarray(head(moved)) - np.asarray(head(given.val_features))).max() < 1e-3
    assert accuracy(head, given.val_features, given.val_labels) > 0.85


def test_class_weights_even_out_the_classes() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    weights = class_weights(labels, 4)
    assert [weights[label] * (labels == label).sum() for label in range(3)] == pytest.approx([100 / 4] * 3)
    assert weights[3] == 1.0
    assert class_weights(np.array([0, 1, 0, 1]), 2) == {0: 1.0, 1: 1.0}


def test_class_weights_help_the_rare_class() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(600) < 0.03).astype(np.int64)
    features = (generator.normal(size=(600, 2)) + labels[:, None] * 1.2).astype(np.float32)
    given = TrainingData(features[:400], labels[:400], features[400:], labels[400:])

    def found(settings: TrainingSection) -> float:
        head, _ = train_head("label", LINEAR, settings, given, 2, seed=0)
        answers = np.asarray(head(features)).argmax(1)
        return float(answers[labels == 1].mean())

    assert found(SETTINGS) > found(msgspec.structs.replace(SETTINGS, class_weights=False)) + 0.2


def test_mixed_precision_ships_float32() -> None:
    settings = TrainingSection(epochs=5, batch_size=16, learning_rate=1e-2, mixed_precision=True)
    head, _ = train(MLP, settings)
    assert keras.mixed_precision.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in head.layers} == {"float32"}
    assert {weight.dtype for weight in head.weights} == {"float32"}
    assert np.asarray(head(data().val_features)).dtype == np.float32
    assert accuracy(head, *clusters(300, 3)) > 0.85


def test_mixed_precision_is_let_go_of_where_building_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(training, "build_head", burst)
    with pytest.raises(ValueError, match="no"):
        train(settings=TrainingSection(mixed_precision=True))
    assert keras.mixed_precision.dtype_policy().name == "float32"


def test_progress_is_told_of_each_epoch() -> None:
    seen: list[tuple[int, int]] = []
    settings = TrainingSection(epochs=3)
    train_head(
        "label", LINEAR, settings, data(), CLASSES, 0, lambda epoch, epochs, figures: seen.append((epoch, epochs))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


class Killed(BaseException):
    """Ends a training between two epochs, as a kill does."""


def train_kept(checkpoint: Path, until: int = 100, said: list[str] | None = None, **changed: object):
    """Train two heads on a trunk, with dropout and BatchNorm, with a checkpoint in every epoch; killed after one of them."""
    settings = TrainingSection(**{"epochs": 12, "patience": 3, "batch_size": 16, "learning_rate": 0.1, **changed})
    given = data(60, spread=3.0)
    lessons = {
        name: Lesson(HeadSection(dropout=0.3), given.train_labels, given.val_labels, CLASSES) for name in ("one", "two")
    }
    trunk = TrunkSection(hidden=(16,), batch_norm=True, dropout=0.4)

    def progress(epoch: int, of: int, figures: dict[str, float]) -> None:
        # The checkpoint of an epoch is written after it was told of.
        if epoch == until + 1:
            raise Killed

    keeping = Keeping(progress, checkpoint, say=(said if said is not None else []).append)
    return train_heads(lessons, settings, (given.train_features, given.val_features), 3, trunk, keeping)


def weights_of(trained: training.Trained) -> list[np.ndarray]:
    return [values for model in (trained.trunk, *trained.heads.values()) for values in model.get_weights()]


@pytest.fixture
def each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints in every epoch."""
    monkeypatch.setattr(epochs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(epochs, "WRITING_SHARE", 1e9)


@pytest.mark.usefixtures("each_epoch")
def test_a_killed_training_goes_on_and_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    unbroken = train_kept(tmp_path / "unbroken.npz")
    best, count = unbroken.histories["one"]["best_epoch"], len(unbroken.histories["one"]["loss"])
    # Early stopping came after the kill, and counts epochs before it.
    assert 4 < count < 12
    for killed in (1, best, count - 1):
        path, said = tmp_path / f"{killed}.npz", []
        with pytest.raises(Killed):
            train_kept(path, until=killed)
        resumed = train_kept(path, said=said)
        assert said == [f"going on after epoch {killed}, where an earlier run was stopped"]
        assert resumed.histories == unbroken.histories
        for mine, theirs in zip(weights_of(resumed), weights_of(unbroken), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.usefixtures("each_epoch")
def test_a_checkpoint_that_cannot_be_used_is_ignored_with_a_word(tmp_path: Path) -> None:
    whole, path, said = tmp_path / "whole.npz", tmp_path / "a.npz", []
    train_kept(whole, epochs=2)
    with np.load(whole) as stored:
        arrays = dict(stored)
    state = json.loads(arrays["state"].tobytes()) | {"mood": 1}
    for fault in (
        {key: values for key, values in arrays.items() if key != "optimizer_3"},
        arrays | {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)},
        None,
    ):
        if fault:
            np.savez(path, **fault)
        else:
            path.write_bytes(whole.read_bytes()[:700])
        trained = train_kept(path, said=said, epochs=1)
        assert len(trained.histories["one"]["loss"]) == 1
    assert len(said) == 3 and all("training begins anew" in each for each in said)


def test_training_changes_no_features() -> None:
    given = data()
    before = dataclasses.replace(
        given, train_features=given.train_features.copy(), val_features=given.val_features.copy()
    )
    train(given=given, settings=TrainingSection(epochs=2))
    assert np.array_equal(before.train_features, given.train_features)
    assert np.array_equal(before.val_features, given.val_features)


@pytest.mark.parametrize(
    ("asked", "there", "taken"),
    [
        ("auto", [], "cpu"),
        ("cpu", [], "cpu"),
        ("auto", ["gpu:0"], "gpu"),
        ("cpu", ["gpu:0"], "cpu"),
        ("gpu", ["gpu:0"], "gpu"),
    ],
)
def test_device(monkeypatch: pytest.MonkeyPatch, asked: str, there: list[str], taken: str) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: there)
    assert check_device(asked) == taken


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(kind: str) -> None:
        raise RuntimeError("Unknown backend: gpu")

    for missing in (burst, lambda kind: []):
        monkeypatch.setattr(keras.distribution, "list_devices", missing)
        with pytest.raises(InputError, match="sees no GPU"):
            check_device("gpu")
