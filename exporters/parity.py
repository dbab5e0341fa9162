"""Compares the answers of an artifact with those of the Keras model. Pure numpy; knows no format.

A comparison can end in five ways. `verified` and `failed` are judgements; `degenerate` (the reference cannot tell a
right artifact from a wrong one), `not_enough_images` (the accuracy gate's interval is too wide) and `not_verified`
(there was nothing to compare) are neither.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from exporters.contract import Limits, Output

VERIFIED = "verified"
FAILED = "failed"
NOT_VERIFIED = "not_verified"
NOT_ENOUGH_IMAGES = "not_enough_images"
DEGENERATE = "degenerate"

# The worst status of several is the one that is told.
SEVERITY = (VERIFIED, NOT_ENOUGH_IMAGES, DEGENERATE, NOT_VERIFIED, FAILED)

LARGEST_SHARE_OF_NEAR_TIES = 0.05
LARGEST_HALF_WIDTH = 0.02
# A reference that moves by less than this over all images would agree with a constant.
LEAST_VARIATION = 1e-3


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What one output's comparison gave.

    `figures` holds the numbers of report.json (differences of probabilities, shares 0..1, counts); `reason` says in
    one sentence why the status is not `verified`.
    """

    status: str
    reason: str
    figures: dict[str, object]


def worst(statuses: list[str]) -> str:
    """Return the worst of some statuses; `not_verified` where there is none."""
    return max(statuses, key=SEVERITY.index) if statuses else NOT_VERIFIED


def compare(
    reference: Mapping[str, np.ndarray],
    answers: Mapping[str, np.ndarray],
    outputs: tuple[Output, ...],
    limits: Limits,
    truth: Mapping[str, np.ndarray],
) -> dict[str, Comparison]:
    """Compare every output that the reference has.

    Args:
        reference: output name -> float32 (N, ...) of the Keras model.
        answers: output name -> float32 (N, ...) of the artifact, on the same images.
        outputs: what the card promises.
        limits: what the artifact may differ by.
        truth: output name -> int (N,) class indices; where the limits have an accuracy gate and an output no truth,
            the output is `not_verified`.

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
            results[name] = compare_output(reference[name], answers[name], promised[name], limits, truth.get(name))
    return results


def compare_output(
    expected: np.ndarray, answer: np.ndarray, output: Output, limits: Limits, truth: np.ndarray | None
) -> Comparison:
    """Compare one output; see `compare`."""
    refusal = _refusal(expected, answer, output, limits)
    if refusal:
        return refusal
    expected, answer = expected.astype(np.float64), answer.astype(np.float64)
    figures: dict[str, object] = {
        "max_abs": float(np.abs(expected - answer).max()),
        "mean_abs": float(np.abs(expected - answer).mean()),
        "cosine": cosine(expected, answer),
        "limits": dataclasses.asdict(limits),
        "smallest_passing_limits": {"max_abs": float(np.abs(expected - answer).max())},
    }
    if output.task == "multiclass":
        faults, status = _judge_classes(expected, answer, limits, truth, figures)
    elif output.task == "regression":
        faults, status = _judge_regression(expected, answer, limits, figures)
    elif limits.max_abs is not None:
        faults, status = _judge_difference(figures, limits), VERIFIED
    else:
        faults, status = [], (NOT_VERIFIED, f"these limits hold no figure by which the task '{output.task}' is judged")
    if faults:
        return Comparison(FAILED, "; ".join(faults), figures)
    return Comparison(status[0], status[1], figures) if isinstance(status, tuple) else Comparison(status, "", figures)


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
    if not np.isfinite(expected).all():
        return Comparison(DEGENERATE, "the Keras model itself answers with NaN or infinity", {})
    if not np.isfinite(answer).all():
        bad = int((~np.isfinite(answer)).any(axis=tuple(range(1, answer.ndim))).sum())
        return Comparison(FAILED, f"the answer holds NaN or infinity for {bad} of {len(answer)} images", {})
    if len(expected) == 1:
        return Comparison(DEGENERATE, "one image cannot tell a right artifact from a constant one", {})
    variation = float(np.ptp(expected, axis=0).max())
    if variation < max(LEAST_VARIATION, 2 * (limits.max_abs or 0.0)):
        return Comparison(
            DEGENERATE, f"the Keras model's answers vary by {variation:.2g} over all images: a constant would agree", {}
        )
    return None


def _judge_classes(
    expected: np.ndarray, answer: np.ndarray, limits: Limits, truth: np.ndarray | None, figures: dict[str, object]
) -> tuple[list[str], str | tuple[str, str]]:
    ties = near_ties(expected, limits.max_abs)
    same = expected.argmax(-1) == answer.argmax(-1)
    agreement = float(same[~ties].mean()) if (~ties).any() else 0.0
    figures |= {"agreement": agreement, "near_ties": int(ties.sum())}
    figures["smallest_passing_limits"] |= {"agreement": agreement}
    faults = _judge_difference(figures, limits)
    if agreement < limits.agreement and not ties.all():
        faults.append(f"top-1 agreement {agreement:.1%} is under {limits.agreement:.1%}")
    status: str | tuple[str, str] = VERIFIED
    if ties.mean() > LARGEST_SHARE_OF_NEAR_TIES:
        status = (DEGENERATE, f"{ties.mean():.1%} of the images are near-ties of the Keras model itself")
    elif len(np.unique(expected.argmax(-1))) == 1:
        status = (DEGENERATE, "the Keras model gives every image the same label: a constant would agree")
    if truth is None and limits.accuracy_drop is not None:
        status = (NOT_VERIFIED, "there are no labels: the accuracy gate did not run")
    if truth is not None:
        fault, interval_status = _judge_accuracy(expected, answer, limits, truth, figures)
        faults += fault
        status = interval_status if status == VERIFIED else status
    return faults, status


def _judge_accuracy(
    expected: np.ndarray, answer: np.ndarray, limits: Limits, truth: np.ndarray, figures: dict[str, object]
) -> tuple[list[str], str | tuple[str, str]]:
    right, right_of_artifact = expected.argmax(-1) == truth, answer.argmax(-1) == truth
    drop, low, high = paired_drop(right, right_of_artifact)
    figures |= {
        "accuracy": float(right_of_artifact.mean()),
        "accuracy_drop": drop,
        "accuracy_interval": [low, high],
    }
    figures["smallest_passing_limits"] |= {"accuracy_drop": max(drop, 0.0)}
    if limits.accuracy_drop is None:
        return [], VERIFIED
    if drop > limits.accuracy_drop and low > 0:
        fault = f"accuracy falls by {drop:.1%} (95 % interval {low:.1%} to {high:.1%}), more than {limits.accuracy_drop:.1%}"
        return [fault], VERIFIED
    half_width = (high - low) / 2
    if half_width > LARGEST_HALF_WIDTH:
        return [], (
            NOT_ENOUGH_IMAGES,
            f"{len(truth)} images leave the fall of accuracy uncertain by {half_width:.1%}; at most "
            f"{LARGEST_HALF_WIDTH:.0%} is allowed: give more test images or raise parity.images",
        )
    return [], VERIFIED


def _judge_difference(figures: dict[str, object], limits: Limits) -> list[str]:
    if limits.max_abs is not None and figures["max_abs"] > limits.max_abs:
        return [f"the largest difference {figures['max_abs']:.2g} is over {limits.max_abs:.2g}"]
    return []


def _judge_regression(
    expected: np.ndarray, answer: np.ndarray, limits: Limits, figures: dict[str, object]
) -> tuple[list[str], str]:
    spread = float((np.quantile(expected, 0.975, axis=0) - np.quantile(expected, 0.025, axis=0)).max())
    relative = float(np.abs(expected - answer).max() / spread) if spread else float("inf")
    figures["relative_error"] = relative
    figures["smallest_passing_limits"] |= {"relative_error": relative}
    if relative > limits.relative_error:
        return [f"the largest error is {relative:.2%} of the spread, over {limits.relative_error:.2%}"], VERIFIED
    return [], VERIFIED


def cosine(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the cosine of the angle between two arrays taken as vectors, -1..1; 0 where one of them is all zeros."""
    norms = float(np.linalg.norm(expected) * np.linalg.norm(answer))
    return float((expected * answer).sum() / norms) if norms else 0.0


