"""What the readers of all formats share: refusals, numbers that stand for reals, and the order of operators."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from exporters.audit.contents import Constant, Quantisation
from exporters.errors import ParityError


def refusal(reason: str) -> ParityError:
    """Return the error for a file that is not the model that it should be."""
    return ParityError(
        f"The artifact's model cannot be read: {reason}.", "a complete model", "export the artifact again"
    )


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into a ParityError that names `path`.

    A damaged file may break a parser anywhere and with any exception, so all of them are caught.
    """
    try:
        yield
    except ParityError:
        raise
    except Exception as fault:
        raise refusal(f"{path.name}: {type(fault).__name__}: {fault}") from fault


def floats(name: str, dtype: str, stored: np.ndarray) -> Constant:
    """Return a constant that is stored as floats of any width."""
    with np.errstate(all="ignore"):
        return Constant(name, dtype, stored.astype(np.float32), np.zeros((), np.float32))


def dequantised(name: str, dtype: str, stored: np.ndarray, quantisation: Quantisation, axis: int) -> Constant:
    """Return a constant that is stored as whole numbers.

    Args:
        name: its name in the file.
        dtype: the stored one.
        stored: whole numbers of any shape.
        quantisation: one scale for all, or one for each index along `axis`.
        axis: which axis that is; not looked at where there is one scale.

    Raises:
        ParityError: the number of scales does not fit the shape.
    """
    scale, zero_point = quantisation.scale, quantisation.zero_point
    if len(zero_point) not in (1, len(scale)) or not len(scale):
        raise refusal(f"{name} has {len(scale)} scales and {len(zero_point)} zero points")
    if len(scale) > 1:
        if not -stored.ndim <= axis < stored.ndim or stored.shape[axis] != len(scale):
            raise refusal(f"{name}, of shape {stored.shape}, has {len(scale)} scales along axis {axis}")
        form = [1] * stored.ndim
        form[axis] = len(scale)
        scale = scale.reshape(form)
        zero_point = zero_point.reshape(form) if zero_point.size > 1 else zero_point.reshape(())
    else:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    with np.errstate(all="ignore"):
        values = ((stored.astype(np.float64) - zero_point) * scale).astype(np.float32)
        return Constant(name, dtype, values, np.abs(scale).astype(np.float32))


def rearranged(constant: Constant, rearrange: Callable[[np.ndarray], np.ndarray]) -> Constant:
    """Return a constant with its values, and the steps with them, put into another order or shape."""
    values = np.asarray(rearrange(constant.values), order="C")
    step = constant.step
    if step.ndim:
        step = rearrange(np.broadcast_to(step, constant.values.shape))
        for axis in range(step.ndim):
            first = step.take([0], axis) if step.shape[axis] else step
            if np.array_equal(np.broadcast_to(first, step.shape), step):
                step = first
    return Constant(constant.name, constant.dtype, values, np.asarray(step, np.float32, order="C"))


def scaled(constant: Constant, factor: np.ndarray) -> Constant:
    """Return a constant times `factor`, whose shape broadcasts to the constant's."""
    factor = np.asarray(factor, np.float32)
    if np.broadcast_shapes(constant.values.shape, factor.shape) != constant.values.shape:
        raise refusal(f"{constant.name}, of shape {constant.values.shape}, is multiplied by shape {factor.shape}")
    with np.errstate(all="ignore"):
        values = constant.values * factor
        step = constant.step * np.abs(factor) if constant.step.any() else constant.step
    return Constant(constant.name, constant.dtype, values, step.astype(np.float32))


def as_bias(constant: Constant, channels: int) -> Constant | None:
    """Return a constant as a bias (channels,), or None where it is none: of one entry a channel, or one for all."""
    if constant.values.size == 1:
        return rearranged(constant, lambda each: np.repeat(each.reshape(1), channels))
    if constant.values.size != channels:
        return None
    return rearranged(constant, lambda each: each.reshape(channels))


def tally(dtypes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add up (name, count) pairs to name -> count, sorted by name."""
    counts: dict[str, int] = {}
    for dtype, count in dtypes:
        counts[dtype] = counts.get(dtype, 0) + count
    return dict(sorted(counts.items()))


def in_order(sources: Sequence[Sequence[int]]) -> list[int]:
    """Return the indices of nodes so that each comes behind those that it needs, else as they stand in the file.

    Args:
        sources: for each node the indices of the nodes whose results it takes.

    Raises:
        ParityError: the nodes wait for one another in a circle.
    """
    order: list[int] = []
    done, waiting = set(), set()
    for start in range(len(sources)):
        stack = [(start, iter(sources[start]))] if start not in done else []
        waiting.update(index for index, _ in stack)
        while stack:
            index, needed = stack[-1]
            following = next((each for each in needed if each not in done), None)
            if following is None:
                stack.pop()
                waiting.discard(index)
                done.add(index)
                order.append(index)
            elif following in waiting:
                raise refusal("its operators wait for one another in a circle")
            else:
                waiting.add(following)
                stack.append((following, iter(sources[following])))
    return order
