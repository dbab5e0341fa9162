"""How much a layer's output may differ from Keras's by nothing but the roundings that its precision makes.

This is the yardstick for a layer: it is told from what the artifact stores its numbers in, and from Keras's own weights and
values, so that a fault in the artifact cannot stretch it. Standard library and numpy only.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from exporters.audit.contents import DEPTHWISE, Contents, Layer, Quantisation

_RELATIVE = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
_SINGLE = 2.0**-24
_LEVELS = {"int4": 15, "uint4": 15, "int8": 255, "uint8": 255, "int16": 65_535, "uint16": 65_535}


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What is rounded where a layer computes; all of it is meant as the width of one step, or a share.

    `kernel_step` float32 of a shape that broadcasts against Keras's kernel, 0 where it is kept as floats; `relative` the
    share by which floats are rounded; `input_levels` and `output_levels` into how many steps the range of what comes in
    and goes out is divided, 0 where it stays float; `output_step` the step that the artifact's file notes, or 0;
    `output_range` the least and the largest value that can come out.
    """

    kernel_step: np.ndarray
    relative: float
    input_levels: int
    output_levels: int
    output_step: float
    output_range: tuple[float, float]

    def output_width(self, values: np.ndarray) -> float:
        """Return the width of an output step: the file's, but at most twice what the range of the values asks for."""
        return min(self.output_step, 2 * step_of(values, self.output_levels)) if self.output_levels else 0.0


def rounding_of(layer: Layer, kernel: np.ndarray, contents: Contents) -> Rounding:
    """Return the roundings of an artifact's layer.

    Args:
        layer: the artifact's.
        kernel: float32, the one that Keras has for it.
        contents: all of the artifact. A converter may leave small kernels as floats that were rounded before it with all
            others: where one kernel is stored in whole numbers, all are taken for rounded.
    """
    dtype = layer.kernel.dtype
    if dtype not in _LEVELS:
        dtype = next((each.kernel.dtype for each in contents.layers if each.kernel.dtype in _LEVELS), dtype)
    per_tensor = layer.kernel.dtype in _LEVELS and np.size(layer.kernel.step) == 1
    terms = kernel[..., 0, 0].size if layer.kind == DEPTHWISE else kernel[..., 0].size
    output_step = float(np.max(layer.output_quantisation.scale)) if layer.output_quantisation is not None else 0.0
    fine = any(dtype in contents.activations for dtype in ("int16", "uint16"))
    output_levels = 65_535 if fine else 255
    # Kernels in int8 whose layer gives floats: TFLite rounds what comes in while it runs. TF.js, which stores uint8, does not,
    # and ONNX, which has an opset, has operators of their own for it.
    on_the_fly = layer.kernel.dtype == "int8" and not output_step and contents.opset is None
    return Rounding(
        kernel_step=_kernel_step(kernel, layer.kind, _LEVELS.get(dtype, 0), per_tensor),
        relative=max(_RELATIVE.get(layer.kernel.dtype, 0.0), _SINGLE * float(np.sqrt(terms))),
        input_levels=output_levels if output_step else 255 if on_the_fly else 0,
        output_levels=output_levels if output_step else 0,
        output_step=output_step,
        output_range=_range_of(layer.output_quantisation, fine),
    )


def _range_of(quantisation: Quantisation | None, fine: bool) -> tuple[float, float]:
    """Return what can be stored. Signed or unsigned is not noted; the zero point mostly tells, else the wider one is taken."""
    if quantisation is None:
        return -np.inf, np.inf
    scale, zero_point = float(np.max(quantisation.scale)), int(np.ravel(quantisation.zero_point)[0])
    if quantisation.offset is not None:
        # A regression's columns have ranges of their own, which float operators add their offsets to.
        limits = np.iinfo(quantisation.dtype)
        low, high = (
            (each - zero_point) * quantisation.scale + quantisation.offset for each in (limits.min, limits.max)
        )
        return float(low.min()), float(high.max())
    limits = [np.iinfo(each) for each in ((np.int16, np.uint16) if fine else (np.int8, np.uint8))]
    possible = [each for each in limits if each.min <= zero_point <= each.max]
    least, largest = min(each.min for each in possible), max(each.max for each in possible)
    return (least - zero_point) * scale, (largest - zero_point) * scale


def _kernel_step(kernel: np.ndarray, kind: str, levels: int, per_tensor: bool) -> np.ndarray:
    if not levels:
        return np.zeros((), np.float32)
    axes = None if per_tensor else tuple(range(kernel.ndim - (2 if kind == DEPTHWISE else 1)))
    return (2 * np.abs(kernel).max(axis=axes, keepdims=True) / levels).astype(np.float32)


def step_of(values: np.ndarray, levels: int) -> float:
    """Return the width of one step where the range of values, with 0, is divided into that many; 0 for no levels."""
    if not levels or not np.size(values):
        return 0.0
    finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    return (max(float(finite.max()), 0.0) - min(float(finite.min()), 0.0)) / levels
