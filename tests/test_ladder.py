"""The ladder: every usual way is measured, further ones only where those fail, and the best that passes is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models

from exporters.cloning import clone
from exporters.contract import CEILINGS
from exporters.correction import correct
from exporters.folding import fold
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.ladder import Made, Measure, Rung, climb
from exporters.simulation import ratios_in_steps
from exporters.ways import MOST_LAYERS, Gate

PICTURES = 96


@pytest.fixture(scope="module")
def folded() -> keras.Model:
    return fold(small_models.small().model, [small_models.CUT]).model


@pytest.fixture(scope="module")
def corrected(folded: keras.Model) -> keras.Model:
    return correct(folded, "int8", small_models.small().calibration_images)


@pytest.fixture(scope="module")
def measure(folded: keras.Model) -> Measure:
    one = small_models.small()
    truth = {name: values[:PICTURES] for name, values in one.truth.items()}
    selection = Inputs(one.images[:PICTURES])
    return Measure(folded, selection, "int8", {"features": small_models.CUT}, Gate(one.card.outputs, CEILINGS, truth))


def damaged(model: keras.Model, spoilt: float) -> keras.Model:
    """The model with noise of a share of their deviation on the weights of the second depthwise layer."""
    copy = clone(model)
    kernel, *bias = copy.get_layer("deep_2").get_weights()
    noise = np.random.default_rng(0).normal(0, spoilt * kernel.std(), kernel.shape)
    copy.get_layer("deep_2").set_weights([kernel + noise, *bias])
    return copy


@pytest.fixture
def rung(folded: keras.Model, corrected: keras.Model) -> Callable[[str, float], Rung]:
    """A way that gives the corrected model, damaged to some degree; those that were made are listed in `made`."""
    made: list[str] = []

    def of(name: str, spoilt: float) -> Rung:
        def make() -> Made:
            made.append(name)
            return folded, damaged(corrected, spoilt), None

        return Rung(name, make)

    of.made = made
    return of


def test_the_usual_ways_are_all_measured_and_further_ones_are_left_alone(
    rung: Callable, corrected: keras.Model, measure: Measure
) -> None:
    taken, choice, seconds = climb([rung("worse", 0.1), rung("good", 0.0)], [rung("further", 0.0)], measure)
    assert rung.made == ["worse", "good"] == [way.name for way in choice.ways] == list(seconds)
    assert choice.taken == "good" and choice.images == PICTURES
    assert all(seconds.values())
    for mine, theirs in zip(taken.get_weights(), corrected.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    worse, good = choice.ways
    assert good.error < worse.error
    assert good.features_snr_db["features"] > worse.features_snr_db["features"] > 0
    assert set(good.outputs) == set(small_models.LABELS) and good.outputs["apple"]["agreement"] > 0.95
    ratios = [ratio for _, ratio in good.worst_layers]
    assert len(ratios) == MOST_LAYERS and ratios == sorted(ratios)


def test_further_ways_are_tried_until_one_passes(rung: Callable, measure: Measure) -> None:
    usual, further = [rung("bad", 3.0)], [rung("no better", 2.0), rung("good", 0.0), rung("never tried", 0.0)]
    _, choice, _ = climb(usual, further, measure)
    assert rung.made == ["bad", "no better", "good"]
    assert [way.passes for way in choice.ways] == [False, False, True]
    assert choice.taken == "good"


def test_where_nothing_passes_the_least_error_is_taken(rung: Callable, measure: Measure) -> None:
    taken, choice, _ = climb([rung("worst", 5.0), rung("bad", 2.0)], [rung("worse", 4.0)], measure)
    errors = {way.name: way.error for way in choice.ways}
    assert not any(way.passes for way in choice.ways)
    assert choice.taken == min(errors, key=errors.get)
    expected, found = (measure.answers(each, "float32")["apple"] for each in (measure.folded, taken))
    assert not np.allclose(expected, found, atol=0.05)


def uneven(model: keras.Model, decades: float) -> keras.Model:
    """The model with channels of two layers scaled down, by up to so many powers of ten, and back where they are taken."""
    copy, generator = clone(model), np.random.default_rng(0)
    for maker, taker in (("deep", "point"), ("deep_2", "point_2")):
        kernel, bias = copy.get_layer(maker).get_weights()
        factors = 10 ** generator.uniform(-decades, 0, kernel.shape[2])
        copy.get_layer(maker).set_weights([kernel * factors[:, None], bias * factors])
        kernel, bias = copy.get_layer(taker).get_weights()
        copy.get_layer(taker).set_weights([kernel / factors[:, None], bias])
    return copy


@pytest.mark.parametrize(
    "decades, tried", [(2, ["corrected", "equalised"]), (4, ["corrected", "equalised", "levelled"])]
)
def test_channels_of_very_different_sizes_need_more(
    folded: keras.Model, tmp_path: Path, decades: float, tried: list[str]
) -> None:
    one = small_models.small()
    models = InferenceModels(
        *(uneven(folded, decades), small_models.CUT, one.calibration_images, tmp_path),
        features_everywhere=False,
        selection=Inputs(one.images[:PICTURES]),
        gate=Gate(one.card.outputs, CEILINGS),
    )
    assert models.choice("int8") is None
    models.model("int8")
    choice = models.choice("int8")
    assert [way.name for way in choice.ways] == tried == list(models.take_seconds("int8"))
    # Each passes only where those before it do not, and the last is the only one that does.
    assert [way.passes for way in choice.ways] == [False] * (len(tried) - 1) + [True]
    assert choice.taken == tried[-1]
    errors = [way.error for way in choice.ways]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.005
    assert models.take_seconds("int8") == {} and models.choice("float32") is None


def test_ratios_are_those_of_the_differences(folded: keras.Model, corrected: keras.Model) -> None:
    images = small_models.small().images[:20]
    # Without rounded activations a layer can be compared with what Keras itself says of it.
    ratios = ratios_in_steps(folded, corrected, Inputs(images), "float32")
    mine, theirs = (
        np.asarray(keras.Model(each.inputs, each.get_layer("point_relu").output)(images.astype(np.float32)))
        for each in (folded, corrected)
    )
    expected = 10 * np.log10(np.square(mine).sum() / np.square(theirs - mine).sum())
    assert ratios["point_relu"] == pytest.approx(expected, abs=0.01)
    # What only moves values about is left out, and so is what is never stored.
    assert set(ratios) <= {layer.name for layer in folded.layers} - {"point", "apple", "zebra"}
    assert all(ratio is None for ratio in ratios_in_steps(folded, folded, Inputs(images), "float32").values())
    in_steps = ratios_in_steps(folded, corrected, Inputs(images), "int8")
    assert in_steps[small_models.CUT] < ratios[small_models.CUT]
