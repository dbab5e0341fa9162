"""Intersection over union of boxes and of label maps, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.overlaps import box_iou, class_iou, has_area, mean_iou, pair_counts


def test_boxes_worked_out_by_hand() -> None:
    unit = [0.0, 0.0, 1.0, 1.0]
    others = np.array([unit, [0.5, 0, 1.5, 1], [0.25, 0.25, 0.75, 0.75], [2, 2, 3, 3], [1, 0, 2, 1]])
    found = box_iou(np.array([unit] * 5), others)
    assert found == pytest.approx([1, 0.5 / 1.5, 0.25, 0, 0])
    np.testing.assert_array_equal(box_iou(others, np.array([unit] * 5)), found)
    assert box_iou(100 * others, 100 * others) == pytest.approx(np.ones(5))


def test_a_box_without_area_has_nothing_in_common_with_anything() -> None:
    bad = np.array([[0.5, 0, 0.5, 1], [0.8, 0, 0.2, 1], [0, 0.8, 1, 0.2], [0.9, 0.9, 0.1, 0.1]])
    whole = np.array([[0.0, 0, 1, 1]] * 4)
    assert not has_area(bad).any() and has_area(whole).all()
    for one, other in ((bad, whole), (whole, bad), (bad, bad)):
        np.testing.assert_array_equal(box_iou(one, other), np.zeros(4))


def test_label_maps_worked_out_by_hand() -> None:
    one, other = np.array([[0, 0, 1], [1, 1, 2]]), np.array([[0, 1, 1], [1, 1, 1]])
    counts = pair_counts(one, other, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(class_iou(counts), [1 / 2, 3 / 5, 0, np.nan])
    assert mean_iou(counts) == pytest.approx((0.5 + 0.6) / 3)
    assert mean_iou(pair_counts(one, one, 4)) == 1
    assert np.isnan(mean_iou(np.zeros((3, 3), int)))
    np.testing.assert_array_equal(pair_counts(other, one, 4), counts.T)


def test_regions_of_one_size_have_in_common_what_their_agreement_leaves() -> None:
    generator = np.random.default_rng(0)
    one = generator.integers(0, 4, 400_000)
    other = np.where(generator.random(len(one)) < 0.95, one, (one + generator.integers(1, 4, len(one))) % 4)
    assert mean_iou(pair_counts(one, other, 4)) == pytest.approx(0.95 / 1.05, abs=2e-3)


@pytest.mark.parametrize(("moved", "left"), [(0.0002, 0.998), (0.00125, 0.99), (0.006, 0.95), (0.02, 0.85)])
def test_what_the_ceilings_leave_of_a_box_of_half_the_picture(moved: float, left: float) -> None:
    box = np.array([[0.2, 0.2, 0.7, 0.7]])
    assert box_iou(box, box + moved)[0] == pytest.approx(left, abs=0.005 * (1 - left) / 0.05 + 4e-4)
