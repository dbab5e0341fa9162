"""What is computed a few pictures at a time is what is computed at once, and what is no longer needed is let go of."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest

from exporters import slices
from exporters.correction import correct
from exporters.inputs import Inputs
from exporters.keras_graph import answers_of, calls_of, walk
from exporters.memory import collecting_often
from exporters.simulation import answers_in_steps, taken_once

COUNT, SIDE_PX = 5, 16


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE_PX, SIDE_PX, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Convolutions, a ReLU whose input another layer takes too, a sum, and what makes several rows of one picture."""
    keras.utils.set_random_seed(1)
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    wide = keras.layers.Conv2D(8, 3, padding="same", bias_initializer="normal", name="wide")(scaled)
    deep = keras.layers.DepthwiseConv2D(3, padding="same", name="deep")(keras.layers.ReLU(6.0)(wide))
    joined = keras.layers.Add()([wide, keras.layers.ReLU()(deep)])
    windows = keras.ops.reshape(joined, (-1, SIDE_PX // 2, SIDE_PX, 8))
    turned = keras.ops.transpose(keras.ops.max(windows, (1, 2)), (1, 0))
    pairs = keras.ops.reshape(keras.ops.transpose(turned, (1, 0)), (-1, 16))
    made = keras.layers.Dense(3, name="code")(keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(pairs)))
    return keras.Model(image, made)


@pytest.mark.parametrize("slice_bytes", [1, 2**22])
def test_slices_give_what_the_whole_gives(
    model: keras.Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, slice_bytes: int
) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", slice_bytes)
    expected = np.asarray(model(images.astype(np.float32), training=False))
    (found,) = answers_in_steps(model, Inputs(images), "float32")
    assert found.shape == (COUNT, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_only_slices_are_ever_tensors(model: keras.Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 2 * slices.bytes_per_image(calls_of(model)[1]))
    seen = []

    def compute(parts: list) -> list:
        seen.append(len(parts[0]))
        return [parts[0][:, 0], parts[0] * 2]

    given = images.astype(np.float32)
    first, twice = slices.in_slices(compute, [given], COUNT, slices.SLICE_BYTES // 2)
    assert seen == [2, 2, 1]
    np.testing.assert_array_equal(first, given[:, 0])
    np.testing.assert_array_equal(twice, given * 2)


def test_a_correction_in_slices_is_one_of_the_whole(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = keras.Sequential(
        [
            keras.Input((SIDE_PX, SIDE_PX, 3), name="image"),
            keras.layers.Conv2D(6, 3, strides=2, activation="relu6"),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    folded = keras.Model(chain.inputs, chain.outputs)
    whole = correct(folded, "int8", images)
    monkeypatch.setattr(slices, "SLICE_BYTES", 1)
    for one, other in zip(whole.get_weights(), correct(folded, "int8", images).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_relu_works_in_place_only_where_nothing_else_takes_its_input(model: keras.Model, images: np.ndarray) -> None:
    once = taken_once(model)
    assert id(model.get_layer("deep").output) in once
    assert id(model.get_layer("wide").output) not in once
    assert id(model.inputs[0]) not in once and id(model.outputs[0]) not in once
    given = images.astype(np.float32)
    answers_in_steps(model, Inputs(given), "int8")
    np.testing.assert_array_equal(given, images)


def test_a_walk_lets_go_of_what_nothing_takes_any_more(model: keras.Model, images: np.ndarray) -> None:
    held = []

    def call(node: object, values: dict) -> list:
        held.append(len(values))
        return answers_of(node, values)

    given = keras.ops.convert_to_tensor(images.astype(np.float32))
    (found,) = walk(model, [given], call, lambda tensor, value: value)
    np.testing.assert_allclose(found, model(given, training=False), rtol=1e-4, atol=1e-5)
    # The sum's first part waits while its second one is computed.
    assert max(held) == 2 and len(held) == len(calls_of(model))


def test_what_is_set_aside_stays_so_until_the_outermost_block_ends() -> None:
    gc.unfreeze()
    with collecting_often():
        with collecting_often():
            assert gc.get_freeze_count()
        assert gc.get_freeze_count()
    assert not gc.get_freeze_count()
