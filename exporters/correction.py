"""Rounds the weights of a folded model as a precision will, such that the answers change least.

Rounding weights to the nearest value moves the means of channels, and every later layer inherits the shift. Here the
network is gone through layer by layer, the float one and the rounded one side by side on real images:

- each weight's rounding error is made up for by the weights not yet rounded, by least squares on the layer's inputs
  (Frantar et al. 2022, arXiv:2210.17323, which calls it GPTQ);
- each bias then takes back the mean difference that is left in its channel (Nagel et al. 2019, arXiv:1906.04721,
  section 4.2, with measured instead of estimated means). Where a ReLU or ReLU6 follows, only positions count at which
  the float value lies inside its range, and the step is repeated: what is cut off needs no correction.

The converters compute their scales from the largest weights: those stay as they are, so that every converter arrives at
the same scales and finds nothing left to round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from exporters.cloning import clone

REPEATS = 4
IMAGES = 96
# Rows of a layer's input that its least squares look at: more change nothing, fewer lose precision.
ROWS = 8_192
MOST_PATCH_VALUES = 2**25
# Relative to the mean of the diagonal: keeps a singular covariance invertible.
DAMPING = 0.001

Grid = Callable[[np.ndarray, np.ndarray], np.ndarray]
GridMaker = Callable[[np.ndarray], Grid]
Bounds = tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer's kernel as (groups, inputs, outputs) and back: one group, or one for each channel of a depthwise one."""

    depthwise: bool
    shape: tuple[int, ...]

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        if self.depthwise:
            height, width, channels, multiplier = self.shape
            return kernel.reshape(height * width, channels, multiplier).transpose(1, 0, 2).astype(np.float64)
        return kernel.reshape(1, -1, self.shape[-1]).astype(np.float64)

    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        if self.depthwise:
            return matrix.transpose(1, 0, 2).reshape(self.shape).astype(np.float32)
        return matrix.reshape(self.shape).astype(np.float32)


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


GRIDS: dict[str, GridMaker] = {
    "float16": float16_grid,
    "uint8": per_channel_grid,
    "dynamic_int8": per_channel_grid,
    "int8": per_channel_grid,
}
# Precisions that store biases in as few bits as kernels.
BIAS_TOO = frozenset({"float16"})


def correct(folded: keras.Model, precision: str, images: np.ndarray) -> keras.Model:
    """Return the model with rounded weights and corrected biases.

    Args:
        folded: a functional model, as `fold` gives it; not touched.
        precision: a key of GRIDS.
        images: uint8 (N, height, width, 3), the first 96 of which are looked at.

    Returns:
        A new model with the same layers.
    """
    rounded = clone(folded)
    batch = keras.ops.convert_to_tensor(images[:IMAGES].astype(np.float32))
    values = {_key(folded.inputs[0]): (batch, batch)}
    followers = _followers(folded)
    remaining = {name: len(each) for name, each in followers.items()}
    for layer in folded.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        sources = keras.tree.flatten(layer.input)
        inputs = [values[_key(source)] for source in sources]
        twin = rounded.get_layer(layer.name)
        if _is_weighted(layer):
            bounds = _bounds(followers.get(layer.name, []))
            values[layer.name] = _round_layer(layer, twin, inputs[0], precision, bounds)
        else:
            values[layer.name] = tuple(_apply(layer, [pair[side] for pair in inputs]) for side in (0, 1))
        for source in sources:
            remaining[_key(source)] -= 1
            if not remaining[_key(source)]:
                del values[_key(source)]
    return rounded


def can_correct(model: keras.Model) -> bool:
    """Tell whether `correct` can walk a model: every layer called once, no model inside, no bare operation."""
    for operation in model.operations:
        if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.Model):
            return False
        try:
            operation.input  # noqa: B018  raises for a layer that is called several times
        except AttributeError:
            return False
    return len(model.inputs) == 1


def _key(tensor: keras.KerasTensor) -> str:
    return tensor._keras_history.operation.name


def _is_weighted(layer: keras.layers.Layer) -> bool:
    known = type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return known and getattr(layer, "groups", 1) == 1 and len(layer.output.shape) in (2, 4)


