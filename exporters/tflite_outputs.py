"""Gives each output of a full-integer TFLite model its own type: uint8 for classifications, float32 for everything else.

TensorFlow's converter knows one type for all outputs. It is therefore asked for int8, and here the file gets an operator
behind each output: QUANTIZE to uint8, or DEQUANTIZE to float32. The form of the file is TensorFlow's flatbuffer schema,
tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3.

One tensor in int8 has one scale for all its columns: beside ages of 0 to 100 a share of 0 to 1 would have a third of one
step. The numbers of a regression are therefore counted in shares of each column's own range, and float32 brings them back
behind DEQUANTIZE, by MUL and ADD. The range is the one that the calibration images bring about, and a margin: what is beyond
it is cut off, and of all tensors that matters most in an answer. The kernel in whole numbers stays as it is, since a dense
layer has a scale for each column of it: only those scales, and the bias, are written anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.contract import CLASSIFICATIONS, Card

# On either side, in shares of the range. Steps become twice as coarse, which is 0.2 % of the range in the root of the mean of
# squares; cut off, a single answer is off by as much as it lies beyond, and some do lie beyond what calibration images bring.
MARGIN = 0.5
_UINT8_SHIFT = 128
_BUFFER_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class _Stored:
    """How activations are stored: `steps` between the least and the largest number, `zero_point` that which stands for 0.

    `anchor` is where on the way from the least to the largest number that lies, where both are used up. `bias` is the dtype
    of what is added to sums, and `version` that of DEQUANTIZE.
    """

    steps: int
    zero_point: int
    anchor: float
    bias: str
    version: int


_BIAS_TYPES = {"<i4": schema.TensorType.INT32, "<i8": schema.TensorType.INT64}
_STORED = {
    schema.TensorType.INT8: _Stored(255, -_UINT8_SHIFT, 0.0, "<i4", 2),
    # Symmetric: its kernels know no zero point.
    schema.TensorType.INT16: _Stored(65_534, 0, 0.5, "<i8", 3),
}


def settle_outputs(content: bytes, card: Card, ranges: Mapping[str, np.ndarray], *, floats: bool = False) -> bytes:
    """Return the model with the types of outputs that the card promises.

    Args:
        content: a full-integer TFLite model whose outputs are int8 or int16, with one signature.
        card: tasks of the outputs; what it does not list, such as feature maps, comes out as float32.
        ranges: output -> float64 (2, columns), the least and the largest number of each column, for those outputs whose
            columns are to be counted in shares of their own ranges; where the model's last operator cannot, they are not.
        floats: whether classifications too come out as float32.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    # A promise of the type, not of the activation: a probability of a box's corner is no classification.
    classified = {output.name for output in card.outputs if output.task in CLASSIFICATIONS and not floats}
    settling = _Settling(model)
    for entry in model.signatureDefs[0].outputs:
        settling.settle(entry, text_of(entry.name), classified, ranges)
    settling.finish()
    return pack(model)


def widen_outputs(content: bytes, plain: bytes, outputs: Collection[str]) -> bytes:
    """Return a model of float16 weights whose last dense layers before some outputs are stored in float32.

    In float16 numbers end at 65,504, which prices do not, and lie a quarter apart at 290, the kelvins of a warm day.

    Args:
        content: the model with float16 weights, which DEQUANTIZE brings back to float32.
        plain: the same model in float32.
        outputs: names; what is not the output of a dense layer stays as it is.
    """
    models = [schema.ModelT.InitFromObj(schema.Model.GetRootAs(each, 0)) for each in (content, plain)]
    model, graph = models[0], models[0].subgraphs[models[0].signatureDefs[0].subgraphIndex]
    for name in outputs:
        narrow, wide = (_last_dense(each, name) for each in models)
        if narrow is None or wide is None:
            continue
        for place in range(1, len(narrow.inputs)):
            given = int(narrow.inputs[place])
            before = next((each for each in graph.operators if given in map(int, each.outputs)), None)
            # Other layers may share a kernel: it is then stored as before.
            if before is None or sum(given in map(int, each.inputs) for each in graph.operators) > 1:
                continue
            index = int(before.inputs[0])
            exact = models[1].subgraphs[0].tensors[int(wide.inputs[place])]
            graph.tensors[index].type = schema.TensorType.FLOAT32
            model.buffers[graph.tensors[index].buffer].data = models[1].buffers[exact.buffer].data
            narrow.inputs = np.array([*narrow.inputs[:place], index, *narrow.inputs[place + 1 :]], np.int32)
            graph.operators.remove(before)
    return pack(model)


