"""Stores the kernels of an ONNX graph in 8 bits, with a scale for each output channel; it computes in float32 as before.

onnxruntime's own `quantize_dynamic` also rounds what comes into each layer while it runs. It has one scale for a whole
convolution, which a network with depthwise convolutions does not survive, and ConvInteger is many times slower than Conv.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

LARGEST = 127
_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


def store_in_int8(model: onnx.ModelProto, wide: Collection[str] = ()) -> None:
    """Put DequantizeLinear behind the kernel of each layer, which is then stored as whole numbers -127..127, in place.

    The nodes named by `wide` keep theirs, and so does whatever takes a kernel that other operators take too.
    """
    graph = model.graph
    stored = {each.name: each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
    axes: dict[str, set[int | None]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            kernel = place == 1 and node.op_type in _LAYERS and node.name not in wide
            axes.setdefault(name, set()).add(_axis_of_channels(node) if kernel else None)
    added = []
    for name, found in axes.items():
        (axis,) = found if len(found) == 1 else (None,)
        if axis is None or name not in stored or len(stored[name].dims) < 2:
            continue
        whole, scale = _in_whole_numbers(numpy_helper.to_array(stored[name]), axis)
        graph.initializer.remove(stored[name])
        names = [f"{name}_quantized", f"{name}_scale"]
        graph.initializer.extend(map(numpy_helper.from_array, (whole, scale), names))
        added.append(helper.make_node("DequantizeLinear", names, [name], f"{name}/dequantise", axis=axis))
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _axis_of_channels(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's kernel along which its output channels lie."""
    turned = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def _in_whole_numbers(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 of the kernel's shape and float32 (channels,), whose product is the kernel as near as can be."""
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    largest = np.abs(kernel.astype(np.float64)).max(others, keepdims=True)
    # A dead channel has no scale; its zeros stay zeros.
    scale = np.where(largest > 0, largest, LARGEST) / LARGEST
    return np.rint(kernel / scale).astype(np.int8), scale.astype(np.float32).ravel()
