"""Judging answers of every task: what each precision brings passes, and what a wrong artifact could answer fails."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from exporters.contract import CEILINGS, Limits
from exporters.errors import InputError
from exporters.parity import (
    DEGENERATE,
    FAILED,
    NOT_ENOUGH_IMAGES,
    NOT_VERIFIED,
    VERIFIED,
    Comparison,
    compare,
    compare_output,
)
from pipeline.config import limits_of, read_config
from tests import task_answers
from tests.task_answers import OUTPUTS, Case, case

TASKS = ("binary", "multilabel", "ordinal", "regression", "boxes", "segmentation")
FLOAT32, UINT8, INT8 = (CEILINGS[name] for name in ("float32", "uint8", "int8"))
NO_GATE = dataclasses.replace(INT8, accuracy_drop=None)


def judged(one: Case, answer: np.ndarray, limits: Limits = INT8, **options: bool) -> Comparison:
    return compare_output(one.expected, answer.astype(np.float32), one.output, limits, one.truth, **options)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("precision", task_answers.NOISE)
@pytest.mark.parametrize("task", TASKS)
def test_what_each_precision_brings_passes(task: str, precision: str, sampled: bool) -> None:
    for seed in range(3):
        one = case(task, 16 if sampled else task_answers.IMAGES, seed)
        found = judged(one, one.noisy(task_answers.NOISE[precision]), CEILINGS[precision], sampled=sampled)
        assert (found.status, found.reason) == (VERIFIED, ""), found.figures
        assert found.figures["task"] == task and "remark" not in found.figures
        json.dumps(found.figures, allow_nan=False)


@pytest.mark.parametrize("precision", CEILINGS)
@pytest.mark.parametrize("task", TASKS)
def test_equal_answers_are_verified_and_remarked(task: str, precision: str) -> None:
    one = case(task)
    found = judged(one, one.expected.copy(), CEILINGS[precision])
    assert found.status == VERIFIED and "to the last bit" in found.figures["remark"]
    assert found.figures["max_abs"] == 0 and found.figures["worst"] == []
    assert found.figures["cosine"] == pytest.approx(1)


def rolled(one: Case) -> np.ndarray:
    return np.roll(one.expected, 1, axis=0)


def permuted(one: Case, *places: int) -> np.ndarray:
    """The answers with columns that have traded places."""
    answer = one.expected.copy()
    answer[..., list(places)] = answer[..., [*places[1:], places[0]]]
    return answer


def still(one: Case, place: int) -> np.ndarray:
    """The answers with one column that is the same for all images, as most of them have it."""
    answer = one.expected.copy()
    answer[..., place] = np.median(answer[..., place])
    return answer


def scaled(one: Case, place: int, factor: float = 1.1) -> np.ndarray:
    answer = one.expected.copy()
    answer[:, place] *= factor
    return answer


FAULTS: dict[str, dict[str, Callable[[Case], np.ndarray]]] = {
    "binary": {
        "the other label": lambda one: 1 - one.expected,
        "logits instead": lambda one: one.inputs,
        "twice the sigmoid": lambda one: task_answers.sigmoid(one.expected),
        "one label for nearly all": lambda one: np.where(np.arange(len(one.expected))[:, None] > 2, 0.9, 0.1),
        "half as sure": lambda one: task_answers.activated(one.output, one.inputs / 2),
    },
    "multilabel": {
        "two labels traded": lambda one: permuted(one, 0, 1),
        "a rare label traded": lambda one: permuted(one, 0, 5),
        "labels moved on by one": lambda one: np.roll(one.expected, 1, axis=-1),
        "labels backwards": lambda one: one.expected[:, ::-1],
        "the rare label never given": lambda one: still(one, 5),
        "all the other way round": lambda one: 1 - one.expected,
        "one the other way round": lambda one: np.where(np.arange(6) == 2, 1 - one.expected, one.expected),
        "a softmax instead": lambda one: task_answers.softmax(one.inputs),
    },
    "ordinal": {
        "two thresholds traded": lambda one: permuted(one, 1, 2),
        "thresholds backwards": lambda one: one.expected[:, ::-1],
        "the first threshold never passed": lambda one: one.expected * [0, 1, 1, 1],
        "the last threshold never passed": lambda one: one.expected * [1, 1, 1, 0],
        "ranks of the other end": lambda one: 1 - one.expected[:, ::-1],
        "one rank too high": lambda one: np.concatenate([np.ones_like(one.expected[:, :1]), one.expected[:, :-1]], -1),
    },
    "regression": {
        "the first column off by a tenth": lambda one: scaled(one, 0),
        "the second column off by a tenth": lambda one: scaled(one, 1),
        "columns traded": lambda one: permuted(one, 0, 1),
        "normalised": lambda one: (one.expected - one.expected.mean(0)) / one.expected.std(0),
        "the small column the same for all": lambda one: still(one, 0),
        "the small column of another image": lambda one: np.stack(
            [np.roll(one.expected[:, 0], 1), one.expected[:, 1]], -1
        ),
        "one image off": lambda one: one.expected + 0.4 * (np.arange(len(one.expected))[:, None] == 3) * [1, 0],
    },
    "boxes": {
        "moved right by a tenth of the picture": lambda one: one.expected + np.array([0.1, 0, 0.1, 0]),
        "moved up by a tenth of the picture": lambda one: one.expected - np.array([0, 0.1, 0, 0.1]),
        "a tenth of the picture wider": lambda one: one.expected + np.array([0, 0, 0.1, 0]),
        "one box moved": lambda one: one.expected + 0.3 * (np.arange(len(one.expected))[:, None] == 3),
        "across and down traded": lambda one: one.expected[:, [1, 0, 3, 2]],
        "corners traded": lambda one: one.expected[:, [2, 3, 0, 1]],
        "in pixels": lambda one: one.expected * 96,
        "centre and size instead": lambda one: np.concatenate(
            [(one.expected[:, :2] + one.expected[:, 2:]) / 2, one.expected[:, 2:] - one.expected[:, :2]], -1
        ),
    },
    "segmentation": {
        "two classes traded": lambda one: permuted(one, 1, 2),
        "the rare class traded": lambda one: permuted(one, 2, 3),
        "the rare class never given": lambda one: one.expected * [1, 1, 1, 0],
        "across and down traded": lambda one: one.expected.transpose(0, 2, 1, 3),
        "moved by a pixel": lambda one: np.roll(one.expected, 1, axis=2),
        "mirrored": lambda one: one.expected[:, :, ::-1],
        "ground alone": lambda one: one.expected * [1e4, 1, 1, 1],
    },
}
ALIKE: dict[str, Callable[[Case], np.ndarray]] = {
    "those of the next image": rolled,
    "the mean for all": lambda one: np.broadcast_to(one.expected.mean(0), one.expected.shape),
    "all zeros": lambda one: np.zeros_like(one.expected),
    "one of them not a number": lambda one: np.where(one.expected == one.expected.max(), np.nan, one.expected),
}
EVERY_FAULT = [(task, name) for task in TASKS for name in (*FAULTS[task], *ALIKE)]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic_int8", "int8"])
@pytest.mark.parametrize(("task", "fault"), EVERY_FAULT)
def test_faults_fail_at_every_precision(task: str, fault: str, precision: str, sampled: bool) -> None:
    one = case(task, 32 if sampled else task_answers.IMAGES)
    answer = (FAULTS[task] | ALIKE)[fault](one)
    if sampled and fault in ("the rare label never given", "a rare label traded"):
        # In a sample, one image bears it: losing it may be chance where no difference is limited.
        assert judged(one, answer, CEILINGS[precision], sampled=True).figures["max_abs"] > 0.5
        return
    found = judged(one, answer, CEILINGS[precision], sampled=sampled)
    assert found.status == FAILED and found.reason, found
    without = compare_output(one.expected, answer.astype(np.float32), one.output, CEILINGS[precision], None)
    assert without.status == FAILED, "without truth"


@pytest.mark.parametrize("precision", CEILINGS)
@pytest.mark.parametrize("task", OUTPUTS)
def test_heads_of_one_shape_that_trade_places_fail(task: str, precision: str) -> None:
    pair = {name: case(task, seed=seed) for name, seed in (("apple", 1), ("zebra", 2))}
    if task in ("ordinal", "multiclass", "embedding"):
        # These follow the order of the images, which another head would not.
        pair["zebra"] = dataclasses.replace(pair["zebra"], expected=pair["zebra"].expected[::-1].copy())
    outputs = tuple(dataclasses.replace(OUTPUTS[task], name=name) for name in pair)
    reference = {name: each.expected for name, each in pair.items()}
    truth = {name: each.truth for name, each in pair.items()} if task != "embedding" else {}
    swapped = {"apple": reference["zebra"], "zebra": reference["apple"]}
    found = compare(reference, swapped, outputs, CEILINGS[precision], truth)
    assert {each.status for each in found.values()} == {FAILED}


def test_random_answers_never_pass() -> None:
    for task in TASKS:
        for seed in range(12):
            one, other = case(task, 40, seed), case(task, 40, seed + 100)
            answer = other.expected[np.random.default_rng(seed).permutation(40)]
            for limits in (FLOAT32, UINT8, INT8):
                for sampled in (False, True):
                    assert judged(one, answer, limits, sampled=sampled).status != VERIFIED, (task, seed)


def test_what_a_sigmoid_hides_is_found_in_the_log_odds() -> None:
    one = case("binary")
    sure = dataclasses.replace(one, expected=task_answers.sigmoid(np.sign(one.inputs) * 6.0 + 0.01 * one.inputs))
    answer = task_answers.sigmoid(np.sign(one.inputs) * 6.03 + 0.01 * one.inputs)
    found = judged(sure, answer, FLOAT32)
    assert found.status == FAILED and "log-odds 0.03 is over 0.001, which a sigmoid hides" in found.reason
    assert judged(sure, answer, dataclasses.replace(FLOAT32, log_max_abs=None)).status == VERIFIED
    assert "log_max_abs" not in judged(sure, answer, INT8).figures
    linear = dataclasses.replace(one.output, activation="linear")
    assert "log_max_abs" not in compare_output(sure.expected, answer, linear, FLOAT32, None).figures


def test_agreement_of_binary_decisions_by_hand() -> None:
    output, truth = OUTPUTS["binary"], np.arange(300) % 2
    expected = np.where(truth[:, None] == 1, 0.9, 0.1).astype(np.float32)
    answer = expected.copy()
    answer[[0, 1, 2]] = 1 - answer[[0, 1, 2]]
    found = compare_output(expected, answer, output, INT8, truth)
    assert found.figures["agreement"] == pytest.approx(0.99) and found.status == VERIFIED
    assert found.figures["accuracy"] == pytest.approx(0.99) and found.figures["accuracy_drop"] == pytest.approx(0.01)
    assert found.figures["confusion"] == [[148, 2], [1, 149]]
    assert found.figures["confusion_of_keras"] == [[150, 0], [0, 150]]
    assert found.figures["worst"][0]["keras"] == {"label": 0, "probability": pytest.approx(0.9)}
    # Within 0.05 of 0.5 nobody can tell.
    expected[:5], answer[:5] = 0.52, 0.48
    found = compare_output(expected, answer, output, UINT8, None)
    assert found.figures["near_ties"] == 5 and found.figures["agreement"] == 1


@pytest.mark.parametrize(("tied", "status"), [(15, VERIFIED), (16, DEGENERATE)])
def test_more_than_one_decision_in_twenty_at_a_tie_is_degenerate(tied: int, status: str) -> None:
    expected = np.where(np.arange(300)[:, None] % 2, 0.9, 0.1).astype(np.float32)
    expected[:tied] = 0.501
    found = compare_output(expected, expected, OUTPUTS["binary"], CEILINGS["float16"], None)
    assert found.status == status


def test_accuracy_of_a_multilabel_head_is_that_of_its_decisions() -> None:
    one = case("multilabel")
    answer = one.expected.copy()
    answer[:90, 3] = 1 - answer[:90, 3]
    found = judged(one, answer, dataclasses.replace(INT8, agreement=0.1, confidence_shift=None))
    right = [(each > 0.5) == one.truth for each in (one.expected, answer)]
    assert found.figures["accuracy"] == pytest.approx(right[1].mean())
    assert found.figures["accuracy_drop"] == pytest.approx(right[0].mean() - right[1].mean())
    assert found.status == FAILED and "the share of right decisions falls by" in found.reason
    said, true = one.expected > 0.5, one.truth > 0
    assert found.figures["f1_of_keras"] == pytest.approx(2 * (said & true).sum() / (said.sum() + true.sum()))
    assert found.figures["f1"] < found.figures["f1_of_keras"]
    assert found.figures["worst"][0]["keras"]["label"] == 3


def test_labels_that_keras_decides_alike_for_all_are_named_and_all_of_them_decide_nothing() -> None:
    one = case("multilabel")
    quiet = one.expected.copy()
    quiet[:, 2] *= 0.4
    found = compare_output(quiet, quiet, one.output, INT8, one.truth)
    assert found.status == VERIFIED and found.figures["constant_labels"] == ["c"]
    found = compare_output(0.4 * one.expected, 0.4 * one.expected, one.output, INT8, one.truth)
    assert found.status == DEGENERATE and "the same labels" in found.reason
    assert compare_output(0.4 * one.expected, 0.4 * one.expected, one.output, FLOAT32, None).status == DEGENERATE


def test_ranks_by_hand() -> None:
    output = OUTPUTS["ordinal"]
    ladder = np.tril(np.full((5, 4), 0.8), -1) + 0.1
    expected = np.tile(ladder, (40, 1)).astype(np.float32)
    truth = np.arange(200) % 5
    answer = expected.copy()
    answer[0, 0] = 0.9
    found = compare_output(expected, answer, output, INT8, truth)
    assert (found.status, found.figures["agreement"]) == (VERIFIED, 0.995)
    assert (found.figures["mean_rank_error_of_keras"], found.figures["mean_rank_error"]) == (0, 1 / 200)
    assert found.figures["accuracy"] == 0.995 and np.trace(found.figures["confusion_of_keras"]) == 200
    assert found.figures["worst"] == [
        {
            "image": 0,
            "difference": pytest.approx(0.8),
            "keras": {"label": 0, "value": pytest.approx(0.4)},
            "artifact": {"label": 1, "value": pytest.approx(1.2)},
        }
    ]
    assert compare_output(expected[::5], expected[::5], output, INT8, truth[::5]).status == DEGENERATE


def test_each_column_of_a_regression_has_its_own_spread() -> None:
    output = OUTPUTS["regression"]
    expected = np.stack([np.linspace(0, 1, 401), np.linspace(0, 1000, 401)], -1)
    answer = expected.copy()
    answer[7, 0] += 0.019
    found = compare_output(expected, answer, output, FLOAT32, expected + [0.1, 100])
    # The small column's spread is 0.95; beside that of the large one, 0.019 would be nothing.
    assert found.status == FAILED and "the largest error of 'share' is 2.00% of the spread" in found.reason
    share, grams = found.figures["columns"]
    assert (share["name"], share["spread"], share["relative_error"]) == (
        "share",
        pytest.approx(0.95),
        pytest.approx(0.02),
    )
    assert (grams["name"], grams["spread"], grams["relative_error"]) == ("grams", pytest.approx(950), 0)
    assert grams["mean_absolute_error"] == grams["mean_absolute_error_of_keras"] == pytest.approx(100)
    assert share["r2_of_keras"] == pytest.approx(1 - 401 * 0.01 / np.square(expected[:, 0] - 0.5).sum())
    assert share["r2"] != share["r2_of_keras"] and found.figures["relative_error"] == pytest.approx(0.02)
    assert found.figures["worst"][0]["keras"] == {"value": pytest.approx(expected[7, 0]), "column": "share"}


def test_a_column_that_hardly_varies_is_named_and_a_wrong_one_still_fails() -> None:
    output = OUTPUTS["regression"]
    expected = np.stack([np.full(60, 5.0), np.linspace(0, 1000, 60)], -1)
    found = compare_output(expected, expected + 1e-6, output, INT8, None)
    assert found.status == DEGENERATE and "hardly vary in the column share" in found.reason
    found = compare_output(expected, expected + [1, 0], output, INT8, None)
    assert found.status == FAILED and "'share' is 20.00% of the largest value" in found.reason
    found = compare_output(expected[:, :1], expected[:, :1], dataclasses.replace(output, shape=(1,)), INT8, None)
    assert (found.status, found.figures) == (DEGENERATE, {})


def test_a_regression_in_a_small_unit_is_judged_like_any_other() -> None:
    output = dataclasses.replace(OUTPUTS["regression"], shape=(1,), columns=("metres",))
    expected = np.linspace(0, 1e-4, 200)[:, None]
    for precision in ("float32", "dynamic_int8", "int8"):
        assert compare_output(expected, 1.001 * expected, output, CEILINGS[precision], None).status == VERIFIED
        assert compare_output(expected, 1.1 * expected, output, CEILINGS[precision], None).status == FAILED


def test_boxes_by_hand() -> None:
    output, generator = OUTPUTS["boxes"], np.random.default_rng(0)
    low = generator.uniform(0, 0.5, (200, 2))
    expected = np.concatenate([low, low + 0.4], -1)
    answer = expected + [0.02, 0, 0.02, 0]
    found = compare_output(expected, answer, output, INT8, expected)
    assert [found.figures["iou"], found.figures["least_iou"]] == pytest.approx([0.38 / 0.42] * 2)
    assert found.figures["relative_error"] == pytest.approx(np.sqrt(0.02**2 / 2))
    assert found.figures["worst_relative_error"] == pytest.approx(0.02)
    assert (found.figures["truth_iou_of_keras"], found.figures["truth_iou"]) == (1, pytest.approx(0.38 / 0.42))
    assert found.figures["truth_iou_drop"] == pytest.approx(0.04 / 0.42)
    assert found.status == FAILED and "mean IoU with the true boxes falls by 9.5%" in found.reason
    assert "mean IoU with the Keras" not in found.reason
    assert compare_output(expected, answer, output, NO_GATE, expected).status == VERIFIED
    found = compare_output(expected, expected + [0.04, 0, 0.04, 0], output, NO_GATE, expected)
    assert "the mean IoU with the Keras model's boxes, 81.8% is under 85.0%" in found.reason
    assert found.figures["worst"][0]["keras"]["box"] == pytest.approx(
        list(expected[found.figures["worst"][0]["image"]])
    )


def test_boxes_without_area_of_the_keras_model_decide_nothing() -> None:
    one = case("boxes")
    turned = one.expected.copy()
    turned[:6] = turned[:6][:, [2, 3, 0, 1]]
    found = compare_output(turned, turned, one.output, INT8, one.truth)
    assert found.status == VERIFIED and found.figures["boxes_without_area"] == 6 and found.figures["iou"] == 1
    turned[:20] = np.sort(one.expected[:20], axis=-1)[:, ::-1]
    found = compare_output(turned, turned, one.output, INT8, one.truth)
    assert found.status == DEGENERATE and "20 of 240 boxes" in found.reason


def test_boxes_that_lie_nearer_together_than_the_limit_decide_nothing() -> None:
    expected = np.array([0.2, 0.2, 0.6, 0.6]) + np.random.default_rng(1).uniform(0, 0.08, (50, 4))
    assert compare_output(expected, expected, OUTPUTS["boxes"], INT8, expected).status == DEGENERATE
    assert compare_output(expected, expected, OUTPUTS["boxes"], FLOAT32, expected).status == VERIFIED


def test_label_maps_by_hand() -> None:
    one = case("segmentation")
    answer = one.expected.copy()
    # Class 1 and class 2 trade the pixels of ten images.
    answer[:10] = answer[:10][..., [0, 2, 1, 3]]
    found = judged(one, answer, dataclasses.replace(INT8, accuracy_drop=None))
    theirs, mine = one.expected.argmax(-1), answer.argmax(-1)
    assert found.figures["agreement"] == pytest.approx((theirs == mine).mean())
    assert found.figures["iou_of_classes"]["ground"] == 1
    by_hand = {
        name: ((mine == index) & (theirs == index)).sum() / ((mine == index) | (theirs == index)).sum()
        for index, name in enumerate(one.output.labels)
    }
    assert found.figures["iou_of_classes"] == pytest.approx(by_hand)
    assert found.figures["iou"] == pytest.approx(np.mean(list(by_hand.values())))
    assert found.figures["mean_abs"] == pytest.approx(np.abs(one.expected - answer).mean(), rel=1e-5)
    known = one.truth != 255
    right = [((each == one.truth) & known).sum((1, 2)) / known.sum((1, 2)) for each in (theirs, mine)]
    assert found.figures["accuracy"] == pytest.approx(right[1].mean())
    assert found.figures["accuracy_drop"] == pytest.approx((right[0] - right[1]).mean())
    assert found.figures["truth_iou"] < found.figures["truth_iou_of_keras"]
    assert {found.figures["worst"][0]["keras"]["label"], found.figures["worst"][0]["artifact"]["label"]} == {1, 2}


def test_unknown_pixels_judge_no_accuracy() -> None:
    one = case("segmentation")
    nobody_knows = np.full_like(one.truth, 255)
    found = compare_output(one.expected, one.expected, one.output, INT8, nobody_knows)
    assert found.status == NOT_VERIFIED and "no labels" in found.reason and "accuracy" not in found.figures
    some = nobody_knows.copy()
    some[::2, 3:5] = one.truth[::2, 3:5]
    found = compare_output(one.expected, one.expected, one.output, INT8, some)
    assert found.status == VERIFIED
    assert found.figures["accuracy"] == pytest.approx((one.expected.argmax(-1) == some)[some != 255].mean())


def test_edges_are_near_ties_that_are_no_fault_of_the_reference() -> None:
    one = case("segmentation")
    soft = one.expected.copy()
    soft[:, :2] = [0.3, 0.31, 0.2, 0.19]
    answer = soft.copy()
    answer[:, :2] = [0.31, 0.3, 0.2, 0.19]
    found = judged(dataclasses.replace(one, expected=soft), answer, dataclasses.replace(UINT8, accuracy_drop=None))
    assert found.status == VERIFIED
    assert found.figures["near_ties"] >= 2 * 12 * len(soft) and found.figures["agreement"] == 1
    soft[:, :4] = [0.3, 0.31, 0.2, 0.19]
    found = judged(dataclasses.replace(one, expected=soft), soft, UINT8)
    assert found.status == DEGENERATE and "of the pixels are near-ties" in found.reason


def test_one_label_map_for_all_images_decides_nothing() -> None:
    one = case("segmentation")
    alike = (
        np.broadcast_to(one.expected[:1], one.expected.shape)
        * np.linspace(0.9, 1, len(one.expected))[:, None, None, None]
    )
    found = compare_output(alike, alike, one.output, INT8, one.truth)
    assert found.status == DEGENERATE and "the same label map" in found.reason


@pytest.mark.parametrize("task", ["binary", "multilabel", "ordinal", "boxes", "segmentation"])
def test_few_images_and_no_truth_leave_the_accuracy_gate_open(task: str) -> None:
    one = case(task, 40)
    answer = one.noisy(0.001)
    assert judged(one, answer, INT8).status == NOT_ENOUGH_IMAGES
    found = compare_output(one.expected, answer, one.output, INT8, None)
    assert found.status == NOT_VERIFIED and "the accuracy gate did not run" in found.reason
    found = compare_output(one.expected, answer, one.output, INT8, None, sampled=True)
    assert found.status == VERIFIED and found.figures["limits"]["accuracy_drop"] is None


@pytest.mark.parametrize("task", ["boxes", "segmentation"])
def test_without_a_limit_of_iou_nothing_is_verified(task: str) -> None:
    one = case(task)
    found = judged(one, one.noisy(1e-6), dataclasses.replace(FLOAT32, iou=None))
    assert found.status == NOT_VERIFIED and "no IoU" in found.reason


@pytest.mark.parametrize("task", [*TASKS, "multiclass"])
def test_the_worst_image_is_named_as_in_the_golden_set(task: str) -> None:
    one = case(task, 4)
    answer = one.expected.copy()
    answer[2] += np.float32(1e-5)
    reference, indices = {one.output.name: one.expected}, np.array([0, 50, 100, 150])
    found = compare(reference, {one.output.name: answer}, (one.output,), FLOAT32, {}, sampled=True, indices=indices)
    worst = found[one.output.name].figures["worst"]
    assert [each["image"] for each in worst] == [100]
    assert set(worst[0]) == {"image", "difference", "keras", "artifact"}


def test_a_limit_of_iou_comes_from_the_configuration() -> None:
    limits = limits_of(read_config(None, {}, ("parity.limits.int8.iou=0.9",)))
    assert limits["int8"] == dataclasses.replace(INT8, iou=0.9) and limits["float32"] == FLOAT32
    with pytest.raises(InputError):
        read_config(None, {}, ("parity.limits.int8.iou=1.1",))


def test_truth_of_an_embedding_only_adds_figures() -> None:
    one = case("embedding")
    answer = one.noisy(1e-6)
    found = judged(one, answer, FLOAT32)
    plain = compare_output(one.expected, answer, one.output, FLOAT32, None)
    assert (found.status, plain.status) == (VERIFIED, VERIFIED)
    assert set(found.figures) - set(plain.figures) == {"recall_at_1", "recall_at_1_of_keras"}
    nearest = (one.expected.astype(np.float64) @ one.expected.T.astype(np.float64) - 2 * np.eye(len(answer))).argmax(-1)
    assert found.figures["recall_at_1_of_keras"] == pytest.approx((one.truth[nearest] == one.truth).mean())
    alone = compare_output(one.expected, answer, one.output, FLOAT32, np.arange(len(answer)))
    assert "recall_at_1" not in alone.figures


@pytest.mark.parametrize("shape", [(12, 12, 4), (144, 4), (2, 6, 12, 4)])
def test_a_softmax_at_every_place_is_judged_as_a_label_map(shape: tuple[int, ...]) -> None:
    one = case("segmentation")
    output = dataclasses.replace(one.output, task="multiclass", shape=shape)
    expected, answer = (each.reshape(-1, *shape) for each in (one.expected, one.noisy(1e-6)))
    found = compare_output(expected, answer, output, FLOAT32, None)
    assert (found.status, found.figures["task"], found.figures["agreement"]) == (VERIFIED, "segmentation", 1)
    assert compare_output(expected, answer[..., [0, 2, 1, 3]], output, INT8, None).status == FAILED


def test_one_of_many_classes_that_vanishes_fails() -> None:
    generator = np.random.default_rng(3)
    maps = np.repeat(np.repeat(generator.integers(0, CLASSES_OF_MANY, (100, 6, 6)), 4, 1), 4, 2)
    maps[maps == 5] = np.where(np.arange(100) % 9 == 0, 5, 0)[np.nonzero(maps == 5)[0]]
    expected = task_answers.softmax(
        8 * np.eye(CLASSES_OF_MANY)[maps] + generator.uniform(0, 2, (*maps.shape, CLASSES_OF_MANY))
    )
    output = dataclasses.replace(OUTPUTS["segmentation"], shape=expected.shape[1:], labels=())
    for sampled in (False, True):
        found = compare_output(
            expected, expected * (np.arange(CLASSES_OF_MANY) != 5), output, INT8, None, sampled=sampled
        )
        assert found.figures["agreement"] > 0.95 and found.figures["iou"] > 0.85
        assert found.status == FAILED and "'5': 12 of 12 images lose most of its region" in found.reason


def test_label_maps_are_judged_image_by_image() -> None:
    import tracemalloc

    generator = np.random.default_rng(2)
    output = dataclasses.replace(OUTPUTS["segmentation"], shape=(48, 48, CLASSES_OF_MANY), labels=())
    expected = generator.dirichlet(np.full(CLASSES_OF_MANY, 0.05), (60, 48, 48)).astype(np.float32)
    answer = expected.copy()
    answer[:, 3, 3] += np.float32(1e-6)
    tracemalloc.start()
    try:
        found = compare_output(expected, answer, output, FLOAT32, expected.argmax(-1).astype(np.uint8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.status == VERIFIED
    assert peak < expected.nbytes / 2, (peak, expected.nbytes)


CLASSES_OF_MANY = 12
