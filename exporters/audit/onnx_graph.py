"""An ONNX graph with its constants resolved: what reaches an operator through casts, transposes and dequantisation.

Operators as in the specification, https://onnx.ai/onnx/operators, up to the opset that the installed `onnx` knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from exporters.audit.contents import Constant, Quantisation
from exporters.audit.reading import dequantised, floats, in_order, rearranged, refusal, scaled

STANDARD = ("", "ai.onnx")
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_NAMES = {"float": "float32", "double": "float64"}


@dataclasses.dataclass(frozen=True)
class Graph:
    """One graph; `nodes` in the order in which they run.

    `producers` and `consumers`: name of a tensor -> the node that computes it, the nodes that take it. `reals`: name of a
    tensor -> its constant, for all tensors that only stored reals reach; `origins`: the same names -> where the constant
    is stored. `whole`: stored whole numbers and truth values. `dtypes`: name -> dtype of every stored tensor.
    `parameters`: the scales and zero points of quantisation.
    """

    nodes: tuple[onnx.NodeProto, ...]
    outputs: frozenset[str]
    producers: Mapping[str, onnx.NodeProto]
    consumers: Mapping[str, list[onnx.NodeProto]]
    reals: Mapping[str, Constant]
    origins: Mapping[str, str]
    whole: Mapping[str, np.ndarray]
    dtypes: Mapping[str, str]
    parameters: frozenset[str]

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is stored, or made of nothing but stored reals; a name that is left out is."""
        return not name or name in self.reals or name in self.whole


def dtype_name(number: int) -> str:
    """Return an element type's name as numpy has it, such as `float32` or `int8`."""
    name = onnx.TensorProto.DataType.Name(number).lower()
    return _NAMES.get(name, name)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes: name -> value."""
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def nested(nodes: Any) -> Iterator[onnx.NodeProto]:
    """Give the nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from nested(graph.node)


def refuse_outside(graph: onnx.GraphProto) -> None:
    """Refuse a graph that keeps numbers in other files, or sparsely.

    Raises:
        ParityError: it does.
    """
    tensors = list(graph.initializer)
    for node in nested(graph.node):
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                tensors += inner.initializer
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise refusal(f"{tensor.name} is stored outside the file")
    if graph.sparse_initializer:
        raise refusal("a tensor is stored sparsely")


def resolve(graph: onnx.GraphProto) -> Graph:
    """Put the nodes in order and resolve the constants.

    Raises:
        ParityError, or any exception of numpy or protobuf: the graph is damaged.
    """
    nodes = _ordered(graph)
    found = _Constants({}, {}, {}, {}, set())
    for tensor in graph.initializer:
        found.store(tensor.name, tensor)
    for node in nodes:
        if node.domain in STANDARD:
            _resolve_node(node, found)
    producers = {name: node for node in nodes for name in node.output if name}
    for node in nodes:
        before = producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is not None and before.op_type == "QuantizeLinear" and not _same_parameters(before, node, found):
            raise refusal(f"{before.input[0]} is dequantised otherwise than it was quantised")
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    for node in nodes:
        before = producers.get(node.input[0]) if node.op_type in _MOVING else None
        if before is None or before.op_type != "DequantizeLinear":
            continue
        for after in consumers.get(node.output[0], []):
            if after.op_type == "QuantizeLinear" and not _same_parameters(before, after, found):
                raise refusal(f"{node.output[0]} is only moved, and comes out in other steps than it went in")
    outputs = frozenset(each.name for each in graph.output)
    parameters = frozenset(found.parameters)
    return Graph(
        nodes, outputs, producers, consumers, found.reals, found.origins, found.whole, found.dtypes, parameters
    )


# Operators that change no value.
_MOVING = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def _same_parameters(one: onnx.NodeProto, other: onnx.NodeProto, found: _Constants) -> bool:
    pairs = (quantisation_of(each, found.reals, found.whole) for each in (one, other))
    first, second = pairs
    if first is None or second is None:
        return first is second
    return np.array_equal(first.scale, second.scale) and np.array_equal(first.zero_point, second.zero_point)


def _ordered(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, ...]:
    nodes = list(graph.node)
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and makers.setdefault(name, index) != index:
                raise refusal(f"two operators compute {name}")
    taken = []
    for node in nodes:
        names = [name for each in nested([node]) for name in each.input]
        taken.append([makers[name] for name in names if name in makers and nodes[makers[name]] is not node])
    return tuple(nodes[index] for index in in_order(taken))


