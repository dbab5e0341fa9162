"""Compares the answers of an artifact with those of the Keras model. Pure numpy; knows no format.

A comparison can end in five ways. `verified` and `failed` are judgements; `degenerate` (the reference cannot tell a
right artifact from a wrong one), `not_enough_images` (the accuracy gate's interval is too wide) and `not_verified`
(there was nothing to compare) are neither.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from exporters import gates, gates_decisions, gates_embedding, gates_numbers, gates_segmentation, measures
from exporters.answers import sayer
from exporters.contract import BOXES, EMBEDDING, MULTICLASS, REGRESSION, SEGMENTATION, Limits, Output
from exporters.gates import DECIDED
from exporters.measures import cosine, near_ties, paired_drop
from exporters.statuses import (
    DEGENERATE,
    FAILED,
    FINE,
    NOT_ENOUGH_IMAGES,
    NOT_VERIFIED,
    SEVERITY,
    VERIFIED,
    Ending,
    worst,
)

__all__ = [
    "DEGENERATE", "FAILED", "NOT_ENOUGH_IMAGES", "NOT_VERIFIED", "SEVERITY", "VERIFIED", "Comparison", "compare",
    "compare_output", "cosine", "near_ties", "paired_drop", "worst",
]  # fmt: skip

# A reference that moves by less than this over all images would agree with a constant.
LEAST_VARIATION = 1e-3
REMARK_OF_EQUALITY = (
    "every answer equals the Keras model's to the last bit; two runtimes rarely do: "
    "make sure that it was not the Keras model that answered twice"
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What one output's comparison gave.

    `figures` holds the numbers of report.json (differences of probabilities, shares 0..1, counts); `reason` says in
    one sentence why the status is not `verified`.
    """

    status: str
    reason: str
    figures: dict[str, object]


def compare(
    reference: Mapping[str, np.ndarray],
    answers: Mapping[str, np.ndarray],
    outputs: tuple[Output, ...],
    limits: Limits,
    truth: Mapping[str, np.ndarray],
    *,
    sampled: bool = False,
    indices: np.ndarray | None = None,
) -> dict[str, Comparison]:
    """Compare every output that the reference has.

    Args:
        reference: output name -> float32 (N, ...) of the Keras model.
        answers: output name -> float32 (N, ...) of the artifact, on the same images.
        outputs: what the card promises.
        limits: what the artifact may differ by.
        truth: output name -> what is true of each image, as `exporters.contract` says it of every task; where the limits have
            an accuracy gate and an output no truth, the output is `not_verified`, but for regressions and embeddings.
        sampled: the images are a few of a set that another runtime of the same artifact answers whole (see
            `measures.spread`). Every difference is judged as always; accuracy is not, near-ties are no fault of the set,
            and agreement fails where more images disagree than the limit allows by chance (see
            `measures.allowed_disagreements`).
        indices: int (N,), the images' numbers in the golden set, by which the worst are named; None: 0 to N - 1.

    Returns:
        output name -> comparison. An output that the artifact lacks, or has too many, is `failed`; one that the card
        promises and the reference lacks is `not_verified`.
    """
    promised = {output.name: output for output in outputs}
    results = {
        name: Comparison(FAILED, f"the artifact has an output '{name}' that the Keras model has not", {})
        for name in sorted(set(answers) - set(reference))
    }
    for name in sorted(set(promised) - set(reference) - set(answers)):
        results[name] = Comparison(
            NOT_VERIFIED, f"there are no reference answers for '{name}': nothing was compared", {}
        )
    for name in sorted(reference):
        if name not in promised:
            results[name] = Comparison(FAILED, f"the card does not promise the output '{name}'", {})
        elif name not in answers:
            results[name] = Comparison(FAILED, f"the artifact has no output '{name}'", {})
        else:
            results[name] = compare_output(
                reference[name], answers[name], promised[name], limits, truth.get(name), sampled=sampled
            )
            for each in results[name].figures.get("worst", []) if indices is not None else []:
                each["image"] = int(indices[each["image"]])
    return results


def compare_output(
    expected: np.ndarray,
    answer: np.ndarray,
    output: Output,
    limits: Limits,
    truth: np.ndarray | None,
    *,
    sampled: bool = False,
) -> Comparison:
    """Compare one output; see `compare`."""
    if output.task == MULTICLASS and len(output.shape) > 1:
        # A softmax at every place, as a model made elsewhere may have, is a label map by another name.
        output = dataclasses.replace(output, task=SEGMENTATION)
    refusal = _refusal(expected, answer, output, limits)
    if refusal:
        return refusal
    if sampled:
        # A few images cannot judge an accuracy: it is told, and another runtime's is judged.
        limits = dataclasses.replace(limits, accuracy_drop=None)
    figures: dict[str, object] = {
        "task": output.task,
        "limits": dataclasses.asdict(limits),
        "smallest_passing_limits": {},
    }
    # By agreement alone, a constant would pass where the images nearly all bear one label.
    faults = [f"the answer is the same for all {len(answer)} images"] if not np.ptp(answer, axis=0).any() else []
    found, ending = _judge(expected, answer, output, limits, truth, figures, sampled)
    faults += found
    if not figures["max_abs"]:
        figures["remark"] = REMARK_OF_EQUALITY
    return Comparison(FAILED, "; ".join(faults), figures) if faults else Comparison(*ending, figures)


