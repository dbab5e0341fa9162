"""A TFLite file as plain data: its graphs with their tensors, operators and stored numbers.

The form is TensorFlow's flatbuffer schema, tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.audit.contents import Quantisation
from exporters.audit.reading import refusal

IDENTIFIER = b"TFL3"
MOST_DIMENSIONS = 8
_DTYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
_OPERATORS = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
_FUSED = {number: name for name, number in vars(schema.ActivationFunctionType).items() if isinstance(number, int)}
_OPTIONS = {
    "CONV_2D": (schema.BuiltinOptions.Conv2DOptions, schema.Conv2DOptions),
    "DEPTHWISE_CONV_2D": (schema.BuiltinOptions.DepthwiseConv2DOptions, schema.DepthwiseConv2DOptions),
    "FULLY_CONNECTED": (schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptions),
    "ADD": (schema.BuiltinOptions.AddOptions, schema.AddOptions),
    "MUL": (schema.BuiltinOptions.MulOptions, schema.MulOptions),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor; `stored` is what the file holds for it, as it is stored, and None for what is computed.

    `quantisation` runs along `axis` where it has several scales. `shape` has None where the file leaves it open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    quantisation: Quantisation | None
    axis: int
    stored: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator; `inputs` and `outputs` are indices of tensors, -1 for an input that is left out.

    `custom` tells whether the file calls it a custom one; `fused` is the activation inside it, `NONE` where there is none.
    """

    name: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fused: str = "NONE"


@dataclasses.dataclass(frozen=True)
class Graph:
    """One graph; `operators` stand in the order in which they run."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]


@dataclasses.dataclass(frozen=True)
class File:
    """A whole file: `inputs` and `outputs` are (public name, index of a tensor of `graphs[0]`), the main graph."""

    graphs: tuple[Graph, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


def parse(content: bytes, signature: str) -> File:
    """Parse a TFLite file; the main graph is the one that `signature` names, or the only signature there is.

    Raises:
        ParityError, or any exception of a parser: the file is damaged, or holds what is not read here.
    """
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise refusal("it does not begin as a TFLite file does")
    model = schema.Model.GetRootAs(content, 0)
    graphs = [_graph(content, model, each) for each in _each(content, model.SubgraphsLength(), model.Subgraphs)]
    if not graphs:
        raise refusal("it holds no graph")
    main, inputs, outputs = _signature(content, model, signature)
    for _, index in (*inputs, *outputs):
        graphs[main].tensors[index]
    first = graphs.pop(main)
    return File((first, *graphs), inputs, outputs)


def _each(content: bytes, length: int, get: Callable[[int], Any]) -> list[Any]:
    """Return the entries of a vector, whose length is first held against the file's: an entry takes 4 bytes or more."""
    if not 0 <= length <= len(content) // 4:
        raise refusal(f"a list of {length} entries does not fit into it")
    return [get(index) for index in range(length)]


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _integers(values: np.ndarray | int) -> tuple[int, ...]:
    # The generated code gives the number 0 for a vector that is not there.
    return tuple(int(each) for each in values) if isinstance(values, np.ndarray) else ()


def _signature(content: bytes, model: Any, wanted: str) -> tuple[int, tuple, tuple]:
    found = _each(content, model.SignatureDefsLength(), model.SignatureDefs)
    named = [each for each in found if _text(each.SignatureKey()) == wanted]
    if not found:
        graph = model.Subgraphs(0)
        names = [(_text(graph.Tensors(index).Name()), index) for index in _integers(graph.InputsAsNumpy())]
        return 0, tuple(names), tuple((_text(graph.Tensors(i).Name()), i) for i in _integers(graph.OutputsAsNumpy()))
    if len(named or found) != 1:
        raise refusal(f"it has the signatures {[_text(each.SignatureKey()) for each in found]}, not one {wanted}")
    one = (named or found)[0]
    inputs = _each(content, one.InputsLength(), one.Inputs)
    outputs = _each(content, one.OutputsLength(), one.Outputs)
    ports = [tuple((_text(each.Name()), each.TensorIndex()) for each in side) for side in (inputs, outputs)]
    return one.SubgraphIndex(), ports[0], ports[1]


def _graph(content: bytes, model: Any, graph: Any) -> Graph:
    tensors = [_tensor(content, model, each) for each in _each(content, graph.TensorsLength(), graph.Tensors)]
    operators = [_operator(model, each) for each in _each(content, graph.OperatorsLength(), graph.Operators)]
    for operator in operators:
        for index in (*operator.inputs, *operator.outputs):
            if not -1 <= index < len(tensors):
                raise refusal(f"{operator.name} takes or gives tensor {index} of {len(tensors)}")
    return Graph(tuple(tensors), tuple(operators))


