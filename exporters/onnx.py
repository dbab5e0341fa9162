"""SavedModel -> ONNX in every precision: tf2onnx, then onnxruntime's own float16 and quantisation tools."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tf2onnx.graph import Node

from exporters.contract import BATCH1, CLASSIFICATIONS, COLUMNS_NAME, INPUT_NAME, MEASURED, Card
from exporters.inputs import Inputs, as_inputs
from exporters.memory import collecting_often
from exporters.onnx_float16 import to_float16
from exporters.onnx_int8 import leave_in_float, to_int8
from exporters.onnx_metadata import describe
from exporters.onnx_names import encoder_nodes, settle_names
from exporters.onnx_simplify import keep_one_opset, share_constants, simplify
from exporters.onnx_weights import store_in_int8
from exporters.onnx_windows import pad_for_pooling
from exporters.saved_model import SERVING
from exporters.unsupported import unsupported

MODEL_FILE = "model.onnx"
# 17 is the newest opset that tf2onnx writes without experimental operators and that onnxruntime-web runs whole.
OPSET = 17
COPIES = tf2onnx.constants.ENV_TF2ONNX_CATCH_ERRORS


def export(
    saved_model_dir: Path,
    card: Card,
    out: Path,
    *,
    precision: str,
    calibration_images: Inputs | np.ndarray,
    variant: str = "",
) -> None:
    """Write `out/model.onnx`, opset 17, with a dynamic batch, its labels and its card among its metadata.

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
        model = to_float16(model, [output.name for output in card.outputs if output.task in MEASURED])
    if precision == "dynamic_int8":
        store_in_int8(model, encoder_nodes(model))
    if precision == "int8":
        model = to_int8(model, as_inputs(calibration_images))
        leave_in_float(model, {output.name for output in card.outputs if output.task in CLASSIFICATIONS})
    model.producer_name, model.doc_string = "cutpoint", ""
    share_constants(model)
    keep_one_opset(model)
    # Readers infer them, and those that the tools leave are of some tensors only.
    del model.graph.value_info[:]
    describe(model, card)
    onnx.checker.check_model(model, full_check=True)
    (out / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))


def _converted(function: Any, signature: list[tf.TensorSpec]) -> onnx.ModelProto:
    """Return what tf2onnx makes of a function, at first without its copies of the graph and of the constants.

    Those of the constants alone took a third of the time of a deep network. It goes back to all of them where an optimiser
    fails, which is rare.
    """
    convert = functools.partial(tf2onnx.convert.from_function, function, input_signature=signature, opset=OPSET)
    try:
        with _without_copies():
            return convert()[0]
    except Exception:  # of an optimiser, which is left out with copies; whatever else is wrong is raised again
        return convert()[0]


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Neither copy the graph before each of tf2onnx's optimisers, nor every constant after it, to where nobody reads it."""
    before, write = os.environ.get(COPIES), Node.update_proto

    def write_all_but_constants(node: Node, *arguments: Any, **named: Any) -> None:
        # A graph's initializers are made of the constants' own values.
        if not node.is_const():
            write(node, *arguments, **named)

    # tf2onnx looks whether the variable is there at all.
    os.environ[COPIES] = "FALSE"
    Node.update_proto = write_all_but_constants
    try:
        yield
    finally:
        Node.update_proto = write
        if before is None:
            del os.environ[COPIES]
        else:
            os.environ[COPIES] = before


def _to_float32(saved_model_dir: Path, card: Card, batch: int | None) -> onnx.ModelProto:
    loaded = tf.saved_model.load(str(saved_model_dir))
    serving = loaded.signatures[SERVING]
    image = tf.TensorSpec((batch, card.resize.height, card.resize.width, 3), tf.float32, name=INPUT_NAME)
    signature, function = [image], tf.function(lambda image: serving(**{INPUT_NAME: image}))
    if card.columns:
        signature.append(tf.TensorSpec((batch, len(card.columns)), tf.float32, name=COLUMNS_NAME))
        function = tf.function(lambda image, columns: serving(**{INPUT_NAME: image, COLUMNS_NAME: columns}))
    with collecting_often():
        model = _converted(function, signature)
    simplify(model)
    settle_names(model)
    pad_for_pooling(model.graph)
    return model
