"""Rounds a kernel to a grid such that its products with what it is multiplied with change least. Pure numpy.

The method is that of Frantar et al. 2022 (arXiv:2210.17323), which calls it GPTQ.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np

# A larger kernel is rounded in parts of so many inputs, each by itself: the time grows with the cube of a part.
PART = 1_536
ROWS_OF_PARTS = 4_096
BLOCK = 64
# Numbers of several groups that are worked on at a time.
MOST_AT_ONCE = 2**20
# Relative to the mean of the diagonal: keeps a singular covariance invertible.
DAMPING = 0.001

Grid = Callable[[np.ndarray, np.ndarray], np.ndarray]
GridMaker = Callable[[np.ndarray], Grid]


def float16_grid(matrix: np.ndarray) -> Grid:
    """Return a function that rounds values to the nearest float16; see `per_channel_grid`."""
    return lambda values, index: values.astype(np.float16).astype(np.float64)


def per_channel_grid(matrix: np.ndarray) -> Grid:
    """Return a function that rounds to 8 bits, symmetric, one scale for each output channel.

    Args:
        matrix: (groups, inputs, outputs), whose largest values define the scales and stay.

    Returns:
        (values (groups, outputs), index of the input) -> rounded values.
    """
    largest = np.abs(matrix).argmax(1)
    peak = np.take_along_axis(matrix, largest[:, None], 1)[:, 0]
    # A dead channel has no scale; its zeros stay zeros.
    scale = np.where(peak != 0, np.abs(peak), 127.0) / 127

    def snap(values: np.ndarray, index: np.ndarray) -> np.ndarray:
        snapped = np.clip(np.rint(values / scale), -127, 127) * scale
        return np.where(largest == index, peak, snapped)

    return snap


def round_in_parts(matrix: np.ndarray, rows: np.ndarray, grid: Grid) -> np.ndarray:
    """Round a kernel by least squares; a large one in parts of its inputs, each as if there were no others.

    Arguments and result are those of `round_by_least_squares`.
    """
    count = matrix.shape[1]
    parts = -(-count // PART)
    if parts == 1:
        return round_by_least_squares(matrix, rows, grid)
    rows = rows[:, :: max(1, rows.shape[1] // ROWS_OF_PARTS)]
    edges = [count * index // parts for index in range(parts + 1)]
    rounded = []
    for start, end in itertools.pairwise(edges):
        within = functools.partial(_shifted, grid, start)
        rounded.append(round_by_least_squares(matrix[:, start:end], rows[:, :, start:end], within))
    return np.concatenate(rounded, axis=1)


def _shifted(grid: Grid, start: int, values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return grid(values, index + start)


def round_by_least_squares(matrix: np.ndarray, rows: np.ndarray, grid: Grid) -> np.ndarray:
    """Round a kernel to a grid so that its products with `rows` change least.

    The rows are centred first: what is left of the mean is the bias's to correct.

    Args:
        matrix: float64 (groups, inputs, outputs).
        rows: (groups, rows, inputs).
        grid: rounds one input's values (groups, outputs), given the input's index.

    Returns:
        float64 (groups, inputs, outputs), every value on the grid.
    """
    covariance = _covariance(rows)
    count = matrix.shape[1]
    diagonal = np.einsum("gii->gi", covariance)
    covariance = covariance + (DAMPING * diagonal.mean(1) + 1e-9)[:, None, None] * np.eye(count)
    # The upper Cholesky factor of the inverse holds, row by row, how an error is best spread over what comes after. It is the
    # inverse of the factor U of the covariance as U U^T, which is found without inverting more than triangles.
    spread = _inverse_of_upper(np.linalg.cholesky(covariance[:, ::-1, ::-1])[:, ::-1, ::-1])
    left, result = matrix.copy(), np.empty_like(matrix)
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        errors = np.empty((len(matrix), end - start, matrix.shape[2]))
        for index in range(start, end):
            result[:, index] = grid(left[:, index], np.asarray(index))
            error = (left[:, index] - result[:, index]) / spread[:, index, index, None]
            errors[:, index - start] = error
            left[:, index + 1 : end] -= spread[:, index, index + 1 : end, None] * error[:, None]
        # What comes after the block is told of its errors at once, by one product of matrices.
        left[:, end:] -= spread[:, start:end, end:].transpose(0, 2, 1) @ errors
    return result


def _covariance(rows: np.ndarray) -> np.ndarray:
    """Return the covariances (groups, inputs, inputs) of (groups, rows, inputs), a few groups at a time: float64 takes room."""
    size = max(1, MOST_AT_ONCE // (rows.shape[1] * rows.shape[2]))
    parts = []
    for start in range(0, len(rows), size):
        centred = np.ascontiguousarray(rows[start : start + size], np.float64)
        centred -= centred.mean(1, keepdims=True)
        parts.append(centred.transpose(0, 2, 1) @ centred / rows.shape[1])
    return np.concatenate(parts)


def _inverse_of_upper(upper: np.ndarray) -> np.ndarray:
    """Return the inverses of upper triangular matrices (groups, n, n), by halves."""
    count = upper.shape[-1]
    if count <= BLOCK:
        return np.linalg.inv(upper)
    half = count // 2
    first, last = _inverse_of_upper(upper[:, :half, :half]), _inverse_of_upper(upper[:, half:, half:])
    inverse = np.zeros_like(upper)
    inverse[:, :half, :half], inverse[:, half:, half:] = first, last
    inverse[:, :half, half:] = -first @ upper[:, :half, half:] @ last
    return inverse


GRIDS: dict[str, GridMaker] = {
    "float16": float16_grid,
    "uint8": per_channel_grid,
    "dynamic_int8": per_channel_grid,
    "int8": per_channel_grid,
    "int16x8": per_channel_grid,
}
# Precision -> steps between the least and the largest value of an activation. The 65,535 of int16x8 change next to nothing.
ACTIVATION_STEPS = {"int8": 255}
# A rounding is the name of a grid; behind it: activations are rounded too.
PLAIN = "plain"
WHOLE = "_whole"


def effort_of(rounding: str) -> int:
    """Return a rank by how long a rounding takes: 0 where nothing is corrected, most where activations are rounded too."""
    if rounding == PLAIN:
        return 0
    return 3 if rounding.endswith(WHOLE) else 1 if rounding == float16_grid.__name__ else 2


def rounding_of(precision: str) -> str:
    """Return how a precision is rounded where the model can be corrected: `plain`, or the name of a grid, maybe with `_whole`."""
    if precision not in GRIDS:
        return PLAIN
    return GRIDS[precision].__name__ + (WHOLE if precision in ACTIVATION_STEPS else "")