def _followers(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    followers: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            for source in keras.tree.flatten(layer.input):
                followers.setdefault(_key(source), []).append(layer)
    return followers


def _apply(layer: keras.layers.Layer, inputs: list) -> object:
    return layer(inputs if isinstance(layer.input, list | tuple) else inputs[0])


def _bounds(followers: list[keras.layers.Layer]) -> Bounds:
    """Return the range inside which the activation behind a layer passes values on, where it is a ReLU of its own."""
    if len(followers) != 1 or not isinstance(followers[0], keras.layers.ReLU) or followers[0].negative_slope:
        return None
    highest = followers[0].max_value
    return 0.0, float("inf") if highest is None else float(highest)


def _round_layer(
    layer: keras.layers.Layer, twin: keras.layers.Layer, inputs: tuple, precision: str, bounds: Bounds
) -> tuple:
    """Round the twin's kernel, let its bias take back what is left of the mean, and return what both layers then give."""
    kernel, *bias = layer.get_weights()
    form = _Layer(isinstance(layer, keras.layers.DepthwiseConv2D), kernel.shape)
    matrix = form.to_matrix(kernel)
    rows = _input_rows(layer, inputs[1], form)
    rounded = form.to_kernel(round_by_least_squares(matrix, rows, GRIDS[precision](matrix)))
    twin.set_weights([rounded, *bias])
    expected, found = (_before_activation(each, value) for each, value in zip((layer, twin), inputs, strict=True))
    if bias:
        # Where biases are stored in few bits too, the next layer's bias makes up for what this one loses.
        dtype = np.float16 if precision in BIAS_TOO else np.float32
        stored = (bias[0] + _mean_difference(expected, found, bounds)).astype(dtype).astype(np.float32)
        twin.set_weights([rounded, stored])
        found = found + (stored - bias[0])
    return layer.activation(expected), layer.activation(found)


def _input_rows(layer: keras.layers.Layer, value: object, form: _Layer) -> np.ndarray:
    """Return what the layer multiplies its kernel with: (groups, rows, inputs), rows drawn evenly."""
    if isinstance(layer, keras.layers.Dense):
        return keras.ops.convert_to_numpy(value).reshape(1, -1, value.shape[-1])
    height, width = form.shape[:2]
    per_image = int(np.prod(value.shape[1:])) * height * width // int(np.prod(layer.strides))
    patches = keras.ops.image.extract_patches(
        value[: max(1, MOST_PATCH_VALUES // per_image)],
        (height, width),
        strides=layer.strides[0],
        dilation_rate=layer.dilation_rate[0],
        padding=layer.padding,
    )
    rows = keras.ops.convert_to_numpy(patches).reshape(-1, patches.shape[-1])
    rows = rows[:: max(1, len(rows) // ROWS)]
    if not form.depthwise:
        return rows[None]
    return rows.reshape(len(rows), height * width, -1).transpose(2, 0, 1)


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
    centred = np.ascontiguousarray(rows, np.float64)
    centred -= centred.mean(1, keepdims=True)
    covariance = centred.transpose(0, 2, 1) @ centred / rows.shape[1]
    count = matrix.shape[1]
    diagonal = np.einsum("gii->gi", covariance)
    covariance = covariance + (DAMPING * diagonal.mean(1) + 1e-9)[:, None, None] * np.eye(count)
    # The upper Cholesky factor of the inverse holds, row by row, how an error is best spread over what comes after.
    spread = np.linalg.cholesky(np.linalg.inv(covariance)).transpose(0, 2, 1)
    left, result = matrix.copy(), np.empty_like(matrix)
    for index in range(count):
        result[:, index] = grid(left[:, index], np.asarray(index))
        error = (left[:, index] - result[:, index]) / spread[:, index, index, None]
        left[:, index + 1 :] -= spread[:, index, index + 1 :, None] * error[:, None]
    return result


def _before_activation(layer: keras.layers.Layer, value: object) -> np.ndarray:
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return keras.ops.convert_to_numpy(layer(value))
    finally:
        layer.activation = activation


def _mean_difference(expected: np.ndarray, found: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Return what each channel's bias must rise by, float64 (channels,)."""
    axes = tuple(range(expected.ndim - 1))
    if bounds is None:
        return (expected - found).mean(axes, dtype=np.float64)
    inside = (expected > bounds[0]) & (expected < bounds[1])
    counts = inside.sum(axes)
    target = np.clip(expected, *bounds)
    change = np.zeros(expected.shape[-1])
    for _ in range(REPEATS):
        difference = target - np.clip(found + change.astype(np.float32), *bounds)
        step = (difference * inside).sum(axes, dtype=np.float64) / np.maximum(counts, 1)
        change += np.where(counts > 0, step, 0.0)
    return change
