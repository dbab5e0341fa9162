"""Answers to the golden image files: which differences are too large, in each task's own unit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from exporters.contract import CEILINGS, Limits
from exporters.golden_files import GoldenFile
from exporters.image_files import judge_files
from tests import small_models, task_answers


def judged(task: str, answer: np.ndarray, limits: Limits) -> dict[str, object]:
    """What comes out for eight files whose expected answers are those of a case's first images."""
    one = task_answers.case(task)
    card = dataclasses.replace(small_models.CARD, outputs=(one.output,))
    files = [GoldenFile(Path("0.png"), "", {one.output.name: each.tolist()}) for each in one.expected[:8]]
    return judge_files(files, {one.output.name: answer}, card, limits, {one.output.name: one.expected})


@pytest.mark.parametrize("precision", ["float32", "dynamic_int8", "int8"])
def test_a_column_of_a_small_unit_does_not_hide_behind_one_of_a_large(precision: str) -> None:
    limits, expected = CEILINGS[precision], task_answers.case("regression").expected[:8]
    assert judged("regression", expected * [1.001, 1.001], limits)["status"] == "verified"
    for wrong in ([0.3, 0], [0, 300]):
        found = judged("regression", expected + np.float32(wrong), limits)
        assert found["status"] == "failed" and "size: the answers to image files differ by" in found["reason"]
        assert found["max_abs"] == pytest.approx(max(wrong), rel=1e-3)


def test_boxes_are_judged_in_shares_of_the_picture() -> None:
    expected = task_answers.case("boxes").expected[:8]
    for precision, passes, fails in (("float32", 5e-5, 2e-4), ("dynamic_int8", 0.04, 0.06), ("int8", 0.2, 0.3)):
        assert judged("boxes", expected + np.float32(passes), CEILINGS[precision])["status"] == "verified"
        assert judged("boxes", expected + np.float32(fails), CEILINGS[precision])["status"] == "failed"


@pytest.mark.parametrize("task", ["binary", "multilabel", "ordinal", "segmentation"])
def test_probabilities_are_judged_by_their_largest_difference(task: str) -> None:
    expected = task_answers.case(task).expected[:8]
    assert judged(task, expected + np.float32(1e-5), CEILINGS["float32"])["status"] == "verified"
    answer = expected.copy()
    answer[5].flat[0] += 0.01
    found = judged(task, answer, CEILINGS["float32"])
    assert found["status"] == "failed" and "differ by 0.01, more than 0.0001" in found["reason"]
    assert judged(task, answer, CEILINGS["int8"])["status"] == "verified"


@pytest.mark.parametrize("task", ["regression", "boxes", "segmentation", "multilabel"])
@pytest.mark.parametrize("precision", CEILINGS)
def test_what_is_not_there_or_not_a_number_fails_at_every_precision(task: str, precision: str) -> None:
    limits, expected = CEILINGS[precision], task_answers.case(task).expected[:8].copy()
    for answer in (expected[:, :1], np.where(expected == expected[2].max(), np.nan, expected)):
        found = judged(task, answer, limits)
        assert found["status"] == "failed" and "missing, of another shape, or not a number" in found["reason"]
