"""Spread: intervals hold what they promise, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.advice.scoring import difference, learning_slope, mean_of, predict_test, share_of


def alone(right: np.ndarray) -> object:
    """The plain share of right answers of independent pictures."""
    return share_of(right, np.ones(len(right)), np.arange(len(right)))


def test_the_standard_error_is_the_binomial_one() -> None:
    share = alone(np.arange(400) < 320)
    assert share.mean == pytest.approx(0.8)
    assert share.standard_error == pytest.approx(0.02, rel=0.03)
    assert share.design_effect == pytest.approx(1)


def test_groups_of_like_pictures_widen_the_spread() -> None:
    right = np.repeat(np.random.default_rng(0).random(40) < 0.8, 10)
    grouped = share_of(right, np.ones(400), np.repeat(np.arange(40), 10))
    assert grouped.standard_error > 2.5 * alone(right).standard_error
    assert grouped.design_effect == pytest.approx(10, rel=0.1)


def test_no_error_among_few_is_no_certainty() -> None:
    assert alone(np.ones(10)).standard_error > 0.05
    value, low, high = predict_test(alone(np.ones(10)), 0.0, 10, 5)
    assert (value, high) == (1.0, 1.0)
    assert low < 0.75


def test_balanced_accuracy_does_not_hide_the_small_class() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = np.where(labels == 0, 1 / 90, 1 / 10)
    share = share_of(labels == 0, weights, np.arange(100))
    assert share.mean == pytest.approx(0.5)
    assert share.influence.mean() == pytest.approx(0)


def test_the_mean_of_heads_is_over_the_same_pictures() -> None:
    right = np.random.default_rng(1).random((2, 300)) < 0.7
    both = mean_of([alone(each) for each in right])
    assert both.mean == pytest.approx(right.mean())
    twice = mean_of([alone(right[0]), alone(right[0])])
    assert twice.standard_error == pytest.approx(alone(right[0]).standard_error)


def test_the_paired_interval_covers_the_difference_and_is_narrower_than_an_unpaired_one() -> None:
    generator, covered, widths = np.random.default_rng(2), 0, []
    for _ in range(300):
        easy = generator.random(200) < 0.8
        one, other = easy | (generator.random(200) < 0.3), easy | (generator.random(200) < 0.15)
        value, low, high = difference(alone(one), alone(other))
        covered += low <= 0.2 * 0.15 <= high
        widths.append(high - low)
        assert low <= value <= high
    assert covered >= 0.93 * 300
    assert np.mean(widths) < 2 * 1.96 * np.hypot(0.86 * 0.14 / 200, 0.83 * 0.17 / 200) ** 0.5


def test_the_prediction_covers_what_test_splits_show() -> None:
    generator, covered = np.random.default_rng(3), 0
    for _ in range(400):
        truth = generator.uniform(0.5, 0.97)
        # A trained head is a little off the probe.
        of_head = np.clip(truth + generator.normal(0, 0.02), 0, 1)
        _, low, high = predict_test(alone(generator.random(150) < truth), 0.0, 150, 60)
        covered += low <= generator.binomial(60, of_head) / 60 <= high
    assert 0.93 * 400 <= covered <= 0.995 * 400


def test_fewer_training_pictures_lower_the_prediction_and_more_do_not_raise_it() -> None:
    share, slope = alone(np.arange(300) < 240), learning_slope(0.8, 0.76)
    assert slope == pytest.approx(0.04 / np.log(1.5))
    assert predict_test(share, slope, 200, 50)[0] == pytest.approx(0.76)
    assert predict_test(share, slope, 3000, 50)[0] == pytest.approx(0.8)
    assert learning_slope(0.8, 0.82) == 0
