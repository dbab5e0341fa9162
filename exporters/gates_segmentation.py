"""Judges label maps: which class each pixel is given. Works image by image, as all maps at once would fill the memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from exporters import measures
from exporters.answers import sayer
from exporters.contract import UNKNOWN_PIXEL, Limits, Output
from exporters.gates import MOST_TOLD, SLACK_OF_A_LABEL, ending_by_truth, judge_difference, judge_fall, judge_share
from exporters.overlaps import class_iou, mean_iou, pair_counts
from exporters.statuses import DEGENERATE, FINE, NOT_VERIFIED, Ending

# Edges between regions run through every picture, and pixels on them are near-ties; the others still tell right from wrong.
LARGEST_SHARE_OF_NEAR_TIE_PIXELS = 0.25
# A smaller region, in shares of the picture, may come and go by rounding.
LEAST_REGION = 0.005


@dataclasses.dataclass(frozen=True)
class Picture:
    """What one image's maps give: differences of probabilities, counts of pixels, and shares of it that are right.

    `largest`, `total` (a sum), `products` (of Keras with itself, the artifact with itself, both), `relative`: of probabilities;
    `surer`: by how much the likeliest class is surer, a mean; `ties`: pixels that are near-ties; `counts`: (classes, classes),
    pixels by class in Keras (rows) and in the artifact that are none; `worst`: an entry as `measures.worst_images` gives it;
    `right` and `iou`: (Keras, artifact) against truth, shares 0..1 of the known pixels; None where there are none.
    """

    largest: float
    total: float
    products: tuple[float, float, float]
    relative: float
    surer: float
    ties: int
    counts: np.ndarray
    worst: dict[str, Any]
    right: tuple[float, float] | None = None
    iou: tuple[float, float] | None = None


def judge(
    expected: np.ndarray,
    answer: np.ndarray,
    output: Output,
    limits: Limits,
    truth: np.ndarray | None,
    figures: dict[str, object],
    sampled: bool,
) -> tuple[list[str], Ending]:
    """Judge maps of probabilities (N, height, width, classes), of any float dtype.

    `agreement` is the share of pixels with the same class, near-ties left out; `iou` the mean over the classes of what their
    regions have in common in all images. Against `truth`, (N, height, width) with 255 where nobody knows, neither the share of
    right pixels of an image nor its mean IoU may fall.

    Returns:
        What is wrong, and how the comparison ends where nothing is.
    """
    floor = measures.RELATIVE_FLOOR * max(float(expected.max()), -float(expected.min()))
    pictures = [
        _picture(expected[index], answer[index], None if truth is None else truth[index], output, limits, floor, index)
        for index in range(len(expected))
    ]
    _note_differences(pictures, expected.size, figures)
    faults = judge_difference(figures, limits)
    ending, found = _judge_regions(pictures, output, limits, figures, sampled)
    faults += found
    first = expected[0].argmax(-1)
    share = sum(each.ties for each in pictures) / (len(pictures) * first.size)
    if limits.iou is None:
        ending = (NOT_VERIFIED, "these limits hold no IoU by which label maps are judged")
    elif share > LARGEST_SHARE_OF_NEAR_TIE_PIXELS and not sampled:
        ending = (DEGENERATE, f"{share:.1%} of the pixels are near-ties of the Keras model itself")
    elif all(np.array_equal(each.argmax(-1), first) for each in expected) and not (
        sampled and limits.max_abs is not None
    ):
        ending = (DEGENERATE, "the Keras model gives every image the same label map: a constant would agree")
    too_few = ""
    known = [each for each in pictures if each.right is not None]
    if known:
        fault, too_few = _judge_truth(known, limits, figures)
        faults += fault
    return faults, ending_by_truth(truth if known else None, limits, ending, too_few)


def _picture(
    expected: np.ndarray,
    answer: np.ndarray,
    truth: np.ndarray | None,
    output: Output,
    limits: Limits,
    floor: float,
    index: int,
) -> Picture:
    expected, answer = expected.astype(np.float64), answer.astype(np.float64)
    classes, gaps = output.shape[-1], np.abs(expected - answer)
    mine, theirs = answer.argmax(-1), expected.argmax(-1)
    clear = ~measures.near_ties(expected.reshape(-1, classes), limits.max_abs).reshape(mine.shape)
    place = int(gaps.argmax())
    say = sayer(output)
    found = Picture(
        largest=float(gaps.max()),
        total=float(gaps.sum()),
        products=tuple(float((one * other).sum()) for one, other in ((expected,) * 2, (answer,) * 2, (expected, answer))),
        relative=float((gaps / np.maximum(np.abs(expected), floor)).max()) if floor else 0.0,
        surer=float(answer.max(-1).mean() - expected.max(-1).mean()),
        ties=int((~clear).sum()),
        counts=pair_counts(theirs[clear], mine[clear], classes),
        worst={
            "image": index, "difference": float(gaps.max()), "keras": say(expected.reshape(-1), place),
            "artifact": say(answer.reshape(-1), place),
        },
    )  # fmt: skip
    known = truth != UNKNOWN_PIXEL if truth is not None else None
    if known is None or not known.any():
        return found
    against = [pair_counts(truth[known], each[known], classes) for each in (theirs, mine)]
    return dataclasses.replace(
        found,
        right=tuple(float(np.trace(each) / each.sum()) for each in against),
        iou=tuple(mean_iou(each) for each in against),
    )


def _note_differences(pictures: list[Picture], size: int, figures: dict[str, object]) -> None:
    largest = max(each.largest for each in pictures)
    of_keras, of_artifact, both = (sum(each.products[part] for each in pictures) for part in range(3))
    figures |= {
        "max_abs": largest,
        "mean_abs": sum(each.total for each in pictures) / size,
        "max_relative": max(each.relative for each in pictures),
        "cosine": both / np.sqrt(of_keras * of_artifact) if of_keras and of_artifact else 0.0,
        "confidence_shift": float(np.mean([each.surer for each in pictures])),
        "worst": [
            each.worst
            for each in sorted(pictures, key=lambda each: -each.largest)[: measures.MOST_WORST]
            if each.largest > 0
        ],
    }
    figures["cosine"] = float(figures["cosine"])
    figures["smallest_passing_limits"] |= {"max_abs": largest}
    if figures["limits"]["confidence_shift"] is not None:
        figures["smallest_passing_limits"] |= {"confidence_shift": abs(figures["confidence_shift"])}


def _judge_regions(
    pictures: list[Picture], output: Output, limits: Limits, figures: dict[str, object], sampled: bool
) -> tuple[Ending, list[str]]:
    """Judge the share of pixels that keep their class, and what the regions of the classes have in common."""
    figures["near_ties"] = sum(each.ties for each in pictures)
    every = [each.counts for each in pictures if each.counts.any()]
    counts = sum(every, np.zeros((output.shape[-1],) * 2, np.int64))
    if not every:
        figures["agreement"] = 0.0
        return (DEGENERATE, "every pixel is a near-tie of the Keras model itself"), []
    shares = np.array([np.trace(each) / each.sum() for each in every])
    kept = float(np.trace(counts) / counts.sum())
    faults = judge_share(shares, kept, limits.agreement, figures, "agreement", sampled)
    faults = [f"the share of pixels that keep their class, {faults}"] if faults else []
    overlap = class_iou(counts)
    names = output.labels if len(output.labels) == len(overlap) else [str(index) for index in range(len(overlap))]
    figures["iou_of_classes"] = {
        name: float(each) for name, each in zip(names, overlap, strict=True) if not np.isnan(each)
    }
    found = judge_share(_without_each(every, counts), mean_iou(counts), limits.iou or 0.0, figures, "iou", sampled)
    if found:
        least = min(figures["iou_of_classes"], key=figures["iou_of_classes"].get)
        faults.append(f"the mean IoU of the classes' regions, {found}; the least is '{least}'")
    return FINE, faults + _lost(np.stack(every), names, limits)


def _lost(counts: np.ndarray, names: Sequence[str], limits: Limits) -> list[str]:
    """Find classes that lose most of their region: among many, one could vanish without the mean ever showing it.

    A class is asked for in the images (N, classes, classes) of which the Keras model gives it half a percent or more.
    """
    least = 1 - SLACK_OF_A_LABEL * (1 - limits.agreement)
    regions = counts.sum(-1)
    kept = np.diagonal(counts, axis1=1, axis2=2)
    asked = (regions > 0) & (regions >= LEAST_REGION * counts.sum((1, 2))[:, None])
    lost = asked & (kept < regions / 2)
    return [
        f"'{name}': {lost[:, index].sum()} of {asked[:, index].sum()} images lose most of its region"
        for index, name in enumerate(names)
        if lost[:, index].sum() > measures.allowed_disagreements(int(asked[:, index].sum()), least)
    ][:MOST_TOLD]


def _without_each(every: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return the jackknife's pseudo-values of the mean IoU, one of each image, as its figure is of all pixels together.

    Quenouille (1956, "Notes on bias in estimation", Biometrika 43): n times the figure of all, less n - 1 times that of all
    but the one; their mean and deviation are the figure's.
    """
    whole, count = mean_iou(counts), len(every)
    left = np.array([mean_iou(counts - each) for each in every])
    return count * whole - (count - 1) * np.where(np.isnan(left), whole, left)


def _judge_truth(known: list[Picture], limits: Limits, figures: dict[str, object]) -> tuple[list[str], str]:
    right, overlap = (np.array([getattr(each, key) for each in known]) for key in ("right", "iou"))
    figures["truth_iou_of_keras"] = float(overlap[:, 0].mean())
    faults, too_few = judge_fall(*right.T, limits, figures, words="the share of right pixels")
    more, other = judge_fall(*overlap.T, limits, figures, "truth_iou", "mean IoU with the true label maps")
    return faults + more, too_few or other
