"""The layers of an ONNX graph: an operator with a stored kernel, its bias, the activation behind, and its quantisation."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from exporters.audit.contents import CONV, DENSE, DEPTHWISE, LINEAR, RELU, RELU6, Constant, Layer, Quantisation
from exporters.audit.onnx_graph import STANDARD, Graph, attributes, quantisation_of
from exporters.audit.reading import as_bias, rearranged, refusal, scaled

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
ACTIVATIONS = frozenset(
    {
        "Clip",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "LogSoftmax",
        "Mish",
        "PRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
    }
)
# 6 as a bound, after float16 or the product of a scale and 255.
_NEAR = 1e-3


def find_layers(graph: Graph) -> tuple[list[Layer], set[str]]:
    """Return the layers in the order in which they run, and the names of the stored tensors that they use.

    Raises:
        ParityError: a kernel or bias does not fit its operator.
    """
    layers, used = [], set()
    for node in graph.nodes:
        if node.domain not in STANDARD or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        kernel = graph.reals.get(node.input[1])
        # A convolution in one or three dimensions, or a matrix for each picture, is none of the layers known here.
        if kernel is None or kernel.values.ndim != (4 if node.op_type == "Conv" else 2):
            continue
        layer, names = _layer(graph, node, kernel)
        if layer is not None:
            layers.append(layer)
            used |= {graph.origins[name] for name in names}
    return layers, used


def _layer(graph: Graph, node: onnx.NodeProto, kernel: Constant) -> tuple[Layer | None, list[str]]:
    given, names = attributes(node), [node.input[1]]
    if node.op_type == "Conv":
        kind, kernel = _convolution(kernel, int(given.get("group", 1)))
        channels = int(np.prod(kernel.values.shape[2:] if kind == DEPTHWISE else kernel.values.shape[3:]))
    else:
        if given.get("transA", 0):
            return None, []
        kind = DENSE
        kernel = rearranged(kernel, np.transpose) if given.get("transB", 0) else kernel
        if given.get("alpha", 1.0) != 1:
            kernel = scaled(kernel, np.asarray(given["alpha"]))
        channels = kernel.values.shape[1]
    bias, output = None, node.output[0]
    if len(node.input) > 2 and node.input[2]:
        bias = _own_bias(graph, node, channels, float(given.get("beta", 1.0)))
        names.append(node.input[2])
    else:
        added = _added_bias(graph, output, channels, -3 if node.op_type == "Conv" else -1)
        if added is not None:
            bias, name, output = added
            names.append(name)
    activation, output = _activation(graph, output)
    behind, before = quantisation_behind(graph, output), quantisation_before(graph, node.input[0])
    return Layer(node.name, kind, kernel, bias, activation, output, behind, before), names


def quantisation_before(graph: Graph, name: str) -> Quantisation | None:
    """Return the quantisation of what a layer takes; None where it takes floats."""
    producer = graph.producers.get(name)
    if producer is None or producer.op_type != DEQUANTISE:
        return None
    return _with_dtype(graph, producer)


def _with_dtype(graph: Graph, node: onnx.NodeProto) -> Quantisation | None:
    quantisation = quantisation_of(node, graph.reals, graph.whole)
    if quantisation is None:
        return None
    return dataclasses.replace(quantisation, dtype=graph.dtypes[node.input[2]] if len(node.input) > 2 else "uint8")


def _convolution(kernel: Constant, groups: int) -> tuple[str, Constant]:
    out, each_in = kernel.values.shape[:2]
    if groups < 1 or out % groups:
        raise refusal(f"{kernel.name}, with {out} channels, is split into {groups} groups")
    if groups > 1 and each_in == 1:
        return DEPTHWISE, rearranged(
            kernel, lambda each: each.reshape(groups, -1, *each.shape[2:]).transpose(2, 3, 0, 1)
        )
    return CONV, rearranged(kernel, lambda each: each.transpose(2, 3, 1, 0))


def _own_bias(graph: Graph, node: onnx.NodeProto, channels: int, factor: float) -> Constant:
    found = graph.reals.get(node.input[2])
    bias = as_bias(found, channels) if found is not None else None
    if bias is None:
        raise refusal(f"{node.input[2]} is no bias of {channels} stored numbers")
    return bias if factor == 1 else scaled(bias, np.asarray(factor))


def _next(graph: Graph, name: str) -> tuple[onnx.NodeProto | None, str]:
    """Return the one operator that takes a tensor, and by what name; past a QuantizeLinear with its DequantizeLinear."""
    for _ in range(2):
        following = graph.consumers.get(name, [])
        if name in graph.outputs or len(following) != 1:
            return None, name
        if following[0].op_type != QUANTISE:
            return following[0], name
        restored = graph.consumers.get(following[0].output[0], [])
        if len(restored) != 1 or restored[0].op_type != DEQUANTISE or following[0].output[0] in graph.outputs:
            return None, name
        name = restored[0].output[0]
    return None, name


def _added_bias(graph: Graph, output: str, channels: int, axis: int) -> tuple[Constant, str, str] | None:
    """Return the bias that an Add brings in behind an operator, the tensor that holds it, and what comes out."""
    node, name = _next(graph, output)
    if node is None or node.op_type != "Add" or len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == name else node.input[0]
    found = graph.reals.get(other)
    if found is None or found.values.ndim < -axis or found.values.shape[axis] != channels:
        return None
    bias = as_bias(found, channels)
    return None if bias is None else (bias, other, node.output[0])


def _activation(graph: Graph, output: str) -> tuple[str, str]:
    node, name = _next(graph, output)
    if node is None or node.op_type not in ACTIVATIONS or node.input[0] != name:
        return LINEAR, output
    if node.op_type != "Clip":
        return node.op_type.lower(), node.output[0]
    given = attributes(node)
    bounds = []
    for position, key in enumerate(("min", "max"), start=1):
        stored = graph.reals.get(node.input[position]) if len(node.input) > position and node.input[position] else None
        if stored is None and len(node.input) > position and node.input[position]:
            return "clip", node.output[0]
        bounds.append(float(stored.values.reshape(())) if stored is not None else given.get(key))
    low, high = bounds
    if low == 0 and (high is None or high >= np.finfo(np.float16).max):
        return RELU, node.output[0]
    return RELU6 if low == 0 and high is not None and abs(high - 6) <= _NEAR else "clip", node.output[0]


def quantisation_behind(graph: Graph, output: str) -> Quantisation | None:
    """Return the quantisation of a layer's output; None where something takes it as floats."""
    following = graph.consumers.get(output, [])
    if output in graph.outputs or not following or any(each.op_type != QUANTISE for each in following):
        return None
    return _with_dtype(graph, following[0])
