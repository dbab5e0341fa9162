"""Every loss, metric and optimizer of the tables can be used; what is learned of a truth; wrong names end well."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from exporters.errors import InputError
from pipeline.config import HeadSection, TrainingSection
from pipeline.losses import (
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SupervisedContrastive,
    learned,
    loss_of,
    metrics_of,
    optimizer_of,
)

COUNT, UNITS = 24, 3


def vectors(task: str) -> tuple[np.ndarray, np.ndarray]:
    """What a loss takes of a truth, and answers that differ from it."""
    generator = np.random.default_rng(0)
    values = generator.uniform(0.05, 0.95, (COUNT, UNITS)).astype(np.float32)
    if task == "embedding":
        return generator.integers(0, 4, COUNT), values / np.linalg.norm(values, axis=1, keepdims=True)
    if task in ("multiclass", "ordinal"):
        answers = values / values.sum(1, keepdims=True) if task == "multiclass" else values
        return learned(task, generator.integers(0, UNITS, COUNT), UNITS), answers
    if task == "binary":
        return learned(task, generator.integers(0, 2, COUNT), 1), values[:, :1]
    truth = generator.integers(0, 2, (COUNT, UNITS)) if task == "multilabel" else generator.normal(size=(COUNT, UNITS))
    return learned(task, truth, UNITS), values


TASKS = ("multiclass", "binary", "multilabel", "ordinal", "regression", "embedding")


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in TASKS for name in LOSSES[task]])
def test_every_loss_is_smaller_nearer_to_the_truth(task: str, name: str) -> None:
    kind = "embedding" if task == "embedding" else "linear"
    loss = loss_of(HeadSection(kind=kind, task=task, loss=name), TrainingSection(label_smoothing=0.0))
    truth, answers = vectors(task)
    if task == "embedding":
        nearer = np.eye(4, dtype=np.float32)[truth]
    else:
        nearer = answers + 0.8 * (truth - answers)
    assert float(loss(truth, nearer)) < float(loss(truth, answers))


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in TASKS for name in METRICS[task]])
def test_every_metric_measures(task: str, name: str) -> None:
    section = HeadSection(task=task, kind="linear", metrics=(name,))
    metric = metrics_of(section)[-1]
    truth, answers = vectors(task)
    metric.update_state(truth, answers)
    assert np.isfinite(np.asarray(metric.result())).all()
    assert metric.name == name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name: str) -> None:
    weight = keras.Variable(np.array([3.0], np.float32))
    optimizer = optimizer_of(name, 0.1)
    optimizer.build([weight])
    optimizer.apply([keras.ops.convert_to_tensor(np.array([1.0], np.float32))], [weight])
    assert float(np.asarray(weight)[0]) < 3.0


def test_ranks_are_learned_as_whether_they_are_above() -> None:
    assert learned("ordinal", np.array([0, 2, 3]), 3).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_the_contrastive_loss_by_hand() -> None:
    """Two pictures of one label at right angles, one of another label along the first."""
    found = np.asarray(SupervisedContrastive(reduction=None)(np.array([0, 0, 1]), np.array([[1.0, 0], [0, 1], [1, 0]])))
    # First: likeness 0 to its fellow and 1 / 0.1 to the other; second: 0 and 0; the third has no fellow.
    assert np.allclose(found, [np.log(1 + np.exp(10.0)), np.log(2.0), 0.0], atol=1e-4)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: loss_of(HeadSection(loss="crossentrop"), TrainingSection()), "no loss 'crossentrop'"),
        (lambda: metrics_of(HeadSection(metrics=("acuracy",))), "no metric 'acuracy'"),
        (lambda: optimizer_of("adma", 0.1), "no optimizer 'adma'"),
        (lambda: metrics_of(HeadSection(kind="embedding", dimension=4, metrics=("auc",))), "no metric 'auc'"),
    ],
)
def test_what_does_not_exist(call, what: str) -> None:
    with pytest.raises(InputError, match=what):
        call()
