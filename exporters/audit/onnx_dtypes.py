"""In which dtype an ONNX graph computes, quantised operators included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from exporters.audit.onnx_graph import FLOATS, STANDARD, Graph, attributes, dtype_name
from exporters.audit.onnx_layers import DEQUANTISE, QUANTISE

UNKNOWN = "unknown"
# What only joins operators to one another computes nothing.
_JOINTS = frozenset({QUANTISE, DEQUANTISE, "Constant"})
# A quantised operator takes these in, or they move values about without a look at them.
_TAKEN_IN = frozenset({"Relu", "Clip"})
_MOVING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# These take whole numbers however their bounds, fillings or sizes are stored.
_WITH_FLOAT_BOUNDS = frozenset({"Clip", "Pad", "Resize"})


def computed_dtypes(graph: Graph, given: Mapping[str, str], opset: int) -> Iterator[tuple[str, str]]:
    """Give name and dtype of each tensor that is computed; the dtype of the QuantizeLinear behind for what is quantised.

    Args:
        graph: resolved.
        given: input of the graph -> dtype.
        opset: of the standard operators.
    """
    dtypes = {**graph.dtypes, **given}
    for node in graph.nodes:
        for position, name in enumerate(node.output):
            dtypes[name] = _result_dtype(node, position, dtypes, opset)
    for node in graph.nodes:
        for name in node.output if node.op_type not in _JOINTS else ():
            if name and not graph.is_constant(name):
                quantised = dtypes[name] in FLOATS and _is_quantised(graph, node, dtypes)
                yield name, (_behind(graph, name, dtypes) if quantised else None) or dtypes[name]


def schema_of(node: onnx.NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """Return the specification of a node's operator; None where the opset has none, or it is of another domain."""
    try:
        return onnx.defs.get_schema(node.op_type, opset, "") if node.domain in STANDARD else None
    except onnx.defs.SchemaError:
        return None


def _result_dtype(node: onnx.NodeProto, position: int, dtypes: Mapping[str, str], opset: int) -> str:
    """Return the dtype of a node's output by its specification: given by an attribute, fixed, or that of an input."""
    given = attributes(node)
    number = given.get("to", given.get("dtype", given.get("output_dtype", 0)))
    if isinstance(number, int) and number:
        return dtype_name(number)
    if node.op_type == "ConstantOfShape":
        return dtype_name(given["value"].data_type) if "value" in given else "float32"
    schema = schema_of(node, opset)
    taken = [dtypes.get(name, UNKNOWN) for name in node.input]
    if schema is None:
        return taken[0] if taken else UNKNOWN
    kind = schema.outputs[min(position, len(schema.outputs) - 1)].type_str
    for index, name in enumerate(node.input):
        if name and schema.inputs[min(index, len(schema.inputs) - 1)].type_str == kind:
            return taken[index]
    if node.op_type == QUANTISE:
        return "uint8"
    allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}.get(kind, [kind])
    fixed = allowed[0].removeprefix("tensor(").removesuffix(")") if len(allowed) == 1 else UNKNOWN
    return {"float": "float32", "double": "float64"}.get(fixed, fixed)


def _is_quantised(graph: Graph, node: onnx.NodeProto, dtypes: Mapping[str, str]) -> bool:
    """Tell whether all the reals that a node computes with come from DequantizeLinear.

    So must kernels: with one in float, an operator computes in float between whole numbers.
    """
    while node.op_type in _TAKEN_IN | _MOVING:
        before, name = graph.producers.get(node.input[0]), node.input[0]
        if before is None:
            # The model's own input, only moved about before it is quantised.
            return node.op_type in _MOVING
        if before.op_type == DEQUANTISE or name in graph.outputs or len(graph.consumers[name]) > 1:
            break
        node = before
    taken = [name for name in node.input if dtypes.get(name) in FLOATS]
    if node.op_type in _WITH_FLOAT_BOUNDS:
        taken = taken[:1]
    return bool(taken) and all(
        name in graph.producers and graph.producers[name].op_type == DEQUANTISE for name in taken
    )


def _behind(graph: Graph, name: str, dtypes: Mapping[str, str]) -> str | None:
    """Return the dtype that a tensor is quantised to before anything else is computed with it; None where it is not."""
    following = graph.consumers.get(name, [])
    while len(following) == 1 and following[0].op_type in _TAKEN_IN | _MOVING and name not in graph.outputs:
        name = following[0].output[0]
        following = graph.consumers.get(name, [])
    if name in graph.outputs or not following or any(each.op_type != QUANTISE for each in following):
        return None
    return dtypes[following[0].output[0]]
