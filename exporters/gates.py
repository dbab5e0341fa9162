"""The gates of a comparison: each takes figures, holds one of them against its limit, and says in words what is wrong.

Every gate writes what it measured into `figures`, and what would have passed into its `smallest_passing_limits`.
`expected` and `answer` are float64 (N, ...), finite, of one shape. Which status follows is for `exporters.parity` to say.
"""

from __future__ import annotations

import numpy as np

from exporters import measures
from exporters.contract import Limits

LARGEST_HALF_WIDTH = 0.02
# Two images are as near as each other where their cosines to a third differ by no more.
NEAR_TIE_OF_SIMILARITY = 0.01
# Of vectors that should have the length 1: whole numbers, in steps of 1/128, bring lengths that are off by some hundredths.
LARGEST_LENGTH_ERROR = 0.1
# A table of more labels would be most of report.json, and nobody could read it.
MOST_LABELS_OF_CONFUSION = 50


def judge_agreement(
    expected: np.ndarray,
    answer: np.ndarray,
    ties: np.ndarray,
    limits: Limits,
    figures: dict[str, object],
    sampled: bool,
) -> list[str]:
    """Judge how many images get the same first label; near-ties, bool (N,), are left out. Returns what is wrong."""
    same = (expected.argmax(-1) == answer.argmax(-1))[~ties]
    agreement = float(same.mean()) if len(same) else 0.0
    figures |= {"agreement": agreement, "near_ties": int(ties.sum())}
    figures["smallest_passing_limits"] |= {"agreement": agreement}
    if not sampled:
        fails = agreement < limits.agreement and len(same) > 0
        return [f"top-1 agreement {agreement:.1%} is under {limits.agreement:.1%}"] if fails else []
    wrong, allowed = int((~same).sum()), measures.allowed_disagreements(len(same), limits.agreement)
    figures |= {"disagreements": wrong, "allowed_disagreements": allowed}
    if wrong > allowed:
        return [
            f"{wrong} of {len(same)} sampled images get another label; a limit of {limits.agreement:.1%} allows {allowed}"
        ]
    return []


def note_top5(expected: np.ndarray, answer: np.ndarray, limits: Limits, figures: dict[str, object]) -> None:
    """Note the share of images with the same five likeliest labels, in any order, near-ties of the fifth place left out."""
    if expected.shape[-1] < 6:
        return
    clear = ~measures.near_ties(expected, limits.max_abs, place=5)
    if clear.any():
        figures["top5_agreement"] = float(measures.same_top5(expected, answer)[clear].mean())
    figures["top5_near_ties"] = int((~clear).sum())


def judge_accuracy(
    expected: np.ndarray, answer: np.ndarray, limits: Limits, truth: np.ndarray, figures: dict[str, object]
) -> tuple[list[str], str]:
    """Judge the fall of accuracy against the true labels, int (N,).

    Returns:
        What is wrong, and why the images are too few to say that nothing is, or an empty string.
    """
    right, right_of_artifact = expected.argmax(-1) == truth, answer.argmax(-1) == truth
    drop, low, high = measures.paired_drop(right, right_of_artifact)
    figures |= {
        "accuracy": float(right_of_artifact.mean()),
        "accuracy_drop": drop,
        "accuracy_interval": [low, high],
    }
    figures["smallest_passing_limits"] |= {"accuracy_drop": max(drop, 0.0)}
    if answer.shape[-1] <= MOST_LABELS_OF_CONFUSION:
        figures["confusion"] = measures.confusion(truth, answer)
        figures["confusion_of_keras"] = measures.confusion(truth, expected)
    if limits.accuracy_drop is None:
        return [], ""
    if drop > limits.accuracy_drop and low > 0:
        fault = f"accuracy falls by {drop:.1%} (95 % interval {low:.1%} to {high:.1%}), more than {limits.accuracy_drop:.1%}"
        return [fault], ""
    half_width = (high - low) / 2
    if half_width > LARGEST_HALF_WIDTH:
        return [], (
            f"{len(truth)} images leave the fall of accuracy uncertain by {half_width:.1%}; at most "
            f"{LARGEST_HALF_WIDTH:.0%} is allowed: give more test images or raise parity.images"
        )
    return [], ""


