"""The truth of every task in the golden set: what is taken, what is refused in words, and that it comes back as written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from exporters.contract import CEILINGS, TASKS
from exporters.errors import InputError
from exporters.golden import GoldenSet, read_golden, read_manifest, write_golden, write_manifest
from exporters.measures import spread
from exporters.truth import check_truth
from exporters.verification import judge_answers
from tests import small_models, task_answers
from tests.task_answers import OUTPUTS, case


@pytest.mark.parametrize("task", TASKS)
def test_truth_of_every_task_is_taken(task: str) -> None:
    one = case(task, 5)
    check_truth(one.truth, one.output)
    check_truth(one.truth[:0], one.output)


REFUSED: dict[tuple[str, str], tuple[np.ndarray, str]] = {
    ("multiclass", "a class too many"): (np.array([0, 1, 3]), "not indices of its classes"),
    ("multiclass", "less than 0"): (np.array([0, -1]), "not indices of its classes"),
    ("multiclass", "floats"): (np.zeros(3, np.float32), "float32 (3,), and the task 'multiclass' has whole numbers (N,)"),
    ("multiclass", "one of each class"): (np.zeros((3, 3), int), "int64 (3, 3)"),
    ("binary", "a third label"): (np.array([0, 1, 2]), "not indices of its classes"),
    ("ordinal", "a rank too many"): (np.array([0, 5]), "not indices of its classes"),
    ("embedding", "less than 0"): (np.array([0, -1]), "not indices of its classes"),
    ("embedding", "vectors"): (np.zeros((3, 16), np.float32), "float32 (3, 16)"),
    ("multilabel", "indices"): (np.array([0, 5]), "whole numbers (N, 6)"),
    ("multilabel", "2"): (np.full((3, 6), 2), "not indices of its classes"),
    ("multilabel", "a label too few"): (np.ones((3, 5), int), "int64 (3, 5)"),
    ("regression", "float64"): (np.zeros((3, 2)), "float64 (3, 2), and the task 'regression' has float32 (N, 2)"),
    ("regression", "a column too few"): (np.zeros((3, 1), np.float32), "float32 (3, 1)"),
    ("regression", "not a number"): (np.full((3, 2), np.nan, np.float32), "NaN or infinity"),
    ("boxes", "in pixels"): (np.full((3, 4), 96, np.float32), "not in shares 0..1"),
    ("boxes", "less than 0"): (np.float32([[-0.1, 0, 1, 1]]), "not in shares 0..1"),
    ("boxes", "the wrong way round"): (np.float32([[0.6, 0, 0.5, 1]]), "end before they begin"),
    ("boxes", "not a number"): (np.full((3, 4), np.inf, np.float32), "NaN or infinity"),
    ("segmentation", "int64"): (np.zeros((3, 12, 12), int), "has uint8 (N, 12, 12)"),
    ("segmentation", "another size"): (np.zeros((3, 12, 11), np.uint8), "uint8 (3, 12, 11)"),
    ("segmentation", "a class too many"): (np.full((3, 12, 12), 4, np.uint8), "not indices of its classes"),
    ("segmentation", "254 for nobody knows"): (np.full((3, 12, 12), 254, np.uint8), "not indices of its classes"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "what"), REFUSED)
def test_truth_of_another_form_is_refused_in_words(task: str, what: str) -> None:
    values, told = REFUSED[task, what]
    with pytest.raises(ValueError) as caught:
        check_truth(values, OUTPUTS[task])
    assert told in str(caught.value) and f"'{OUTPUTS[task].name}'" in str(caught.value)


# Of the others, `tests/test_parity.py` and `tests/test_embedding.py` say what a precision brings.
NOISY = ("binary", "multilabel", "ordinal", "regression", "boxes", "segmentation")


def written(out: Path, truth: dict[str, np.ndarray], images: int) -> Path:
    """A golden set with a head of each task, without artifacts."""
    cases = {task: case(task, images) for task in TASKS}
    card = dataclasses.replace(small_models.CARD, outputs=tuple(OUTPUTS[task] for task in TASKS))
    reference = {one.output.name: one.expected for one in cases.values()}
    pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    write_golden(GoldenSet(pixels, truth, reference, card, CEILINGS), out, [], {})
    write_manifest(out, card, CEILINGS)
    return out


def test_a_golden_set_of_every_task_comes_back_and_judges(tmp_path: Path) -> None:
    images = task_answers.IMAGES
    cases = {task: case(task, images) for task in TASKS}
    truth = {one.output.name: one.truth for one in cases.values()}
    out = written(tmp_path, truth, images)
    golden = read_golden(out, read_manifest(out))
    assert golden.limits == CEILINGS
    for name, values in truth.items():
        np.testing.assert_array_equal(golden.truth[name], values, strict=True)
    for precision, noise in task_answers.NOISE.items():
        answers = {one.output.name: one.noisy(noise) for task, one in cases.items() if task in NOISY}
        answers |= {one.output.name: one.expected for task, one in cases.items() if task not in NOISY}
        found = judge_answers(golden, answers, golden.limits[precision])
        assert (found["status"], found["reason"]) == ("verified", ""), precision
        assert {name: each["task"] for name, each in found["outputs"].items()} == {
            OUTPUTS[task].name: task for task in TASKS
        }
        sample = spread(images, 16)
        few = {name: values[sample] for name, values in answers.items()}
        found = judge_answers(golden, few, golden.limits[precision], sample)
        assert (found["status"], found["reason"]) == ("verified", ""), precision


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("place", np.full((6, 4), 2, np.float32)),
        ("regions", np.zeros((6, 32, 32), np.uint8)),
        ("tags", np.zeros(6, int)),
        ("nobody", np.zeros(6, int)),
    ],
)
def test_a_golden_set_with_other_truth_is_an_input_error(name: str, values: np.ndarray, tmp_path: Path) -> None:
    out = written(tmp_path, {name: values}, 6)
    with pytest.raises(InputError, match=name):
        read_golden(out, read_manifest(out))
