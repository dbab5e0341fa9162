"""Pixel scaling inside the model does what Keras's own preprocessing does outside of it, in stock layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pipeline.backbones import PIXEL_SCALINGS
from pipeline.scaling import scale_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 3)).astype(np.float32)
IMAGES[0, 0, 0] = (0, 128, 255)


def scaled(pixel_scaling: str) -> np.ndarray:
    image = keras.Input((None, None, 3))
    return np.asarray(keras.Model(image, scale_pixels(image, pixel_scaling))(IMAGES))


@pytest.mark.parametrize("pixel_scaling", ["tf", "torch", "caffe"])
def test_as_keras_preprocesses(pixel_scaling: str) -> None:
    from keras.src.applications.imagenet_utils import preprocess_input

    expected = preprocess_input(IMAGES.copy(), data_format="channels_last", mode=pixel_scaling)
    assert np.abs(scaled(pixel_scaling) - expected).max() < 2e-5


def test_unit_and_none() -> None:
    assert np.abs(scaled("unit") - IMAGES / 255).max() < 1e-6
    assert np.array_equal(scaled("none"), IMAGES)


def test_caffe_turns_the_channels_round() -> None:
    red, _, blue = scaled("caffe")[0, 0, 0] + np.array([103.939, 116.779, 123.68])
    assert (red, blue) == pytest.approx((255, 0), abs=1e-3)


@pytest.mark.parametrize("pixel_scaling", PIXEL_SCALINGS)
def test_stock_layers_that_nothing_trains(pixel_scaling: str) -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, scale_pixels(image, pixel_scaling))
    assert {type(layer).__name__ for layer in model.layers} <= {"InputLayer", "Rescaling", "Conv2D"}
    assert model.trainable_weights == []
    assert model.output.dtype == "float32"
