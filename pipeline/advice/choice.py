"""Which cut, of those that were measured: the fronts of what is best for its cost, and the recommendations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from exporters import report_numbers as numbers
from exporters.errors import InputError
from pipeline.advice.budget import MOST_ACCURATE, Budget
from pipeline.advice.scoring import Share, difference

POINT = 0.01


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a network costs that ends at a cut, its heads included.

    `params` and `macs` of the backbone up to there; sizes of the TFLite file in bytes; `latency_ms` of one image, None
    where it could not be measured.
    """

    params: int
    macs: int
    float32_bytes: int
    int8_bytes: int
    latency_ms: float | None

    def size_bytes(self, precision: str) -> int:
        """Return the size in `int8` or `float32`."""
        return self.int8_bytes if precision == "int8" else self.float32_bytes


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One cut: what it is worth, and what it costs.

    `share` is what is judged by, over all heads, of heads trained as the configuration says; `worth` the same with
    whatever shrinkage is best: of heads trained to their end. Head -> share: `accuracy` and `balanced` of the first kind,
    `converged` the accuracy of the second. `predicted` is head -> accuracy on the test split with its 95 % interval: value,
    low, high.
    """

    name: str
    part: str
    reduction: int | None
    shape: tuple[int, ...]
    share: Share
    worth: Share
    accuracy: dict[str, Share]
    balanced: dict[str, Share]
    converged: dict[str, Share]
    predicted: dict[str, tuple[float, float, float]]
    costs: Costs


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """Names of cuts; `in_budget` None where nothing fits or nothing is asked, `nearest` what misses the budget least."""

    most_accurate: str
    smallest_within_a_point: str
    in_budget: str | None
    nearest: str | None


def cost_of(candidates: Sequence[Candidate]) -> tuple[str, Callable[[Candidate], float]]:
    """Return what speed is judged by: the latency, or, where it was not measured, the multiply-accumulates."""
    if all(each.costs.latency_ms is not None for each in candidates):
        return "latency", lambda each: each.costs.latency_ms or 0.0
    return "macs", lambda each: float(each.costs.macs)


def front(candidates: Sequence[Candidate], cost: Callable[[Candidate], float]) -> set[str]:
    """Return the names of those that no other beats: as accurate for less, or more accurate for no more."""
    found, best = set(), -1.0
    for each in sorted(candidates, key=lambda each: (cost(each), -each.share.mean)):
        if each.share.mean > best:
            found.add(each.name)
            best = each.share.mean
    return found


def recommend(candidates: Sequence[Candidate], budget: Budget, precision: str) -> Recommendations:
    """Recommend a cut for each wish.

    Args:
        candidates: at least one.
        budget: what it may cost; the most accurate that fits is recommended.
        precision: in which the size is meant.

    Raises:
        InputError: a latency is asked for, and none was measured.
    """
    timed = cost_of(candidates)[0] == "latency"
    if budget.max_ms is not None and not timed:
        raise InputError(
            "A latency is asked for, and it cannot be measured: conversion needs Keras on TensorFlow.",
            "KERAS_BACKEND=tensorflow where there is a latency budget",
            "unset KERAS_BACKEND, or take out --max-latency and advise.max_latency",
        )

    def small(each: Candidate) -> tuple[float, float]:
        return (each.costs.size_bytes(precision), each.costs.macs) if timed else (each.costs.macs, each.costs.params)

    def good(each: Candidate) -> tuple[float, ...]:
        return (-each.share.mean, *small(each))

    best = min(candidates, key=good)
    near = [each for each in candidates if each.share.mean >= best.share.mean - POINT - 1e-12]
    fitting = [each for each in candidates if _excess(each, budget, precision) <= 1]
    return Recommendations(
        most_accurate=best.name,
        smallest_within_a_point=min(near, key=small).name,
        in_budget=min(fitting, key=good).name if budget and fitting else None,
        nearest=None if fitting else min(candidates, key=lambda each: _excess(each, budget, precision)).name,
    )


def _excess(each: Candidate, budget: Budget, precision: str) -> float:
    """Return how many times the budget a cut costs, at its worst."""
    size = each.costs.size_bytes(precision) / budget.max_bytes if budget.max_bytes is not None else 0.0
    time = (each.costs.latency_ms or 0.0) / budget.max_ms if budget.max_ms is not None else 0.0
    return max(size, time)


def chosen_of(
    found: Recommendations, candidates: Sequence[Candidate], budget: Budget, choose: str, precision: str
) -> str:
    """Return the cut that a run takes: what fits into the budget, where there is one, else what `choose` says.

    Raises:
        InputError: nothing fits into the budget.
    """
    if not budget:
        return found.most_accurate if choose == MOST_ACCURATE else found.smallest_within_a_point
    if found.in_budget is None:
        near = next(each for each in candidates if each.name == found.nearest)
        raise nothing_fits(near, budget, precision)
    return found.in_budget


def nothing_fits(near: Candidate, budget: Budget, precision: str) -> InputError:
    """Return the error that names the cut that comes nearest to a budget."""
    costs = [f"{numbers.size(near.costs.size_bytes(precision))} as {precision} TFLite"]
    if near.costs.latency_ms is not None:
        costs.append(f"{numbers.milliseconds(near.costs.latency_ms)} ms")
    return InputError(
        f"No cut fits into {budget}: the nearest, '{near.name}', costs {' and '.join(costs)}.",
        "a budget that at least one cut fits into",
        "raise --max-size or --max-latency (advise.max_size, advise.max_latency), make the input smaller "
        "(resize.width), or take a smaller backbone (backbone.alpha)",
    )


def behind_the_best(each: Candidate, best: Candidate) -> tuple[float, float, float]:
    """Return what a cut is off the best one by, with its paired 95 % interval: value, low, high; 0s for the best itself."""
    return (0.0, 0.0, 0.0) if each.name == best.name else difference(each.share, best.share)
