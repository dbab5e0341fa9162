"""A closed-form probe: how well a linear head would do on features, without training one.

Ridge regression (Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634) of one-hot targets on standardised
features. What it answers for a picture that it was not fitted on follows from the fit on all pictures: with H the
matrix that turns targets into fitted values, the residuals of pictures G that are left out are (I - H_GG)^-1 times those
of the fit (Allen 1974, "The relationship between variable selection and data augmentation and a method for prediction",
Technometrics 16: PRESS; Golub, Heath and Wahba 1979, "Generalized cross-validation as a method for choosing a good ridge
parameter", Technometrics 21). G is one picture (leave-one-out), or a group that must not stand on both sides. Where
features outnumber pictures, the pictures' own products are decomposed instead (Saunders, Gammerman and Vovk 1998, "Ridge
regression learning algorithm in dual variables").

The shrinkage is chosen inside the training part: the best of many, chosen and judged on the same pictures, looks better
than it is (Varma and Simon 2006, doi:10.1186/1471-2105-7-91; Cawley and Talbot 2010, JMLR 11).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.blas import one_thread

# Of the squared weights, for each picture, where the feature that varies most has the variance 1.
SHRINKAGES = tuple(10.0 ** (half / 2) for half in range(-11, 3))
# Parts of which the others choose the shrinkage.
PARTS = 3
# Below this share of the largest one, what varies least in the features is rounding.
SMALLEST_EIGENVALUE = 1e-10


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What a probe answers for every picture, fitted on the pictures of other folds.

    `values` float64 (N, outputs), each with the shrinkage that the other parts chose; `of_part_fits` (2, N, outputs) are
    the same from fits on only two of the three parts, once with each of the two other parts left out (NaN where there
    are only two parts); `shrinkages` are those that were chosen.
    """

    values: np.ndarray
    of_part_fits: np.ndarray
    shrinkages: tuple[float, ...]


def hold_out(
    features: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    least_shrinkages: Sequence[float] = (0.0,),
    seed: int = 0,
) -> list[HeldOut]:
    """Answer for every picture with a probe that saw nothing of its fold.

    The features are standardised over all the pictures given, which needs no targets. How frequent the classes are is
    taken as known: counted without a picture they would speak against its class, and a probe that knows nothing would
    answer worse than chance. The pictures are dealt into three
    parts by fold; the shrinkage for a part is the one with the least held-out squared error on the other two, so that
    neither the target nor the features of a picture have a say in what it is answered with.

    Args:
        features: (N, width), finite.
        targets: float (N, outputs): one-hot classes, or values.
        folds: int (N,); pictures of one fold are left out together; each its own: leave-one-out.
        weights: (N,) above 0, of each picture's squared error; None: all the same.
        least_shrinkages: shrinkages under each of these are not chosen.
        seed: of the deal.

    Returns:
        What is answered, once for each of `least_shrinkages`.

    Raises:
        ValueError: fewer than two folds.
    """
    _, folds = np.unique(folds, return_inverse=True)
    if folds.max(initial=0) < 1:
        raise ValueError("at least two folds are needed to hold one out")
    weights = np.ones(len(folds)) if weights is None else np.asarray(weights, np.float64)
    standardised = standardise(features)
    parts = deal(folds, seed)
    count = int(parts.max()) + 1
    with one_thread():
        whole = _Fit(standardised, targets, folds, weights)
        fits = []
        for part in range(count):
            kept = np.flatnonzero(parts != part)
            fits.append((kept, _Fit(standardised[kept], targets[kept], _inner(folds[kept]), weights[kept])))
        return [_answer(whole, fits, parts, least) for least in least_shrinkages]


def _answer(whole: _Fit, fits: list[tuple[np.ndarray, _Fit]], parts: np.ndarray, least: float) -> HeldOut:
    values, others = np.empty(whole.shape), np.full((2, *whole.shape), np.nan)
    chosen = []
    for part, (outside, fit) in enumerate(fits):
        allowed = sorted({max(each, least) for each in SHRINKAGES})
        best = min(allowed, key=fit.squared_error)
        values[parts == part] = whole.held_out(best)[parts == part]
        if len(fits) == PARTS:
            # Each picture lies outside two of the three parts: of the one after its own, and of the one before.
            place = (parts[outside] - part) % PARTS - 1
            others[place, outside] = fit.held_out(best)
        chosen.append(best)
    return HeldOut(values, others, tuple(chosen))


