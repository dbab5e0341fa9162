"""Answers through LiteRT without a file: as Keras's, for any number of pictures and cores; or an error that is told."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from exporters import tflite_in_memory
from exporters.tflite_in_memory import fast_answers
from pipeline.features import fastest_compute, keras_compute

IMAGES = np.random.default_rng(3).integers(0, 256, (11, 16, 16, 3), np.uint8)
MANY = 10**8


def network(unknown: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    value = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    value = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(value))
    # No format of TFLite's own has this function.
    return keras.Model(image, keras.ops.erfinv(keras.ops.tanh(value)) if unknown else value)


@pytest.mark.parametrize("cores", [1, 2, 3, None])
def test_it_answers_as_keras_does(cores: int | None) -> None:
    model = network()
    answers = fast_answers(model, cores)
    expected = np.asarray(model(IMAGES.astype(np.float32)))
    # Fewer than there are interpreters, a part of a batch, and more than one batch each.
    for count in (1, 2, 5, 11):
        found = answers(IMAGES[:count])
        assert found.shape == (count, 8) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count], atol=1e-6)
    np.testing.assert_allclose(answers(IMAGES.astype(np.float32)), expected, atol=1e-6)


def test_large_weights_are_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    interpreter = tflite_in_memory.Interpreter

    def noted(model_content: bytes, num_threads: int) -> object:
        taken.append(num_threads)
        return interpreter(model_content=model_content, num_threads=num_threads)

    monkeypatch.setattr(tflite_in_memory, "Interpreter", noted)
    monkeypatch.setattr(tflite_in_memory, "MOST_PACKED_BYTES", 10)
    np.testing.assert_allclose(
        fast_answers(network(), 4)(IMAGES), np.asarray(network()(IMAGES.astype(np.float32))), atol=1e-6
    )
    assert taken == [4]


def test_what_tflite_cannot_hold_is_computed_by_keras() -> None:
    notes: list[str] = []
    compute = fastest_compute(network(unknown=True), MANY, "cpu", notes.append)
    assert np.array_equal(compute(IMAGES), keras_compute(network(unknown=True))(IMAGES))
    assert len(notes) == 1 and "features through Keras: LiteRT cannot hold the network" in notes[0]
