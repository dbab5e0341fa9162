"""The figures of a comparison, each a small pure function of two arrays. Numpy only; no limit and no status is known here.

`expected` are the Keras model's answers and `answer` the artifact's, float64 (N, ...), finite, of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

# A relative difference is taken of at least this share of the largest reference value: less is told by `max_abs`.
RELATIVE_FLOOR = 1e-3
# Smaller probabilities are all alike: below it even a correct softmax in float32 is mostly rounding.
PROBABILITY_FLOOR = 1e-7
CHANCE = 0.01
MOST_WORST = 8
# The 99th percentile of the normal distribution: what is farther off by chance has a probability under CHANCE.
ONE_SIDED = 2.326348


def max_relative(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the largest |expected - answer| / |expected|, 0 or more.

    The divisor is at least a thousandth of the largest |expected|, so that tiny probabilities do not explode.
    """
    floor = RELATIVE_FLOOR * np.abs(expected).max()
    return float((np.abs(expected - answer) / np.maximum(np.abs(expected), floor)).max()) if floor else 0.0


def cosine(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the cosine of the angle between two arrays taken as vectors, -1..1; 0 where one of them is all zeros."""
    norms = float(np.linalg.norm(expected) * np.linalg.norm(answer))
    return float((expected * answer).sum() / norms) if norms else 0.0


def kl_divergence(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the mean over images of the Kullback-Leibler divergence of answer from expected, in nats, 0 or more.

    Both are probabilities (N, classes); they are raised to 1e-7 at least and made to sum to 1 again.
    """
    p, q = (np.maximum(each, PROBABILITY_FLOOR) for each in (expected, answer))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return float(max((p * np.log(p / q)).sum(-1).mean(), 0.0))


def log_max_abs(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the largest difference of log-probabilities, each image's mean over the classes removed.

    For a softmax (N, classes) that is the difference of its centred inputs: it shows what a softmax hides where it is
    nearly 0 or 1. Probabilities under 1e-7 count as 1e-7.
    """
    p, q = (np.log(np.maximum(each, PROBABILITY_FLOOR)) for each in (expected, answer))
    return float(np.abs((p - p.mean(-1, keepdims=True)) - (q - q.mean(-1, keepdims=True))).max())


def near_ties(expected: np.ndarray, max_abs: float | None, place: int = 1) -> np.ndarray:
    """Tell for which images the reference's own class in a place and the next one are nearer than twice the limit.

    Args:
        expected: (N, classes) probabilities of the Keras model.
        max_abs: the largest difference of probabilities that is allowed; None: no image counts as a near-tie.
        place: 1 for the first two classes, 5 for the fifth and the sixth.

    Returns:
        bool (N,).
    """
    if max_abs is None or expected.shape[-1] <= place:
        return np.zeros(len(expected), bool)
    ordered = np.sort(expected, axis=-1)
    return ordered[:, -place] - ordered[:, -place - 1] < 2 * max_abs


def same_top5(expected: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Tell for which images (N, classes) both name the same five likeliest classes, in whatever order: bool (N,)."""
    five = (np.sort(np.argsort(-each, axis=-1, kind="stable")[:, :5], axis=-1) for each in (expected, answer))
    return np.equal(*five).all(-1)


def confusion(truth: np.ndarray, answer: np.ndarray) -> list[list[int]]:
    """Count images by true label (rows) and answered label (columns).

    Args:
        truth: int (N,) class indices.
        answer: (N, classes) probabilities.

    Returns:
        Square, as many rows as classes.
    """
    counts = np.zeros((answer.shape[-1],) * 2, int)
    np.add.at(counts, (truth, answer.argmax(-1)), 1)
    return counts.tolist()


def spread(images: int, most: int) -> np.ndarray:
    """Return which of so many images a sample of at most `most` takes: int, ascending, evenly spread from first to last.

    Images often lie in the order of their labels, so that the first few would all bear one.
    """
    return np.unique(np.linspace(0, images - 1, min(images, most)).round().astype(int)) if images else np.zeros(0, int)


def worst_images(
    expected: np.ndarray,
    answer: np.ndarray,
    classes: bool,
    most: int = MOST_WORST,
    say: Callable[[np.ndarray, int], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return the images with the largest differences, the largest first; images without any are left out.

    Args:
        expected, answer: (N, ...).
        classes: whether the last axis holds the probabilities of classes.
        most: how many images at most.
        say: puts one image's answer, flat, into a dict, told where in it the difference is largest; see
            `exporters.answers.sayer`. None: as `classes` says.

    Returns:
        `{"image": index, "difference", "keras", "artifact"}` each; the answers are `{"label": index, "probability"}` for
        classes, else `{"value"}` where the difference is largest.
    """
    gaps = np.abs(expected - answer).reshape(len(expected), -1)
    order = np.argsort(-gaps.max(-1), kind="stable")[:most]

    def said(values: np.ndarray, image: int) -> dict[str, Any]:
        row, place = values[image].reshape(-1), int(gaps[image].argmax())
        if say is not None:
            return say(row, place)
        if classes:
            return {"label": int(row.argmax()), "probability": float(row.max())}
        return {"value": float(row[place])}

    return [
        {"image": int(image), "difference": float(gaps[image].max()), "keras": said(expected, image),
         "artifact": said(answer, image)}
        for image in order if gaps[image].max() > 0
    ]  # fmt: skip


def paired_drop(right: np.ndarray, right_of_artifact: np.ndarray) -> tuple[float, float, float]:
    """Return the fall of accuracy from Keras to the artifact with its paired 95 % interval.

    The interval is Agresti and Min's (2005, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24): half an image is added to each cell of the paired table, so that few
    images without a single disagreement do not claim certainty. Of shares it is the same formula, which only asks
    for the sum of the differences and of their squares: the paired interval of a mean, with half an image added that falls
    from 1 to 0, half a one that rises, and one that stays.

    Args:
        right: bool (N,), where Keras names the true label; or a share 0..1 of each image that is right.
        right_of_artifact: likewise of the artifact.

    Returns:
        (drop, low, high) in shares of images; positive means that the artifact is worse.
    """
    right, right_of_artifact = right.astype(np.float64), right_of_artifact.astype(np.float64)
    count, falls = len(right) + 2.0, right - right_of_artifact
    fall, squares = float(falls.sum()), float(np.square(falls).sum()) + 1.0
    half_width = 1.959964 * np.sqrt(max(squares - fall**2 / count, 0.0)) / count
    center = fall / count
    return float(right.mean() - right_of_artifact.mean()), float(center - half_width), float(center + half_width)


def at_most(shares: np.ndarray) -> float:
    """Return what the mean of all images may be, of which these are a sample: the upper end of a one-sided 99 % interval.

    Args:
        shares: (N,), one of each image; normal approximation of their mean, 1.0 at most.
    """
    if len(shares) < 2:
        return 1.0
    return float(min(shares.mean() + ONE_SIDED * shares.std(ddof=1) / np.sqrt(len(shares)), 1.0))


def allowed_disagreements(images: int, least_agreement: float) -> int:
    """Return how many images of a sample may disagree before it is no longer chance.

    One-sided exact binomial test: of an artifact that disagrees on exactly the share that is allowed, a sample shows
    more disagreements than this with a probability under 1 %.

    Args:
        images: how many were compared.
        least_agreement: the share 0..1 that has to agree over all images; 1 allows no disagreement.
    """
    share = 1 - least_agreement
    if share <= 0 or images == 0:
        return 0
    if share >= 1:
        return images
    tail = 0.0
    for count in range(images, 0, -1):
        ways = math.lgamma(images + 1) - math.lgamma(count + 1) - math.lgamma(images - count + 1)
        tail += math.exp(ways + count * math.log(share) + (images - count) * math.log(1 - share))
        if tail >= CHANCE:
            return count
    return 0


def least_cosine(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the least cosine over the images of the angle between their two vectors (N, width); 0 where one is all zeros."""
    norms = np.linalg.norm(expected, axis=-1) * np.linalg.norm(answer, axis=-1)
    cosines = np.where(norms > 0, (expected * answer).sum(-1) / np.where(norms > 0, norms, 1), 0.0)
    return float(cosines.min())


def similarities(vectors: np.ndarray) -> np.ndarray:
    """Return the cosine of every two vectors of (N, width) as (N, N), -1..1; each one's with itself counts as -infinity."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    directions = vectors / np.where(norms > 0, norms, 1)
    found = directions @ directions.T
    np.fill_diagonal(found, -np.inf)
    return found


def lost_similarity(expected: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return how much less like an image the neighbour is that the answers choose for it: float (N,), 0 or more.

    Args:
        expected, answer: embeddings (N, width) of the same N > 1 images.

    Returns:
        Of each image, by the expected embeddings alone: the cosine to its nearest neighbour among the others, less the cosine
        to the one that is nearest by the answers. 0 where that is the same one.
    """
    true = similarities(expected)
    chosen = similarities(answer).argmax(-1)
    return true.max(-1) - np.take_along_axis(true, chosen[:, None], axis=-1)[:, 0]


def relative_error(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return the root mean square of the difference over that of the expected values; infinity for NaN."""
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    off = float(np.sqrt(np.mean(np.square(expected.astype(np.float64) - answer))))
    relative = off / size if size else (0.0 if off == 0 else float("inf"))
    return relative if np.isfinite(relative) else float("inf")
