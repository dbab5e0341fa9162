"""Which layer of an artifact is which layer of the Keras model. Standard library and numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from exporters.audit.contents import DEPTHWISE

# Two kernels whose difference is less than this share of their size are one kernel, rounded.
ALIKE = 0.3
# What rounding may change of a kernel, as a share.
LARGEST_RESIDUAL = 0.03
# What it costs to leave a layer out of the pairing; two of these cost more than a pair of layers that are not alike at all.
_ALONE = 0.6
_NEVER = float("inf")


class _WithKernel(Protocol):
    kind: str
    kernel: np.ndarray


def align(expected: Sequence[_WithKernel], found: Sequence[_WithKernel]) -> list[tuple[int | None, int | None]]:
    """Pair two sequences of layers, by an alignment of least cost (Needleman and Wunsch 1970).

    Only layers of one kind and one kernel shape are paired; like kernels are preferred, and so is the order of the
    sequences. Layers whose kernels are alike are paired afterwards wherever they stand, since branches that run side by
    side may come in any order.

    Args:
        expected: with `kind` and `kernel`.
        found: the same.

    Returns:
        (index in `expected`, index in `found`) in the order of `expected`, with each that has no partner as
        (index, None), or (None, index) behind the partner of the one that it follows.
    """
    costs = np.array([[distance(one, other) for other in found] for one in expected]).reshape(len(expected), len(found))
    pairs = _pair_anywhere(_pair_in_order(costs), costs)
    partners = dict(pairs)
    taken = {other: one for one, other in pairs}
    result: list[tuple[int | None, int | None]] = [(one, partners.get(one)) for one in range(len(expected))]
    for other in range(len(found)):
        if other not in taken:
            at = next((at for at, pair in enumerate(result) if pair[1] == other - 1), -1) if other else -1
            result.insert(at + 1, (None, other))
    return result


def distance(one: _WithKernel, other: _WithKernel) -> float:
    """Return how far two kernels are apart: 0 for equal ones, 1 for most that have nothing in common, inf where they cannot
    be one layer's."""
    if one.kind != other.kind or one.kernel.shape != other.kernel.shape:
        return _NEVER
    size = float(np.linalg.norm(one.kernel))
    difference = float(np.linalg.norm(one.kernel - other.kernel))
    if not np.isfinite(difference) or not size:
        return 0.0 if difference == 0 else 1.0
    return min(difference / size, 1.0)


def only_scaled(one: _WithKernel, other: _WithKernel) -> bool:
    """Tell whether the second kernel is the first but for rounding and a factor for each channel, other than 1 for most."""
    channels = one.kernel.shape[-2:] if one.kind == DEPTHWISE else one.kernel.shape[-1:]
    first, second = (each.kernel.reshape(-1, int(np.prod(channels))).astype(np.float64) for each in (one, other))
    sizes = (first**2).sum(0)
    factors = (first * second).sum(0) / np.where(sizes, sizes, 1)
    residual = np.sqrt(((second - factors * first) ** 2).sum() / max(float((second**2).sum()), 1e-30))
    return bool(residual < LARGEST_RESIDUAL and np.mean(np.abs(factors - 1) > LARGEST_RESIDUAL) > 0.5)


def _pair_in_order(costs: np.ndarray) -> list[tuple[int, int]]:
    rows, columns = costs.shape
    best = np.zeros((rows + 1, columns + 1))
    best[:, 0], best[0, :] = np.arange(rows + 1) * _ALONE, np.arange(columns + 1) * _ALONE
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            paired = best[row - 1, column - 1] + costs[row - 1, column - 1]
            best[row, column] = min(paired, best[row - 1, column] + _ALONE, best[row, column - 1] + _ALONE)
    pairs = []
    row, column = rows, columns
    while row and column:
        # Where a layer is doubled, the first of the two is taken for it: the last is left alone here.
        if best[row, column] == best[row, column - 1] + _ALONE:
            column -= 1
        elif best[row, column] == best[row - 1, column] + _ALONE:
            row -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return pairs[::-1]


def _pair_anywhere(pairs: list[tuple[int, int]], costs: np.ndarray) -> list[tuple[int, int]]:
    """Keep pairs of like kernels, make all others that are possible, and keep unlike pairs where both are still free."""
    kept = [pair for pair in pairs if costs[pair] <= ALIKE]
    ones, others = {one for one, _ in kept}, {other for _, other in kept}
    like = sorted((float(costs[tuple(at)]), *map(int, at)) for at in np.argwhere(costs <= ALIKE))
    for _, one, other in like:
        if one not in ones and other not in others:
            kept.append((one, other))
            ones.add(one)
            others.add(other)
    return sorted(kept + [(one, other) for one, other in pairs if one not in ones and other not in others])
