"""What is inside a TFLite artifact, read from its flatbuffer without running it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.audit.contents import (
    CONV,
    DENSE,
    DEPTHWISE,
    LINEAR,
    Constant,
    Contents,
    Layer,
    Port,
    Quantisation,
)
from exporters.audit.reading import as_bias, dequantised, floats, rearranged, refusal, refusing, tally
from exporters.audit.tflite_answers import behind, widened
from exporters.audit.tflite_file import File, Graph, Operator, Tensor, parse
from exporters.columns_graph import fed_by_columns_alone
from exporters.contract import COLUMNS_NAME

MODEL_FILE = "model.tflite"
SIGNATURE = "serving_default"
ACTIVATIONS = frozenset(
    {
        "ELU",
        "GELU",
        "HARD_SWISH",
        "LEAKY_RELU",
        "LOGISTIC",
        "LOG_SOFTMAX",
        "PRELU",
        "RELU",
        "RELU6",
        "RELU_0_TO_1",
        "RELU_N1_TO_1",
        "SOFTMAX",
        "TANH",
    }
)
RANDOM = frozenset({"MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "STABLEHLO_RNG_BIT_GENERATOR"})
_KINDS = {"CONV_2D": CONV, "DEPTHWISE_CONV_2D": DEPTHWISE, "FULLY_CONNECTED": DENSE}
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_RANDOM_WORDS = ("Random", "Multinomial", "TruncatedNormal")


def read(folder: Path) -> Contents:
    """Read `folder/model.tflite`.

    A bias in int32 gets the scale that the operator counts in, that of its input times that of its kernel, whatever the
    file notes beside it. `activation` of a layer that is the last but for a softmax is `softmax`.

    Raises:
        ParityError: the file is no TFLite model, is damaged, or stores numbers in a way that is not read here.
    """
    path = Path(folder) / MODEL_FILE
    with refusing(path):
        file = parse(path.read_bytes(), SIGNATURE)
        layers, others, weights, activations, encoder = [], [], [], [], []
        for graph in file.graphs:
            constants = _constants(graph)
            of_graph, used = _layers(graph, constants)
            layers += of_graph
            others += [each for index, each in constants.items() if index not in used]
            weights += [(each.dtype, each.values.size) for each in constants.values() if each.values.size > 1]
            beside = _of_columns(file) if graph is file.graphs[0] else set()
            computed = _computed(graph, constants)
            encoder += [(dtype, 1) for index, dtype in computed if index in beside]
            activations += [(dtype, 1) for index, dtype in computed if index not in beside]
        operators = [operator for graph in file.graphs for operator in graph.operators]
        tensors = file.graphs[0].tensors
        return Contents(
            operators=tally((each.name, 1) for each in operators),
            custom_operators=tuple(sorted({each.name for each in operators if each.custom})),
            random_operators=tuple(sorted({each.name for each in operators if _is_random(each)})),
            opset=None,
            inputs=tuple(_port(name, tensors[index]) for name, index in file.inputs),
            outputs=tuple(_port(name, tensors[index]) for name, index in file.outputs),
            weights=tally(weights),
            activations=tally(activations),
            layers=tuple(layers),
            constants=tuple(others),
            encoder=tally(encoder),
            labels=_label_files(path),
        )


def _label_files(path: Path) -> dict[str, tuple[str, ...]] | None:
    """Return the text files with labels in the archive behind a model; None where there is no archive."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        named = [each for each in archive.infolist() if each.filename.startswith("labels.")]
        # As long as the model itself labels are not.
        read = {each.filename: archive.read(each) for each in named if each.file_size < path.stat().st_size}
    return {name: tuple(text.decode().split("\n")[:-1]) for name, text in read.items()}


def _of_columns(file: File) -> set[int]:
    """Return the tensors of the main graph that come from the columns alone."""
    columns = {index for name, index in file.inputs if name == COLUMNS_NAME}
    others = {index for _, index in file.inputs} - columns
    calls = ((each.inputs, each.outputs) for each in file.graphs[0].operators)
    return fed_by_columns_alone(calls, columns, others)


def _port(name: str, tensor: Tensor) -> Port:
    return Port(name, tensor.dtype, tensor.shape, tensor.quantisation)


def _is_random(operator: Operator) -> bool:
    # TensorFlow's own operators run inside TFLite under their name with `Flex` before it.
    return operator.name in RANDOM or (operator.custom and any(word in operator.name for word in _RANDOM_WORDS))


def _constants(graph: Graph) -> dict[int, Constant]:
    """Return the stored reals: index of the tensor that holds them -> constant. Whole numbers without a scale are none."""
    constants = {}
    for index, tensor in enumerate(graph.tensors):
        if tensor.stored is None:
            continue
        if tensor.dtype in _FLOATS:
            constants[index] = floats(tensor.name, tensor.dtype, tensor.stored)
        elif tensor.quantisation is not None:
            constants[index] = dequantised(tensor.name, tensor.dtype, tensor.stored, tensor.quantisation, tensor.axis)
    return constants


