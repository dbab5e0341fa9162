"""TensorBoard's logs, read back by TensorBoard's own reader: the figures of a training that runs, and of one that is done."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import cutpoint
from pictures import SMALL, write_drawings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from exporters.errors import InputError
from pipeline.config import HeadSection, TrainingSection
from pipeline.epochs import Keeping
from pipeline.lessons import Lesson
from pipeline.tensorboard import board, check_tensorboard, write_logs
from pipeline.training import train_heads


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Figure -> (epoch from 0, value) of the logs in one folder."""
    logs = EventAccumulator(str(folder))
    logs.Reload()
    return {
        name: [(each.step, float(make_ndarray(each.tensor_proto))) for each in logs.Tensors(name)]
        for name in logs.Tags()["tensors"]
    }


def as_points(values: list[float]) -> list[Any]:
    return [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in enumerate(values)]


def test_a_training_is_logged_epoch_by_epoch(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    features = (np.eye(8)[labels] + generator.normal(0, 0.3, (120, 8))).astype(np.float32)
    lessons = {"label": Lesson(HeadSection(), labels[:80], labels[80:], 3)}
    settings = TrainingSection(epochs=3, patience=3)
    done = train_heads(lessons, settings, (features[:80], features[80:]), 0, keeping=Keeping(logs=tmp_path))
    history = done.histories["label"]
    train, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    for figure in ("loss", "accuracy"):
        assert train[f"epoch_{figure}"] == as_points(history[figure])
        assert validation[f"epoch_{figure}"] == as_points(history[f"val_{figure}"])


def test_one_that_goes_on_begins_with_the_epochs_that_are_done(tmp_path: Path) -> None:
    value = keras.Input((1,))
    model = keras.Model(value, keras.layers.Dense(1)(value))
    model.compile("sgd", "mse")
    with board(model, {"loss": [3.0, 2.0]}, tmp_path) as log:
        log(2, {"loss": 1.0})
    assert read(tmp_path / "train")["epoch_loss"] == as_points([3.0, 2.0, 1.0])


def test_what_is_done_is_written_with_the_heads_names(tmp_path: Path) -> None:
    histories = {
        "a": {"loss": [2.0, 1.0], "val_loss": [3.0, 2.5], "epochs": [1, 2], "best_epoch": 2},
        "b": {"loss": [4.0]},
    }
    write_logs(tmp_path / "both", histories)
    both = read(tmp_path / "both" / "train")
    assert (both["epoch_a_loss"], both["epoch_b_loss"]) == (as_points([2.0, 1.0]), as_points([4.0]))
    write_logs(tmp_path / "one", {"a": histories["a"]})
    assert read(tmp_path / "one" / "train")["epoch_loss"] == as_points([2.0, 1.0])
    assert read(tmp_path / "one" / "validation")["epoch_loss"] == as_points([3.0, 2.5])


def test_a_run_leaves_its_logs_cached_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTPOINT_CACHE", str(tmp_path / "cache"))
    data = write_drawings(tmp_path / "photos", per_class=12)
    found = []
    for name in ("first", "second"):
        arguments = ("train", "--data", data, "--out", tmp_path / name, *SMALL, "--head", "linear")
        done = cutpoint(*arguments, "--set", "training.tensorboard=true", "--set", "training.epochs=3")
        assert done.exit_code == 0, done.stderr
        found.append(read(tmp_path / name / "logs" / "label" / "validation")["epoch_loss"])
    assert found[0] == found[1] and [epoch for epoch, _ in found[0]] == [0, 1, 2]


@pytest.mark.parametrize("missing", ["tensorboard", "tensorflow"])
def test_what_is_missing_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(InputError, match=f"the package '{missing}' is missing") as caught:
        check_tensorboard()
    assert "cutpoint[train,tensorboard]" in caught.value.mend
