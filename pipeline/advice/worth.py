"""What each cut is worth on somebody's own pictures: the probe of every head at every cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.advice.probe import class_shares, hold_out
from pipeline.advice.scoring import Share, learning_slope, mean_of, predict_test, share_of
from pipeline.config import Config, HeadSection, TrainingSection
from pipeline.splitting import Example, units_of

# More pictures than these are not probed: their decomposition would want gigabytes, and the spread is small by then.
MOST_PICTURES = 8000
# Classes whose sizes differ by less count as balanced.
UNBALANCED = 1.5


@dataclasses.dataclass(frozen=True)
class Worth:
    """What one cut is worth; see `pipeline.advice.choice.Candidate`."""

    share: Share
    worth: Share
    accuracy: dict[str, Share]
    balanced: dict[str, Share]
    converged: dict[str, Share]
    predicted: dict[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Question:
    """What one head is to tell: `labels` int (N,) of the probed pictures in `column`, among `classes`.

    `section` is the head as configured.
    """

    section: HeadSection
    labels: np.ndarray
    classes: int
    column: str = "label"

    @property
    def most_frequent(self) -> float:
        """The share of right answers of one who always names the most frequent class."""
        return float(np.bincount(self.labels, minlength=self.classes).max() / len(self.labels))

    @property
    def judged_balanced(self) -> bool:
        """Whether classes are so unequal in size that plain accuracy would hide the small ones."""
        counts = np.bincount(self.labels, minlength=self.classes)
        return bool(counts.max() >= UNBALANCED * counts[counts > 0].min())


def probed_of(examples: Sequence[Example], seed: int) -> tuple[list[Example], np.ndarray]:
    """Return the pictures that are probed and their folds: whole groups, seeded, where there are too many."""
    folds = np.array(units_of(examples))
    if len(examples) <= MOST_PICTURES:
        return list(examples), folds
    order = np.random.default_rng(seed).permutation(folds.max() + 1)
    sizes = np.bincount(folds)[order]
    chosen = order[np.cumsum(sizes) <= MOST_PICTURES]
    kept = np.flatnonzero(np.isin(folds, chosen))
    return [examples[index] for index in kept], folds[kept]


def weigh(
    config: Config,
    questions: Mapping[str, Question],
    folds: np.ndarray,
    counts: tuple[int, int],
    features: Callable[[str], np.ndarray],
) -> Worth:
    """Probe one cut for every head.

    Args:
        config: how heads are trained.
        questions: head -> what it is to tell.
        folds: int (N,), of the probed pictures.
        counts: how many pictures a head is trained on, and tested on.
        features: pooling -> float32 (N, width) of the probed pictures.
    """
    accuracy, balanced, converged, predicted, judged, worth = {}, {}, {}, {}, [], []
    for name, question in questions.items():
        equal = np.ones(len(folds))
        shares = class_shares(question.labels, question.classes)
        trained, whole = hold_out(
            features(probed_pooling(question.section)),
            np.eye(question.classes)[question.labels],
            folds,
            shares if config.training.class_weights else equal,
            least_shrinkages=(least_shrinkage(question.section, config.training, counts[0]), 0.0),
            seed=config.seed,
        )
        right, best = (each.values.argmax(-1) == question.labels for each in (trained, whole))
        accuracy[name], balanced[name] = share_of(right, equal, folds), share_of(right, shares, folds)
        converged[name] = share_of(best, equal, folds)
        fewer = trained.of_part_fits
        slope = (
            0.0
            if np.isnan(fewer).any()
            else learning_slope(accuracy[name].mean, float((fewer.argmax(-1) == question.labels).mean()))
        )
        predicted[name] = predict_test(accuracy[name], slope, *counts)
        judging = shares if question.judged_balanced and config.training.class_weights else equal
        judged.append(share_of(right, judging, folds))
        worth.append(share_of(best, judging, folds))
    return Worth(mean_of(judged), mean_of(worth), accuracy, balanced, converged, predicted)


def probed_pooling(section: HeadSection) -> str:
    """Return the pooling that a head is probed with: its own, or average where it takes every place by itself."""
    return section.pooling if section.pooling in ("max", "both") else "average"


def least_shrinkage(section: HeadSection, training: TrainingSection, pictures: int) -> float:
    """Return the shrinkage that as many steps of training amount to for a `linear` head, 0 for other kinds.

    Descent that is stopped is as good as shrinking, the less the longer it went on (Ali, Kolter and Tibshirani 2019, "A
    continuous-time view of early stopping for least squares", arXiv:1810.10082). How much Adam's steps amount to was fitted
    to linear heads trained on photographs, at 0.25 to 4.6 as steps times learning rate.
    """
    if section.kind != "linear":
        return 0.0
    way = training.epochs * -(-pictures // training.batch_size) * training.learning_rate
    return 0.042 * max(way, 1e-3) ** -1.7
