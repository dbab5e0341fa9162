"""Swish, hard swish and squeeze-and-excite in int8: what correction leaves of the noise of rounding to the nearest value."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from families import SETTLING_IMAGES, alpha_of
from random_backbones import pictures, settle

from exporters.cloning import clone
from exporters.contract import Resize
from exporters.correction import correct_and_measure, is_weighted
from exporters.equalisation import equalise
from exporters.folding import fold
from exporters.inputs import Inputs
from exporters.ladder import Measure, Rung, climb
from exporters.simulation import ratios_in_steps
from exporters.ways import Choice, Gate
from pipeline.assembly import Part, assemble
from pipeline.backbones import backbone_row
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.cut import truncate

SIDE_PX = 96
IMAGES = 64
SHOWN = 16


@dataclasses.dataclass(frozen=True)
class Settled:
    """A folded network of random weights with eight linear answers, its cut, and pictures that it has not settled on."""

    model: keras.Model
    cut: str
    calibration: Inputs
    held_out: Inputs


def settled(name: str) -> Settled:
    """A backbone of the table at 96 px."""
    shown = [pictures(count, SIDE_PX, seed)[0] for seed, count in enumerate((SETTLING_IMAGES, IMAGES, SHOWN))]
    keras.utils.set_random_seed(0)
    cut = backbone_row(name).usual_cut
    section = BackboneSection(name=name, alpha=alpha_of(name), weights="none")
    truncated = truncate(load_backbone(section, Resize(SIDE_PX, SIDE_PX)).model, (cut,))
    settle(truncated, shown[0])
    features = keras.Input((truncated.output.shape[-1],))
    head = keras.Model(features, keras.layers.Dense(8, name="code")(features))
    folded = fold(assemble(truncated, "none", {"code": Part("average", (cut,), head)}), [cut])
    return Settled(folded.model, folded.layer_name(cut), *map(Inputs, shown[1:]))


def to_nearest(model: keras.Model) -> keras.Model:
    """The model with every kernel rounded to the nearest of 255 steps, a scale for each channel, as stock converters do."""
    rounded = clone(model)
    for layer in filter(is_weighted, rounded.layers):
        kernel, *bias = layer.get_weights()
        axes = (0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else tuple(range(kernel.ndim - 1))
        scale = np.maximum(np.abs(kernel).max(axes, keepdims=True), 1e-12) / 127
        layer.set_weights([np.rint(kernel / scale) * scale, *bias])
    return rounded


def climbed(one: Settled) -> tuple[keras.Model, Choice]:
    """The better of the two usual ways, and what was measured."""
    level = equalise(one.model, one.calibration, [one.cut])
    rungs = [
        Rung("corrected", lambda: (one.model, *correct_and_measure(one.model, "int8", one.calibration))),
        Rung("equalised", lambda: (level, *correct_and_measure(level, "int8", one.calibration))),
    ]
    measure = Measure(one.model, one.held_out, "int8", {"features": one.cut}, Gate())
    taken, choice, _ = climb(rungs, (), measure)
    return taken, choice


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_correction_takes_most_of_the_noise_away(name: str) -> None:
    one = settled(name)
    before = ratios_in_steps(one.model, to_nearest(one.model), one.held_out, "int8")
    _, choice = climbed(one)
    after = next(way for way in choice.ways if way.name == choice.taken)
    print(name, f"features {before[one.cut]:.1f} dB before", *choice.ways, sep="\n")
    assert after.features_snr_db["features"] > before[one.cut] + 3
    assert after.worst_layers[0][1] > min(ratio for ratio in before.values() if ratio is not None)
