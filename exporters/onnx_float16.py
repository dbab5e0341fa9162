"""An ONNX graph in float16: weights and arithmetic by onnxruntime's own tool, with its mistakes and needless casts taken out."""

from __future__ import annotations

import collections
from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from exporters.onnx_names import encoder_nodes


def to_float16(model: onnx.ModelProto, wide: Collection[str]) -> onnx.ModelProto:
    """Return a model with weights and arithmetic in float16, its inputs and outputs in float32.

    Args:
        model: in float32; it is changed.
        wide: names of outputs whose last linear layer stays in float32, and so does what encodes columns.
    """
    encoder = encoder_nodes(model)
    divide_where_exact(model, encoder)
    kept = [*last_layers(model, wide), *encoder]
    wrapped = ONNXModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept or None))
    _cast_once(wrapped.model)
    # The tool adds its casts at the end of the list of nodes; ONNX wants every node behind those that feed it.
    wrapped.topological_sort()
    _stay_wide(wrapped.model)
    return wrapped.model


def _cast_once(model: onnx.ModelProto) -> None:
    """Take out casts that stand there twice: the tool casts what two nodes take for each of them, under one name, in place."""
    seen: set[str] = set()
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            model.graph.node.remove(node)
        seen |= set(node.output)


def _stay_wide(model: onnx.ModelProto) -> None:
    """Take out what the tool puts behind each node that it leaves in float32: a cast to float16 and one back, in place."""
    graph = model.graph
    outputs = {each.name for each in graph.output}
    producers = {name: node for node in graph.node for name in node.output}
    in_float32 = _names_in_float32(model)
    for back in [node for node in graph.node if node.op_type == "Cast" and _casts_to(node, onnx.TensorProto.FLOAT)]:
        there = producers.get(back.input[0])
        if there is None or there.op_type != "Cast" or not _casts_to(there, onnx.TensorProto.FLOAT16):
            continue
        if there.input[0] not in in_float32:
            # The model's own: of what a comparison says, for one.
            continue
        old, new = back.output[0], there.input[0]
        # An output keeps its name; what computes it gets that.
        old, new = (new, old) if old in outputs else (old, new)
        graph.node.remove(back)
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
    used = {name for node in graph.node for name in node.input} | outputs
    for node in [each for each in graph.node if each.op_type == "Cast" and each.output[0] not in used]:
        graph.node.remove(node)


def _names_in_float32(model: onnx.ModelProto) -> set[str]:
    """Return the names of all values in float32, by the operators alone: what the model notes of them may be out of date."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {each.name for each in values if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}


def _casts_to(node: onnx.NodeProto, dtype: int) -> bool:
    return any(each.name == "to" and each.i == dtype for each in node.attribute)


def last_layers(model: onnx.ModelProto, outputs: Collection[str]) -> list[str]:
    """Return the names of the nodes that are the last linear layer before some outputs: a product, and what is added to it.

    In float16 numbers end at 65,504, which prices do not, and lie a quarter apart at 290, the kelvins of a warm day.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for output in outputs:
        node = producers.get(output)
        while node is not None and node.op_type in ("Add", "Identity", "Reshape", "Squeeze"):
            found.append(node.name)
            node = producers.get(node.input[0])
        if node is not None and node.op_type in ("MatMul", "Gemm"):
            found.append(node.name)
    return found


def divide_where_exact(model: onnx.ModelProto, wide: Collection[str] = ()) -> None:
    """Turn products with a number that float16 rounds into divisions by one that it holds, in place.

    1 / 127.5 in a pixel scaling, for one, would be off in the same way everywhere; 127.5 is not.
    The nodes named by `wide` stay as they are.
    """
    graph = model.graph
    numbers = {
        each.name: each
        for each in graph.initializer
        if np.prod(each.dims) == 1 and each.data_type == onnx.TensorProto.FLOAT
    }
    uses = collections.Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        constants = [name for name in node.input if name in numbers]
        if node.op_type != "Mul" or len(constants) != 1 or len(node.input) != 2 or node.name in wide:
            continue
        number = float(numpy_helper.to_array(numbers[constants[0]]).reshape(()))
        if not number or _is_exact(number):
            continue
        divisor = float(np.float16(1 / number))
        # What was written in float32 is the reciprocal of a short number as near as that can be told.
        if not abs(divisor * number - 1) < 2**-22:
            continue
        stored = numbers[constants[0]]
        if uses[constants[0]] > 1:
            stored = graph.initializer.add()
        shape = tuple(numbers[constants[0]].dims)
        name = constants[0] if uses[constants[0]] == 1 else f"{node.name}/divisor"
        stored.CopyFrom(numpy_helper.from_array(np.full(shape, divisor, np.float32), name))
        value = next(each for each in node.input if each != constants[0])
        node.op_type, node.input[:] = "Div", [value, name]


def _is_exact(number: float) -> bool:
    return abs(float(np.float16(number)) - number) <= 2**-22 * abs(number)
