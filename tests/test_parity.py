"""The comparator: figures worked out by hand, every way to end, and that it cannot pass without comparing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from exporters import parity
from exporters.contract import CEILINGS, Limits, Output
from exporters.parity import (
    DEGENERATE,
    FAILED,
    NOT_ENOUGH_IMAGES,
    NOT_VERIFIED,
    VERIFIED,
    Comparison,
    compare,
    compare_output,
    cosine,
    near_ties,
    paired_drop,
    worst,
)

LABEL = Output("label", "linear", "multiclass", (3,), labels=("a", "b", "c"))
ANGLE = Output("angle", "linear", "regression", (1,), activation="linear")
FLOAT32, FLOAT16, UINT8, INT8 = (CEILINGS[name] for name in ("float32", "float16", "uint8", "int8"))
NO_GATE = dataclasses.replace(INT8, accuracy_drop=None)


def sure(labels: list[int] | np.ndarray, certainty: float = 0.8) -> np.ndarray:
    """Probabilities over three classes, the label's being `certainty`."""
    answers = np.full((len(labels), 3), (1 - certainty) / 2, np.float32)
    answers[np.arange(len(labels)), labels] = certainty
    return answers


def judged(
    expected: np.ndarray, answer: np.ndarray, limits: Limits = FLOAT32, truth: np.ndarray | None = None
) -> Comparison:
    return compare_output(expected, answer, LABEL, limits, truth)


