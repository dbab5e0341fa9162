"""The smallest member of every family of backbones: rewritten and folded; the quickest one the whole way, judged everywhere."""

from __future__ import annotations

from pathlib import Path

import families
import keras
import numpy as np
import pytest
from families import FAMILIES, alpha_of, side_of
from random_backbones import pictures, settle

from exporters.contract import Resize
from exporters.folding import fold
from pipeline.backbones import backbone_row
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.scaling import scale_pixels

# Of float32's rounding, relative to the largest value.
LARGEST_FOLDING_DIFFERENCE = 3e-5
# They have hundreds of layers, which take long to build.
DEEPEST = ("inception_resnet_v2", "inception_v3", "nasnet_mobile")


def test_every_family_goes_the_whole_way_once() -> None:
    groups = (families.SMALLEST, families.MOBILE, families.RESIDUAL, families.DEEP, families.WIDE)
    assert sorted(name for group in groups for name in group) == sorted(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", families.SMALLEST)
def test_the_whole_way_to_every_format(name: str, tmp_path: Path) -> None:
    families.check_the_whole_way(name, tmp_path, everywhere=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in DEEPEST else []) for name in FAMILIES]
)
def test_rewriting_and_folding_change_no_answer_and_no_cut(name: str) -> None:
    """At the first usual cut, where all of a family's kinds of layers have been met; the features too are compared."""
    side, row = side_of(name), backbone_row(name)
    keras.utils.set_random_seed(0)
    section = BackboneSection(name=name, alpha=alpha_of(name), weights="none")
    network = load_backbone(section, Resize(side, side)).model
    cut = row.usual_cuts[0]
    inner = [each for each in network.layers if each.name == cut]
    model = keras.Model(network.inputs, {"label": inner[0].output})
    shown, _ = pictures(8, side, 2)
    image = keras.Input((side, side, 3))
    scaled = keras.Model(image, scale_pixels(image, row.pixel_scaling))(shown.astype(np.float32))
    settle(model, keras.ops.convert_to_numpy(scaled))
    folded = fold(model, [cut])
    expected = keras.ops.convert_to_numpy(model(scaled)["label"])
    at_cut = keras.Model(folded.model.inputs, folded.model.get_layer(folded.layer_name(cut)).output)
    for found in (folded.model(scaled)["label"], at_cut(scaled)):
        difference = np.abs(keras.ops.convert_to_numpy(found) - expected).max() / np.abs(expected).max()
        assert np.ptp(expected) > 0
        assert difference < LARGEST_FOLDING_DIFFERENCE
    left = {type(each).__name__ for each in folded.model.operations}
    assert not left & {"SeparableConv2D", "Normalization", "Dropout", "Sequential", "Functional"}
