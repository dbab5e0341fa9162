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
from exporters.correction import correct, correct_and_measure, is_weighted
from exporters.folding import fold
from exporters.inputs import Inputs
from exporters.simulation import Ranges, ratios_in_steps
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


def snr(one: Settled, rounded: keras.Model, precision: str, ranges: Ranges | None = None) -> float:
    """The ratio of signal to noise of the features on held-out pictures, in decibels."""
    return ratios_in_steps(one.model, rounded, one.held_out, precision, ranges)[one.cut]


@pytest.mark.slow
@pytest.mark.parametrize("name, gain", [("mobilenet_v3_small", 5.0), ("efficientnet_b0", 1.0)])
def test_correction_takes_noise_away(name: str, gain: float) -> None:
    one = settled(name)
    near = to_nearest(one.model)
    alone = correct(one.model, "dynamic_int8", one.calibration)
    made = {
        each: correct_and_measure(one.model, "int8", one.calibration, exact_inputs=each == "exact inputs")
        for each in ("corrected", "exact inputs")
    }
    ranges = made["corrected"][1]
    weights = snr(one, near, "float32"), snr(one, alone, "float32")
    before, exact = snr(one, near, "int8", ranges), snr(one, one.model, "int8", ranges)
    after = {each: snr(one, rounded, "int8", own) for each, (rounded, own) in made.items()}
    print(
        f"{name}: weights alone {weights[0]:.1f} to {weights[1]:.1f} dB; int8 {before:.1f} dB, {after}, at most {exact:.1f}"
    )
    # Rounding weights to the nearest value is most of the noise, and nearly all of that goes.
    assert weights[1] > weights[0] + 7
    # Roundings of activations stay: no mean takes them back.
    assert after["corrected"] > before and max(after.values()) > before + gain