@dataclasses.dataclass(frozen=True)
class _Constants:
    """What `resolve` gathers; see Graph."""

    reals: dict[str, Constant]
    origins: dict[str, str]
    whole: dict[str, np.ndarray]
    dtypes: dict[str, str]
    parameters: set[str]

    def store(self, name: str, tensor: onnx.TensorProto) -> None:
        dtype = dtype_name(tensor.data_type)
        self.dtypes[name] = dtype
        if dtype in FLOATS:
            self.reals[name], self.origins[name] = floats(name, dtype, numpy_helper.to_array(tensor)), name
        elif dtype != "string":
            self.whole[name] = numpy_helper.to_array(tensor)


def _resolve_node(node: onnx.NodeProto, found: _Constants) -> None:
    """Add what a node computes, where it is a constant."""
    if node.op_type == "Constant":
        _resolve_constant(node, found)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        found.parameters.update(node.input[1:])
    if node.op_type == "DequantizeLinear" and node.input[0] in found.whole:
        stored, axis = found.whole[node.input[0]], int(attributes(node).get("axis", 1))
        if attributes(node).get("block_size", 0):
            raise refusal(f"{node.input[0]} is quantised in blocks")
        quantisation = quantisation_of(node, found.reals, found.whole)
        if quantisation is not None:
            dtype = found.dtypes[node.input[0]]
            found.reals[node.output[0]] = dequantised(node.input[0], dtype, stored, quantisation, axis)
            found.origins[node.output[0]] = node.input[0]
    elif node.op_type == "Cast" and node.input[0] in found.whole and found.whole[node.input[0]].dtype != bool:
        one = Quantisation(np.ones(1), np.zeros(1, np.int64))
        found.reals[node.output[0]] = dequantised(
            node.input[0], found.dtypes[node.input[0]], found.whole[node.input[0]], one, 0
        )
        found.origins[node.output[0]] = node.input[0]
    elif node.input and node.input[0] in found.reals:
        result = _passed_on(node, found.reals[node.input[0]], found)
        if result is not None:
            found.reals[node.output[0]] = result
            found.origins[node.output[0]] = found.origins[node.input[0]]


def _resolve_constant(node: onnx.NodeProto, found: _Constants) -> None:
    for name, value in attributes(node).items():
        if name == "value":
            found.store(node.output[0], value)
        elif name in ("value_float", "value_floats"):
            found.store(node.output[0], numpy_helper.from_array(np.asarray(value, np.float32)))
        elif name in ("value_int", "value_ints"):
            found.store(node.output[0], numpy_helper.from_array(np.asarray(value, np.int64)))
        elif not name.startswith("value_string"):
            raise refusal(f"{node.output[0]} is a constant given as {name}")


def _passed_on(node: onnx.NodeProto, constant: Constant, found: _Constants) -> Constant | None:
    """Return what a node makes of a constant; None where it is not one of those that only carry it on."""
    kind = node.op_type
    if kind == "Identity":
        return constant
    if kind == "Cast":
        if dtype_name(attributes(node)["to"]) != "float16":
            return constant
        with np.errstate(all="ignore"):
            rounded = constant.values.astype(np.float16).astype(np.float32)
        return dataclasses.replace(constant, values=rounded)
    if kind == "Transpose":
        return rearranged(constant, lambda each: each.transpose(attributes(node).get("perm")))
    if kind == "Reshape" and node.input[1] in found.whole:
        shape = [int(size) for size in found.whole[node.input[1]]]
        if 0 in shape:
            shape = [size or constant.values.shape[axis] for axis, size in enumerate(shape)]
        return rearranged(constant, lambda each: each.reshape(shape))
    if kind == "Mul" and node.input[1] in found.reals and constant.step.any() and constant.step.shape == ():
        found.parameters.add(node.input[1])
        return scaled(constant, found.reals[node.input[1]].values)
    return None


def quantisation_of(
    node: onnx.NodeProto, reals: Mapping[str, Constant], whole: Mapping[str, np.ndarray]
) -> Quantisation | None:
    """Return the scale and zero point of a QuantizeLinear or DequantizeLinear; None where they are not stored."""
    if node.input[1] not in reals:
        return None
    scale = reals[node.input[1]].values.astype(np.float64).reshape(-1)
    zero_point = np.zeros(1, np.int64)
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in whole:
            return None
        zero_point = whole[node.input[2]].astype(np.int64).reshape(-1)
    return Quantisation(scale, zero_point)
