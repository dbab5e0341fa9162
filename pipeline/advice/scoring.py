"""Shares of right answers with their spread: of one cut, between two cuts, and what a test split will show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

NORMAL_QUANTILE = 1.959964
# How far a trained head's accuracy lies from the probe's beyond what chance explains: the standard deviation found with
# linear heads on photographs of hand signs, two backbones, thirteen cuts, three splits.
HEAD_DEVIATION = 0.02


@dataclasses.dataclass(frozen=True)
class Share:
    """A weighted mean over pictures, 0..1; `influence` (N,) is what each picture adds to it, on average 0.

    `clusters` int (N,): pictures of one cluster are not independent of each other.
    """

    mean: float
    influence: np.ndarray
    clusters: np.ndarray

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return len(self.influence)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean for another sample of pictures, clusters taken whole.

        Never below that of two right and two wrong answers more (Agresti and Coull 1998, "Approximate is better than
        'exact' for interval estimation of binomial proportions", The American Statistician 52): a few pictures without
        a single error do not prove that there are none.
        """
        count = self.pictures
        raised = (self.mean * count + 2) / (count + 4)
        return max(_clustered_error(self.influence, self.clusters), math.sqrt(raised * (1 - raised) / (count + 4)))

    @property
    def design_effect(self) -> float:
        """How many times the variance is that of as many independent pictures, at least 1: what clusters cost."""
        independent = _clustered_error(self.influence, np.arange(self.pictures))
        return max(1.0, (_clustered_error(self.influence, self.clusters) / independent) ** 2) if independent else 1.0


def share_of(right: np.ndarray, weights: np.ndarray, clusters: np.ndarray) -> Share:
    """Return the weighted share of right answers.

    Args:
        right: bool or 0..1 (N,).
        weights: (N,) above 0; equal for accuracy, one over the size of the class for balanced accuracy.
        clusters: int (N,).
    """
    scaled = weights * (len(right) / weights.sum())
    mean = float((scaled * right).mean())
    return Share(mean, scaled * (right - mean), clusters)


def mean_of(shares: Sequence[Share]) -> Share:
    """Return the mean of shares over the same pictures, such as those of several heads."""
    return Share(
        float(np.mean([each.mean for each in shares])),
        np.mean([each.influence for each in shares], axis=0),
        shares[0].clusters,
    )


def difference(one: Share, other: Share) -> tuple[float, float, float]:
    """Return `one` less `other`, on the same pictures, and its paired 95 % interval: value, low, high.

    As in Agresti and Min (2005, Statistics in Medicine 24) two pictures more are thought to disagree, one either way.
    """
    value = one.mean - other.mean
    error = _clustered_error(one.influence - other.influence, one.clusters)
    half = _quantile(one.clusters) * math.hypot(error, math.sqrt(2) / (one.pictures + 2))
    return value, max(value - half, -1.0), min(value + half, 1.0)


def learning_slope(whole: float, of_part_fits: float) -> float:
    """Return how much a share grows as the pictures grow e-fold, at least 0, from fits on all and on two thirds."""
    return max(0.0, (whole - of_part_fits) / math.log(1.5))


def predict_test(share: Share, slope: float, train: int, test: int) -> tuple[float, float, float]:
    """Predict the share that a head, trained on `train` pictures, reaches on `test` unseen ones: value, low, high.

    The 95 % interval covers the pictures of the probe, those of the test split (binomial, times the design effect of
    clusters) and what a head trained by gradient descent differs by from the probe. It is meant for test pictures of the
    same kind as the probe's; nothing is said of others.
    """
    # Of more pictures than the probe had, no more is promised than was measured.
    value = max(share.mean - slope * max(0.0, math.log(share.pictures / max(train, 1))), 0.0)
    raised = (value * test + 2) / (test + 4)
    of_test = share.design_effect * raised * (1 - raised) / (test + 4)
    half = _quantile(share.clusters) * math.sqrt(share.standard_error**2 + of_test + HEAD_DEVIATION**2)
    return value, max(value - half, 0.0), min(value + half, 1.0)


def _clustered_error(influence: np.ndarray, clusters: np.ndarray) -> float:
    _, places = np.unique(clusters, return_inverse=True)
    sums = np.bincount(places, influence)
    count = len(sums)
    return float(math.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(influence))


def _quantile(clusters: np.ndarray) -> float:
    """Return the 97.5 % quantile of Student's t for that many clusters, by the first terms of its expansion."""
    freedom = max(len(np.unique(clusters)) - 1, 2)
    z = NORMAL_QUANTILE
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
