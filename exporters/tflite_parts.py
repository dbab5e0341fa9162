"""One conversion of a network with many outputs, taken apart into one TFLite model for each output.

A conversion takes seconds, whatever is converted: where a network is wanted up to each of twenty layers, it is converted
once, and what an output does not need is taken out of copies of the file. The form of the file is TensorFlow's flatbuffer
schema, tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from exporters.contract import INPUT_NAME
from exporters.saved_model import SERVING
from exporters.tflite_outputs import pack

_WEIGHTED = tuple(
    getattr(schema.BuiltinOperator, name)
    for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
)
# What full-integer files hold beside their numbers, in bytes: for the scale of one channel, for its zero point, which is
# stored once for all kernels of as many channels, and for the quantisation of one tensor.
SCALE_BYTES = 4
ZERO_POINT_BYTES = 8
PER_TENSOR_BYTES = 30
# A name that conversion makes of a folded network is seldom longer; unfolded, it tells of every BatchNorm too.
LONGEST_NAME = 150


@dataclasses.dataclass(frozen=True)
class Part:
    """A float32 TFLite model with one output; `int8_bytes` estimates the size of its full-integer form."""

    content: bytes
    int8_bytes: int


def convert_parts(model: keras.Model) -> dict[str, Part]:
    """Convert a Keras model and take it apart.

    Args:
        model: one input; a dict as output, whose keys are names of the form [a-z][a-z0-9_]*.

    Returns:
        Output -> the model with that output alone, in the order of the dict.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=INPUT_NAME)]
    archive.add_endpoint(SERVING, lambda image: model(image, training=False), signature)
    with tempfile.TemporaryDirectory() as work:
        archive.write_out(work, verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(work, signature_keys=[SERVING]).convert()
    whole = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    names = {_text(each.name): int(each.tensorIndex) for each in whole.signatureDefs[0].outputs}
    return {name: _part(whole, names[name]) for name in model._outputs_struct}


def _part(whole: schema.ModelT, output: int) -> Part:
    graph = whole.subgraphs[0]
    operators = _needed(graph, output)
    used = {int(index) for each in operators for index in (*each.inputs, *each.outputs) if index >= 0}
    used |= {int(index) for index in graph.inputs}
    kept = sorted(used)
    places = {index: place for place, index in enumerate(kept)}
    part = copy.copy(whole)
    part.subgraphs = [copy.copy(graph)]
    part.subgraphs[0].inputs = _moved(graph.inputs, places)
    part.subgraphs[0].outputs = _moved([output], places)
    part.subgraphs[0].operators = [_moved_operator(each, places) for each in operators]
    part.signatureDefs = [_signature(whole.signatureDefs[0], output, places)]
    part.subgraphs[0].tensors, part.buffers, part.metadata = _without_others(whole, kept)
    content = pack(part)
    return Part(content, len(content) + sum(_saved_bytes(part, operators, graph)))


def _needed(graph: schema.SubGraphT, output: int) -> list[schema.OperatorT]:
    """Return the operators that an output depends on, in their order."""
    wanted, needed = {output}, []
    for operator in reversed(graph.operators):
        if wanted.intersection(int(index) for index in operator.outputs):
            wanted.update(int(index) for index in operator.inputs if index >= 0)
            needed.append(operator)
    return needed[::-1]


def _moved(indices: list[int], places: dict[int, int]) -> np.ndarray:
    return np.array([places[int(index)] if index >= 0 else -1 for index in indices], np.int32)


def _moved_operator(operator: schema.OperatorT, places: dict[int, int]) -> schema.OperatorT:
    moved = copy.copy(operator)
    moved.inputs, moved.outputs = _moved(operator.inputs, places), _moved(operator.outputs, places)
    return moved


def _signature(signature: schema.SignatureDefT, output: int, places: dict[int, int]) -> schema.SignatureDefT:
    one = copy.copy(signature)
    one.inputs = [_moved_map(each, places) for each in signature.inputs]
    one.outputs = [_moved_map(each, places) for each in signature.outputs if int(each.tensorIndex) == output][:1]
    return one


def _moved_map(entry: schema.TensorMapT, places: dict[int, int]) -> schema.TensorMapT:
    moved = copy.copy(entry)
    moved.tensorIndex = places[int(entry.tensorIndex)]
    return moved


def _without_others(
    whole: schema.ModelT, kept: list[int]
) -> tuple[list[schema.TensorT], list[schema.BufferT], list[schema.MetadataT]]:
    """Return the tensors that are kept, the buffers of these and of the metadata, and the metadata."""
    tensors = [copy.copy(whole.subgraphs[0].tensors[index]) for index in kept]
    metadata = [copy.copy(each) for each in whole.metadata or []]
    # The first buffer is the empty one of all that is computed.
    used = sorted({0, *(int(each.buffer) for each in (*tensors, *metadata))})
    places = {index: place for place, index in enumerate(used)}
    for each in tensors:
        each.name = each.name[:LONGEST_NAME]
    for each in (*tensors, *metadata):
        each.buffer = places[int(each.buffer)]
    return tensors, [whole.buffers[index] for index in used], metadata


def _saved_bytes(part: schema.ModelT, operators: list[schema.OperatorT], graph: schema.SubGraphT) -> Iterator[int]:
    """Yield what full-integer conversion adds to the bytes of the float32 file, for each kernel and each tensor."""
    seen: set[int] = set()
    widths: set[int] = set()
    for operator in operators:
        if part.operatorCodes[operator.opcodeIndex].builtinCode not in _WEIGHTED:
            continue
        kernel, *rest = (int(index) for index in operator.inputs[1:] if index >= 0)
        if kernel in seen:
            continue
        seen.add(kernel)
        shape = graph.tensors[kernel].shape
        channels = int(graph.tensors[rest[0]].shape[-1]) if rest else int(shape[0])
        yield -3 * int(np.prod(shape))
        yield channels * SCALE_BYTES * (1 + len(rest))
        if channels not in widths:
            widths.add(channels)
            yield channels * ZERO_POINT_BYTES
    yield PER_TENSOR_BYTES * len(part.subgraphs[0].tensors)


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""
