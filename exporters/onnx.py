"""SavedModel -> ONNX in every precision: tf2onnx, then onnxruntime's own float16 and quantisation tools."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from exporters.calibration import with_full_range
from exporters.columns_graph import fed_by_columns_alone
from exporters.contract import BATCH1, CLASSIFICATIONS, COLUMNS_NAME, INPUT_NAME, MEASURED, Card
from exporters.errors import InputError
from exporters.inputs import Inputs, as_inputs
from exporters.memory import collecting_often
from exporters.onnx_names import settle_names
from exporters.onnx_weights import store_in_int8
from exporters.saved_model import SERVING
from exporters.unsupported import unsupported

MODEL_FILE = "model.onnx"
# 17 is the newest opset that tf2onnx writes without experimental operators and that onnxruntime-web runs whole.
OPSET = 17


def export(
    saved_model_dir: Path,
    card: Card,
    out: Path,
    *,
    precision: str,
    calibration_images: Inputs | np.ndarray,
    variant: str = "",
) -> None:
    """Write `out/model.onnx`, opset 17, with a dynamic batch.

    Args:
        saved_model_dir: as `write_saved_model` leaves it.
        card: names and shapes of the outputs.
        out: the artifact's folder, which exists.
        precision: `float32`; `float16` (weights and arithmetic, inputs and outputs stay float32);
            `dynamic_int8` (kernels, per channel; computed in float32, see `store_in_int8`); `int8` (static,
            quantise-dequantise nodes, per channel, uint8 activations; answers that are no probabilities of labels are not
            rounded to 256 steps).
        calibration_images: uint8 (N, height, width, 3) from the training split, with columns where the card has such; only
            `int8` looks at them.
        variant: `batch1` fixes the batch to one picture.

    Raises:
        InputError: `int8` without calibration images, or the model has operators that ONNX lacks.
    """
    try:
        model = _to_float32(saved_model_dir, card, 1 if variant == BATCH1 else None)
        onnx.checker.check_model(model, full_check=True)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as fault:
        # What tf2onnx cannot translate stands in the graph as it was, and the check then finds no such operator.
        raise unsupported("ONNX", saved_model_dir, fault) from fault
    if precision == "float16":
        model = _to_float16(model, [output.name for output in card.outputs if output.task in MEASURED])
    if precision == "dynamic_int8":
        store_in_int8(model, _of_columns(model))
    if precision == "int8":
        model = _to_int8(model, as_inputs(calibration_images))
        leave_in_float(model, {output.name for output in card.outputs if output.task in CLASSIFICATIONS})
    model.producer_name, model.doc_string = "cutpoint", ""
    onnx.checker.check_model(model, full_check=True)
    (out / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))


def _to_float32(saved_model_dir: Path, card: Card, batch: int | None) -> onnx.ModelProto:
    loaded = tf.saved_model.load(str(saved_model_dir))
    serving = loaded.signatures[SERVING]
    image = tf.TensorSpec((batch, card.resize.height, card.resize.width, 3), tf.float32, name=INPUT_NAME)
    signature, function = [image], tf.function(lambda image: serving(**{INPUT_NAME: image}))
    if card.columns:
        signature.append(tf.TensorSpec((batch, len(card.columns)), tf.float32, name=COLUMNS_NAME))
        function = tf.function(lambda image, columns: serving(**{INPUT_NAME: image, COLUMNS_NAME: columns}))
    with collecting_often():
        model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    settle_names(model)
    pad_for_pooling(model)
    return model


def pad_for_pooling(model: onnx.ModelProto) -> None:
    """Pad what is max-pooled with the least number above 0, in place.

    onnxruntime moves a padding with 0 into the pooling behind it (its PadFusion, seen in 1.31), and pads with the least
    number of all there: wherever values are negative the answer is another one. A padding with any other number it leaves.
    """
    graph = model.graph
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    # Behind a ReLU nothing is under 0, and the faster way is right.
    never_negative = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    value = numpy_helper.from_array(np.array(np.finfo(np.float32).smallest_subnormal), "pad_for_pooling")
    for node in graph.node:
        if node.op_type == "Pad" and node.output[0] in pooled and not any(node.input[2:]):
            if node.input[0] in never_negative:
                continue
            if value.name not in {each.name for each in graph.initializer}:
                graph.initializer.append(value)
            node.input[:] = [*node.input[:2], value.name]


def _to_float16(model: onnx.ModelProto, wide: Collection[str]) -> onnx.ModelProto:
    encoder = _of_columns(model)
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

    1 / 6 in a hard sigmoid, or 1 / 127.5 in a pixel scaling, would be off in the same way everywhere; 6 and 127.5 are not.
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


def leave_in_float(model: onnx.ModelProto, rounded: Collection[str]) -> None:
    """Take QuantizeLinear and DequantizeLinear from before the outputs, but for those in `rounded`, in place.

    They have one scale for all columns of a regression, of which one may be a thousand times the other. The layer before
    still computes in whole numbers; what it counts up is the answer.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    consumers = collections.Counter(name for node in graph.node for name in node.input)
    for output in graph.output:
        dequantise = producers.get(output.name)
        quantise = producers.get(dequantise.input[0]) if dequantise is not None else None
        pair = [node.op_type for node in (dequantise, quantise) if node is not None]
        if output.name in rounded or pair != ["DequantizeLinear", "QuantizeLinear"]:
            continue
        producer = producers.get(quantise.input[0])
        # Where another takes the rounded numbers too, they stay.
        if producer is None or consumers[quantise.output[0]] > 1 or consumers[output.name]:
            continue
        given = quantise.input[0]
        graph.node.remove(dequantise)
        graph.node.remove(quantise)
        for node in graph.node:
            node.input[:] = [output.name if name == given else name for name in node.input]
            node.output[:] = [output.name if name == given else name for name in node.output]
    used = {name for node in graph.node for name in node.input}
    for constant in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(constant)


class _CalibrationImages(quantization.CalibrationDataReader):
    def __init__(self, inputs: Inputs) -> None:
        widened = with_full_range(inputs)
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            widened[index : index + 1].named() for index in range(len(widened))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _of_lengths(model: onnx.ModelProto) -> list[str]:
    """Return the names of the products that bring an embedding to unit length: the squares, and that with a reciprocal.

    In whole numbers the reciprocal could not leave the range that the calibration images showed, and lengths would be off.
    """
    reciprocals = {output for node in model.graph.node if node.op_type == "Reciprocal" for output in node.output}
    products = [node for node in model.graph.node if node.op_type == "Mul"]
    squares = [node.name for node in products if node.input[0] == node.input[1]]
    return squares + [node.name for node in products if reciprocals.intersection(node.input)]


def _of_columns(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that encode the columns, which stay in float32: a year in 8 or 16 bits is no year."""
    inputs = {each.name for each in model.graph.input}
    calls = [(node.input, node.output) for node in model.graph.node]
    found = fed_by_columns_alone(calls, inputs & {COLUMNS_NAME}, inputs - {COLUMNS_NAME})
    return [node.name for node in model.graph.node if found.intersection(node.output)]


def _to_int8(model: onnx.ModelProto, calibration: Inputs) -> onnx.ModelProto:
    if not len(calibration):
        raise InputError(
            "There are no calibration images for onnx-int8.",
            "at least one image in the training split",
            "give training images or leave int8 out of --formats",
        )
    with tempfile.TemporaryDirectory() as work:
        plain, prepared, quantised = (Path(work) / name for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            _CalibrationImages(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*_of_lengths(onnx.load(prepared)), *_of_columns(onnx.load(prepared))],
        )
        return onnx.load(quantised)
