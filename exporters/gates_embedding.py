"""Judges embeddings by their directions, and by what is near what among the images."""

from __future__ import annotations

import numpy as np

from exporters import measures
from exporters.contract import Limits
from exporters.gates import LARGEST_SHARE_OF_NEAR_TIES
from exporters.statuses import DEGENERATE, FINE, NOT_VERIFIED, Ending

# Two images are as near as each other where their cosines to a third differ by no more.
NEAR_TIE_OF_SIMILARITY = 0.01
# Of vectors that should have the length 1: whole numbers, in steps of 1/128, bring lengths that are off by some hundredths.
LARGEST_LENGTH_ERROR = 0.1


def judge(
    expected: np.ndarray,
    answer: np.ndarray,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
    sampled: bool,
) -> tuple[list[str], Ending]:
    """Judge embeddings (N, width). Returns what is wrong, and how the comparison ends where nothing is.

    `truth`, int (N,) where there is one, only adds a figure: how often the nearest image bears the same label.
    """
    faults = judge_embedding(expected, answer, limits, figures, sampled)
    if truth is not None:
        recalls = [recall_at_1(vectors, truth) for vectors in (answer, expected)]
        figures |= {} if recalls[0] is None else {"recall_at_1": recalls[0], "recall_at_1_of_keras": recalls[1]}
    if limits.least_cosine is None or limits.neighbours is None:
        why = "these limits hold no cosine and no share of neighbours by which an embedding is judged"
        return faults, (NOT_VERIFIED, why)
    alike = any_neighbour_passes(expected)
    # Of a sample, the directions tell a constant from the model; that many are alike is no fault of its images.
    if alike > LARGEST_SHARE_OF_NEAR_TIES and not sampled:
        return faults, (DEGENERATE, f"{alike:.1%} of the images are as near to most others as to the nearest")
    return faults, FINE


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


def recall_at_1(vectors: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the share of images whose nearest neighbour among the others bears their own label.

    Args:
        vectors: embeddings (N, width) of N > 1 images.
        truth: int (N,). Images whose label no other has are left out.

    Returns:
        0..1, or None where no two images share a label.
    """
    asked = np.array([(truth == label).sum() > 1 for label in truth])
    found = truth[measures.similarities(vectors).argmax(-1)] == truth
    return float(found[asked].mean()) if asked.any() else None
