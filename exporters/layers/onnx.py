"""What named tensors of an ONNX artifact hold for some images, computed by onnxruntime as the artifact's runner computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from exporters.errors import ParityError
from exporters.inputs import Inputs, as_inputs, fill_up, input_names
from exporters.runners.onnx import BATCH, MODEL_FILE, OnnxRunner

_NORMALIZATIONS = frozenset({"BatchNormalization", "InstanceNormalization"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})
_CHANNELS_FIRST = _CONVOLUTIONS | _NORMALIZATIONS | _POOLS
_CHANNELS_LAST = frozenset({"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "FusedMatMul"})
# Where inner tensors come out, onnxruntime fuses other operators: float32 sums are made in another order, and float16
# values, which it would otherwise keep in float32 from layer to layer, are rounded. Whole numbers stay the same.
LARGEST_CHANGE = {"float32": 1e-4, "float16": 2e-2, "integers": 0.0}


@dataclasses.dataclass(frozen=True)
class _Graph:
    """Who makes and who takes each tensor of a graph, its constants, and the names of all that is made of constants."""

    makers: dict[str, onnx.NodeProto]
    takers: dict[str, list[onnx.NodeProto]]
    constants: dict[str, onnx.TensorProto]
    fixed: frozenset[str]

    def constant(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])


@dataclasses.dataclass(frozen=True)
class _Tap:
    """The tensor that is read in the place of a named one; `quantiser` holds its scale and zero point, if it has any."""

    tensor: str
    quantiser: onnx.NodeProto | None


def activations(folder: Path, names: Sequence[str], given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
    """Return what named tensors hold, in a session as the runner makes it: with every optimisation, which changes int8.

    The tensors are made outputs of a copy of the model. Where one is quantised at once, its whole numbers are taken, so
    that onnxruntime fuses the quantisation into the operator as it does without the tap.

    Args:
        folder: the artifact's folder, which holds `model.onnx`.
        names: names of tensors.
        given: pictures uint8 (N, height, width, 3), RGB, with columns for a model that takes such.

    Returns:
        name -> float32 (N, ...), channels last, dequantised.

    Raises:
        ParityError: onnxruntime cannot run the model; a tensor is not there; or the model answers otherwise where it
            also gives these tensors.
    """
    inputs = as_inputs(given)
    model = onnx.load_model_from_string((folder / MODEL_FILE).read_bytes())
    graph = _graph(model.graph)
    taps = {name: _tap(graph, name) for name in names}
    own = [output.name for output in model.graph.output]
    read = list(dict.fromkeys([*own, *(tap.tensor for tap in taps.values())]))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in read[len(own) :])
    found = _answers(model, read, inputs)
    with OnnxRunner(folder) as runner:
        _check_answers(runner.predict(inputs), found, _arithmetic(model))
    return {name: _channels_last(_real(graph, tap, found[tap.tensor]), graph, name) for name, tap in taps.items()}


def _graph(graph: onnx.GraphProto) -> _Graph:
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output}
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    fixed = set(constants)
    for node in graph.node:
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
    return _Graph(makers, takers, constants, frozenset(fixed))


def _tap(graph: _Graph, name: str) -> _Tap:
    maker = graph.makers.get(name)
    if maker is None:
        raise ParityError(f"The ONNX model computes no tensor '{name}'.", "a tensor that an operator makes")
    if maker.op_type == "DequantizeLinear":
        return _Tap(maker.input[0], maker)
    if maker.op_type == "QuantizeLinear":
        return _Tap(name, maker)
    quantisers = [node for node in graph.takers.get(name, []) if node.op_type == "QuantizeLinear"]
    return _Tap(quantisers[0].output[0], quantisers[0]) if quantisers else _Tap(name, None)


def _answers(model: onnx.ModelProto, names: list[str], inputs: Inputs) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        given = {each.name: each for each in session.get_inputs()}
        image, columns = input_names(list(given), "The ONNX model")
        fixed = given[image].shape[0]
        size = fixed if isinstance(fixed, int) and fixed > 0 else min(BATCH, len(inputs))
        filled = fill_up(inputs, size)
        fed = {image: filled.images.astype(np.float32)} | ({columns: filled.columns} if columns else {})
        parts = [
            session.run(names, {name: values[start : start + size] for name, values in fed.items()})
            for start in range(0, len(filled), size)
        ]
    except Exception as fault:  # onnxruntime's exceptions share no base class but Exception
        raise ParityError(
            f"onnxruntime cannot give the model's inner tensors: {fault}.", "a model that onnxruntime runs"
        ) from fault
    return {
        name: np.concatenate(each)[: len(inputs)] for name, each in zip(names, zip(*parts, strict=True), strict=True)
    }


def _arithmetic(model: onnx.ModelProto) -> str:
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "integers"
    halves = any(each.data_type == onnx.TensorProto.FLOAT16 for each in model.graph.initializer)
    return "float16" if halves else "float32"


def _check_answers(plain: dict[str, np.ndarray], tapped: dict[str, np.ndarray], arithmetic: str) -> None:
    for name, expected in plain.items():
        found = tapped[name].astype(np.float32)
        room = LARGEST_CHANGE[arithmetic] * max(1.0, float(np.abs(np.nan_to_num(expected)).max(initial=0.0)))
        if not np.allclose(found, expected, rtol=0, atol=room, equal_nan=True):
            raise ParityError(
                f"The ONNX model answers '{name}' otherwise where it gives inner tensors too: by "
                f"{np.abs(found - expected).max():.2g}.",
                f"at most {room:g}",
            )


def _real(graph: _Graph, tap: _Tap, values: np.ndarray) -> np.ndarray:
    if tap.quantiser is None:
        return values.astype(np.float32)
    scale = graph.constant(tap.quantiser.input[1]).astype(np.float32)
    has_zero_point = len(tap.quantiser.input) > 2 and tap.quantiser.input[2]
    zero_point = graph.constant(tap.quantiser.input[2]).astype(np.float32) if has_zero_point else np.float32(0)
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def _channels_last(values: np.ndarray, graph: _Graph, name: str) -> np.ndarray:
    """Transpose what has its channels on axis 1.

    The operators say so, never the shape: back from the tensor to the convolution that made it, along with every transposition
    on the way. Axis `at` is where the channels of the operator that is looked at are found in `values`.
    """
    order = list(range(values.ndim))
    while values.ndim == 4 and name in graph.makers:
        node = graph.makers[name]
        if node.op_type in _CHANNELS_FIRST:
            # Axis a of the operator's output is found at order.index(a) of the values.
            return np.ascontiguousarray(values.transpose([order.index(axis) for axis in (0, 2, 3, 1)]))
        if node.op_type in _CHANNELS_LAST:
            break
        if node.op_type == "Transpose":
            permutation = next(list(each.ints) for each in node.attribute if each.name == "perm")
            order = [permutation[axis] for axis in order]
        computed = [each for each in node.input if each and each not in graph.fixed]
        if not computed:
            break
        name = computed[0]
    return values
