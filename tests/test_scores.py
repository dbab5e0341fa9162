"""Each task's own measures, by hand and against scikit-like definitions written out."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scores import auc, ranks, score, told
from pipeline.targets import Target


def test_multiclass() -> None:
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = score(Target("multiclass", ("label",), ("a", "b")), np.array([0, 1, 1]), answers)
    assert found == {"accuracy": pytest.approx(2 / 3), "confusion": [[1, 0], [1, 1]]}
    assert told(found) == "accuracy 0.667"


def test_binary() -> None:
    answers = np.array([[0.1], [0.4], [0.35], [0.8]])
    found = score(Target("binary", ("label",), ("no", "yes")), np.array([0, 0, 1, 1]), answers)
    assert found["accuracy"] == 0.75 and found["confusion"] == [[2, 0], [1, 1]]
    # Of the four pairs of a yes and a no, one is the wrong way round.
    assert found["auc"] == 0.75


def test_auc_counts_pairs_and_halves_ties() -> None:
    generator = np.random.default_rng(0)
    truth, answers = generator.integers(0, 2, 60), generator.integers(0, 9, 60) / 9
    pairs = [(right > wrong) + (right == wrong) / 2 for right in answers[truth == 1] for wrong in answers[truth == 0]]
    assert auc(truth, answers) == pytest.approx(np.mean(pairs))
    assert auc(np.ones(4, int), answers[:4]) is None


def test_multilabel() -> None:
    answers = np.array([[0.9, 0.2, 0.1], [0.7, 0.8, 0.1], [0.1, 0.9, 0.1]])
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    found = score(Target("multilabel", ("tags",), ("a", "b", "c")), truth, answers)
    assert found["accuracy"] == pytest.approx(8 / 9)
    assert found["all_labels_right"] == pytest.approx(2 / 3)
    # a: 2 * 1 / (1 + 2), b: all right; nobody has c or names it.
    assert found["f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_ordinal() -> None:
    answers = np.array([[0.9, 0.7, 0.2], [0.3, 0.2, 0.1], [0.9, 0.8, 0.7]])
    assert ranks("ordinal", answers).tolist() == [2, 0, 3]
    found = score(Target("ordinal", ("age",), ("1", "2", "3", "4")), np.array([2, 2, 3]), answers)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["mean_rank_error"] == pytest.approx(2 / 3)


def test_regression_by_column() -> None:
    truth = np.array([[0.0, 100.0], [1.0, 300.0], [2.0, 200.0]])
    answers = truth + np.array([[0.5, -10.0], [0.5, 10.0], [0.5, 0.0]])
    found = score(Target("regression", ("low", "high")), truth, answers)
    assert found["mean_absolute_error"] == {"low": 0.5, "high": pytest.approx(20 / 3)}
    assert found["r2"]["low"] == pytest.approx(1 - 0.75 / 2)
    assert found["r2"]["high"] == pytest.approx(1 - 200 / 20000)
    assert told(found) == "mean absolute error low 0.5, high 6.67"
    alone = score(Target("regression", ("low",)), truth[:, :1], answers[:, :1])
    assert alone["mean_absolute_error"] == 0.5


def test_embedding() -> None:
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.2, 0.9]])
    found = score(Target("embedding", ("label",), ("a", "b")), np.array([0, 0, 1, 0]), vectors)
    assert found == {"recall_at_1": 0.5}
