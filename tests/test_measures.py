"""The figures of a comparison, worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from exporters import measures


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def test_a_relative_difference_does_not_explode_where_the_reference_is_tiny() -> None:
    expected = np.array([[0.8, 0.2], [0.5, 0.5]])
    assert measures.max_relative(expected, expected + np.array([[0, 0.02], [0.01, 0]])) == pytest.approx(0.1)
    # The floor is a thousandth of 0.9: 1e-4 / 9e-4, and not 1e-4 / 1e-9.
    tiny = np.array([[0.9, 1e-9]])
    assert measures.max_relative(tiny, tiny + np.array([[0, 1e-4]])) == pytest.approx(1e-4 / 9e-4)
    assert measures.max_relative(np.zeros((2, 1)), np.ones((2, 1))) == 0
    scaled = measures.max_relative(1e6 * expected, 1.01e6 * expected)
    assert scaled == pytest.approx(measures.max_relative(expected, 1.01 * expected)) == pytest.approx(0.01)


def test_divergence_of_two_coins() -> None:
    fair, bent = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    by_hand = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert measures.kl_divergence(fair, bent) == pytest.approx(by_hand)
    assert measures.kl_divergence(np.repeat(fair, 2, 0), np.concatenate([fair, bent])) == pytest.approx(by_hand / 2)
    assert measures.kl_divergence(fair, fair) == 0
    # What the artifact holds for impossible is raised to 1e-7.
    sure = np.array([[1.0, 0.0]])
    assert measures.kl_divergence(fair, sure) == pytest.approx(
        0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-7), rel=1e-3
    )


def test_difference_of_logarithms_is_that_of_the_centred_inputs_of_softmax() -> None:
    generator = np.random.default_rng(0)
    logits, shift = generator.normal(0, 2, (20, 5)), generator.normal(0, 0.1, (20, 5))
    by_hand = np.abs(shift - shift.mean(-1, keepdims=True)).max()
    assert measures.log_max_abs(softmax(logits), softmax(logits + shift)) == pytest.approx(by_hand)
    assert measures.log_max_abs(softmax(logits), softmax(logits + 3.0)) == pytest.approx(0, abs=1e-12)


def test_difference_of_logarithms_shows_what_softmax_hides() -> None:
    logits = np.zeros((10, 4))
    logits[np.arange(10), np.arange(10) % 4] = 11.0
    faulty = logits.copy()
    faulty[:, 2] *= 1.05
    expected, answer = softmax(logits), softmax(faulty)
    assert np.abs(expected - answer).max() < 1e-4
    assert measures.log_max_abs(expected, answer) == pytest.approx(0.55 * 3 / 4, rel=1e-6)


def test_probabilities_under_the_floor_are_alike() -> None:
    expected, answer = np.array([[1.0, 1e-9, 0.0]]), np.array([[1.0, 0.0, 3e-8]])
    assert measures.log_max_abs(expected, answer) == 0
    assert math.isfinite(measures.log_max_abs(expected, np.array([[0.0, 1.0, 0.0]])))


def test_near_ties_of_the_fifth_place() -> None:
    one = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.07])
    expected = np.stack([one, one[::-1], [0.5, 0.2, 0.1, 0.09, 0.08, 0.03]])
    np.testing.assert_array_equal(measures.near_ties(expected, 0.01, place=5), [True, True, False])
    np.testing.assert_array_equal(measures.near_ties(expected[:, :5], 1.0, place=5), [False] * 3)


def test_the_five_likeliest_are_a_set() -> None:
    expected = np.array([[0.4, 0.2, 0.15, 0.12, 0.08, 0.05]] * 3)
    answer = np.array(
        [[0.2, 0.4, 0.15, 0.08, 0.12, 0.05], [0.4, 0.2, 0.15, 0.12, 0.05, 0.08], [0.05, 0.2, 0.15, 0.12, 0.08, 0.4]]
    )
    np.testing.assert_array_equal(measures.same_top5(expected, answer), [True, False, False])


def test_confusion_has_the_truth_in_rows() -> None:
    answer = np.eye(3)[[0, 1, 1, 2, 0]]
    found = measures.confusion(np.array([0, 0, 1, 2, 2]), answer)
    assert found == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert json.loads(json.dumps(found)) == found


def test_the_worst_images_come_first_and_equal_ones_not_at_all() -> None:
    expected = np.tile([[0.7, 0.2, 0.1]], (12, 1))
    answer = expected.copy()
    answer[3], answer[7] = [0.1, 0.8, 0.1], [0.68, 0.22, 0.1]
    found = measures.worst_images(expected, answer, classes=True)
    assert [each["image"] for each in found] == [3, 7]
    assert found[0] == {
        "image": 3, "difference": pytest.approx(0.6), "keras": {"label": 0, "probability": 0.7},
        "artifact": {"label": 1, "probability": 0.8},
    }  # fmt: skip
    assert len(measures.worst_images(expected, expected + 0.01, classes=True)) == 8
    json.dumps(found, allow_nan=False)


def test_the_worst_images_of_a_regression_name_the_value() -> None:
    found = measures.worst_images(np.array([[1.0, 5.0], [2.0, 6.0]]), np.array([[1.0, 5.5], [3.0, 6.0]]), classes=False)
    assert found == [
        {"image": 1, "difference": 1.0, "keras": {"value": 2.0}, "artifact": {"value": 3.0}},
        {"image": 0, "difference": 0.5, "keras": {"value": 5.0}, "artifact": {"value": 5.5}},
    ]


def tail(images: int, count: int, share: float) -> float:
    """P(X >= count) of a binomial distribution, summed exactly."""
    return sum(math.comb(images, k) * share**k * (1 - share) ** (images - k) for k in range(count, images + 1))


@pytest.mark.parametrize("images", [1, 2, 16, 17, 64, 300])
@pytest.mark.parametrize("agreement", [0.995, 0.98, 0.95, 0.5])
def test_more_disagreements_than_allowed_are_rarer_than_one_in_a_hundred(images: int, agreement: float) -> None:
    allowed = measures.allowed_disagreements(images, agreement)
    assert tail(images, allowed + 1, 1 - agreement) < 0.01
    assert allowed == 0 or tail(images, allowed, 1 - agreement) >= 0.01


def test_allowed_disagreements_at_the_ends() -> None:
    assert measures.allowed_disagreements(16, 1.0) == 0
    assert measures.allowed_disagreements(0, 0.5) == 0
    assert measures.allowed_disagreements(16, 0.0) == 16
    assert [measures.allowed_disagreements(16, limit) for limit in (0.995, 0.98, 0.95)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("images", "most", "found"), [(0, 16, []), (1, 16, [0]), (3, 16, [0, 1, 2]), (9, 3, [0, 4, 8])]
)
def test_a_sample_is_spread_from_first_to_last(images: int, most: int, found: list[int]) -> None:
    assert measures.spread(images, most).tolist() == found


def test_a_sample_of_images_in_the_order_of_their_labels_has_every_label() -> None:
    labels = np.repeat(np.arange(10), 40)
    chosen = measures.spread(len(labels), 16)
    assert len(chosen) == 16 and set(labels[chosen]) == set(range(10))


def test_paired_drop_of_shares_is_that_of_whole_images_where_they_are_whole() -> None:
    generator = np.random.default_rng(4)
    right, other = generator.random(300) < 0.8, generator.random(300) < 0.75
    assert measures.paired_drop(right, other) == measures.paired_drop(right.astype(float), other.astype(float))
    # Four images: -0.5, 0.25, 0 and 0.5; with half an image each way, 6 images, 0.25 and 1.5625.
    drop, low, high = measures.paired_drop(np.array([0.5, 0.5, 1, 1]), np.array([1, 0.25, 1, 0.5]))
    half_width = 1.959964 * math.sqrt(0.5625 + 1 - 0.25**2 / 6) / 6
    assert (drop, (low + high) / 2) == (pytest.approx(0.0625), pytest.approx(0.25 / 6))
    assert (high - low) / 2 == pytest.approx(half_width)


def test_the_paired_interval_of_shares_covers_the_truth() -> None:
    generator, covered = np.random.default_rng(5), 0
    for _ in range(400):
        right = generator.beta(8, 2, 120)
        other = np.clip(right - generator.normal(0.01, 0.1, 120), 0, 1)
        _, low, high = measures.paired_drop(right, other)
        # The clipping takes a little of the fall away: worked out over two million images.
        covered += low <= 0.01428 <= high
    assert covered >= 0.93 * 400


def test_what_a_sample_may_stand_for() -> None:
    assert measures.at_most(np.full(16, 0.9)) == pytest.approx(0.9)
    assert measures.at_most(np.array([0.9])) == 1
    assert measures.at_most(np.array([0.8, 1.0] * 8)) == pytest.approx(
        0.9 + 2.326348 * np.std([0.8, 1] * 8, ddof=1) / 4
    )
    assert measures.at_most(np.array([0.0, 1.0] * 8)) < 1 and measures.at_most(np.array([0.5, 1, 1, 1])) == 1
    generator = np.random.default_rng(6)
    missed = sum(measures.at_most(generator.uniform(0.6, 1, 16)) < 0.8 for _ in range(2000))
    assert missed < 0.025 * 2000
