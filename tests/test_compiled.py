"""What is computed in one function of TensorFlow is what is computed call by call."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from exporters import compiled, simulation
from exporters.compiled import batch_of, ends_of, in_batches
from exporters.inputs import Inputs
from exporters.keras_graph import answers_of, walk
from exporters.slices import bytes_per_image
from tests.small_models import pictures, small


def kept(tensor: object, value: object) -> object:
    return value


@pytest.fixture(scope="module")
def shown() -> Inputs:
    return Inputs(pictures(7, 3)[0])


@pytest.mark.parametrize("size", [1, 3, 32])
def test_batches_together_are_the_whole(shown: Inputs, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small().model
    monkeypatch.setattr(compiled, "MOST_BYTES", size * max(map(bytes_per_image, simulation.calls_of(model))))
    assert batch_of(model) == size
    parts = list(in_batches(lambda given: walk(model, given, answers_of, kept), shown, model))
    assert [len(part[0]) for part in parts] == {1: [1] * 7, 3: [3, 3, 1], 32: [7]}[size]
    expected = model(shown.images.astype(np.float32), training=False)
    for each, found in zip(model.outputs, zip(*parts, strict=True), strict=True):
        named = next(name for name, tensor in model.output.items() if tensor is each)
        np.testing.assert_allclose(np.concatenate(found), expected[named], atol=1e-6)


def test_columns_come_along(shown: Inputs) -> None:
    image, columns = keras.Input((32, 32, 3), name="image"), keras.Input((2,), name="columns")
    model = keras.Model([image, columns], keras.ops.sum(image, (1, 2, 3)) + keras.ops.sum(columns, 1))
    both = Inputs(shown.images, np.arange(14, dtype=np.float32).reshape(7, 2))
    ((found,),) = in_batches(lambda given: walk(model, given, answers_of, kept), both, model)
    expected = shown.images.astype(np.float64).sum((1, 2, 3)) + both.columns.sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_no_pictures_make_no_batch(shown: Inputs) -> None:
    assert list(in_batches(lambda given: given, shown[:0], small().model)) == []


@pytest.mark.parametrize("ends", [None, (-1.0, 3.0), (0.5, 2.0), (-2.0, -0.5)])
@pytest.mark.parametrize("steps", [15, 255])
def test_tensors_are_rounded_as_arrays_are(steps: int, ends: tuple[float, float] | None) -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (200, 7)).astype(np.float32)
    expected = simulation.in_steps(values.copy(), steps, ends)
    found = np.asarray(compiled.in_steps(keras.ops.convert_to_tensor(values), steps, ends))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(np.unique(np.round(found, 5))) <= steps + 1
    assert np.abs(found - values).max() > 1e-3


def test_the_middle_of_two_steps_goes_where_arrays_go() -> None:
    # A power of two for a step: nothing is lost in the division.
    values = (np.arange(-8, 8, dtype=np.float32) + 0.5) / 4
    ends = (-15 / 8, 15 / 8)
    expected = simulation.in_steps(values.copy(), 15, ends)
    np.testing.assert_array_equal(compiled.in_steps(keras.ops.convert_to_tensor(values), 15, ends), expected)


def test_nothing_but_zeros_stays_so() -> None:
    assert not np.asarray(compiled.in_steps(keras.ops.zeros(3), 255, None)).any()


def test_ends() -> None:
    assert np.asarray(ends_of(keras.ops.convert_to_tensor([[3.0, -1.0], [0.5, 2.0]]))).tolist() == [-1.0, 3.0]
