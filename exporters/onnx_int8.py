"""An ONNX graph in whole numbers: onnxruntime's static quantisation, but for what 8 bits would spoil."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from exporters.calibration import with_full_range
from exporters.errors import InputError
from exporters.inputs import Inputs
from exporters.onnx_names import encoder_nodes


def to_int8(model: onnx.ModelProto, calibration: Inputs) -> onnx.ModelProto:
    """Return a model with quantise-dequantise nodes around every operator, kernels per channel, activations in uint8.

    Args:
        model: in float32.
        calibration: pictures, with columns where the model takes such; what encodes these stays in float32.

    Raises:
        InputError: there are no pictures.
    """
    if not len(calibration):
        raise InputError(
            "There are no calibration images for onnx-int8.",
            "at least one image in the training split",
            "give training images or leave int8 out of --formats",
        )
    with tempfile.TemporaryDirectory() as work:
        plain, prepared, quantised = (Path(work) / name for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            _CalibrationImages(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*_of_lengths(onnx.load(prepared)), *encoder_nodes(onnx.load(prepared))],
        )
        return onnx.load(quantised)


class _CalibrationImages(quantization.CalibrationDataReader):
    def __init__(self, inputs: Inputs) -> None:
        widened = with_full_range(inputs)
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            widened[index : index + 1].named() for index in range(len(widened))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _of_lengths(model: onnx.ModelProto) -> list[str]:
    """Return the names of the products that bring an embedding to unit length: the squares, and that with a reciprocal.

    In whole numbers the reciprocal could not leave the range that the calibration images showed, and lengths would be off.
    """
    reciprocals = {output for node in model.graph.node if node.op_type == "Reciprocal" for output in node.output}
    products = [node for node in model.graph.node if node.op_type == "Mul"]
    squares = [node.name for node in products if node.input[0] == node.input[1]]
    return squares + [node.name for node in products if reciprocals.intersection(node.input)]


def leave_in_float(model: onnx.ModelProto, rounded: Collection[str]) -> None:
    """Take QuantizeLinear and DequantizeLinear from before the outputs, but for those in `rounded`, in place.

    They have one scale for all columns of a regression, of which one may be a thousand times the other. The layer before
    still computes in whole numbers; what it counts up is the answer.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    consumers = collections.Counter(name for node in graph.node for name in node.input)
    for output in graph.output:
        dequantise = producers.get(output.name)
        quantise = producers.get(dequantise.input[0]) if dequantise is not None else None
        pair = [node.op_type for node in (dequantise, quantise) if node is not None]
        if output.name in rounded or pair != ["DequantizeLinear", "QuantizeLinear"]:
            continue
        producer = producers.get(quantise.input[0])
        # Where another takes the rounded numbers too, they stay.
        if producer is None or consumers[quantise.output[0]] > 1 or consumers[output.name]:
            continue
        given = quantise.input[0]
        graph.node.remove(dequantise)
        graph.node.remove(quantise)
        for node in graph.node:
            node.input[:] = [output.name if name == given else name for name in node.input]
            node.output[:] = [output.name if name == given else name for name in node.output]
    used = {name for node in graph.node for name in node.input}
    for constant in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(constant)
