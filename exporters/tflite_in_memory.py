"""A Keras model's answers through LiteRT, without a file: for passes over many pictures, several times faster than Keras."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from exporters.contract import INPUT_NAME

# Few enough for the activations to stay in the cache, enough for Python to be no part of the time.
BATCH = 4
# Every interpreter packs the weights for itself.
MOST_PACKED_BYTES = 2**29


def convert_in_memory(model: keras.Model) -> bytes:
    """Return a float32 TFLite model of a Keras model with one input and one output; it takes BATCH images at once.

    Raises:
        Exception: whatever the converter raises at an operation that TFLite has not, or at a model of over 2 GiB.
    """
    taken = tf.TensorSpec((BATCH, *model.inputs[0].shape[1:]), tf.float32, name=INPUT_NAME)
    concrete = tf.function(lambda image: model(image, training=False), autograph=False).get_concrete_function(taken)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    # Through a SavedModel, which would be written, read and traced again, it takes five times as long.
    converter.experimental_lower_to_saved_model = False
    return converter.convert()


def fast_answers(model: keras.Model, cores: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that answers as a Keras model does, on all cores of this machine.

    Interpreters of one thread each, side by side, take less time together than one of many threads: layers of small networks
    are too short to be shared out.

    Args:
        model: with one input and one output.
        cores: how many to use; None: all.

    Returns:
        images (N, height, width, 3), 0..255, of any dtype -> float32 (N, ...).

    Raises:
        Exception: it cannot be converted, see `convert_in_memory`, or LiteRT cannot load it.
    """
    content = convert_in_memory(model)
    cores = cores or os.cpu_count() or 1
    side_by_side = min(cores, max(1, MOST_PACKED_BYTES // len(content)))
    interpreters = [Interpreter(model_content=content, num_threads=cores // side_by_side) for _ in range(side_by_side)]
    for each in interpreters:
        each.allocate_tensors()
    pool = concurrent.futures.ThreadPoolExecutor(side_by_side, thread_name_prefix="litert")

    def answers(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, side_by_side)
        return np.concatenate(list(pool.map(_answer, interpreters, parts)))

    return answers


def _answer(interpreter: Interpreter, images: np.ndarray) -> np.ndarray:
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = np.empty((len(images), *given["shape"][1:]), np.float32)
    batch = np.zeros(taken["shape"], np.float32)
    for start in range(0, len(images), BATCH):
        count = len(images[start : start + BATCH])
        # The last one is filled up with what stood there before.
        batch[:count] = images[start : start + count]
        interpreter.set_tensor(taken["index"], batch)
        interpreter.invoke()
        answers[start : start + count] = interpreter.get_tensor(given["index"])[:count]
    return answers
