"""What is inside an ONNX artifact, read from its graph without running it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exporters.audit.contents import Constant, Contents, Port
from exporters.audit.onnx_dtypes import computed_dtypes, schema_of
from exporters.audit.onnx_graph import STANDARD, Graph, attributes, dtype_name, nested, refuse_outside, resolve
from exporters.audit.onnx_layers import find_layers, quantisation_behind
from exporters.audit.reading import refusal, refusing, tally
from exporters.columns_graph import fed_by_columns_alone
from exporters.contract import COLUMNS_NAME

MODEL_FILE = "model.onnx"
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def read(folder: Path) -> Contents:
    """Read `folder/model.onnx`.

    `output` of a layer is the tensor before its QuantizeLinear. Where the quantiser has dropped an activation, because the
    range of the stored numbers cuts off the same values, `activation` is `linear`, as the file says. Scales and zero
    points are part of what they quantise, and no constants of their own.

    Raises:
        ParityError: the file is no ONNX model, is damaged, or keeps numbers in another file.
    """
    path = Path(folder) / MODEL_FILE
    with refusing(path):
        model = onnx.load_model_from_string(path.read_bytes())
        refuse_outside(model.graph)
        opset = next((each.version for each in model.opset_import if each.domain in STANDARD), None)
        if opset is None or not model.graph.node:
            raise refusal("it holds no graph of standard operators")
        graph = resolve(model.graph)
        layers, used = find_layers(graph)
        nodes = [*nested(model.graph.node), *(node for each in model.functions for node in nested(each.node))]
        # The first name of a constant is that under which it is stored, or the one where it is dequantised.
        stored = {origin: graph.reals[name] for name, origin in reversed(graph.origins.items())}
        stored = {origin: each for origin, each in reversed(stored.items()) if origin not in graph.parameters}
        given = {each.name for each in model.graph.initializer}
        computed = list(computed_dtypes(graph, _given(model.graph), opset))
        beside = _of_columns(graph, {each.name for each in model.graph.input} - given)
        told = {each.key: _from_json(each.value) for each in model.metadata_props}
        return Contents(
            operators=tally((_name(each), 1) for each in nodes),
            custom_operators=tuple(sorted({_name(each) for each in nodes if schema_of(each, opset) is None})),
            random_operators=tuple(sorted({_name(each) for each in nodes if _is_random(each, opset, graph)})),
            opset=opset,
            inputs=tuple(
                dataclasses.replace(_port(each), quantisation=quantisation_behind(graph, each.name))
                for each in model.graph.input
                if each.name not in given
            ),
            outputs=tuple(_port(each) for each in model.graph.output),
            weights=tally((each.dtype, each.values.size) for each in stored.values() if each.values.size > 1),
            activations=tally((dtype, 1) for name, dtype in computed if name not in beside),
            layers=tuple(layers),
            constants=tuple(_as_factor(graph, each) for origin, each in stored.items() if origin not in used),
            card=told.get("card"),
            encoder=tally((dtype, 1) for name, dtype in computed if name in beside),
            labels={f"{key}.txt": tuple(each) for key, each in told.items() if key.split(".")[0] == "labels"} or None,
        )


def _from_json(text: str) -> Any:
    """Return what a value of the metadata says in JSON; the text itself where somebody else wrote it otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _as_factor(graph: Graph, constant: Constant) -> Constant:
    """Return the reciprocal of a constant that only divides: dividing by it is multiplying with that."""
    consumers = graph.consumers.get(constant.name, [])
    divides = consumers and all(each.op_type == "Div" and each.input[1] == constant.name for each in consumers)
    if not divides or constant.step.any() or not constant.values.all():
        return constant
    return dataclasses.replace(constant, values=(1 / constant.values.astype(np.float64)).astype(np.float32))


def _of_columns(graph: Graph, inputs: set[str]) -> set[str]:
    """Return the tensors that come from the columns alone."""
    calls = ((each.input, each.output) for each in graph.nodes)
    return fed_by_columns_alone(calls, inputs & {COLUMNS_NAME}, inputs - {COLUMNS_NAME})


def _given(graph: onnx.GraphProto) -> dict[str, str]:
    return {each.name: _port(each).dtype for each in graph.input}


def _name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _is_random(node: onnx.NodeProto, opset: int, graph: Graph) -> bool:
    if node.op_type == "Dropout":
        if opset < 12:
            return opset < 7 and not attributes(node).get("is_test", 0)
        mode = node.input[2] if len(node.input) > 2 else ""
        return bool(mode) and (mode not in graph.whole or bool(graph.whole[mode].any()))
    if node.op_type == "BatchNormalization":
        return bool(attributes(node).get("training_mode", 0)) or (opset < 14 and len(node.output) > 1)
    return node.op_type in RANDOM


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    shape = tuple(each.dim_value if each.HasField("dim_value") else None for each in tensor.shape.dim)
    return Port(value.name, dtype_name(tensor.elem_type), shape)
