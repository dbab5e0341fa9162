"""Names and order of an ONNX graph by its structure alone, so that the same model makes the same bytes.

tf2onnx numbers what it inserts by a counter of its process, and walks sets of strings, whose order changes from process
to process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from exporters.columns_graph import fed_by_columns_alone
from exporters.contract import COLUMNS_NAME

if TYPE_CHECKING:
    import onnx

BATCH = "batch"
_COUNTERS = re.compile(r"(__\d+)+$")
_CALLS = re.compile(r"^(StatefulPartitionedCall/)+")


def settle_names(model: onnx.ModelProto) -> None:
    """Order the nodes and name nodes, tensors and constants anew, in place; inputs and outputs keep their names.

    A graph with graphs inside its nodes (`If`, `Loop`) is left as it is.
    """
    graph = model.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return
    nodes = _in_order(graph)
    constants = {each.name: each for each in graph.initializer}
    kept = {each.name for each in (*graph.input, *graph.output)}
    names = {name: name for name in kept}
    taken = set(kept)
    for node in nodes:
        node.name = _unused(_COUNTERS.sub("", _CALLS.sub("", node.name)) or node.op_type, taken)
        for position, name in enumerate(node.input):
            if name in constants and name not in names:
                names[name] = _unused(f"{node.name}/input_{position}", taken)
        for position, name in enumerate(node.output):
            if name and name not in names:
                names[name] = _unused(f"{node.name}/output_{position}", taken)
    used = [constants[name] for name in names if name in constants]
    for constant in used:
        constant.name = names[constant.name]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    _replace(graph.node, nodes)
    _replace(graph.initializer, used)
    del graph.value_info[:]
    graph.doc_string = ""
    for each in (*graph.input, *graph.output):
        if each.type.tensor_type.shape.dim and not each.type.tensor_type.shape.dim[0].HasField("dim_value"):
            each.type.tensor_type.shape.dim[0].dim_param = BATCH


def encoder_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that encode the columns, which stay in float32: a year in 8 or 16 bits is no year."""
    inputs = {each.name for each in model.graph.input}
    calls = [(node.input, node.output) for node in model.graph.node]
    found = fed_by_columns_alone(calls, inputs & {COLUMNS_NAME}, inputs - {COLUMNS_NAME})
    return [node.name for node in model.graph.node if found.intersection(node.output)]


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that the outputs need, each behind those that feed it."""
    producers = {name: node for node in graph.node for name in node.output if name}
    ordered: dict[int, onnx.NodeProto] = {}
    waiting = [producers[each.name] for each in reversed(graph.output) if each.name in producers]
    while waiting:
        node = waiting[-1]
        feeding = (producers[name] for name in node.input if name in producers)
        missing = next((each for each in feeding if id(each) not in ordered), None)
        if missing is not None:
            waiting.append(missing)
            continue
        waiting.pop()
        ordered[id(node)] = node
    return list(ordered.values())


def _unused(name: str, taken: set[str]) -> str:
    numbered, count = name, 1
    while numbered in taken:
        count += 1
        numbered = f"{name}_{count}"
    taken.add(numbered)
    return numbered


def _replace(field: Iterable, values: list) -> None:
    copies = [type(each).FromString(each.SerializeToString()) for each in values]
    del field[:]
    field.extend(copies)
