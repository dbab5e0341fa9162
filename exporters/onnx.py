"""SavedModel -> ONNX in every precision: tf2onnx, then onnxruntime's own float16 and quantisation tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnxruntime import quantization
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from exporters.calibration import with_full_range
from exporters.contract import INPUT_NAME, Card
from exporters.errors import InputError
from exporters.onnx_names import settle_names
from exporters.saved_model import SERVING

MODEL_FILE = "model.onnx"
# 17 is the newest opset that tf2onnx writes without experimental operators and that onnxruntime-web runs whole.
OPSET = 17


def export(saved_model_dir: Path, card: Card, out: Path, *, precision: str, calibration_images: np.ndarray) -> None:
    """Write `out/model.onnx`, opset 17, with a dynamic batch.

    Args:
        saved_model_dir: as `write_saved_model` leaves it.
        card: names and shapes of the outputs.
        out: the artifact's folder, which exists.
        precision: `float32`; `float16` (weights and arithmetic, inputs and outputs stay float32); `int8`
            (static, quantise-dequantise nodes, per channel, uint8 activations).
        calibration_images: uint8 (N, height, width, 3) from the training split; only `int8` looks at them.

    Raises:
        InputError: `int8` without calibration images.
    """
    model = _to_float32(saved_model_dir, card)
    if precision == "float16":
        model = _to_float16(model)
    if precision == "int8":
        model = _to_int8(model, calibration_images)
    model.producer_name, model.doc_string = "cutpoint", ""
    onnx.checker.check_model(model, full_check=True)
    (out / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))


def _to_float32(saved_model_dir: Path, card: Card) -> onnx.ModelProto:
    loaded = tf.saved_model.load(str(saved_model_dir))
    serving = loaded.signatures[SERVING]
    shape = (None, card.resize.height, card.resize.width, 3)
    function = tf.function(lambda image: serving(**{INPUT_NAME: image}))
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)], opset=OPSET
    )
    settle_names(model)
    return model


def _to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    wrapped = ONNXModel(convert_float_to_float16(model, keep_io_types=True))
    # The tool adds its casts at the end of the list of nodes; ONNX wants every node behind those that feed it.
    wrapped.topological_sort()
    return wrapped.model


class _CalibrationImages(quantization.CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            {INPUT_NAME: image[None].astype(np.float32)} for image in with_full_range(images)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _to_int8(model: onnx.ModelProto, calibration_images: np.ndarray) -> onnx.ModelProto:
    if not len(calibration_images):
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
            _CalibrationImages(calibration_images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(quantised)