def judge_difference(figures: dict[str, object], limits: Limits) -> list[str]:
    """Judge the largest differences that are in `figures` already. Returns what is wrong."""
    faults = []
    if limits.max_abs is not None and figures["max_abs"] > limits.max_abs:
        faults.append(f"the largest difference {figures['max_abs']:.2g} is over {limits.max_abs:.2g}")
    shift = figures.get("confidence_shift")
    if limits.confidence_shift is not None and shift is not None and abs(shift) > limits.confidence_shift:
        faults.append(
            f"the likeliest label is {shift:+.2g} surer on average, and {limits.confidence_shift:.2g} is allowed: rounding "
            "makes single answers surer or less sure, not all of them"
        )
    if limits.log_max_abs is not None and figures.get("log_max_abs", 0.0) > limits.log_max_abs:
        found = f"{figures['log_max_abs']:.2g} is over {limits.log_max_abs:.2g}"
        faults.append(
            f"the largest difference of log-probabilities {found}, which softmax hides where one label is sure"
        )
    return faults


def judge_embedding(
    expected: np.ndarray, answer: np.ndarray, limits: Limits, figures: dict[str, object], sampled: bool
) -> list[str]:
    """Judge directions, and what is near what among the images: embeddings (N, width). Returns what is wrong.

    `least_cosine` is that of an image's embedding and Keras's of the same image; `neighbours` the share of images whose nearest
    neighbour is kept, or changed for one that is as near but for 0.01 of cosine: which of two equally near ones comes first,
    rounding may decide.
    """
    least = measures.least_cosine(expected, answer)
    kept = measures.lost_similarity(expected, answer) <= NEAR_TIE_OF_SIMILARITY
    share, wrong = float(kept.mean()), int((~kept).sum())
    length_error = float(np.abs(np.linalg.norm(answer, axis=-1) - 1).max())
    figures |= {"least_cosine": least, "neighbours": share, "length_error": length_error}
    figures["smallest_passing_limits"] |= {"least_cosine": least, "neighbours": share}
    if limits.least_cosine is None or limits.neighbours is None:
        return []
    faults = []
    if not least >= limits.least_cosine:
        found = f"{least:.7g}, under {limits.least_cosine:.7g}"
        faults.append(f"the least cosine to the Keras model's embedding of the same image is {found}")
    allowed = measures.allowed_disagreements(len(kept), limits.neighbours)
    if sampled:
        figures |= {"disagreements": wrong, "allowed_disagreements": allowed}
    if wrong > allowed if sampled else share < limits.neighbours:
        told = f"{wrong} of {len(kept)} images get another nearest neighbour"
        faults.append(f"{told}; {limits.neighbours:.1%} must keep theirs")
    # Along an embedding no more may be off than across it.
    longest = min(LARGEST_LENGTH_ERROR, float(np.sqrt(2 * (1 - limits.least_cosine))))
    if length_error > longest:
        faults.append(f"an embedding's length is off by {length_error:.2g}, more than {longest:.2g}")
    return faults


def any_neighbour_passes(expected: np.ndarray) -> float:
    """Return the share of images of whose other images at least half are as near as the nearest: whoever guesses passes."""
    found = measures.similarities(expected)
    others = np.sort(found, axis=-1)[:, 1:]
    return float((others.max(-1) - np.median(others, axis=-1) <= NEAR_TIE_OF_SIMILARITY).mean())


def judge_regression(expected: np.ndarray, answer: np.ndarray, limits: Limits, figures: dict[str, object]) -> list[str]:
    """Judge the largest error in shares of the spread between the 2.5th and the 97.5th percentile. Returns what is wrong."""
    range_of_targets = spread(expected)
    relative = float(np.abs(expected - answer).max() / range_of_targets) if range_of_targets else float("inf")
    figures["relative_error"] = relative
    figures["smallest_passing_limits"] |= {"relative_error": relative}
    if relative > limits.relative_error:
        return [f"the largest error is {relative:.2%} of the spread, over {limits.relative_error:.2%}"]
    return []


def spread(values: np.ndarray) -> float:
    """Return how far the values (N, ...) of a regression lie apart: between the 2.5th and the 97.5th percentile."""
    return float((np.quantile(values, 0.975, axis=0) - np.quantile(values, 0.025, axis=0)).max())