def _origins(graph: Graph, constants: Mapping[int, Constant]) -> dict[int, int]:
    """Return tensor -> the constant that it is, for constants and what DEQUANTIZE makes of them."""
    origins = {index: index for index in constants}
    for operator in graph.operators:
        if operator.name == "DEQUANTIZE" and operator.inputs[0] in origins:
            origins[operator.outputs[0]] = origins[operator.inputs[0]]
    return origins


def _computed(graph: Graph, constants: Mapping[int, Constant]) -> list[tuple[int, str]]:
    """Return (tensor, dtype) of all that is computed."""
    origins = _origins(graph, constants)
    # Between a regression in whole numbers and its answer nothing is computed but the answer.
    answers = {index for operator in graph.operators for index in behind(graph, constants, operator.outputs[0]).between}
    results = [index for operator in graph.operators for index in operator.outputs if index >= 0]
    return [(index, graph.tensors[index].dtype) for index in results if index not in origins and index not in answers]


def _layers(graph: Graph, constants: Mapping[int, Constant]) -> tuple[list[Layer], set[int]]:
    """Return the layers of a graph, and the constants that they use."""
    origins, layers, used = _origins(graph, constants), [], set()
    consumers: dict[int, list[Operator]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            consumers.setdefault(index, []).append(operator)
    for position, operator in enumerate(graph.operators):
        if operator.name not in _KINDS or len(operator.inputs) < 2 or operator.inputs[1] not in origins:
            continue
        kernel_index = origins[operator.inputs[1]]
        stored = graph.tensors[operator.inputs[0]], constants[kernel_index]
        kernel = _kernel(operator, *stored)
        bias, bias_index = None, -1
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias, bias_index = _bias(graph, constants, origins, operator, kernel)
        activation, output = _activation(operator, consumers)
        quantisation = graph.tensors[output].quantisation
        if (widening := behind(graph, constants, output)).used:
            kernel, bias, quantisation = widened(widening, kernel, bias, quantisation)
            output = widening.output
            used |= set(widening.used)
        layers.append(
            Layer(
                name=f"{operator.name} {position}",
                kind=_KINDS[operator.name],
                kernel=kernel,
                bias=bias,
                activation=activation,
                output=graph.tensors[output].name,
                output_quantisation=quantisation,
                input_quantisation=stored[0].quantisation,
            )
        )
        used |= {kernel_index, bias_index}
    return layers, used


def _kernel(operator: Operator, source: Tensor, kernel: Constant) -> Constant:
    rank = 2 if operator.name == "FULLY_CONNECTED" else 4
    if kernel.values.ndim != rank:
        raise refusal(f"{kernel.name}, the kernel of a {operator.name}, has the shape {kernel.values.shape}")
    if operator.name == "FULLY_CONNECTED":
        return rearranged(kernel, np.transpose)
    if operator.name == "CONV_2D":
        return rearranged(kernel, lambda each: each.transpose(1, 2, 3, 0))
    channels = source.shape[-1] if source.shape else None
    if not channels or kernel.values.shape[0] != 1 or kernel.values.shape[3] % channels:
        raise refusal(f"{kernel.name}, of shape {kernel.values.shape}, does not fit {channels} channels")
    return rearranged(kernel, lambda each: each.reshape(*each.shape[1:3], channels, -1))


def _bias(
    graph: Graph, constants: Mapping[int, Constant], origins: Mapping[int, int], operator: Operator, kernel: Constant
) -> tuple[Constant, int]:
    """Return a bias as the operator counts with it, and the index of its tensor."""
    index = origins.get(operator.inputs[2], operator.inputs[2])
    tensor, channels = graph.tensors[index], kernel.values.shape[-1]
    if operator.name == "DEPTHWISE_CONV_2D":
        channels *= kernel.values.shape[-2]
    scales = [graph.tensors[each].quantisation for each in operator.inputs[:2]]
    if tensor.stored is not None and tensor.dtype in ("int32", "int64") and None not in scales:
        accumulator = Quantisation(scales[0].scale * scales[1].scale, np.zeros(1, np.int64))
        found: Constant | None = dequantised(tensor.name, tensor.dtype, tensor.stored, accumulator, 0)
    else:
        found = constants.get(index)
    bias = as_bias(found, channels) if found is not None else None
    if bias is None:
        raise refusal(f"{tensor.name}, of shape {tensor.shape}, is no bias of {channels} stored numbers")
    return bias, index


def _activation(operator: Operator, consumers: Mapping[int, list[Operator]]) -> tuple[str, int]:
    """Return what follows a layer at once, and the tensor that then holds its output."""
    output = operator.outputs[0]
    if operator.fused != "NONE":
        return operator.fused.lower(), output
    following = consumers.get(output, [])
    if len(following) == 1 and following[0].name in ACTIVATIONS:
        return following[0].name.lower(), following[0].outputs[0]
    return LINEAR, output
