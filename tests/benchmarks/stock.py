"""What the stock converters make of a Keras model, by their Python functions as their guides use them.

As a program: `python stock.py MODEL.keras CALIBRATION.npz FOLDER NAMES` makes artifacts one after another in one process.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from exporters import tfjs_layers
from exporters.contract import FORMATS, Card, parse_formats
from exporters.keras_model import write_keras_model
from exporters.tfjs import _import_converter


def make(model: keras.Model, format_name: str, precision: str, folder: Path, images: np.ndarray) -> Path:
    """Make one artifact.

    Args:
        model: takes `image` (N, height, width, 3) 0..255.
        format_name, precision: one of those that Cutpoint has.
        folder: is made, and holds the file that Cutpoint's own artifact holds.
        images: uint8 (N, height, width, 3), to calibrate with.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True)
    _converters()[format_name](model, precision, folder, images)
    return folder


def make_layers(model: keras.Model, card: Card, folder: Path) -> Path:
    """Make a TF.js layers model of a network as it is, each BatchNorm and each activation a layer of its own.

    That is what Teachable Machine exports, but for the scaling of the pixels, which its page does by the same two operators
    in front of the model.

    Args:
        model: takes `image` (N, height, width, 3) 0..255.
        card: of the artifact.
        folder: is made, and holds the files.

    Returns:
        `folder`.
    """
    saved = folder / "saved_model"
    write_keras_model(model, {}, saved)
    bare = dataclasses.replace(card, cut=())
    tfjs_layers.export(saved, bare, folder, precision="float32", calibration_images=np.zeros((0, 1, 1, 3), np.uint8))
    return folder


def can_make(format_name: str) -> bool:
    """Tell whether a format has a stock converter that takes models of Keras 3."""
    return format_name in _converters()


def _converters() -> dict[str, Callable]:
    return {"tfjs": _tfjs, "tflite": _tflite, "onnx": _onnx}


def _tfjs(model: keras.Model, precision: str, folder: Path, _: np.ndarray) -> None:
    """From a SavedModel, as its wizard does it from any model of Keras 3."""
    saved = folder / "saved_model"
    model.export(saved, verbose=False)
    narrow = {} if precision == "float32" else {"quantization_dtype_map": {precision: True}}
    _import_converter().convert_tf_saved_model(str(saved), str(folder), use_structured_outputs_names=True, **narrow)


def _tflite(model: keras.Model, precision: str, folder: Path, images: np.ndarray) -> None:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([each[None].astype(np.float32)] for each in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    (folder / "model.tflite").write_bytes(converter.convert())


def _onnx(model: keras.Model, precision: str, folder: Path, images: np.ndarray) -> None:
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name="image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    function.output_names = list(model.output_names)
    made, _ = tf2onnx.convert.from_function(function, signature, opset=FORMATS["onnx"].opset)
    if precision == "float16":
        made = convert_float_to_float16(made, keep_io_types=True)
    onnx.save(made, folder / "model.onnx")
    if precision == "int8":
        plain, prepared = (folder / name for name in ("plain.onnx", "prepared.onnx"))
        (folder / "model.onnx").rename(plain)
        quant_pre_process(plain, prepared)
        quantization.quantize_static(prepared, folder / "model.onnx", _Images(images), per_channel=True)
        plain.unlink(), prepared.unlink()
    if precision == "dynamic_int8":
        plain = (folder / "model.onnx").rename(folder / "plain.onnx")
        quantization.quantize_dynamic(plain, folder / "model.onnx")
        plain.unlink()


class _Images(quantization.CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._feeds: Iterator[dict] = ({"image": each[None].astype(np.float32)} for each in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def main() -> None:
    """Make every artifact of a model that can be loaded."""
    model = keras.saving.load_model(sys.argv[1], compile=False)
    with np.load(sys.argv[2]) as arrays:
        images = arrays["images"]
    for name in parse_formats(sys.argv[4].split(",")):
        make(model, name.format, name.precision, Path(sys.argv[3]) / str(name), images)
        print(name, flush=True)


if __name__ == "__main__":
    main()
