"""The probe: what it answers is what a fit without the picture answers, and it is not better than it can be."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.advice.probe import SHRINKAGES, class_shares, deal, hold_out, standardise
from pipeline.blas import _switches, one_thread


def data(count: int, width: int, classes: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, width) float32 of differing scales, and labels that they tell of."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = generator.normal(0, signal, (classes, width))
    features = (centres[labels] + generator.normal(0, 1, (count, width))) * generator.uniform(0.1, 3, width)
    return features.astype(np.float32), labels


def refit(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, out: np.ndarray, shrinkage: float
) -> np.ndarray:
    """What a ridge fit on all rows but `out` answers for `out`, computed anew."""
    kept = np.setdiff1d(np.arange(len(features)), out)
    mean, shift = (np.average(each[kept], axis=0, weights=weights[kept]) for each in (features, targets))
    rows = features[kept] - mean
    gram = rows.T @ (weights[kept, None] * rows) + shrinkage * weights.sum() * np.eye(rows.shape[1])
    solved = np.linalg.solve(gram, rows.T @ (weights[kept, None] * (targets[kept] - shift)))
    # How frequent the classes are is known.
    return (features[out] - mean) @ solved + np.average(targets, axis=0, weights=weights)


@pytest.mark.parametrize("width", [6, 90], ids=["narrow", "wide"])
@pytest.mark.parametrize("grouped", [False, True], ids=["one at a time", "groups"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_held_out_answers_are_those_of_fits_without_the_fold(width: int, grouped: bool, weighted: bool) -> None:
    features, labels = data(40, width)
    folds = np.arange(40) // 7 if grouped else np.arange(40)
    weights = np.random.default_rng(1).uniform(0.3, 3, 40) if weighted else np.ones(40)
    targets = np.eye(3)[labels]
    # One shrinkage for all, so that a fit can be done anew with it.
    (held,) = hold_out(features, targets, folds, weights, least_shrinkages=(0.5,))
    assert min(held.shrinkages) >= 0.5
    parts, standardised = deal(folds, 0), standardise(features)
    for fold in np.unique(folds):
        out = np.flatnonzero(folds == fold)
        expected = refit(standardised, targets, weights, out, held.shrinkages[parts[out[0]]])
        np.testing.assert_allclose(held.values[out], expected, atol=1e-8)


def test_values_can_be_probed_as_well_as_classes() -> None:
    features, _ = data(200, 12)
    truth = features[:, :2] @ np.array([[1.0], [-2.0]]) + 5
    (held,) = hold_out(features, truth, np.arange(200))
    assert np.abs(held.values - truth).mean() < 0.05 * truth.std()


@pytest.mark.parametrize("width", [10, 400])
def test_what_says_nothing_is_not_better_than_chance(width: int) -> None:
    rights = []
    for seed in range(20):
        features, labels = data(60, width, signal=0.0, seed=seed)
        labels = np.random.default_rng(seed + 100).permutation(labels)
        (held,) = hold_out(features, np.eye(3)[labels], np.arange(60), seed=seed)
        rights.append((held.values.argmax(-1) == labels).mean())
    # 1200 answers: chance is 33.3 %, its standard error 1.4 points; leaving one out leans a little below.
    assert 0.25 < np.mean(rights) < 0.37


def test_a_picture_has_no_say_in_the_shrinkage_that_it_is_answered_with() -> None:
    features, labels = data(90, 30, signal=0.6)
    parts, targets = deal(np.arange(90), 0), np.eye(3)[labels]
    (before,) = hold_out(features, targets, np.arange(90))
    for part in range(3):
        other = targets.copy()
        other[parts == part] = np.random.default_rng(5).permutation(other[parts == part]) * 40
        (after,) = hold_out(features, other, np.arange(90))
        assert after.shrinkages[part] == before.shrinkages[part]
        assert after.shrinkages != before.shrinkages


def test_groups_that_give_the_label_away_are_seen_through() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 5)
    labels = generator.integers(0, 2, 30)[groups]
    # Every group has a look of its own, which says nothing of another group's label.
    features = generator.normal(0, 1, (30, 40))[groups] + generator.normal(0, 0.1, (150, 40))
    targets = np.eye(2)[labels]
    (alone,), (grouped,) = (hold_out(features, targets, folds) for folds in (np.arange(150), groups))
    assert (alone.values.argmax(-1) == labels).mean() > 0.95
    assert (grouped.values.argmax(-1) == labels).mean() < 0.75


def test_part_fits_know_fewer_pictures() -> None:
    features, labels = data(90, 60, signal=0.35)
    (held,) = hold_out(features, np.eye(3)[labels], np.arange(90))
    assert held.of_part_fits.shape == (2, 90, 3)
    assert np.isfinite(held.of_part_fits).all()
    assert not np.allclose(held.of_part_fits[0], held.of_part_fits[1])


def test_two_groups_are_enough_and_one_is_not() -> None:
    features, labels = data(20, 5)
    (held,) = hold_out(features, np.eye(3)[labels], np.arange(20) // 10)
    assert np.isfinite(held.values).all()
    with pytest.raises(ValueError, match="two folds"):
        hold_out(features, np.eye(3)[labels], np.zeros(20, int))


def test_each_least_shrinkage_is_kept() -> None:
    features, labels = data(60, 8, signal=3.0)
    free, bound = hold_out(features, np.eye(3)[labels], np.arange(60), least_shrinkages=(0.0, 2.0))
    assert set(free.shrinkages) <= set(SHRINKAGES)
    assert max(free.shrinkages) < 2.0
    assert min(bound.shrinkages) == 2.0


def test_features_that_do_not_vary_say_nothing() -> None:
    features, labels = data(30, 4)
    constant = np.concatenate([features, np.full((30, 3), 7.0, np.float32)], axis=1)
    one, other = (hold_out(each, np.eye(3)[labels], np.arange(30))[0].values for each in (features, constant))
    np.testing.assert_allclose(one, other, atol=1e-9)
    (nothing,) = hold_out(np.ones((30, 4)), np.eye(3)[labels], np.arange(30))
    assert np.isfinite(nothing.values).all()


def test_classes_weigh_the_same() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    shares = class_shares(labels, 2)
    assert shares[:8].sum() == pytest.approx(shares[8:].sum())
    assert shares.mean() == pytest.approx(1)


def test_parts_hold_whole_folds_and_about_as_many_pictures() -> None:
    folds = np.repeat(np.arange(12), np.arange(1, 13))
    parts = deal(folds, 3)
    assert all(len(set(parts[folds == fold])) == 1 for fold in range(12))
    assert np.ptp(np.bincount(parts)) <= 3
    assert (deal(folds, 3) == parts).all()


def test_one_thread_of_openblas_is_used_and_given_back() -> None:
    switches = _switches()
    if switches is None:
        # Built with another library: there is nothing to switch, and nothing breaks.
        with one_thread():
            assert np.ones(3).sum() == 3
        return
    count, before = switches[0], switches[0]()
    with one_thread():
        assert count() == 1
    assert count() == before