def with_answers(lost: int, won: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference, answers and truth with so many images lost and won by the artifact, right in both, and in neither."""
    keras_says = [0] * lost + [1] * won + [0] * both + [1] * neither
    artifact_says = [1] * lost + [0] * won + [0] * both + [1] * neither
    return sure(keras_says), sure(artifact_says), np.zeros(len(keras_says), int)


REFERENCE = sure([0, 1, 2, 0])


def test_figures_worked_out_by_hand() -> None:
    expected = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32)
    answer = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32)
    found = judged(expected, answer, UINT8, np.array([0, 0]))
    assert found.figures["max_abs"] == pytest.approx(0.1, abs=1e-7)
    assert found.figures["mean_abs"] == pytest.approx(0.2 / 6, abs=1e-7)
    # (0.7 0.6 + 0.2 0.3 + 0.01 + 0.66) / sqrt((0.54 + 0.66) (0.46 + 0.66))
    assert found.figures["cosine"] == pytest.approx(1.15 / np.sqrt(1.2 * 1.12), abs=1e-6)
    assert (found.figures["agreement"], found.figures["near_ties"]) == (1.0, 0)
    assert (found.figures["accuracy"], found.figures["accuracy_drop"]) == (0.5, 0.0)
    assert found.figures["smallest_passing_limits"] == {
        "max_abs": found.figures["max_abs"],
        "agreement": 1.0,
        "accuracy_drop": 0.0,
    }
    assert found.figures["limits"] == dataclasses.asdict(UINT8)
    assert found.status == FAILED and "largest difference 0.1 is over 0.05" in found.reason
    json.dumps(found.figures, allow_nan=False)


def test_equal_answers_are_verified() -> None:
    found = judged(REFERENCE, REFERENCE.copy(), truth=np.array([0, 1, 2, 1]))
    assert (found.status, found.reason) == (VERIFIED, "")
    assert found.figures["max_abs"] == 0 and found.figures["cosine"] == pytest.approx(1)
    assert found.figures["accuracy"] == 0.75


def test_a_limit_that_is_exactly_met_passes_and_one_step_more_fails() -> None:
    expected = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    answer = expected.copy()
    answer[0, 0] += 0.125
    assert judged(expected, answer, Limits(0.125, 1.0)).status == VERIFIED
    assert judged(expected, answer, Limits(np.nextafter(0.125, 0), 1.0)).status == FAILED


def test_agreement_exactly_at_its_limit_passes() -> None:
    keras_says = np.arange(20) % 3
    artifact_says = keras_says.copy()
    artifact_says[0] = (artifact_says[0] + 1) % 3
    found = judged(sure(keras_says), sure(artifact_says), NO_GATE)
    assert found.figures["agreement"] == 0.95 and found.status == VERIFIED
    artifact_says[1] = (artifact_says[1] + 1) % 3
    found = judged(sure(keras_says), sure(artifact_says), NO_GATE)
    assert (found.status, found.reason) == (FAILED, "top-1 agreement 90.0% is under 95.0%")


def test_near_ties_are_counted_by_hand() -> None:
    first_two = [(0.520, 0.400), (0.450, 0.3505), (0.45, 0.349), (0.4, 0.4), (0.35, 0.35)]
    expected = np.array([[first, second, 1 - first - second] for first, second in first_two])
    np.testing.assert_array_equal(near_ties(expected, 0.05), [False, True, False, True, True])
    np.testing.assert_array_equal(near_ties(expected, None), [False] * 5)
    np.testing.assert_array_equal(near_ties(np.ones((4, 1)), 0.05), [False] * 4)
    np.testing.assert_array_equal(near_ties(np.array([[0.25, 0.5]]), 0.125), [False])


def test_a_disagreement_at_a_near_tie_is_not_held_against_the_artifact() -> None:
    expected = sure(np.arange(40) % 3)
    expected[0] = [0.4000, 0.3999, 0.2001]
    answer = expected.copy()
    answer[0] = [0.3999, 0.4000, 0.2001]
    found = judged(expected, answer, Limits(1e-3, 1.0))
    assert (found.status, found.figures["near_ties"], found.figures["agreement"]) == (VERIFIED, 1, 1.0)
    answer[1] = sure([2])[0]
    found = judged(expected, answer, Limits(1.0, 1.0))
    assert found.status in (FAILED, DEGENERATE)
    found = judged(expected, answer, Limits(1e-3, 1.0))
    assert found.status == FAILED and found.figures["agreement"] == pytest.approx(38 / 39)


@pytest.mark.parametrize(("ties", "status"), [(5, VERIFIED), (6, DEGENERATE), (100, DEGENERATE)])
def test_more_than_one_near_tie_in_twenty_is_degenerate(ties: int, status: str) -> None:
    expected = sure(np.arange(100) % 3)
    expected[:ties] = [np.roll([0.340, 0.336, 0.324], index) for index in range(ties)]
    found = judged(expected, expected.copy(), FLOAT16)
    assert found.figures["near_ties"] == ties
    assert found.status == status and bool(found.reason) == (status == DEGENERATE)


def nan_in_one(answer: np.ndarray) -> np.ndarray:
    answer = answer.copy()
    answer[2, 1] = np.nan
    return answer


REFUSED = {
    "nan": (REFERENCE, nan_in_one(REFERENCE), FAILED, "NaN or infinity for 1 of 4 images"),
    "infinity": (REFERENCE, REFERENCE + np.array([np.inf, 0, 0]), FAILED, "NaN or infinity for 4 of 4 images"),
    "nan in the reference": (nan_in_one(REFERENCE), REFERENCE, DEGENERATE, "the Keras model itself answers with NaN"),
    "nan in both": (nan_in_one(REFERENCE), nan_in_one(REFERENCE), DEGENERATE, "the Keras model itself"),
    "too few images": (REFERENCE, REFERENCE[:3], FAILED, "the shape (3, 3), the Keras model's has (4, 3)"),
    "too few classes": (REFERENCE, REFERENCE[:, :2], FAILED, "the shape (4, 2)"),
    "an axis too many": (REFERENCE, REFERENCE[:, None], FAILED, "the shape (4, 1, 3)"),
    "argmaxed": (REFERENCE, REFERENCE.argmax(-1), FAILED, "the shape (4,)"),
    "no images": (REFERENCE[:0], REFERENCE[:0], NOT_VERIFIED, "nothing was compared"),
    "one image": (REFERENCE[:1], REFERENCE[:1], DEGENERATE, "one image"),
    "constant": (REFERENCE[[0, 0, 0]], REFERENCE[[0, 0, 0]], DEGENERATE, "a constant would agree"),
    "another number of classes than the card": (REFERENCE[:, :2], REFERENCE[:, :2], FAILED, "the card's (3,)"),
}  # fmt: skip


@pytest.mark.parametrize("limits", [FLOAT32, UINT8, NO_GATE], ids=["float32", "uint8", "int8"])
@pytest.mark.parametrize(("expected", "answer", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_in_every_precision(
    expected: np.ndarray, answer: np.ndarray, status: str, reason: str, limits: Limits
) -> None:
    found = judged(expected, answer, limits)
    assert (found.status, found.figures) == (status, {})
    assert reason in found.reason


def test_a_reference_that_moves_less_than_the_limit_is_degenerate() -> None:
    labels = np.arange(60) % 3
    barely = (1 / 3 + 0.04 * (sure(labels) - 1 / 3) / 0.8).astype(np.float32)
    assert judged(barely, barely, UINT8, labels).status == DEGENERATE
    assert judged(barely, barely, FLOAT32).status == VERIFIED
    still = (1 / 3 + 5e-4 * (sure(labels) - 1 / 3)).astype(np.float32)
    assert judged(still, still, FLOAT32).status == DEGENERATE
    assert judged(still, still, NO_GATE).status == DEGENERATE


def test_a_reference_with_one_answer_for_all_is_degenerate_although_it_varies() -> None:
    certain = np.concatenate([sure([0] * 10, 0.8), sure([0] * 10, 0.95)])
    found = judged(certain, certain.copy())
    assert found.status == DEGENERATE and "the same label" in found.reason


def test_a_fault_outweighs_a_degenerate_reference() -> None:
    certain = np.concatenate([sure([0] * 10, 0.8), sure([0] * 10, 0.95)])
    assert judged(certain, certain + 0.01).status == FAILED


def test_outputs_are_paired_by_name() -> None:
    outputs = tuple(dataclasses.replace(LABEL, name=name) for name in ("apple", "zebra"))
    reference = {"zebra": REFERENCE, "apple": REFERENCE[::-1].copy()}
    assert {
        each.status for each in compare(reference, dict(reversed(reference.items())), outputs, FLOAT32, {}).values()
    } == {VERIFIED}
    swapped = {"zebra": reference["apple"], "apple": reference["zebra"]}
    found = compare(reference, swapped, outputs, FLOAT32, {})
    assert {each.status for each in found.values()} == {FAILED}


@pytest.mark.parametrize(
    ("names", "status", "reason"),
    [
        ((), FAILED, "the artifact has no output 'label'"),
        (("labels",), FAILED, "an output 'labels' that the Keras model has not"),
        (("label", "logits"), FAILED, "an output 'logits' that the Keras model has not"),
    ],
)
def test_missing_and_extra_outputs_fail(names: tuple[str, ...], status: str, reason: str) -> None:
    found = compare({"label": REFERENCE}, dict.fromkeys(names, REFERENCE), (LABEL,), FLOAT32, {})
    assert worst([each.status for each in found.values()]) == status
    assert any(reason in each.reason for each in found.values())


def test_an_output_that_the_card_does_not_promise_fails() -> None:
    found = compare({"label": REFERENCE}, {"label": REFERENCE}, (), FLOAT32, {})
    assert found["label"].status == FAILED


def test_a_promised_output_without_reference_answers_is_not_verified() -> None:
    found = compare({"label": REFERENCE}, {"label": REFERENCE}, (LABEL, ANGLE), FLOAT32, {})
    assert {name: each.status for name, each in found.items()} == {"label": VERIFIED, "angle": NOT_VERIFIED}
    assert compare({}, {}, (LABEL,), FLOAT32, {})["label"].status == NOT_VERIFIED


def test_no_comparison_at_all_is_not_verified() -> None:
    assert compare({}, {}, (), FLOAT32, {}) == {}
    assert worst([]) == NOT_VERIFIED
    assert worst([VERIFIED, VERIFIED]) == VERIFIED
    assert worst([VERIFIED, FAILED, NOT_VERIFIED]) == FAILED
    order = [VERIFIED, NOT_ENOUGH_IMAGES, DEGENERATE, NOT_VERIFIED, FAILED]
    assert [worst(order[: end + 1]) for end in range(5)] == order


# lost, won, right in both, in neither -> drop, centre and half-width of Agresti and Min's interval, worked out by hand:
# centre = (lost - won) / (n + 2); half-width = 1.959964 sqrt(lost + won + 1 - (lost - won)^2 / (n + 2)) / (n + 2).
GATES = {
    "falls": ((10, 2, 180, 6), 8 / 198, 0.04, 0.0348962, FAILED),
    "too few to tell": ((5, 3, 180, 10), 2 / 198, 0.01, 0.0293670, NOT_ENOUGH_IMAGES),
    "no difference, and enough images": ((0, 0, 86, 10), 0.0, 0.0, 0.0199996, VERIFIED),
    "no difference, one image too few": ((0, 0, 85, 10), 0.0, 0.0, 0.0202058, NOT_ENOUGH_IMAGES),
    "a small fall": ((8, 2, 900, 88), 6 / 998, 6 / 1000, 0.0064899, VERIFIED),
    "a fall that may be chance": ((10, 5, 350, 33), 5 / 398, 5 / 400, 0.0195611, VERIFIED),
    "a rise": ((2, 14, 1000, 82), -12 / 1098, -12 / 1100, 0.0073181, VERIFIED),
    "a certain fall within a point": ((9, 0, 980, 9), 9 / 998, 9 / 1000, 0.0061732, VERIFIED),
    "a certain fall beyond a point": ((11, 0, 980, 7), 11 / 998, 11 / 1000, 0.0067552, FAILED),
}


@pytest.mark.parametrize(("counts", "drop", "center", "half_width", "status"), GATES.values(), ids=GATES)
def test_the_accuracy_gate(
    counts: tuple[int, int, int, int], drop: float, center: float, half_width: float, status: str
) -> None:
    expected, answer, truth = with_answers(*counts)
    found_drop, low, high = paired_drop(expected.argmax(-1) == truth, answer.argmax(-1) == truth)
    assert found_drop == pytest.approx(drop, abs=1e-12)
    assert (low + high) / 2 == pytest.approx(center, abs=1e-12)
    assert (high - low) / 2 == pytest.approx(half_width, abs=1e-6)
    limits = dataclasses.replace(INT8, agreement=0.5)
    found = judged(expected, answer, limits, truth)
    assert found.status == status and bool(found.reason) == (status != VERIFIED)
    assert found.figures["accuracy_drop"] == pytest.approx(drop)
    assert found.figures["accuracy_interval"] == [low, high]
    assert found.figures["smallest_passing_limits"]["accuracy_drop"] == pytest.approx(max(drop, 0))
    if status == FAILED:
        assert "accuracy falls by" in found.reason


def test_the_accuracy_gate_does_not_judge_float() -> None:
    expected, answer, truth = with_answers(10, 2, 180, 6)
    found = judged(expected, answer, Limits(None, 0.5), truth)
    assert "accuracy" not in found.reason and found.figures["accuracy_drop"] > 0.04


def test_without_labels_an_accuracy_gate_has_not_run() -> None:
    labels = np.arange(300) % 3
    found = judged(sure(labels), sure(labels), INT8)
    assert found.status == NOT_VERIFIED and "the accuracy gate did not run" in found.reason
    assert judged(sure(labels), sure(labels), INT8, labels).status == VERIFIED


def test_regression_is_judged_in_shares_of_the_spread() -> None:
    expected = np.linspace(-50, 150, 401, dtype=np.float64)[:, None]
    # The spread runs from the 2.5th to the 97.5th percentile: 190.
    answer = expected.copy()
    answer[200] += 1.9
    found = compare_output(expected, answer, ANGLE, dataclasses.replace(FLOAT32, relative_error=0.0101), None)
    assert found.status == VERIFIED and found.figures["relative_error"] == pytest.approx(0.01)
    answer[200] += 0.1
    found = compare_output(expected, answer, ANGLE, FLOAT32, None)
    assert found.status == FAILED and "1.05% of the spread, over 1.00%" in found.reason
    assert compare_output(expected, answer, ANGLE, INT8, None).status == VERIFIED


def test_a_task_without_a_measure_is_not_verified() -> None:
    expected = np.linspace(0, 1, 50)[:, None]
    unknown = Output("depth", "linear", "depth", (1,))
    found = compare_output(expected, expected, unknown, FLOAT32, None)
    assert found.status == NOT_VERIFIED and "no measure by which the task 'depth' is judged" in found.reason
    assert compare_output(expected, expected[:1].repeat(50, 0), unknown, FLOAT32, None).status == FAILED


def test_cosine_of_known_vectors() -> None:
    assert cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(np.sqrt(0.5))
    assert cosine(np.array([1.0, 2]), np.array([-2.0, -4])) == pytest.approx(-1)
    assert cosine(np.zeros(2), np.ones(2)) == 0


def damaged(reference: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Answers with a fault that a converter could make, chosen by chance."""
    answer, image = reference.copy(), generator.integers(len(reference))
    kind = generator.integers(9)
    if kind == 0:
        answer[image, generator.integers(3)] = generator.choice([np.nan, np.inf, -np.inf])
    elif kind == 1:
        answer = answer[:, generator.permutation(3)[[1, 2, 0]]] if generator.random() < 0.5 else answer[:, ::-1]
    elif kind == 2:
        answer[:] = answer.mean(0)
    elif kind == 3:
        answer = np.roll(answer, 1, axis=0)
    elif kind == 4:
        answer[image] += generator.choice([-1, 1]) * generator.uniform(0.06, 1)
    elif kind == 5:
        answer = answer[: generator.integers(len(answer))]
    elif kind == 6:
        answer = np.zeros_like(answer)
    elif kind == 7:
        answer = np.log(answer + 1e-7)
    else:
        answer = answer.astype(np.float64) * 10.0 ** generator.integers(2, 35)
    return answer


@pytest.mark.parametrize("precision", ["float32", "float16", "uint8", "dynamic_int8"])
def test_no_damage_passes(precision: str) -> None:
    generator = np.random.default_rng(list(precision.encode()))
    for round_number in range(300):
        labels = np.arange(generator.integers(8, 150)) % 3
        generator.shuffle(labels)
        reference = sure(labels, generator.uniform(0.75, 0.99))
        answer = damaged(reference, generator)
        if answer.shape == reference.shape and np.array_equal(answer, reference):
            continue
        found = compare({"label": reference}, {"label": answer}, (LABEL,), CEILINGS[precision], {"label": labels})
        status = worst([each.status for each in found.values()])
        assert status == FAILED, (round_number, found)
        assert all(each.reason for each in found.values())


def test_int8_passes_no_damage_that_changes_labels() -> None:
    generator = np.random.default_rng(8)
    labels = np.arange(300) % 3
    reference = sure(labels)
    for share in np.linspace(0.06, 1, 60):
        answer, hit = reference.copy(), generator.permutation(300)[: int(300 * share)]
        answer[hit] = sure((labels[hit] + generator.integers(1, 3, len(hit))) % 3)
        assert judged(reference, answer, INT8, labels).status == FAILED


def test_random_answers_of_random_models_never_pass() -> None:
    generator = np.random.default_rng(9)
    for _ in range(200):
        count = generator.integers(2, 60)
        reference, answer = (generator.dirichlet([0.5, 0.5, 0.5], count).astype(np.float32) for _ in range(2))
        truth = {"label": generator.integers(0, 3, count)}
        for limits in (FLOAT32, FLOAT16, UINT8, INT8):
            assert compare({"label": reference}, {"label": answer}, (LABEL,), limits, truth)["label"].status != VERIFIED


def test_the_comparator_knows_no_format() -> None:
    names = set(vars(parity))
    assert not names & {"FORMATS", "tflite", "tfjs", "onnx"}


def sample(count: int, wrong: int = 0, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Reference and answers of a few images, of which some get another label."""
    says = np.arange(count) % labels
    other = says.copy()
    other[:wrong] = (other[:wrong] + 1) % 3
    return sure(says), sure(other)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 0), ("float16", 1), ("dynamic_int8", 2), ("int8", 3)])
def test_a_sample_fails_beyond_what_its_limit_allows_by_chance(precision: str, allowed: int) -> None:
    limits = dataclasses.replace(CEILINGS[precision], max_abs=None, log_max_abs=None)
    for wrong, status in ((allowed, VERIFIED), (allowed + 1, FAILED)):
        expected, answer = sample(16, wrong)
        found = compare_output(expected, answer, LABEL, limits, None, sampled=True)
        assert found.status == status, (wrong, found.reason)
        assert (found.figures["disagreements"], found.figures["allowed_disagreements"]) == (wrong, allowed)
    assert f"{allowed + 1} of 16 sampled images get another label" in found.reason


def test_a_sample_has_no_accuracy_gate_and_needs_no_labels() -> None:
    expected, answer = sample(16)
    assert judged(expected, answer, INT8).status == NOT_VERIFIED
    assert judged(expected, answer, INT8, np.arange(16) % 3).status == NOT_ENOUGH_IMAGES
    for truth in (None, np.arange(16) % 3):
        found = compare_output(expected, answer, LABEL, INT8, truth, sampled=True)
        assert (found.status, found.reason) == (VERIFIED, "")
        assert found.figures["limits"]["accuracy_drop"] is None
        assert ("accuracy" in found.figures) == (truth is not None)


def test_near_ties_do_not_spoil_a_sample() -> None:
    expected = sure(np.arange(16) % 3)
    expected[:6] = [np.roll([0.340, 0.336, 0.324], index) for index in range(6)]
    assert judged(expected, expected.copy(), FLOAT16).status == DEGENERATE
    found = compare_output(expected, expected + np.float32(1e-3), LABEL, FLOAT16, None, sampled=True)
    assert (found.status, found.figures["near_ties"]) == (VERIFIED, 6)
    found = compare_output(expected, expected + np.float32(6e-3), LABEL, FLOAT16, None, sampled=True)
    assert found.status == FAILED and "largest difference 0.006" in found.reason


def test_one_label_for_a_whole_sample_is_told_apart_by_its_differences_or_not_at_all() -> None:
    expected = np.concatenate([sure([0] * 8, 0.8), sure([0] * 8, 0.95)])
    assert compare_output(expected, expected.copy(), LABEL, FLOAT32, None, sampled=True).status == VERIFIED
    assert compare_output(expected, expected[::-1].copy(), LABEL, FLOAT32, None, sampled=True).status == FAILED
    found = compare_output(expected, expected.copy(), LABEL, INT8, None, sampled=True)
    assert found.status == DEGENERATE and "the same label" in found.reason


@pytest.mark.parametrize("limits", [FLOAT32, FLOAT16, UINT8, INT8], ids=["float32", "float16", "uint8", "int8"])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_constant_answer_fails_even_where_nearly_all_images_bear_its_label(limits: Limits, sampled: bool) -> None:
    expected = sure([0] * 15 + [1])
    found = compare_output(expected, np.repeat(expected[:1], 16, 0), LABEL, limits, np.zeros(16, int), sampled=sampled)
    assert found.status == FAILED and "the answer is the same for all 16 images" in found.reason


@pytest.mark.parametrize("limits", [FLOAT32, UINT8, INT8], ids=["float32", "uint8", "int8"])
@pytest.mark.parametrize(("expected", "answer", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_in_a_sample_too(
    expected: np.ndarray, answer: np.ndarray, status: str, reason: str, limits: Limits
) -> None:
    found = compare_output(expected, answer, LABEL, limits, None, sampled=True)
    assert found.status == status and reason in found.reason


def test_missing_outputs_of_a_sample_fail() -> None:
    found = compare({"label": REFERENCE}, {}, (LABEL,), INT8, {}, sampled=True)
    assert found["label"].status == FAILED


@pytest.mark.parametrize("precision", ["float32", "float16", "uint8", "int8"])
def test_random_answers_never_pass_as_a_sample(precision: str) -> None:
    generator = np.random.default_rng(list(precision.encode()))
    for _ in range(200):
        reference, answer = (generator.dirichlet([0.5, 0.5, 0.5], 16).astype(np.float32) for _ in range(2))
        found = compare({"label": reference}, {"label": answer}, (LABEL,), CEILINGS[precision], {}, sampled=True)
        assert found["label"].status != VERIFIED


def test_the_worst_images_of_a_sample_are_named_as_in_the_golden_set() -> None:
    expected, answer = sample(4)
    answer[2] += np.float32(1e-5)
    indices = np.array([0, 50, 100, 150])
    found = compare({"label": expected}, {"label": answer}, (LABEL,), FLOAT32, {}, sampled=True, indices=indices)
    assert [each["image"] for each in found["label"].figures["worst"]] == [100]


LOGARITHMS = dataclasses.replace(FLOAT32, log_max_abs=5e-4)


def saturated(factor: float) -> np.ndarray:
    """Answers of a softmax that is sure of every image; one label's input is `factor` too large."""
    logits = np.zeros((12, 3))
    logits[np.arange(12), np.arange(12) % 3] = 12.0
    logits[:, 1] *= factor
    odds = np.exp(logits)
    return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)


def test_a_fault_that_softmax_hides_is_found_in_the_logarithms() -> None:
    expected, answer = saturated(1.0), saturated(1.02)
    hidden = judged(expected, answer, dataclasses.replace(FLOAT32, log_max_abs=None))
    assert (hidden.status, hidden.figures["agreement"]) == (VERIFIED, 1.0) and "log_max_abs" not in hidden.figures
    found = judged(expected, answer, LOGARITHMS)
    assert found.status == FAILED and "difference of log-probabilities 0.16 is over 0.0005" in found.reason
    assert found.figures["log_max_abs"] == pytest.approx(0.24 * 2 / 3, rel=0.05)
    assert found.figures["smallest_passing_limits"]["log_max_abs"] == found.figures["log_max_abs"]
    assert judged(expected, expected.copy(), LOGARITHMS).status == VERIFIED
    assert compare_output(expected, answer, LABEL, LOGARITHMS, None, sampled=True).status == FAILED


def test_a_logarithm_exactly_at_its_limit_passes() -> None:
    expected, answer = saturated(1.0), saturated(1.02)
    found = judged(expected, answer, LOGARITHMS).figures["log_max_abs"]
    assert judged(expected, answer, dataclasses.replace(FLOAT32, log_max_abs=found)).status == VERIFIED
    assert judged(expected, answer, dataclasses.replace(FLOAT32, log_max_abs=np.nextafter(found, 0))).status == FAILED


def test_logarithms_judge_softmax_only() -> None:
    values = np.linspace(-1, 1, 40)[:, None]
    found = compare_output(values, values + 1e-6, ANGLE, LOGARITHMS, None)
    assert found.status == VERIFIED and "log_max_abs" not in found.figures


def test_more_figures_of_a_classification() -> None:
    ten = Output("ten", "linear", "multiclass", (10,))
    generator = np.random.default_rng(5)
    expected = generator.dirichlet(np.full(10, 0.2), 200)
    answer = expected + generator.normal(0, 1e-6, expected.shape)
    figures = compare_output(expected, answer, ten, FLOAT16, generator.integers(0, 10, 200)).figures
    assert 0 < figures["kl"] < 1e-6 and 0 < figures["max_relative"] < 1
    assert np.sum(figures["confusion"]) == np.sum(figures["confusion_of_keras"]) == 200
    assert figures["top5_agreement"] == 1.0 and 0 < figures["top5_near_ties"] < 200
    assert len(figures["worst"]) == 8 and figures["worst"][0]["difference"] == figures["max_abs"]
    json.dumps(figures, allow_nan=False)
    three = judged(REFERENCE, REFERENCE.copy()).figures
    assert "top5_agreement" not in three and "confusion" not in three


def test_a_table_of_very_many_labels_is_left_out() -> None:
    many = Output("many", "linear", "multiclass", (51,))
    expected = np.random.default_rng(6).dirichlet(np.full(51, 0.1), 300)
    assert "confusion" not in compare_output(expected, expected, many, FLOAT16, expected.argmax(-1)).figures


def test_answers_that_are_equal_to_the_last_bit_are_remarked_and_not_failed() -> None:
    found = judged(REFERENCE, REFERENCE.copy())
    assert found.status == VERIFIED and "to the last bit" in found.figures["remark"]
    assert "remark" not in judged(REFERENCE, REFERENCE + np.float32(1e-6)).figures
