"""Zero padding in an ONNX graph: part of the convolution or pooling behind it wherever that computes the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Whatever comes out of these is 0 or more.
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax"})
_WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool"})
# Axes of pictures, of which the last two may be padded.
_AXES = 4


def pad_inside_windows(graph: onnx.GraphProto) -> None:
    """Let windows pad what comes in by themselves, in place; a Pad that nothing takes any more is left in the graph.

    A convolution pads with 0; an average counts the padding where it is told to; and the largest of a window is the same with 0
    beside it or without where nothing is negative.
    """
    makers = {name: node for node in graph.node for name in node.output}
    stored = {each.name: each for each in graph.initializer}
    for node in graph.node:
        pad = makers.get(node.input[0]) if node.op_type in _WINDOWS else None
        around = _zeros_around(pad, stored) if pad is not None and pad.op_type == "Pad" else None
        if around is None or not _is_plain(node) or not _can_take(node, around, makers.get(pad.input[0]), stored):
            continue
        own = _given(node, "pads") or [0] * len(around)
        _set(node, "pads", [one + other for one, other in zip(own, around, strict=True)])
        if node.op_type == "AveragePool":
            _set(node, "count_include_pad", 1)
        node.input[0] = pad.input[0]


def pad_for_pooling(graph: onnx.GraphProto) -> None:
    """Pad what is max-pooled, and may be negative, with the least number above 0, in place.

    onnxruntime moves a padding with 0 into the pooling behind it (its PadFusion, seen in 1.31), and pads with the least
    number of all there: wherever values are negative the answer is another one. A padding with any other number it leaves.
    """
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    value = numpy_helper.from_array(np.array(np.finfo(np.float32).smallest_subnormal), "pad_for_pooling")
    for node in graph.node:
        if node.op_type == "Pad" and node.output[0] in pooled and not any(node.input[2:]):
            if value.name not in {each.name for each in graph.initializer}:
                graph.initializer.append(value)
            node.input[:] = [*node.input[:2], value.name]


def _zeros_around(pad: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> list[int] | None:
    """Return how many zeros a Pad puts around pictures: top, left, bottom, right; None where it does something else."""
    if _given(pad, "mode") not in (None, b"constant") or len(pad.input) > 3 or pad.input[1] not in stored:
        return None
    if any(pad.input[2:]) and (pad.input[2] not in stored or numpy_helper.to_array(stored[pad.input[2]]).any()):
        return None
    sizes = numpy_helper.to_array(stored[pad.input[1]]).tolist()
    if len(sizes) != 2 * _AXES or any(sizes[:2] + sizes[_AXES : _AXES + 2]) or min(sizes) < 0:
        return None
    return sizes[2:_AXES] + sizes[_AXES + 2 :]


def _is_plain(node: onnx.NodeProto) -> bool:
    """Tell whether a window's sizes follow from what is written: no padding that a runtime works out, none rounded up."""
    return _given(node, "auto_pad") in (None, b"NOTSET", b"VALID") and not _given(node, "ceil_mode")


def _can_take(
    node: onnx.NodeProto, around: list[int], source: onnx.NodeProto | None, stored: Mapping[str, onnx.TensorProto]
) -> bool:
    if node.op_type == "Conv":
        return True
    # Runtimes refuse a window that may lie outside of the picture altogether.
    kernel, own = _given(node, "kernel_shape"), any(_given(node, "pads") or ())
    if own or max(around) >= min(kernel) or max(_given(node, "dilations") or [1]) > 1:
        return False
    return node.op_type == "AveragePool" or _is_never_negative(source, stored)


def _is_never_negative(node: onnx.NodeProto | None, stored: Mapping[str, onnx.TensorProto]) -> bool:
    if node is None or node.op_type != "Clip":
        return node is not None and node.op_type in _NEVER_NEGATIVE
    low = stored.get(node.input[1]) if len(node.input) > 1 else None
    return low is not None and float(numpy_helper.to_array(low).reshape(())) >= 0


def _given(node: onnx.NodeProto, name: str) -> object:
    """Return an attribute, None where it is not there."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)


def _set(node: onnx.NodeProto, name: str, value: object) -> None:
    """Give a node an attribute, in place of one of that name; `auto_pad` goes, as padding is written out."""
    kept = [each for each in node.attribute if each.name not in (name, "auto_pad")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