def _last_dense(model: schema.ModelT, output: str) -> schema.OperatorT | None:
    """Return the dense layer whose values are an output; None where something else gives it."""
    signature = model.signatureDefs[0]
    index = next(int(each.tensorIndex) for each in signature.outputs if text_of(each.name) == output)
    for operator in model.subgraphs[signature.subgraphIndex].operators:
        if index in map(int, operator.outputs):
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            return operator if code == schema.BuiltinOperator.FULLY_CONNECTED else None
    return None


def pack(model: schema.ModelT) -> bytes:
    """Return a TFLite file of a model, its stored numbers aligned as the schema asks for."""
    builder = _AligningBuilder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _AligningBuilder(flatbuffers.Builder):
    """The generated code for Python overlooks `force_align` of the schema, by which runtimes read numbers in place.

    Equal vectors are stored once, as the format allows: a kernel's zero point, 0, would else take eight bytes for each of its
    channels, a tenth of a small network. Runtimes refuse a kernel with one for all of its channels, or with none.
    """

    def __init__(self, initialSize: int) -> None:
        super().__init__(initialSize)
        self._stored: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        # Its digest, as a second copy of all weights would double the memory that this takes.
        key = (x.dtype.str, hashlib.sha256(np.ascontiguousarray(x)).digest())
        if key not in self._stored:
            self._stored[key] = super().CreateNumpyVector(x)
        return self._stored[key]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        return super().StartVector(elemSize, numElems, _BUFFER_ALIGNMENT if elemSize == 1 else alignment)


