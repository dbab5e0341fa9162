"""Copies of models answer as the original does, whatever layers it has."""

from __future__ import annotations

import keras
import numpy as np

from exporters.cloning import clone, leaves


def model() -> keras.Model:
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="inner_conv")], name="inner")
    image = keras.Input((8, 8, 3))
    normalized = keras.layers.Normalization(mean=None, variance=None, name="normalization")
    normalized.adapt(np.random.default_rng(0).normal(100, 40, (16, 8, 8, 3)))
    return keras.Model(image, inner(normalized(image)))


def test_a_copy_answers_as_the_original() -> None:
    original = model()
    images = np.random.default_rng(1).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    expected = np.asarray(original(images))
    copied = clone(original)
    assert expected.std() > 0.1
    assert np.array_equal(np.asarray(copied(images)), expected)


def test_a_copy_shares_nothing() -> None:
    original = model()
    before = original.get_weights()
    copied = clone(original)
    copied.set_weights([value + 1 for value in copied.get_weights()])
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(original.get_weights(), before, strict=True))


def test_the_leaves_are_the_layers_without_models_around_them() -> None:
    assert [layer.name for layer in leaves(model())][1:] == ["normalization", "inner_conv"]
