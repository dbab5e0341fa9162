"""Puts what encodes the columns, in float32, before a TFLite model of all the rest, in whatever the rest computes in.

TensorFlow's converter knows one precision for a whole model, and one type for all inputs; a year in 8 bits is no year. The
rest is therefore converted by itself, with the encoded columns as its second input, and here gets the operators of the
encoder in front. The form of the file is TensorFlow's flatbuffer schema, tensorflow/compiler/mlir/lite/schema/schema.fbs,
version 3.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.contract import COLUMNS_ENCODED, COLUMNS_NAME, INPUT_NAME
from exporters.errors import CutpointError
from exporters.saved_model import BODY, ENCODER, SERVING
from exporters.tflite_outputs import pack, text_of

_FLOAT32 = schema.TensorType.FLOAT32


def prepend_encoder(body: bytes, encoder: bytes) -> bytes:
    """Return the model that takes `image` and `columns`, the columns in float32.

    Args:
        body: takes `image` and `columns_encoded`, in float32 or whole numbers.
        encoder: takes `columns`, gives `columns_encoded`, all in float32.

    Raises:
        CutpointError: the body takes encoded columns that are neither float32 nor quantised once.
    """
    model, front = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(each, 0)) for each in (body, encoder))
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for tensor in graph.tensors:
        tensor.name = text_of(tensor.name).replace(f"{BODY}_", f"{SERVING}_", 1)
    given = {text_of(each.name): int(each.tensorIndex) for each in signature.inputs}
    encoded = given[COLUMNS_ENCODED]
    _take_floats(model, graph, encoded)
    side = front.signatureDefs[0]
    places = _add_tensors(model, front, {int(side.outputs[0].tensorIndex): encoded})
    graph.operators = [*_added_operators(model, front, places), *graph.operators]
    entries = {INPUT_NAME: given[INPUT_NAME], COLUMNS_NAME: places[int(side.inputs[0].tensorIndex)]}
    graph.inputs = np.array(list(entries.values()), np.int32)
    signature.inputs = [_entry(name, index) for name, index in entries.items()]
    signature.signatureKey = SERVING
    return pack(model)


def _take_floats(model: schema.ModelT, graph: schema.SubGraphT, index: int) -> None:
    """Let an input be what float operators give: where the body computes in whole numbers, it quantises it itself."""
    tensor = graph.tensors[index]
    takers = [each for each in graph.operators if index in map(int, each.inputs)]
    codes = {model.operatorCodes[each.opcodeIndex].builtinCode for each in takers}
    if tensor.type != _FLOAT32 and codes != {schema.BuiltinOperator.QUANTIZE}:
        raise CutpointError(
            f"TFLite's converter takes the encoded columns into operators of the codes {sorted(codes)}.",
            "one QUANTIZE, before anything else",
            "report this as a fault of cutpoint",
        )
    tensor.type, tensor.quantization, tensor.name = _FLOAT32, None, COLUMNS_ENCODED


def _add_tensors(model: schema.ModelT, front: schema.ModelT, places: dict[int, int]) -> dict[int, int]:
    """Add the tensors of another graph and what they store; return where each has gone, given those that are there already."""
    graph, places = model.subgraphs[0], dict(places)
    for index, tensor in enumerate(front.subgraphs[0].tensors):
        if index in places:
            continue
        places[index] = len(graph.tensors)
        stored = front.buffers[tensor.buffer].data
        tensor.buffer = 0
        if stored is not None and len(stored):
            tensor.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT(data=stored))
        # Named by both graphs alike, some of them.
        name = text_of(tensor.name)
        tensor.name = name.replace(f"{ENCODER}_", f"{SERVING}_", 1) if name.startswith(ENCODER) else f"{ENCODER}/{name}"
        graph.tensors.append(tensor)
    return places


def _added_operators(model: schema.ModelT, front: schema.ModelT, places: dict[int, int]) -> list[schema.OperatorT]:
    for operator in front.subgraphs[0].operators:
        operator.opcodeIndex = _code(model, front.operatorCodes[operator.opcodeIndex])
        operator.inputs, operator.outputs = (
            np.array([places.get(int(index), -1) for index in side], np.int32)
            for side in (operator.inputs, operator.outputs)
        )
    return front.subgraphs[0].operators


def _code(model: schema.ModelT, wanted: schema.OperatorCodeT) -> int:
    for place, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version, code.customCode) == (wanted.builtinCode, wanted.version, wanted.customCode):
            return place
    model.operatorCodes.append(wanted)
    return len(model.operatorCodes) - 1


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
