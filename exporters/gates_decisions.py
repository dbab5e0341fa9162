"""Judges answers of sigmoids: binary, multilabel and ordinal. Each probability decides yes (over 0.5) or no."""

from __future__ import annotations

import numpy as np

from exporters import measures
from exporters.answers import DECIDES, columns_of, ranks
from exporters.contract import BINARY, MULTILABEL, ORDINAL, Limits, Output
from exporters.gates import (
    LARGEST_SHARE_OF_NEAR_TIES,
    MOST_LABELS_OF_CONFUSION,
    MOST_TOLD,
    SLACK_OF_A_LABEL,
    ending_by_truth,
    judge_difference,
    judge_fall,
    judge_share,
)
from exporters.statuses import DEGENERATE, FINE, Ending

# Two columns that trade places must be farther apart than the steps of 1/256 in which whole numbers answer.
LEAST_SWAP = 0.01


def judge(
    expected: np.ndarray,
    answer: np.ndarray,
    output: Output,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
    sampled: bool,
) -> tuple[list[str], Ending]:
    """Judge probabilities (N, ...), one of each label. Returns what is wrong, and how the comparison ends where nothing is.

    A near-tie is nearer to 0.5 than `max_abs`, and its decision is held against nobody. `agreement` is the share of
    decisions that stay; of an ordinal output the share of images that keep their rank.
    """
    expected, answer = (each.reshape(len(each), -1) for each in (expected, answer))
    _note_sureness(expected, answer, output, limits, figures)
    faults = judge_difference(figures, limits)
    ties = np.abs(expected - DECIDES) < (limits.max_abs or 0.0)
    yes = expected > DECIDES
    kept = yes == (answer > DECIDES)
    disagreement = _judge_agreement(expected, answer, kept, ties, output, limits, figures, sampled)
    names = columns_of(output)
    swapped = _swapped(expected, answer, names)
    # Where too few decisions stay, it is no news that some label loses too many.
    faults += disagreement + swapped or _lost(yes, kept, ties, names, limits)
    constant = np.flatnonzero(yes.all(0) | ~yes.any(0))
    if output.task == MULTILABEL and len(constant):
        figures["constant_labels"] = [names[index] for index in constant]
    ending, share = FINE, float(ties.mean())
    if share > LARGEST_SHARE_OF_NEAR_TIES and not sampled:
        ending = (DEGENERATE, f"{share:.1%} of the decisions are near-ties of the Keras model itself")
    elif len(constant) == expected.shape[1] and not (sampled and limits.max_abs is not None):
        what = "same rank" if output.task == ORDINAL else "same labels" if output.task == MULTILABEL else "same label"
        ending = (DEGENERATE, f"the Keras model gives every image the {what}: a constant would agree")
    too_few = ""
    if truth is not None:
        fault, too_few = _judge_accuracy(expected, answer, output, limits, truth, figures)
        faults += fault
    return faults, ending_by_truth(truth, limits, ending, too_few)


def _note_sureness(
    expected: np.ndarray, answer: np.ndarray, output: Output, limits: Limits, figures: dict[str, object]
) -> None:
    """Note by how much decisions get surer, and the difference of log-odds where it can be had."""
    sure = [float(np.maximum(each, 1 - each).mean()) for each in (expected, answer)]
    figures["confidence_shift"] = sure[1] - sure[0]
    if limits.confidence_shift is not None:
        figures["smallest_passing_limits"] |= {"confidence_shift": abs(figures["confidence_shift"])}
    if output.activation == "sigmoid" and limits.log_max_abs is not None and limits.max_abs is not None:
        # So near to 0 and 1, what is allowed of the probability would be a tenth of it.
        figures["log_max_abs"] = log_odds_max_abs(expected, answer, min(10 * limits.max_abs, 0.25))
        figures["smallest_passing_limits"] |= {"log_max_abs": figures["log_max_abs"]}


def _judge_agreement(
    expected: np.ndarray,
    answer: np.ndarray,
    kept: np.ndarray,
    ties: np.ndarray,
    output: Output,
    limits: Limits,
    figures: dict[str, object],
    sampled: bool,
) -> list[str]:
    if output.task == MULTILABEL:
        figures["near_ties"] = int(ties.sum())
        if ties.all():
            figures["agreement"] = 0.0
            return []
        clear = (~ties).sum(-1)
        shares = (kept & ~ties).sum(-1)[clear > 0] / clear[clear > 0]
        found = judge_share(shares, float(kept[~ties].mean()), limits.agreement, figures, "agreement", sampled)
        return [f"the share of decisions that stay, {found}"] if found else []
    tied = ties.any(-1)
    same = (ranks(expected) == ranks(answer))[~tied]
    agreement = float(same.mean()) if len(same) else 0.0
    figures |= {"agreement": agreement, "near_ties": int(tied.sum())}
    figures["smallest_passing_limits"] |= {"agreement": agreement}
    wrong, allowed = int((~same).sum()), measures.allowed_disagreements(len(same), limits.agreement)
    what = "rank" if output.task == ORDINAL else "label"
    if sampled:
        figures |= {"disagreements": wrong, "allowed_disagreements": allowed}
        told = f"{wrong} of {len(same)} sampled images get another {what}"
        return [f"{told}; a limit of {limits.agreement:.1%} allows {allowed}"] if wrong > allowed else []
    if agreement < limits.agreement and len(same):
        return [f"agreement of {what}s {agreement:.1%} is under {limits.agreement:.1%}"]
    return []