def standardise(features: np.ndarray) -> np.ndarray:
    """Centre the features and divide them by one deviation, the largest: float64, as heads are trained on them.

    Dividing each by its own deviation would make rounding count as much as what a feature says.
    """
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(0)
    return centred / max(float(centred.std(0).max(initial=0)), 1e-12)


def deal(folds: np.ndarray, seed: int) -> np.ndarray:
    """Deal folds into at most three parts of about as many pictures each: int (N,), the part of every picture."""
    numbers, counts = np.unique(folds, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    # The largest first, each to the part that has the fewest pictures so far.
    order = order[np.argsort(-counts[order], kind="stable")]
    part_of, filled = np.zeros(len(numbers), int), [0] * min(PARTS, len(numbers))
    for fold in order:
        part_of[fold] = int(np.argmin(filled))
        filled[part_of[fold]] += counts[fold]
    return part_of[np.searchsorted(numbers, folds)]


def class_shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return a weight for each picture (N,) such that every class weighs the same, 1.0 on average over pictures."""
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return len(labels) / (present * counts[labels])


def _inner(folds: np.ndarray) -> np.ndarray:
    _, inner = np.unique(folds, return_inverse=True)
    # Of one group alone nothing can be held out but single pictures.
    return inner if inner.max(initial=0) > 0 else np.arange(len(folds))


class _Fit:
    """One decomposition of features, from which the fits of all shrinkages follow."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> None:
        self._targets = targets
        self._roots = np.sqrt(weights)[:, None]
        self._total, self.shape = weights.sum(), targets.shape
        rows = self._roots * (features - weights @ features / self._total)
        mean = weights @ targets / self._total
        self._rest = self._roots * (targets - mean)
        self._weights = weights
        # What the mean of the targets loses as a fold is left out.
        sums = np.stack([np.bincount(folds, weights * column) for column in (targets - mean).T], axis=-1)
        others = self._total - np.bincount(folds, weights)
        self._lost = self._roots * (sums / np.maximum(others, 1e-12)[:, None])[folds]
        self._basis, self._eigenvalues = _decompose(rows)
        self._projected = self._basis.T @ self._rest
        self._squares = self._basis**2
        counts = np.bincount(folds)
        self._groups: Sequence[np.ndarray] = [np.flatnonzero(folds == each) for each in np.flatnonzero(counts > 1)]

    def held_out(self, shrinkage: float) -> np.ndarray:
        """Return the answer to each picture of a fit without its fold, (N, outputs)."""
        return self._targets - self._left_out_residuals(shrinkage) / self._roots

    def squared_error(self, shrinkage: float) -> float:
        """Return the weighted sum of squared errors of the held-out answers."""
        return float((self._left_out_residuals(shrinkage) ** 2).sum())

    def _left_out_residuals(self, shrinkage: float) -> np.ndarray:
        kept = self._eigenvalues / (self._eigenvalues + shrinkage * self._total)
        residuals = self._rest - self._basis @ (kept[:, None] * self._projected)
        # The mean is fitted too, and not shrunk.
        leverage = self._weights / self._total + self._squares @ kept
        left_out = residuals / np.maximum(1 - leverage, 1e-9)[:, None]
        for group in self._groups:
            basis, roots = self._basis[group], self._roots[group]
            block = (basis * kept) @ basis.T + roots @ roots.T / self._total
            left_out[group] = np.linalg.solve(np.eye(len(group)) * (1 + 1e-9) - block, residuals[group])
        return left_out - self._lost


def _decompose(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an orthonormal basis (N, rank) of the span of the columns, and the squares of the singular values."""
    count, width = rows.shape
    if width >= count:
        eigenvalues, basis = np.linalg.eigh(rows @ rows.T)
        kept = eigenvalues > SMALLEST_EIGENVALUE * max(eigenvalues[-1], 1e-300)
        return basis[:, kept], eigenvalues[kept]
    eigenvalues, directions = np.linalg.eigh(rows.T @ rows)
    kept = eigenvalues > SMALLEST_EIGENVALUE * max(eigenvalues[-1], 1e-300)
    return rows @ (directions[:, kept] / np.sqrt(eigenvalues[kept])), eigenvalues[kept]