def near_ties(expected: np.ndarray, max_abs: float | None) -> np.ndarray:
    """Tell for which images the reference's own first two classes are nearer than twice the limit.

    Args:
        expected: (N, classes) probabilities of the Keras model.
        max_abs: the largest difference of probabilities that is allowed; None: no image counts as a near-tie.

    Returns:
        bool (N,).
    """
    if max_abs is None or expected.shape[-1] < 2:
        return np.zeros(len(expected), bool)
    first_two = np.sort(expected, axis=-1)[:, -2:]
    return first_two[:, 1] - first_two[:, 0] < 2 * max_abs


def paired_drop(right: np.ndarray, right_of_artifact: np.ndarray) -> tuple[float, float, float]:
    """Return the fall of accuracy from Keras to the artifact with its paired 95 % interval.

    The interval is Agresti and Min's (2005, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24): half an image is added to each cell of the paired table, so that few
    images without a single disagreement do not claim certainty.

    Args:
        right: bool (N,), where Keras names the true label.
        right_of_artifact: bool (N,), where the artifact does.

    Returns:
        (drop, low, high) in shares of images; positive means that the artifact is worse.
    """
    count = len(right) + 2.0
    lost = float((right & ~right_of_artifact).sum()) + 0.5
    won = float((~right & right_of_artifact).sum()) + 0.5
    center = (lost - won) / count
    half_width = 1.959964 * np.sqrt(max(lost + won - (lost - won) ** 2 / count, 0.0)) / count
    return float(right.mean() - right_of_artifact.mean()), float(center - half_width), float(center + half_width)