class _Settling:
    """One rewriting: what is appended to the main graph, and what each output's tensor becomes."""

    def __init__(self, model: schema.ModelT) -> None:
        self._model = model
        self._graph = model.subgraphs[model.signatureDefs[0].subgraphIndex]
        self._shared = {int(index) for each in self._graph.operators for index in each.inputs}
        self._seen = [int(each.tensorIndex) for each in model.signatureDefs[0].outputs]
        # What was given -> what is given now, one for each name: two names may stand for one tensor.
        self._replaced: dict[int, list[int]] = {}

    def settle(
        self, entry: schema.TensorMapT, name: str, classified: set[str], ranges: Mapping[str, np.ndarray]
    ) -> None:
        given = int(entry.tensorIndex)
        tensor = self._graph.tensors[given]
        if tensor.type not in _STORED:
            raise ValueError(f"the output '{name}' is not in int8 or int16")
        scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        if name in classified:
            quantisation = _quantisation(scale, zero_point + _UINT8_SHIFT)
            last = self._append("QUANTIZE", [given], f"{name}/uint8", schema.TensorType.UINT8, quantisation)
        else:
            bounds = self._in_shares(given, ranges[name]) if name in ranges else None
            last = self._append("DEQUANTIZE", [given], f"{name}/float32", schema.TensorType.FLOAT32)
            if bounds is not None:
                low, width = (self._constant(f"{name}/{what}", each) for what, each in bounds.items())
                last = self._append("MUL", [last, width], f"{name}/widened", schema.TensorType.FLOAT32)
                last = self._append("ADD", [last, low], f"{name}/shifted", schema.TensorType.FLOAT32)
        self._replaced.setdefault(given, []).append(last)
        entry.tensorIndex = last

    def finish(self) -> None:
        """Give the graph its outputs, in the order in which they were."""
        left = {given: list(places) for given, places in self._replaced.items()}
        found = [left[given].pop(0) for given in map(int, self._graph.outputs) if left.get(given)]
        rest = [place for places in left.values() for place in places]
        self._graph.outputs = np.array([*found, *rest], np.int32)

    def _in_shares(self, given: int, bounds: np.ndarray) -> dict[str, np.ndarray] | None:
        """Let a tensor hold shares 0..1 of the columns' ranges; None where it is not what a dense layer alone gives."""
        producers = [each for each in self._graph.operators if given in map(int, each.outputs)]
        if len(producers) != 1 or given in self._shared or self._seen.count(given) > 1:
            return None
        dense = producers[0]
        if self._model.operatorCodes[dense.opcodeIndex].builtinCode != schema.BuiltinOperator.FULLY_CONNECTED:
            return None
        if dense.builtinOptions.fusedActivationFunction != schema.ActivationFunctionType.NONE:
            return None
        uses = [int(index) for each in self._graph.operators for index in each.inputs]
        source, kernel, *_ = (self._graph.tensors[int(index)] for index in dense.inputs)
        scales = np.asarray(kernel.quantization.scale, np.float64)
        # A kernel of one scale has none for each column; what others use too must stay as it is.
        if len(scales) != bounds.shape[1] or any(
            uses.count(int(index)) > 1 for index in dense.inputs[1:] if index >= 0
        ):
            return None
        how = _STORED[self._graph.tensors[given].type]
        counted = float(source.quantization.scale[0]) * scales
        # Nowhere finer than what the layer counts in: columns that hardly vary would only show its rounding.
        margin = MARGIN * (bounds[1] - bounds[0])
        low = (bounds[0] - margin).astype(np.float32).astype(np.float64)
        width = np.maximum(bounds[1] + margin - low, how.steps * counted)
        low = (low + how.anchor * width).astype(np.float32).astype(np.float64)
        bias = self._bias(dense, len(scales), how.bias)
        stored = np.frombuffer(bytes(self._model.buffers[bias.buffer].data), how.bias).astype(np.float64)
        limits = np.iinfo(how.bias)
        shifted = np.clip(stored - np.rint(low / counted), limits.min, limits.max).astype(how.bias)
        self._model.buffers[bias.buffer].data = np.frombuffer(shifted.tobytes(), np.uint8)
        kernel.quantization.scale = (scales / width).astype(np.float32)
        bias.quantization = _quantisation(counted / width, np.zeros(len(scales)))
        self._graph.tensors[given].quantization = _quantisation(1 / how.steps, how.zero_point)
        return {"low": low.astype("<f4"), "width": width.astype("<f4")}

    def _bias(self, dense: schema.OperatorT, columns: int, dtype: str) -> schema.TensorT:
        """Return the tensor of a layer's bias, int32 or int64 (columns,), which it is given where it has none."""
        if len(dense.inputs) > 2 and dense.inputs[2] >= 0:
            return self._graph.tensors[int(dense.inputs[2])]
        index = self._constant("bias", np.zeros(columns, dtype), _BIAS_TYPES[dtype])
        dense.inputs = np.array([*dense.inputs[:2], index], np.int32)
        return self._graph.tensors[index]

    def _constant(self, name: str, values: np.ndarray, dtype: int = schema.TensorType.FLOAT32) -> int:
        """Add a constant, whose numbers are stored as they are, and return its tensor."""
        self._model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        shape = np.array(values.shape, np.int32)
        tensor = schema.TensorT(shape=shape, type=dtype, name=name, hasRank=True)
        tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _append(
        self,
        operator: str,
        inputs: list[int],
        name: str,
        dtype: int,
        quantisation: schema.QuantizationParametersT | None = None,
    ) -> int:
        before = self._graph.tensors[inputs[0]]
        result = schema.TensorT(shape=before.shape, type=dtype, name=name, quantization=quantisation, hasRank=True)
        result.shapeSignature = before.shapeSignature
        self._graph.tensors.append(result)
        index = len(self._graph.tensors) - 1
        # DEQUANTIZE knows int8 from its version 2 on, int16 from 3.
        version = _STORED[before.type].version if operator == "DEQUANTIZE" else 1
        appended = schema.OperatorT(opcodeIndex=self._code(operator, version))
        appended.inputs, appended.outputs = np.array(inputs, np.int32), np.array([index], np.int32)
        if operator in ("MUL", "ADD"):
            appended.builtinOptionsType = getattr(schema.BuiltinOptions, f"{operator.title()}Options")
            appended.builtinOptions = getattr(schema, f"{operator.title()}OptionsT")()
        self._graph.operators.append(appended)
        return index

    def _code(self, operator: str, version: int) -> int:
        """Return the place of an operator's code of that version or a later one."""
        number = getattr(schema.BuiltinOperator, operator)
        for place, code in enumerate(self._model.operatorCodes):
            if code.builtinCode == number and code.version >= version:
                return place
        code = schema.OperatorCodeT(deprecatedBuiltinCode=number, builtinCode=number, version=version)
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def _quantisation(scale: np.ndarray | float, zero_point: np.ndarray | int) -> schema.QuantizationParametersT:
    scales, zero_points = np.atleast_1d(scale).astype(np.float32), np.atleast_1d(zero_point).astype(np.int64)
    return schema.QuantizationParametersT(scale=scales, zeroPoint=zero_points)


def text_of(name: bytes | str | None) -> str:
    """Return a name of a file as text, whichever of the two the generated code gives; empty for none."""
    return name.decode() if isinstance(name, bytes) else name or ""
