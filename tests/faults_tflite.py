"""Makers of faults in a TFLite file: each edits `model.tflite` of an artifact folder."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.faults_files import LAYER_OPERATORS, operators_called, store, stored_of, tflite_of

# The layers in the order in which they run.
FIRST, DEEP, POINT, DEEP_2, POINT_2, APPLE, ZEBRA = range(7)


def _quantisation(model: Any, index: int) -> Any:
    return model.subgraphs[0].tensors[index].quantization


def _layer(model: Any, which: int) -> Any:
    return operators_called(model, *LAYER_OPERATORS)[which]


def _scale(model: Any, index: int, factor: float | np.ndarray) -> None:
    found = model.subgraphs[0].tensors[index].quantization
    found.scale = (found.scale * factor).astype(np.float32)


def _move(model: Any, index: int) -> None:
    """Raise a zero point by a step."""
    found = model.subgraphs[0].tensors[index].quantization
    found.zeroPoint = found.zeroPoint + 1


def swapped_lists_inside(folder: Path) -> None:
    """The archive behind the model lists the labels of one head in another order."""
    path = folder / "model.tflite"
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        labels = archive.read("labels.zebra.txt")
    swapped = b"".join(labels.splitlines(keepends=True)[::-1])
    assert content.count(labels) == 1 and swapped != labels
    changed = content.replace(labels, swapped)
    # The archive notes a checksum of each member, twice.
    sums = [zlib.crc32(each).to_bytes(4, "little") for each in (labels, swapped)]
    assert changed.count(sums[0]) == 2
    path.write_bytes(changed.replace(*sums))


def weight_scale_off(folder: Path) -> None:
    """One channel's scale is off by one of 127."""
    with tflite_of(folder) as model:
        factors = np.ones(96)
        factors[3] = 128 / 127
        _scale(model, _layer(model, POINT_2).inputs[1], factors)


def scales_permuted(folder: Path) -> None:
    with tflite_of(folder) as model:
        found = _quantisation(model, _layer(model, POINT_2).inputs[1])
        found.scale = np.roll(found.scale, 1)


def bias_off_by_a_step(folder: Path) -> None:
    with tflite_of(folder) as model:
        index = _layer(model, POINT_2).inputs[2]
        store(model, index, stored_of(model, index) + 1)


def activation_zero_point_off(folder: Path) -> None:
    with tflite_of(folder) as model:
        _move(model, _layer(model, DEEP).outputs[0])


def activation_scale_off(folder: Path) -> None:
    with tflite_of(folder) as model:
        _scale(model, _layer(model, POINT).outputs[0], 1.01)


def logits_zero_point_off(folder: Path) -> None:
    """Where the softmax reads: every logit is off by the same, which a softmax does not see."""
    with tflite_of(folder) as model:
        for each in operators_called(model, "SOFTMAX"):
            _move(model, each.inputs[0])


def logits_scale_off(folder: Path) -> None:
    with tflite_of(folder) as model:
        for each in operators_called(model, "SOFTMAX"):
            _scale(model, each.inputs[0], 1.5)


def pooled_zero_point_off(folder: Path) -> None:
    with tflite_of(folder) as model:
        (mean,) = operators_called(model, "MEAN")
        _move(model, mean.outputs[0])


def scaled_pixels_zero_point_off(folder: Path) -> None:
    with tflite_of(folder) as model:
        (addition,) = operators_called(model, "ADD")
        _move(model, addition.outputs[0])


def pooled_range_too_narrow(folder: Path) -> None:
    with tflite_of(folder) as model:
        (mean,) = operators_called(model, "MEAN")
        _scale(model, mean.outputs[0], 0.8)


def scaled_pixels_range_too_narrow(folder: Path) -> None:
    with tflite_of(folder) as model:
        (addition,) = operators_called(model, "ADD")
        _scale(model, addition.outputs[0], 0.9)


def softmax_too_steep(folder: Path) -> None:
    """The softmax multiplies its inputs by 2 first."""
    with tflite_of(folder) as model:
        for each in operators_called(model, "SOFTMAX"):
            each.builtinOptions.beta = 2.0


def custom_operator(folder: Path) -> None:
    """A softmax of TensorFlow's own, which needs the Flex delegate."""
    with tflite_of(folder) as model:
        softmax = operators_called(model, "SOFTMAX")[0]
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = b"FlexSoftmax", 1
        model.operatorCodes.append(code)
        softmax.opcodeIndex = len(model.operatorCodes) - 1
        softmax.builtinOptions, softmax.builtinOptionsType = None, 0


def input_renamed(folder: Path) -> None:
    with tflite_of(folder) as model:
        model.signatureDefs[0].inputs[0].name = b"pixels"


def input_scale_off(folder: Path) -> None:
    """As the calibration images bring it about that are never quite white: 254 in 255 steps."""
    with tflite_of(folder) as model:
        (quantise, *_) = operators_called(model, "QUANTIZE")
        for index in (quantise.inputs[0], quantise.outputs[0]):
            _quantisation(model, index).scale = np.array([254 / 255], np.float32)


def output_scale_off(folder: Path) -> None:
    with tflite_of(folder) as model:
        for each in model.signatureDefs[0].outputs:
            _quantisation(model, each.tensorIndex).scale = np.array([1 / 128], np.float32)


def extra_output(folder: Path) -> None:
    with tflite_of(folder) as model:
        added = schema.TensorMapT()
        added.name, added.tensorIndex = b"logits", int(operators_called(model, "SOFTMAX")[0].inputs[0])
        model.signatureDefs[0].outputs.append(added)
        model.subgraphs[0].outputs = np.append(model.subgraphs[0].outputs, np.int32(added.tensorIndex))


def missing_output(folder: Path) -> None:
    with tflite_of(folder) as model:
        gone = model.signatureDefs[0].outputs.pop(0)
        kept = [index for index in model.subgraphs[0].outputs if index != gone.tensorIndex]
        model.subgraphs[0].outputs = np.array(kept, np.int32)
