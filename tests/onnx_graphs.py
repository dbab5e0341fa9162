"""What every ONNX graph of ours must look like, whatever network and heads it holds; for many test files."""

from __future__ import annotations

import collections
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

OPSET = 17
QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
# What converters leave behind: nothing that is computed, what is known beforehand, and what had to be folded.
LEFTOVERS = frozenset(
    (
        *("BatchNormalization", "Constant", "ConstantOfShape", "Dropout", "Expand", "Gather", "Identity", "Range"),
        *("Shape", "Tile", "Unsqueeze", "Where"),
    )
)
# Smaller constants may be there twice: a bound, a scale.
LEAST_BYTES = 64


def kinds_of(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes there are of each kind."""
    return dict(collections.Counter(node.op_type for node in model.graph.node))


def check_graph(path: Path, transposes: int, *, batch: str | int = "batch") -> None:
    """Hold a file against everything that holds for all of them.

    Args:
        path: of a `model.onnx`, in an artifact's folder.
        transposes: how many there must be: one where pictures come in, one for each map that goes out, and one where a map
            is laid flat.
        batch: the first axis of everything that is computed.
    """
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert not model.graph.value_info
    _check_shapes(model, batch)
    kinds = kinds_of(model)
    assert kinds.get("Transpose", 0) == transposes, kinds
    assert not LEFTOVERS & set(kinds), kinds
    _check_constants(model, path.parent.name)
    _check_windows(model)
    if path.parent.name.startswith("onnx-int8"):
        _check_quantised(model)
    elif not path.parent.name.startswith("onnx-float16"):
        # Without quantisation in between, a bias is part of its layer.
        assert not [node for node in model.graph.node if _is_bias_apart(model, node)]


def _check_shapes(model: onnx.ModelProto, batch: str | int) -> None:
    """Every shape can be inferred, and all but those of kernels begin with the batch."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    computed = _computed(model)
    shapes = {each.name: each.type.tensor_type.shape.dim for each in (*inferred.value_info, *inferred.output)}
    assert computed <= set(shapes)
    for name in computed:
        first, *others = shapes[name]
        assert (first.dim_param or first.dim_value) == batch, name
        assert all(axis.dim_value > 0 for axis in others), name


def _computed(model: onnx.ModelProto) -> set[str]:
    """The tensors that depend on what comes in."""
    found = {each.name for each in model.graph.input}
    for node in model.graph.node:
        if found.intersection(node.input):
            found.update(node.output)
    return found - {each.name for each in model.graph.input}


def _check_constants(model: onnx.ModelProto, name: str) -> None:
    """Nothing is computed of constants alone but what brings back narrow kernels, and nothing of size is stored twice."""
    computed, stored = _computed(model), {each.name for each in model.graph.initializer}
    fixed = [node for node in model.graph.node if not computed.intersection(node.output)]
    kinds = {node.op_type for node in fixed}
    assert kinds == {"onnx-int8": {DEQUANTISE}, "onnx-dynamic_int8": {"Cast", "Mul"}}.get(
        name.removesuffix("-batch1"), set()
    )
    used = {each for node in model.graph.node for each in node.input}
    assert stored <= used, "stored for nobody"
    digests = [
        (each.data_type, tuple(each.dims), hashlib.sha256(numpy_helper.to_array(each).tobytes()).digest())
        for each in model.graph.initializer
        if numpy_helper.to_array(each).nbytes >= LEAST_BYTES
    ]
    # Channels of several layers may happen to have one scale all of them: what counts is kernels.
    assert len(digests) == len(set(digests)), "stored twice"


def _check_windows(model: onnx.ModelProto) -> None:
    """No padding stands in front of a convolution, nor of an average."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Conv", "AveragePool"):
            before = makers.get(node.input[0])
            assert before is None or before.op_type != "Pad", node.name


def _is_bias_apart(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    makers = {name: each for each in model.graph.node for name in each.output}
    stored = {each.name for each in model.graph.initializer}
    if node.op_type != "Add" or not stored.intersection(node.input):
        return False
    return any(makers[name].op_type in ("MatMul", "Gemm", "Conv") for name in node.input if name in makers)


def _check_quantised(model: onnx.ModelProto) -> None:
    """Each layer takes whole numbers, by a kernel with a scale for each channel that goes out, and gives whole numbers."""
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert layers
    for node in layers:
        assert {makers[name].op_type for name in node.input[:2]} == {DEQUANTISE}, node.name
        kernel = makers[node.input[1]]
        values, scales = stored[kernel.input[0]], stored[kernel.input[1]]
        axis = next((each.i for each in kernel.attribute if each.name == "axis"), 1)
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        assert axis == (0 if node.op_type == "Conv" or turned else 1), node.name
        assert values.dtype == np.int8 and scales.shape == (values.shape[axis],), node.name
        behind = takers.get(node.output[0], [])
        # What a layer counts up may be the answer as it is, where that is no probability.
        assert {each.op_type for each in behind} <= {QUANTISE}, node.name


def in_float(model: onnx.ModelProto) -> dict[str, int]:
    """Kinds of nodes of an int8 model that take or give floats, and how many of each."""
    makers = {name: node for node in model.graph.node for name in node.output}
    computed, outputs = _computed(model), {each.name for each in model.graph.output}
    takers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, set()).add(node.op_type)
    found = [
        node.op_type
        for node in model.graph.node
        if node.op_type not in (QUANTISE, DEQUANTISE)
        and (
            any(name in computed and makers[name].op_type != DEQUANTISE for name in node.input)
            or any(takers.get(name, {QUANTISE}) != {QUANTISE} or name in outputs for name in node.output)
        )
    ]
    return dict(collections.Counter(found))
