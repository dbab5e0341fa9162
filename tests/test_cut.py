"""Cutting a backbone: by name, by index, and what stands at the cut."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones import BACKBONES
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.cut import list_layers, resolve_cut, truncate

ALPHAS = {"mobilenet": 0.25, "mobilenet_v2": 0.35}


@pytest.fixture(scope="module")
def backbones() -> dict[str, keras.Model]:
    sections = {name: BackboneSection(name=name, alpha=ALPHAS.get(name, 1.0), weights="none") for name in BACKBONES}
    return {name: load_backbone(section, Resize(64, 64)).model for name, section in sections.items()}


@pytest.fixture(scope="module", params=list(BACKBONES))
def named(request: pytest.FixtureRequest, backbones: dict[str, keras.Model]) -> tuple[str, keras.Model]:
    return request.param, backbones[request.param]


def test_every_usual_cut_point_is_a_layer(named: tuple[str, keras.Model]) -> None:
    name, backbone = named
    row = BACKBONES[name]
    assert row.usual_cut in row.usual_cuts
    marked = {each.name for each in list_layers(backbone, name) if each.usual}
    assert marked == set(row.usual_cuts)
    assert resolve_cut(backbone, "", name) == row.usual_cut


def test_every_layer_can_be_named_by_name_and_by_index(named: tuple[str, keras.Model]) -> None:
    name, backbone = named
    for row in list_layers(backbone, name)[1:]:
        below = row.index - len(backbone.layers)
        found = {resolve_cut(backbone, cut, name) for cut in (row.name, row.index, str(row.index), below, str(below))}
        assert found == {row.name}


def test_the_list_counts_as_keras_does(named: tuple[str, keras.Model]) -> None:
    name, backbone = named
    rows = list_layers(backbone, name)
    assert [each.index for each in rows] == list(range(len(backbone.layers)))
    assert rows[-1].params == backbone.count_params()
    assert rows[0].reduction == 1
    assert rows[-1].reduction == 32
    for row in rows[1:]:
        assert row.shape == tuple(truncate(backbone, row.name).output_shape[1:])


def test_features_are_those_of_the_whole_network(named: tuple[str, keras.Model]) -> None:
    name, backbone = named
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    truncated = truncate(backbone, BACKBONES[name].usual_cut)
    assert np.array_equal(truncated(images), backbone(images))
    early = truncate(backbone, BACKBONES[name].usual_cuts[0])
    assert len(early.layers) < len(backbone.layers)
    assert early.output_shape[1] > truncated.output_shape[1]
    assert early.count_params() < truncated.count_params()


def test_a_truncated_network_has_nothing_beyond_its_cut(backbones: dict[str, keras.Model]) -> None:
    truncated = truncate(backbones["mobilenet"], "conv_pw_5_relu")
    assert truncated.layers[-1].name == "conv_pw_5_relu"
    assert "conv_dw_6" not in {layer.name for layer in truncated.layers}


@pytest.mark.parametrize("cut", [0, "0", 999, "-999", -999])
def test_indices_that_are_no_cut(backbones: dict[str, keras.Model], cut: str | int) -> None:
    with pytest.raises(InputError, match="cannot be cut") as caught:
        resolve_cut(backbones["mobilenet"], cut, "mobilenet")
    assert caught.value.mend == "`cutpoint layers mobilenet` lists them all"


@pytest.mark.parametrize("cut", ["conv_pw_13_rel", "Out_relu", "--5", "²", "1.5", " 3", "input_layer"])
def test_names_that_are_no_layer(backbones: dict[str, keras.Model], cut: str) -> None:
    with pytest.raises(InputError, match="has no layer") as caught:
        resolve_cut(backbones["mobilenet"], cut, "mobilenet")
    assert "cutpoint layers mobilenet" in caught.value.mend


def test_the_nearest_layer_is_named(backbones: dict[str, keras.Model]) -> None:
    with pytest.raises(InputError) as caught:
        resolve_cut(backbones["mobilenet"], "conv_pw13_relu", "mobilenet")
    assert "'conv_pw_13_relu'" in caught.value.expected


def test_a_layer_without_a_map_is_no_cut_point() -> None:
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.Conv2D(2, 3)(image))
    with pytest.raises(InputError, match=r"'pooled' gives the shape \(None, 2\)"):
        truncate(keras.Model(image, pooled), "pooled")
