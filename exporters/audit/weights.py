"""Compares the constants that an artifact stores with the fingerprints of the Keras weights. Pure numpy; knows no format.

A constant may be off by half of what its storage can tell apart: half a quantisation step, half the distance of two
float16, and in float32 the rounding that another order of operations brings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from exporters.audit.contents import DEPTHWISE, Constant, Layer
from exporters.fingerprints import Fingerprint

HALF_A_STEP = 0.51
# Relative to the largest value of a channel, and for float16 to the value itself.
FLOAT32_ROUNDING = 2e-6
FLOAT16_ROUNDING = 2.0**-11
# Half the distance of its smallest values, which lie apart evenly.
FLOAT16_LEAST = 2.0**-25


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far the constants of one layer are off.

    `excess` is the largest difference in shares of what is allowed (above 1: too far), `steps` in quantisation steps (None
    for floats), `relative` to the largest value of the channel (None for whole numbers); `compared` counts values.
    """

    excess: float
    steps: float | None
    relative: float | None
    compared: int
    place: str = ""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A layer of the artifact and the fingerprint that it answers to; one of them is None where it has no partner.

    `folded` names the pixel scaling that the artifact has folded into the layer, which is in `expected` then; else empty.
    """

    layer: Layer | None
    expected: Fingerprint | None
    folded: str = ""


def pair_layers(layers: Sequence[Layer], expected: Sequence[Fingerprint]) -> list[Pair]:
    """Pair an artifact's layers with fingerprints of the same kind and kernel shape, each once.

    In the order in which they run; where that does not fit, as branches may run in another order, by the nearest kernel.
    """
    groups: dict[tuple, tuple[list[Layer], list[Fingerprint]]] = {}
    for layer in layers:
        groups.setdefault((layer.kind, layer.kernel.values.shape), ([], []))[0].append(layer)
    for each in expected:
        groups.setdefault((each.kind, each.kernel.shape), ([], []))[1].append(each)
    pairs = [pair for found, wanted in groups.values() for pair in _pair_group(found, wanted)]
    order = {id(each): index for index, each in enumerate(expected)}
    return sorted(pairs, key=lambda pair: order.get(id(pair.expected), len(order)))


def _pair_group(found: list[Layer], wanted: list[Fingerprint]) -> list[Pair]:
    if len(found) == len(wanted):
        in_order = [Pair(layer, each) for layer, each in zip(found, wanted, strict=True)]
        if len(found) == 1 or all(compare_kernel(pair).excess <= 1 for pair in in_order):
            return in_order
    distances = sorted(
        (float(np.abs(layer.kernel.values - each.kernel).mean()), abs(row - column), row, column)
        for row, layer in enumerate(found)
        for column, each in enumerate(wanted)
    )
    pairs: list[Pair] = []
    rows, columns = set(range(len(found))), set(range(len(wanted)))
    for _, _, row, column in distances:
        if row in rows and column in columns:
            rows.remove(row)
            columns.remove(column)
            pairs.append(Pair(found[row], wanted[column]))
    pairs += [Pair(found[row], None) for row in sorted(rows)]
    return pairs + [Pair(None, wanted[column]) for column in sorted(columns)]


def with_scaling(expected: Fingerprint, scale: np.ndarray, offset: np.ndarray) -> Fingerprint:
    """Return the layer that does what a pixel scaling and `expected` do one after another, where nothing is padded.

    Args:
        expected: a layer whose inputs are the scaled pixels.
        scale, offset: float32, one value or one for each input channel.
    """
    shape = (-1, 1)  # the input channels are the second axis from the right, whatever the kind
    kernel = expected.kernel.astype(np.float64)
    shifted = kernel * np.reshape(offset, shape)
    shift = shifted.sum((0, 1)).ravel() if expected.kind == DEPTHWISE else shifted.reshape(-1, kernel.shape[-1]).sum(0)
    bias = np.zeros_like(shift) if expected.bias is None else expected.bias
    return dataclasses.replace(
        expected, kernel=(kernel * np.reshape(scale, shape)).astype(np.float32), bias=(bias + shift).astype(np.float32)
    )


def compare_layer(pair: Pair) -> Difference:
    """Compare kernel and bias of a pair; `place` says which of both is further off, and where."""
    kernel, bias = compare_kernel(pair), compare_bias(pair)
    worse = max((kernel, bias), key=lambda each: each.excess)
    return Difference(
        worse.excess,
        _largest(kernel.steps, bias.steps),
        _largest(kernel.relative, bias.relative),
        kernel.compared + bias.compared,
        worse.place,
    )


def compare_kernel(pair: Pair) -> Difference:
    """Compare the kernels of a pair that has both."""
    axes = (0, 1) if pair.expected.kind == DEPTHWISE else tuple(range(pair.expected.kernel.ndim - 1))
    return compare_constant(pair.layer.kernel, pair.expected.kernel, axes, "kernel")


def compare_bias(pair: Pair) -> Difference:
    """Compare the biases of a pair that has both layers; no bias is as good as zeros."""
    expected, found = pair.expected.bias, pair.layer.bias
    if found is None:
        # Nothing is stored, so there is no step to excuse a difference.
        missing = np.zeros_like(expected) if expected is not None else np.zeros(1, np.float32)
        found = Constant("", "float32", missing, np.zeros(1, np.float32))
    if expected is None:
        expected = np.zeros_like(found.values)
    if found.values.shape != expected.shape:
        return Difference(float("inf"), None, None, expected.size, f"bias: {found.values.shape} for {expected.shape}")
    return compare_constant(found, expected, None, "bias")


def compare_constant(found: Constant, expected: np.ndarray, axes: tuple[int, ...] | None, name: str) -> Difference:
    """Compare a stored constant with the values that it stands for.

    Args:
        found: of the same shape as `expected`.
        expected: float32.
        axes: over which a channel extends; None: the whole is one channel.
        name: for `place`.
    """
    values = found.values.astype(np.float64)
    largest = np.abs(expected).max(axes, keepdims=True, initial=0.0).astype(np.float64)
    allowed = HALF_A_STEP * np.asarray(found.step, np.float64) + FLOAT32_ROUNDING * largest + 1e-12
    if found.dtype == "float16":
        allowed = allowed + np.maximum(FLOAT16_ROUNDING * np.abs(expected), FLOAT16_LEAST)
    off = np.abs(values - expected)
    excess = np.where(np.isfinite(off), off / allowed, np.inf)
    where = np.unravel_index(int(excess.argmax()), excess.shape) if excess.size else ()
    whole = bool(np.any(np.asarray(found.step) > 0))
    steps = np.divide(off, found.step, out=np.zeros_like(off), where=np.asarray(found.step) > 0) if whole else None
    relative = None if whole else _finite_largest(off / np.where(largest > 0, largest, 1.0))
    place = f"{name}[{', '.join(map(str, map(int, where)))}]"
    return Difference(
        float(excess.max(initial=0.0)),
        None if steps is None else _finite_largest(steps),
        relative,
        int(expected.size),
        f"{place} is {float(values[where]):.6g} for {float(expected[where]):.6g}" if excess.size else place,
    )


def _finite_largest(values: np.ndarray) -> float:
    return float(np.where(np.isfinite(values), values, np.inf).max(initial=0.0))


def _largest(*values: float | None) -> float | None:
    return max((each for each in values if each is not None), default=None)