def _judge(
    expected: np.ndarray,
    answer: np.ndarray,
    output: Output,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
    sampled: bool,
) -> tuple[list[str], Ending]:
    """Return what is wrong by the measures of the output's own task, and how the comparison ends where nothing is."""
    if output.task == SEGMENTATION:
        return gates_segmentation.judge(expected, answer, output, limits, truth, figures, sampled)
    expected, answer = expected.astype(np.float64), answer.astype(np.float64)
    figures |= _differences(expected, answer, output, limits)
    if output.task == MULTICLASS:
        found, ending = _judge_classes(expected, answer, limits, truth, figures, sampled)
        return gates.judge_difference(figures, limits) + found, ending
    if output.task == EMBEDDING:
        found, ending = gates_embedding.judge(expected, answer, limits, truth, figures, sampled)
        return gates.judge_difference(figures, limits) + found, ending
    if output.task == REGRESSION:
        return gates_numbers.judge_regression(expected, answer, output, limits, truth, figures)
    if output.task == BOXES:
        return gates_numbers.judge_boxes(expected, answer, limits, truth, figures, sampled)
    if output.task in DECIDED:
        return gates_decisions.judge(expected, answer, output, limits, truth, figures, sampled)
    return [], (NOT_VERIFIED, f"there is no measure by which the task '{output.task}' is judged")


def _refusal(expected: np.ndarray, answer: np.ndarray, output: Output, limits: Limits) -> Comparison | None:
    if len(expected) == 0:
        return Comparison(NOT_VERIFIED, "there are no images to compare on: nothing was compared", {})
    if expected.shape != answer.shape:
        return Comparison(
            FAILED, f"the answer has the shape {answer.shape}, the Keras model's has {expected.shape}", {}
        )
    if expected.shape[1:] != output.shape:
        return Comparison(
            FAILED, f"the Keras model's answer has the shape {expected.shape}, the card's {output.shape}", {}
        )
    # One image after the other: of label maps, a table of bools would be a quarter of all of them.
    if not all(np.isfinite(each).all() for each in expected):
        return Comparison(DEGENERATE, "the Keras model itself answers with NaN or infinity", {})
    bad = sum(not np.isfinite(each).all() for each in answer)
    if bad:
        return Comparison(FAILED, f"the answer holds NaN or infinity for {bad} of {len(answer)} images", {})
    if len(expected) == 1:
        return Comparison(DEGENERATE, "one image cannot tell a right artifact from a constant one", {})
    if output.task == REGRESSION:
        # How much a number of any unit has to vary, each column's own values tell.
        still = "the Keras model's answers hardly vary over all images: a constant would agree"
        return Comparison(DEGENERATE, still, {}) if gates_numbers.nothing_varies(expected) else None
    variation = float(np.ptp(expected, axis=0).max())
    # An embedding has many small numbers; what tells it from a constant is judged by its neighbours.
    allowed = 0.0 if output.task == EMBEDDING else limits.max_abs or 0.0
    allowed = min(limits.max_abs or limits.relative_error, limits.relative_error) if output.task == BOXES else allowed
    if variation < max(LEAST_VARIATION, 2 * allowed):
        return Comparison(
            DEGENERATE, f"the Keras model's answers vary by {variation:.2g} over all images: a constant would agree", {}
        )
    return None


def _differences(expected: np.ndarray, answer: np.ndarray, output: Output, limits: Limits) -> dict[str, object]:
    """Return the figures that every task has, label maps apart; `log_max_abs` only where it is judged."""
    gaps, classes = np.abs(expected - answer), output.task == MULTICLASS
    # Which image of a regression is the worst, columns of other units have to say alike.
    units = gates_numbers.units(expected) if output.task == REGRESSION else np.ones(expected.shape[1:])
    figures: dict[str, object] = {
        "max_abs": float(gaps.max()),
        "mean_abs": float(gaps.mean()),
        "max_relative": measures.max_relative(expected, answer),
        "cosine": cosine(expected, answer),
        "smallest_passing_limits": {"max_abs": float(gaps.max())},
        "worst": measures.worst_images(expected / units, answer / units, classes, say=sayer(output, units)),
    }
    if classes:
        figures["kl"] = measures.kl_divergence(expected, answer)
        figures["confidence_shift"] = float(answer.max(-1).mean() - expected.max(-1).mean())
        if limits.confidence_shift is not None:
            figures["smallest_passing_limits"] |= {"confidence_shift": abs(figures["confidence_shift"])}
    # The inputs of any other activation than softmax cannot be had back from what float32 or float16 leaves of them.
    if classes and output.activation == "softmax" and limits.log_max_abs is not None:
        figures["log_max_abs"] = measures.log_max_abs(expected, answer)
        figures["smallest_passing_limits"] |= {"log_max_abs": figures["log_max_abs"]}
    return figures


def _judge_classes(
    expected: np.ndarray,
    answer: np.ndarray,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
    sampled: bool,
) -> tuple[list[str], Ending]:
    ties = near_ties(expected, limits.max_abs)
    faults = gates.judge_agreement(expected, answer, ties, limits, figures, sampled)
    gates.note_top5(expected, answer, limits, figures)
    ending = FINE
    # Of a sample, the differences tell a constant from the model, as they were checked to vary; without a limit on
    # them only the labels can.
    if ties.mean() > gates.LARGEST_SHARE_OF_NEAR_TIES and not sampled:
        ending = (DEGENERATE, f"{ties.mean():.1%} of the images are near-ties of the Keras model itself")
    elif len(np.unique(expected.argmax(-1))) == 1 and not (sampled and limits.max_abs is not None):
        ending = (DEGENERATE, "the Keras model gives every image the same label: a constant would agree")
    too_few = ""
    if truth is not None:
        fault, too_few = gates.judge_accuracy(expected, answer, limits, truth, figures)
        faults += fault
    return faults, gates.ending_by_truth(truth, limits, ending, too_few)