def _swapped(expected: np.ndarray, answer: np.ndarray, names: list[str]) -> list[str]:
    """Find columns that answer what the Keras model answers in another: by shares of decisions, rare labels could trade places.

    A column is out of place where another of the Keras model's is less than half as far from it, by the mean difference over
    the images, as its own; and a swap moves two.
    """
    own = np.abs(expected - answer).mean(0)
    moved = []
    for index in np.flatnonzero(own > LEAST_SWAP):
        apart = np.abs(expected - answer[:, [index]]).mean(0)
        if apart.min() < own[index] / 2:
            moved.append((names[index], names[int(apart.argmin())]))
    if len(moved) < 2:
        return []
    told = [f"the answers to '{mine}' are those of the Keras model to '{theirs}'" for mine, theirs in moved[:MOST_TOLD]]
    more = len(moved) - MOST_TOLD
    return [", ".join(told) + (f", and {more} more are out of place" if more > 0 else "")]


def _lost(yes: np.ndarray, kept: np.ndarray, ties: np.ndarray, names: list[str], limits: Limits) -> list[str]:
    """Find labels that lose the images to which the Keras model gives them, or those to which it does not.

    A label that few images bear could vanish without the agreement over all decisions ever showing it.
    """
    least = 1 - SLACK_OF_A_LABEL * (1 - limits.agreement)
    told = []
    for index, name in enumerate(names):
        for side, words in ((yes, "gives it"), (~yes, "denies it")):
            asked = side[:, index] & ~ties[:, index]
            count, wrong = int(asked.sum()), int((asked & ~kept[:, index]).sum())
            if wrong > measures.allowed_disagreements(count, least):
                told.append(
                    f"'{name}': {wrong} of {count} images to which the Keras model {words} are decided otherwise"
                )
    return told[:MOST_TOLD]


def _judge_accuracy(
    expected: np.ndarray,
    answer: np.ndarray,
    output: Output,
    limits: Limits,
    truth: np.ndarray,
    figures: dict[str, object],
) -> tuple[list[str], str]:
    if output.task == MULTILABEL:
        said = [each > DECIDES for each in (expected, answer)]
        f1 = [_f1(each, truth > 0) for each in said]
        figures |= {} if None in f1 else {"f1": f1[1], "f1_of_keras": f1[0]}
        right = [(each == (truth > 0)).mean(-1) for each in said]
        return judge_fall(*right, limits, figures, words="the share of right decisions")
    found = [ranks(each) for each in (expected, answer)]
    classes = expected.shape[1] + 1
    if output.task == ORDINAL:
        errors = [float(np.abs(each - truth).mean()) for each in found]
        figures |= {"mean_rank_error": errors[1], "mean_rank_error_of_keras": errors[0]}
    if output.task == BINARY or classes <= MOST_LABELS_OF_CONFUSION:
        tables = [measures.confusion(truth, np.eye(classes)[each]) for each in found]
        figures |= {"confusion": tables[1], "confusion_of_keras": tables[0]}
    return judge_fall(*(each == truth for each in found), limits, figures)


def _f1(said: np.ndarray, truth: np.ndarray) -> float | None:
    """Return 2 TP / (2 TP + FP + FN) over all decisions (N, labels), 0..1; None where no label is said nor true."""
    total = int(said.sum() + truth.sum())
    return float(2 * (said & truth).sum() / total) if total else None


def log_odds_max_abs(expected: np.ndarray, answer: np.ndarray, floor: float) -> float:
    """Return the largest difference of log-odds, the input of a sigmoid: it shows what a sigmoid hides near 0 and 1.

    Args:
        expected, answer: probabilities (N, labels).
        floor: probabilities nearer than this to 0 or 1 count as that near. A runtime's own sigmoid is off by 1.4e-7 in
            float32 and by 2.5e-4 in float16, whatever the probability: of smaller ones the odds cannot be had.
    """
    p, q = (np.clip(each, floor, 1 - floor) for each in (expected, answer))
    return float(np.abs(np.log(p / (1 - p)) - np.log(q / (1 - q))).max())