def _operator(model: Any, operator: Any) -> Operator:
    if not 0 <= operator.OpcodeIndex() < model.OperatorCodesLength():
        raise refusal(f"an operator has the code {operator.OpcodeIndex()} of {model.OperatorCodesLength()}")
    code = model.OperatorCodes(operator.OpcodeIndex())
    # The larger of both is the code: older files have only the deprecated byte, newer ones a placeholder in it.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    custom = number == schema.BuiltinOperator.CUSTOM or number not in _OPERATORS
    name = _OPERATORS.get(number, f"BUILTIN_{number}")
    if number == schema.BuiltinOperator.CUSTOM:
        name = _text(code.CustomCode()) or "CUSTOM"
    fused = "NONE"
    if name in _OPTIONS and operator.BuiltinOptions() is not None:
        kind, form = _OPTIONS[name]
        if operator.BuiltinOptionsType() != kind:
            raise refusal(f"a {name} has options of type {operator.BuiltinOptionsType()}")
        options, table = form(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        fused = _FUSED[options.FusedActivationFunction()]
        if name == "FULLY_CONNECTED" and options.WeightsFormat():
            raise refusal("a FULLY_CONNECTED has its kernel in shuffled order")
    return Operator(name, custom, _integers(operator.InputsAsNumpy()), _integers(operator.OutputsAsNumpy()), fused)


def _tensor(content: bytes, model: Any, tensor: Any) -> Tensor:
    name, dtype = _text(tensor.Name()), _DTYPES.get(tensor.Type(), f"type {tensor.Type()}")
    shape = _integers(tensor.ShapeAsNumpy())
    if len(shape) > MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise refusal(f"{name} has the shape {shape}")
    stored = _stored(name, dtype, shape, _buffer(content, model, tensor))
    signature = _integers(tensor.ShapeSignatureAsNumpy()) or shape
    quantisation, axis = _quantisation(tensor.Quantization(), dtype)
    if stored is not None and tensor.Sparsity() is not None:
        raise refusal(f"{name} is stored sparsely")
    open_shape = tuple(None if size < 0 else size for size in signature)
    return Tensor(name, dtype, open_shape, quantisation, axis, stored)


def _quantisation(found: Any, dtype: str) -> tuple[Quantisation | None, int]:
    if found is None or not found.ScaleLength():
        return None, 0
    if found.DetailsType():
        raise refusal("a tensor is quantised in a custom way")
    scale = found.ScaleAsNumpy().astype(np.float64)
    zero_point = found.ZeroPointAsNumpy().astype(np.int64) if found.ZeroPointLength() else np.zeros(1, np.int64)
    return Quantisation(scale, zero_point, dtype), found.QuantizedDimension()


def _buffer(content: bytes, model: Any, tensor: Any) -> np.ndarray | None:
    """Return the bytes of a tensor, uint8; None where it has none."""
    if tensor.ExternalBuffer():
        raise refusal("a tensor is stored in another file")
    # Buffer 0 is empty by convention, and stands for "computed".
    if not tensor.Buffer():
        return None
    if not 0 <= tensor.Buffer() < model.BuffersLength():
        raise refusal(f"a tensor is stored in buffer {tensor.Buffer()} of {model.BuffersLength()}")
    buffer = model.Buffers(tensor.Buffer())
    if buffer.Offset() > 1:
        # Files of more than 2 GB keep their numbers behind the flatbuffer.
        if buffer.Offset() + buffer.Size() > len(content):
            raise refusal("a tensor is stored behind the end of the file")
        return np.frombuffer(content, np.uint8, buffer.Size(), buffer.Offset())
    return buffer.DataAsNumpy() if buffer.DataLength() else None


def _stored(name: str, dtype: str, shape: tuple[int, ...], data: np.ndarray | None) -> np.ndarray | None:
    if data is None or dtype in ("string", "resource", "variant"):
        return None
    if dtype == "int4":
        nibbles = np.stack([data & 15, data >> 4], axis=-1).ravel()[: int(np.prod(shape, dtype=np.int64))]
        return (((nibbles ^ 8).astype(np.int8)) - 8).reshape(shape)
    if dtype == "bfloat16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in np.sctypeDict:
        raise refusal(f"{name} is stored as {dtype}")
    return data.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)
