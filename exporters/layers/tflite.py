"""What named tensors of a TFLite artifact hold for some images, computed as the artifact's runner computes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from exporters.contract import INPUT_NAME
from exporters.errors import ParityError
from exporters.inputs import Inputs, as_inputs, input_names
from exporters.runners.tflite import MODEL_FILE, SIGNATURE


def activations(folder: Path, names: Sequence[str], given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
    """Return what named tensors hold, image by image, in the kernels that the runner uses.

    The tensors are made outputs of a copy of the model. LiteRT's switch that keeps all tensors cannot be used: XNNPACK, the
    delegate that runs by default, shows nothing of what is inside it, and the kernels without it answer otherwise in int8.

    Args:
        folder: the artifact's folder, which holds `model.tflite`.
        names: names of tensors.
        given: pictures uint8 (N, height, width, 3), RGB, with columns for a model that takes such.

    Returns:
        name -> float32 (N, ...), channels last, dequantised.

    Raises:
        ParityError: LiteRT cannot run the model; a tensor is not there, or its name is not its own; or the model answers
            otherwise where it also gives these tensors.
    """
    inputs = as_inputs(given)
    try:
        content = (folder / MODEL_FILE).read_bytes()
        with_outputs, places = _with_outputs(content, names)
        plain, tapped = _answers(content, inputs), _answers(with_outputs, inputs)
    except (OSError, ValueError, RuntimeError, TypeError, IndexError) as fault:
        raise ParityError(
            f"LiteRT cannot give the model's inner tensors: {fault}.", "a model that LiteRT runs"
        ) from fault
    if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(plain, tapped, strict=False)):
        raise ParityError("The TFLite model answers otherwise where it gives inner tensors too.", "the same answers")
    return {name: tapped[index] for name, index in places.items()}


def _with_outputs(content: bytes, names: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    """Return the model with more outputs behind its own, and name -> position among all outputs."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    outputs = [int(index) for index in graph.outputs]
    places = {}
    for name in names:
        found = [index for index, tensor in enumerate(graph.tensors) if (tensor.name or b"").decode() == name]
        if len(found) != 1:
            raise ParityError(f"The TFLite model has {len(found)} tensors of the name '{name}'.", "exactly one")
        if found[0] not in outputs:
            outputs.append(found[0])
        places[name] = outputs.index(found[0])
    graph.outputs = np.array(outputs, np.int32)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), places


def _answers(content: bytes, inputs: Inputs) -> list[np.ndarray]:
    """Return every output of a model, float32, in the order of the file."""
    interpreter = Interpreter(model_content=content, num_threads=os.cpu_count() or 1)
    details_of, outputs = _inputs_by_name(interpreter), interpreter.get_output_details()
    image, columns = input_names(list(details_of), "The TFLite model")
    fed = {image: inputs.images} | ({columns: inputs.columns} if columns else {})
    for name, values in fed.items():
        interpreter.resize_tensor_input(details_of[name]["index"], [1, *values.shape[1:]])
    interpreter.allocate_tensors()
    found: list[list[np.ndarray]] = [[] for _ in outputs]
    for index in range(len(inputs)):
        for name, values in fed.items():
            interpreter.set_tensor(details_of[name]["index"], _quantise(values[index : index + 1], details_of[name]))
        interpreter.invoke()
        for parts, details in zip(found, outputs, strict=True):
            parts.append(_dequantise(interpreter.get_tensor(details["index"]), details))
    return [np.concatenate(parts) for parts in found]


def _inputs_by_name(interpreter: Interpreter) -> dict[str, dict]:
    """Return the details of each input by its name in the signature, which alone says what it is."""
    details = {int(each["index"]): each for each in interpreter.get_input_details()}
    if len(details) == 1:
        return {INPUT_NAME: interpreter.get_input_details()[0]}
    known = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(SIGNATURE if SIGNATURE in known else None)
    return {name: details[int(each["index"])] for name, each in runner.get_input_details().items()}


def _quantise(batch: np.ndarray, details: dict) -> np.ndarray:
    if details["dtype"] == np.float32:
        return batch.astype(np.float32)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    steps = np.rint(batch.astype(np.float64) / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(details["dtype"])


def _dequantise(values: np.ndarray, details: dict) -> np.ndarray:
    if np.issubdtype(values.dtype, np.floating):
        return np.array(values, np.float32)
    scale, zero_point = details["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
