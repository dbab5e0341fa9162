"""Regressions of a TFLite file that are counted in shares of their columns' ranges: what float operators bring back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from exporters.audit.contents import Constant, Quantisation
from exporters.audit.reading import scaled
from exporters.audit.tflite_file import Graph, Operator

_WHOLE = frozenset({"int8", "uint8", "int16"})
_FLOAT32_ROUNDING = 4 * np.finfo(np.float32).eps


@dataclasses.dataclass(frozen=True)
class Widening:
    """What stands behind a tensor in whole numbers, up to an answer: real = factor * (scale * stored) + offset.

    `output` is the tensor of the answer, `used` the constants of factor and offset, `between` the tensors on the way to it,
    which it is not one of. `used` is empty where nothing of the kind is there.
    """

    output: int
    factor: np.ndarray
    offset: np.ndarray
    used: tuple[int, ...] = ()
    between: tuple[int, ...] = ()


def behind(graph: Graph, constants: Mapping[int, Constant], output: int) -> Widening:
    """Return the DEQUANTIZE, MUL and ADD behind a tensor, each the only one that takes what is before it."""
    nothing = Widening(output, np.ones(1), np.zeros(1))
    if output < 0 or graph.tensors[output].dtype not in _WHOLE:
        return nothing
    tensors, found = [output], []
    for name in ("DEQUANTIZE", "MUL", "ADD"):
        takers = _takers(graph, tensors[-1])
        if len(takers) != 1 or takers[0].name != name or takers[0].fused != "NONE":
            return nothing
        tensors.append(takers[0].outputs[0])
        if name != "DEQUANTIZE":
            found.append(next((index for index in takers[0].inputs if index in constants), -1))
    if min(found) < 0 or _takers(graph, tensors[-1]):
        return nothing
    factor, offset = (constants[index].values.astype(np.float64).ravel() for index in found)
    return Widening(tensors[-1], factor, offset, tuple(found), tuple(tensors[1:-1]))


def _takers(graph: Graph, index: int) -> list[Operator]:
    return [each for each in graph.operators if index in each.inputs]


def widened(
    widening: Widening, kernel: Constant, bias: Constant | None, quantisation: Quantisation | None
) -> tuple[Constant, Constant | None, Quantisation | None]:
    """Return kernel, bias and output quantisation of a dense layer, (inputs, columns), in the units of the answer."""
    wider = scaled(kernel, widening.factor)
    columns = kernel.values.shape[-1]
    shift = np.broadcast_to(widening.offset, (columns,)).astype(np.float32)
    if bias is None:
        moved = Constant("offset", "float32", shift, np.zeros((), np.float32))
    else:
        stretched = scaled(bias, np.broadcast_to(widening.factor, (columns,)))
        # What the sum of both loses in float32, here and in the model.
        lost = (_FLOAT32_ROUNDING * np.abs(shift)).astype(np.float32)
        # Rounded twice: when the bias became whole numbers, and when what is added behind it was taken from these.
        moved = dataclasses.replace(stretched, values=stretched.values + shift, step=2 * stretched.step + lost)
    if quantisation is None:
        return wider, moved, None
    scale = quantisation.scale * widening.factor
    offset = np.broadcast_to(widening.offset, scale.shape)
    return wider, moved, dataclasses.replace(quantisation, scale=scale, offset=offset)
