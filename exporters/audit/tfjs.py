"""What is inside a TF.js graph model, read from its JSON and its weight files without running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.audit.contents import CONV, DENSE, DEPTHWISE, LINEAR, Constant, Contents, Layer, Port
from exporters.audit.reading import as_bias, rearranged, refusal, refusing, tally
from exporters.audit.tfjs_graph import MODEL_FILE, Graph, Node, dtype_name, load, node_name
from exporters.audit.tfjs_operators import FUSABLE, NO_BIAS, RUNNABLE
from exporters.columns_graph import fed_by_columns_alone
from exporters.contract import COLUMNS_NAME

ACTIVATIONS = frozenset(
    {
        "Elu",
        "LeakyRelu",
        "LogSoftmax",
        "Prelu",
        "Relu",
        "Relu6",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Tanh",
    }
)
RANDOM = frozenset({"Multinomial", "ParameterizedTruncatedNormal", "TruncatedNormal"})
_KINDS = {
    "Conv2D": CONV,
    "_FusedConv2D": CONV,
    "DepthwiseConv2dNative": DEPTHWISE,
    "FusedDepthwiseConv2dNative": DEPTHWISE,
    "MatMul": DENSE,
    "_FusedMatMul": DENSE,
    "BatchMatMul": DENSE,
    "BatchMatMulV2": DENSE,
}
_ADDITIONS = frozenset({"Add", "AddV2", "BiasAdd"})


def read(folder: Path) -> Contents:
    """Read `folder/model.json` and the weight files that it names.

    TF.js computes in float32 whatever its weights are stored in. The scales of weights that the graph multiplies are
    part of these, and no constants of their own.

    Raises:
        ParityError: the files hold no TF.js graph model, are damaged, or name weight files outside the folder.
    """
    folder = Path(folder)
    with refusing(folder / MODEL_FILE):
        graph = load(folder)
        layers, used = _layers(graph)
        stored = {name: each for name, each in graph.stored.items() if name not in graph.parameters}
        nodes = [*graph.nodes, *graph.inner]
        computed = [each for each in graph.nodes if each.operator not in ("Const", "Placeholder")]
        computed = [each for each in computed if each.name not in graph.reals]
        beside = _of_columns(graph)
        return Contents(
            operators=tally((each.operator, 1) for each in nodes),
            custom_operators=tuple(sorted({name for each in nodes for name in _lacking(each)})),
            random_operators=tuple(sorted({each.operator for each in nodes if _is_random(each)})),
            opset=None,
            inputs=tuple(_port(*each) for each in graph.inputs.items()),
            outputs=tuple(_port(*each) for each in graph.outputs.items()),
            weights=tally((each.dtype, each.values.size) for each in stored.values() if each.values.size > 1),
            activations=tally((each.dtype(), 1) for each in computed if each.name not in beside),
            layers=tuple(layers),
            constants=tuple(each for name, each in stored.items() if name not in used),
            card=graph.card,
            encoder=tally((each.dtype(), 1) for each in computed if each.name in beside),
        )


def _of_columns(graph: Graph) -> set[str]:
    """Return the nodes that come from the columns alone."""
    inputs = {name: node_name(tensor["name"]) for name, tensor in graph.inputs.items()}
    columns = {node for name, node in inputs.items() if name == COLUMNS_NAME}
    calls = ((each.inputs, (each.name,)) for each in graph.nodes)
    return fed_by_columns_alone(calls, columns, set(inputs.values()) - columns)


def _port(name: str, tensor: Mapping[str, Any]) -> Port:
    sizes = [int(each["size"]) for each in tensor.get("tensorShape", {}).get("dim", [])]
    return Port(name, dtype_name(tensor["dtype"]), tuple(size if size >= 0 else None for size in sizes))


def _lacking(node: Node) -> list[str]:
    """Return what of a node TF.js cannot run: the operator, or what is fused into it."""
    if node.operator not in RUNNABLE:
        return [node.operator]
    return [f"{node.operator} with {each}" for each in node.texts("fused_ops") if each not in FUSABLE]


def _is_random(node: Node) -> bool:
    if node.operator.startswith("FusedBatchNorm"):
        # TensorFlow's default is True; the converter writes the attribute wherever it is not.
        return node.attributes.get("is_training", {}).get("b", True)
    return node.operator in RANDOM or node.operator.startswith("Random")


def _layers(graph: Graph) -> tuple[list[Layer], set[str]]:
    """Return the layers in the order in which they run, and the names of the weights that they use."""
    consumers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    for tensor in graph.outputs.values():
        # An output of the model is taken by someone else besides.
        consumers.setdefault(node_name(tensor["name"]), []).append(Node("", "output", (), {}))
    layers, used = [], set()
    for node in graph.nodes:
        if node.operator in _KINDS and len(node.inputs) > 1 and node.inputs[1] in graph.reals:
            layer, names = _layer(graph, node, consumers)
            if layer is not None:
                layers.append(layer)
                used |= {origin for name in names for origin in graph.origins[name]}
    return layers, used


def _layer(graph: Graph, node: Node, consumers: Mapping[str, list[Node]]) -> tuple[Layer | None, list[str]]:
    kind, kernel, names = _KINDS[node.operator], graph.reals[node.inputs[1]], [node.inputs[1]]
    if kind == DENSE:
        if node.flag("transpose_a") or node.flag("adj_x") or kernel.values.ndim != 2:
            return None, []
        if node.flag("transpose_b") or node.flag("adj_y"):
            kernel = rearranged(kernel, np.transpose)
    elif kernel.values.ndim != 4 or node.text("filter_format") not in ("", "HWIO"):
        raise refusal(f"the kernel of {node.name} has the shape {kernel.values.shape}, or another order than HWIO")
    channels = int(np.prod(kernel.values.shape[2:])) if kind == DEPTHWISE else kernel.values.shape[-1]
    fused, output, bias = node.texts("fused_ops"), node, None
    if "BiasAdd" in fused:
        bias = _bias(graph, node.inputs[2], channels)
        names.append(node.inputs[2])
    else:
        added = _added_bias(graph, node, channels, consumers)
        if added is not None:
            bias, name, output = added
            names.append(name)
    activation = next((each.lower() for each in fused if each not in ("BiasAdd", NO_BIAS)), LINEAR)
    following = consumers.get(output.name, [])
    if activation == LINEAR and len(following) == 1 and following[0].operator in ACTIVATIONS:
        activation, output = following[0].operator.lower(), following[0]
    return Layer(node.name, kind, kernel, bias, activation, output.name), names


def _bias(graph: Graph, name: str, channels: int) -> Constant:
    """Return the bias fused into an operator: a list of stored numbers, as TF.js runs no other.

    The converter takes any addition behind an operator without a bias for one, that of a skip connection too.
    """
    found = graph.reals.get(name)
    if found is None or found.values.shape != (channels,):
        raise refusal(f"{name} is fused into an operator as its bias, and is no list of {channels} stored numbers")
    return found


def _added_bias(
    graph: Graph, node: Node, channels: int, consumers: Mapping[str, list[Node]]
) -> tuple[Constant, str, Node] | None:
    """Return the bias that an addition brings in behind a node, its name, and that addition."""
    following = consumers.get(node.name, [])
    if len(following) != 1 or following[0].operator not in _ADDITIONS:
        return None
    others = [name for name in following[0].inputs if name in graph.reals]
    if len(others) != 1 or graph.reals[others[0]].values.shape[-1:] != (channels,):
        return None
    bias = as_bias(graph.reals[others[0]], channels)
    return None if bias is None else (bias, others[0], following[0])
