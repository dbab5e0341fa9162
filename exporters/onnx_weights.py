"""Stores the kernels of an ONNX graph in 8 bits, with a scale for each output channel; it computes in float32 as before.

onnxruntime's own `quantize_dynamic` also rounds what comes into each layer while it runs. It has one scale for a whole
convolution, which a network with depthwise convolutions does not survive, and ConvInteger is many times slower than Conv.

Kernels are brought back by Cast and Mul, which runtimes compute once, when they load a model. DequantizeLinear they would
compute anew for each answer, and before a MatMul onnxruntime takes it as leave to round what the layer takes, too.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

LARGEST = 127
_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


def store_in_int8(model: onnx.ModelProto, wide: Collection[str] = ()) -> None:
    """Store the kernel of each layer as whole numbers -127..127, with Cast and Mul behind it, in place.

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
        cast = f"{name}_cast"
        added.append(helper.make_node("Cast", names[:1], [cast], cast, to=onnx.TensorProto.FLOAT))
        added.append(helper.make_node("Mul", [cast, names[1]], [name], f"{name}_scaled"))
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _axis_of_channels(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's kernel along which its output channels lie."""
    turned = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def _in_whole_numbers(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 of the kernel's shape and float32, one for each channel, whose product is the kernel as near as can be."""
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    scale = np.abs(kernel.astype(np.float64)).max(others, keepdims=True) / LARGEST
    # A dead channel has the scale 0, one with NaN in it has NaN, which its whole numbers cannot hide.
    steps = kernel / np.where(np.isfinite(scale) & (scale > 0), scale, np.inf)
    return np.rint(np.nan_to_num(steps)).astype(np.int8), scale.astype(np.float32)
