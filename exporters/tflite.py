"""SavedModel -> TFLite in every precision, by TensorFlow's own converter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python.convert_phase import ConverterError

from exporters.calibration import with_full_range
from exporters.contract import (
    BATCH1,
    COLUMNS_ENCODED,
    COLUMNS_NAME,
    FLOAT_IO,
    INPUT_NAME,
    MEASURED,
    WHOLE_NUMBERS,
    Card,
)
from exporters.errors import CutpointError, InputError
from exporters.inputs import Inputs, as_inputs
from exporters.saved_model import BODY, ENCODER, SERVING, write_with_batch
from exporters.tflite_inputs import prepend_encoder
from exporters.tflite_metadata import with_metadata
from exporters.tflite_outputs import settle_outputs, widen_outputs
from exporters.unsupported import unsupported

MODEL_FILE = "model.tflite"
BATCH = 16
_LACKING = "not yet supported for op"
_INTEGER_OPERATORS = {
    "int8": tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
    "int16x8": tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
}


def export(
    saved_model_dir: Path,
    card: Card,
    out: Path,
    *,
    precision: str,
    calibration_images: Inputs | np.ndarray,
    variant: str = "",
) -> None:
    """Write `out/model.tflite`, with TFLite metadata by which MediaPipe's tasks and Android's tools read it.

    Args:
        saved_model_dir: as `write_saved_model` leaves it.
        card: names of the outputs and their kinds of task.
        out: the artifact's folder, which exists.
        precision: `float32`, `float16`, `dynamic_int8`, `int8` or `int16x8`. `int8` computes in integers throughout, takes
            uint8 with scale 1.0 and zero point 0, and answers classifications in uint8 and all else in float32. `int16x8`
            computes with kernels in int8 and activations in int16, takes raw pixels in float32 and answers in float32.
            Columns are float32 in each of them, and so is what encodes them.
        calibration_images: uint8 (N, height, width, 3) from the training split, with columns where the card has such; only
            `int8` and `int16x8` look at them.
        variant: `batch1` fixes the batch to one picture; `float_io` lets `int8` take raw pixels and answer in float32.

    Raises:
        InputError: `int8` or `int16x8` without calibration images, or the model has operators that TFLite lacks.
        CutpointError: the input scale of `int8` did not come out as 1.0.
    """
    inputs, floats = as_inputs(calibration_images), variant == FLOAT_IO
    with tempfile.TemporaryDirectory() as work:
        # What is measured beside the conversion is measured on many pictures at once.
        traced = write_with_batch(saved_model_dir, 1, Path(work) / "fixed") if variant == BATCH1 else saved_model_dir
        content = _converted(traced, saved_model_dir, card, precision, inputs, floats=floats)
    (out / MODEL_FILE).write_bytes(with_metadata(content, card))


def _converted(
    traced: Path, saved_model_dir: Path, card: Card, precision: str, inputs: Inputs, *, floats: bool
) -> bytes:
    """Return the model of what is `traced`; with `floats`, `int8` takes and gives float32 too."""
    converter = _converter(traced, card)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in WHOLE_NUMBERS:
        _ask_for_full_integers(converter, precision, _calibration(saved_model_dir, card, inputs, precision))
        if floats:
            converter.inference_input_type = tf.float32
    try:
        content = converter.convert()
        if precision == "float16" and _measured(card):
            plain = _converter(traced, card).convert()
            content = widen_outputs(content, plain, _measured(card))
    except ConverterError as fault:
        raise unsupported("TFLite", saved_model_dir, fault) from fault
    except RuntimeError as fault:
        # So the quantiser says that 16 bits lack an operator, such as that of an embedding's length.
        if _LACKING not in str(fault):
            raise
        raise unsupported(f"TFLite in {precision}", saved_model_dir, fault) from fault
    if precision in WHOLE_NUMBERS:
        ranges = _column_ranges(saved_model_dir, card, inputs)
        content = settle_outputs(content, card, ranges, floats=floats or precision != "int8")
    if card.columns:
        content = prepend_encoder(content, _from_signature(traced, ENCODER).convert())
    if precision == "int8" and not floats:
        _check_input_scale(content)
    return content


def _converter(saved_model_dir: Path, card: Card) -> tf.lite.TFLiteConverter:
    """Return the converter of what computes in the artifact's precision: of a model with columns, all but their encoder."""
    return _from_signature(saved_model_dir, BODY if card.columns else SERVING)


def _from_signature(saved_model_dir: Path, signature: str) -> tf.lite.TFLiteConverter:
    return tf.lite.TFLiteConverter.from_saved_model(str(saved_model_dir), signature_keys=[signature])


def _calibration(saved_model_dir: Path, card: Card, inputs: Inputs, precision: str) -> list[dict[str, np.ndarray]]:
    """Return what the converter runs through the model: input name -> float32, one picture each."""
    if not len(inputs):
        raise InputError(
            f"There are no calibration images for tflite-{precision}.",
            "at least one image in the training split",
            f"give training images or leave {precision} out of --formats",
        )
    given = with_full_range(inputs).named()
    if card.columns:
        loaded = tf.saved_model.load(str(saved_model_dir))
        encoded = loaded.signatures[ENCODER](**{COLUMNS_NAME: tf.constant(given.pop(COLUMNS_NAME))})
        given[COLUMNS_ENCODED] = encoded[COLUMNS_ENCODED].numpy()
    count = len(given[INPUT_NAME])
    return [{name: values[index : index + 1] for name, values in given.items()} for index in range(count)]


def _ask_for_full_integers(
    converter: tf.lite.TFLiteConverter, precision: str, calibration: Sequence[Mapping[str, np.ndarray]]
) -> None:
    def representative_dataset() -> Iterator[Mapping[str, np.ndarray]]:
        yield from calibration

    converter.representative_dataset = representative_dataset
    converter.inference_input_type = tf.uint8 if precision == "int8" else tf.float32
    converter.inference_output_type = tf.int8 if precision == "int8" else tf.int16
    # Last, because setting other options after it can widen it again and let float operators slip in.
    converter.target_spec.supported_ops = [_INTEGER_OPERATORS[precision]]


def _measured(card: Card) -> list[str]:
    return [output.name for output in card.outputs if output.task in MEASURED]


def _column_ranges(saved_model_dir: Path, card: Card, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return output -> float64 (2, columns), least and largest, over the calibration images: of what has columns of its own."""
    names = _measured(card)
    if not names:
        return {}
    # Held for as long as its signature is called, which does not hold it.
    loaded = tf.saved_model.load(str(saved_model_dir))
    serving, inputs = loaded.signatures[SERVING], with_full_range(inputs)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH].named()
        answers = serving(**{name: tf.constant(values) for name, values in batch.items()})
        for name in names:
            answer = answers[name].numpy().astype(np.float64)
            found[name].append(answer.reshape(len(answer), -1))
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: np.stack([answer.min(0), answer.max(0)]) for name, answer in joined.items()}


def _check_input_scale(content: bytes) -> None:
    # The pictures come first, with columns and without.
    details = Interpreter(model_content=content).get_input_details()[0]
    scale, zero_point = details["quantization"]
    if details["dtype"] != np.uint8 or abs(scale - 1.0) > 1e-6 or zero_point != 0:
        raise CutpointError(
            f"The int8 model takes {details['dtype'].__name__} with scale {scale} and zero point {zero_point}.",
            "uint8 with scale 1.0 and zero point 0",
            "report this: the calibration images always hold 0 and 255",
        )
