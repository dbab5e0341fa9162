"""The gates that several tasks share: each takes figures, holds one against its limit, and says in words what is wrong.

Every gate writes what it measured into `figures`, and what would have passed into its `smallest_passing_limits`.
`expected` and `answer` are float64 (N, ...), finite, of one shape. `exporters.gates_*` judge one task each: they give what
is wrong, and how the comparison ends where nothing is.
"""

from __future__ import annotations

import numpy as np

from exporters import measures
from exporters.contract import BINARY, MULTILABEL, ORDINAL, Limits
from exporters.statuses import FINE, NOT_ENOUGH_IMAGES, NOT_VERIFIED, Ending

LARGEST_HALF_WIDTH = 0.02
LARGEST_SHARE_OF_NEAR_TIES = 0.05
# A table of more labels would be most of report.json, and nobody could read it.
MOST_LABELS_OF_CONFUSION = 50
# A label's own images may be lost four times as often as images are on average: those that bear a label are the harder ones.
SLACK_OF_A_LABEL = 4
# Of labels and columns of which the same is wrong, this many are named.
MOST_TOLD = 3
# Tasks whose answers are probabilities that each decide yes or no.
DECIDED = frozenset({BINARY, MULTILABEL, ORDINAL})


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
    if answer.shape[-1] <= MOST_LABELS_OF_CONFUSION:
        figures["confusion"] = measures.confusion(truth, answer)
        figures["confusion_of_keras"] = measures.confusion(truth, expected)
    return judge_fall(expected.argmax(-1) == truth, answer.argmax(-1) == truth, limits, figures)


def judge_fall(
    right: np.ndarray,
    right_of_artifact: np.ndarray,
    limits: Limits,
    figures: dict[str, object],
    key: str = "accuracy",
    words: str = "accuracy",
) -> tuple[list[str], str]:
    """Judge the fall of a mean over the images from Keras to the artifact, by its paired interval.

    Args:
        right, right_of_artifact: bool (N,), or a share 0..1 of each image, as `measures.paired_drop` takes them.
        key: what the figures are called: `accuracy`, `accuracy_drop`, `accuracy_interval`; `accuracy_drop` limits all.
        words: what it is called in a sentence.

    Returns:
        As `judge_accuracy`.
    """
    drop, low, high = measures.paired_drop(right, right_of_artifact)
    figures |= {key: float(right_of_artifact.mean()), f"{key}_drop": drop, f"{key}_interval": [low, high]}
    passing = figures["smallest_passing_limits"]
    passing["accuracy_drop"] = max(drop, passing.get("accuracy_drop", 0.0))
    if limits.accuracy_drop is None:
        return [], ""
    if drop > limits.accuracy_drop and low > 0:
        fault = (
            f"{words} falls by {drop:.1%} (95 % interval {low:.1%} to {high:.1%}), more than {limits.accuracy_drop:.1%}"
        )
        return [fault], ""
    half_width = (high - low) / 2
    if half_width > LARGEST_HALF_WIDTH:
        return [], (
            f"{len(right)} images leave the fall of {words} uncertain by {half_width:.1%}; at most "
            f"{LARGEST_HALF_WIDTH:.0%} is allowed: give more test images or raise parity.images"
        )
    return [], ""


def ending_by_truth(truth: np.ndarray | None, limits: Limits, ending: Ending, too_few: str) -> Ending:
    """Return how a comparison ends once the accuracy gate had its say: without truth it did not run.

    Args:
        truth: of the output; None: there is none.
        limits: whether accuracy is judged at all.
        ending: what was found before.
        too_few: why the images are too few for the accuracy gate; empty: they are not.
    """
    if truth is None and limits.accuracy_drop is not None:
        return NOT_VERIFIED, "there are no labels: the accuracy gate did not run"
    return (NOT_ENOUGH_IMAGES, too_few) if too_few and ending == FINE else ending


def judge_share(
    shares: np.ndarray, mean: float, limit: float, figures: dict[str, object], key: str, sampled: bool
) -> str:
    """Judge the mean of a share of each image, by its least limit; of a sample by what all images may have.

    Args:
        shares: (N,) of 0..1, one of each image.
        mean: the figure that is judged.
        limit: the least that it may be; 1 forgives nothing by chance.
        key: the figure's name; `<key>_at_most` is noted for a sample.

    Returns:
        What is wrong, as in `93.1% is under 95.0%`; empty where nothing is.
    """
    figures[key] = mean
    figures["smallest_passing_limits"] |= {key: mean}
    if not sampled:
        return f"{mean:.1%} is under {limit:.1%}" if mean < limit else ""
    bound = mean if limit >= 1 else max(mean, measures.at_most(shares))
    figures[f"{key}_at_most"] = bound
    return f"{mean:.1%} of a sample, {bound:.1%} of all images at most, is under {limit:.1%}" if bound < limit else ""


def judge_difference(figures: dict[str, object], limits: Limits) -> list[str]:
    """Judge the largest differences that are in `figures` already. Returns what is wrong."""
    faults = []
    if limits.max_abs is not None and figures["max_abs"] > limits.max_abs:
        faults.append(f"the largest difference {figures['max_abs']:.2g} is over {limits.max_abs:.2g}")
    shift = figures.get("confidence_shift")
    if limits.confidence_shift is not None and shift is not None and abs(shift) > limits.confidence_shift:
        what = "decisions are" if figures.get("task") in DECIDED else "the likeliest label is"
        faults.append(
            f"{what} {shift:+.2g} surer on average, and {limits.confidence_shift:.2g} is allowed: rounding "
            "makes single answers surer or less sure, not all of them"
        )
    if limits.log_max_abs is not None and figures.get("log_max_abs", 0.0) > limits.log_max_abs:
        found = f"{figures['log_max_abs']:.2g} is over {limits.log_max_abs:.2g}"
        told = (
            "log-odds {}, which a sigmoid" if figures.get("task") in DECIDED else "log-probabilities {}, which softmax"
        )
        faults.append(f"the largest difference of {told.format(found)} hides where one label is sure")
    return faults
