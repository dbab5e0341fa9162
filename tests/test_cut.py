"""Cutting a backbone: the ways to name cut points, the candidates, and what stands at the cut."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones import BACKBONES, smallest_of_families
from pipeline.backbones.loading import LoadedBackbone, load_backbone
from pipeline.config import BackboneSection
from pipeline.costs import layer_costs
from pipeline.cut import Cut, candidate_cuts, cuts_of, named_cuts, resolve_cuts, truncate

SMALL = {"mobilenet": 0.25, "mobilenet_v2": 0.35}
SMALLEST = smallest_of_families()
# One with gates and one of skip connections; building the rest takes a while.
QUICK = ("mobilenet_v3_small", "resnet50")


@functools.cache
def load(name: str, px: int = 0) -> LoadedBackbone:
    row = BACKBONES[name]
    px = px or max(64, row.smallest_px)
    return load_backbone(BackboneSection(name=name, alpha=SMALL.get(name, 1.0), weights="none"), Resize(px, px))


@pytest.fixture(scope="module")
def backbones() -> dict[str, LoadedBackbone]:
    return {name: load(name) for name in SMALL}


@pytest.fixture(scope="module", params=list(SMALL))
def backbone(request: pytest.FixtureRequest, backbones: dict[str, LoadedBackbone]) -> LoadedBackbone:
    return backbones[request.param]


# --- truncating ----------------------------------------------------------------------------------------------------


def test_features_are_those_of_the_whole_network(backbone: LoadedBackbone) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    truncated = truncate(backbone.model, (backbone.usual_cut,))
    assert np.array_equal(truncated(images), backbone.model(images))
    early = truncate(backbone.model, backbone.usual_cuts[:1])
    assert len(early.layers) < len(backbone.model.layers)
    assert early.output_shape[1] > truncated.output_shape[1]
    assert early.count_params() < truncated.count_params()


def test_a_truncated_network_has_what_its_costs_say_and_nothing_beyond(backbone: LoadedBackbone) -> None:
    for row in layer_costs(backbone.model)[1:]:
        truncated = truncate(backbone.model, (row.name,))
        assert truncated.layers[-1].name == row.name
        assert truncated.count_params() == row.params
        assert tuple(truncated.output_shape[1:]) == row.shape
        assert cuts_of(truncated) == (row.name,)


def test_several_cuts_give_what_each_gives_alone(backbone: LoadedBackbone) -> None:
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    cuts = backbone.usual_cuts
    together = truncate(backbone.model, cuts)
    assert cuts_of(together) == cuts
    answers = together(images)
    assert list(answers) == list(cuts)
    for cut in cuts:
        assert np.array_equal(answers[cut], truncate(backbone.model, (cut,))(images))
    some = truncate(backbone.model, cuts[:2])
    assert some.count_params() == truncate(backbone.model, cuts[1:2]).count_params()


def test_a_layer_without_a_map_is_no_cut_point() -> None:
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.Conv2D(2, 3)(image))
    model = keras.Model(image, pooled)
    for cut in ("pooled", -1):
        with pytest.raises(InputError, match=r"'pooled' gives the shape \(None, 2\)"):
            resolve_cuts(LoadedBackbone(model, "none", "", "mine", "pooled", ()), cut)


# --- candidates ----------------------------------------------------------------------------------------------------


def test_one_or_two_candidates_for_each_block(backbones: dict[str, LoadedBackbone]) -> None:
    blocks = ("conv1_relu", *(f"conv_pw_{block}_relu" for block in range(1, 14)))
    assert candidate_cuts(backbones["mobilenet"].model) == blocks
    found = candidate_cuts(backbones["mobilenet_v2"].model)
    for block in range(1, 17):
        mine = [name.removeprefix(f"block_{block}_") for name in found if name.startswith(f"block_{block}_")]
        assert mine in (["add"], ["expand_relu", "project_BN"])
    assert found[-1] == "out_relu"
    assert len(found) == 25


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in SMALLEST.values()]
)
def test_candidates_of_every_family(name: str) -> None:
    backbone = load(name)
    rows = {row.name: row for row in layer_costs(backbone.model)}
    found = candidate_cuts(backbone.model)
    assert 8 <= len(found) <= 70
    assert found[-1] == backbone.usual_cut
    if name != "xception":
        # Its cuts before the end of a stage lie inside of a block, where another value goes round them.
        assert set(backbone.usual_cuts) <= set(found)
    costs = [rows[cut] for cut in found]
    assert [each.index for each in costs] == sorted(each.index for each in costs)
    assert [each.macs for each in costs] == sorted(each.macs for each in costs)
    assert all(len(each.shape) == 3 and each.macs for each in costs)
    gone = {"InputLayer", "ZeroPadding2D", "Cropping2D", "Rescaling", "Normalization", "DepthwiseConv2D"}
    assert not gone & {each.type for each in costs}
    # Nowhere lies more than half of the work between two of them.
    marks = [0, *(each.macs for each in costs)]
    assert max(np.diff(marks)) <= marks[-1] / 2
    assert {each.part for each in costs} == {"early", "middle", "late"}


# --- naming cuts ---------------------------------------------------------------------------------------------------


def test_every_layer_can_be_named_by_name_and_by_index(backbone: LoadedBackbone) -> None:
    names = [layer.name for layer in backbone.model.layers]
    for index, name in enumerate(names[1:], 1):
        below = index - len(names)
        for cut in (name, index, str(index), below, str(below), (name,), f" {name} "):
            assert resolve_cuts(backbone, cut) == (name,)


@pytest.mark.parametrize("cut", ["", (), ("",)])
def test_nothing_is_the_usual_cut_but_an_empty_list_is_a_mistake(backbone: LoadedBackbone, cut: Cut) -> None:
    if cut == ():
        with pytest.raises(InputError, match="list of cuts is empty"):
            resolve_cuts(backbone, cut)
    else:
        assert resolve_cuts(backbone, cut) == (BACKBONES[backbone.name].usual_cuts[-1],)


STRIDES = {
    "mobilenet": {8: "conv_pw_5_relu", 16: "conv_pw_11_relu", 32: "conv_pw_13_relu"},
    "mobilenet_v2": {4: "block_3_expand_relu", 8: "block_6_expand_relu", 16: "block_13_expand_relu", 32: "out_relu"},
    "resnet50": {4: "conv2_block3_out", 8: "conv3_block4_out", 16: "conv4_block6_out", 32: "conv5_block3_out"},
    "vgg16": {1: "block1_conv2", 16: "block5_conv3", 32: "block5_pool"},
    "inception_v3": {8: "mixed2", 16: "mixed7", 32: "mixed10"},
    "efficientnet_b0": {16: "block6a_expand_activation", 32: "top_activation"},
    "densenet121": {8: "pool3_conv", 32: "relu"},
}


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        pytest.param(name, strides, marks=[] if name in (*SMALL, "resnet50", "vgg16") else [pytest.mark.slow])
        for name, strides in STRIDES.items()
    ],
)
def test_the_deepest_layer_of_a_reduction(name: str, strides: dict[int, str]) -> None:
    backbone = load(name)
    assert {stride: resolve_cuts(backbone, f"stride:{stride}") for stride in strides} == {
        stride: (cut,) for stride, cut in strides.items()
    }


@pytest.mark.parametrize("stride", ["64", "0", "-16", "3", "", "x", "16.0", "٣", "9" * 5000])
def test_reductions_that_there_are_not(backbones: dict[str, LoadedBackbone], stride: str) -> None:
    with pytest.raises(InputError, match=f"no cut 'stride:{stride}'") as caught:
        resolve_cuts(backbones["mobilenet"], f"stride:{stride}")
    assert "stride:16 (conv_pw_11_relu)" in caught.value.expected


def test_lists_of_all_kinds_of_names(backbones: dict[str, LoadedBackbone]) -> None:
    backbone = backbones["mobilenet_v2"]
    index = [layer.name for layer in backbone.model.layers].index("block_2_add")
    expected = ("block_2_add", "block_6_expand_relu", "block_13_expand_relu", "out_relu")
    mixed = ("stride:16", "block_6_expand_relu", -1, index)
    assert resolve_cuts(backbone, mixed) == expected
    # As on a command line, where there are no lists.
    assert resolve_cuts(backbone, f"stride:16, block_6_expand_relu,-1,{index}") == expected
    assert named_cuts("a,b") == named_cuts(("a", "b")) == ("a", "b")


@pytest.mark.parametrize("cut", [("out_relu", -1), ("stride:32", "out_relu"), ("Conv1", "Conv1"), "Conv1,Conv1"])
def test_the_same_layer_twice(backbones: dict[str, LoadedBackbone], cut: Cut) -> None:
    with pytest.raises(InputError, match=r"are the same layer, '(out_relu|Conv1)'"):
        resolve_cuts(backbones["mobilenet_v2"], cut)


@pytest.mark.parametrize("cut", [0, "0", 999, "-999", -999, ("conv1", 999)])
def test_indices_that_are_no_cut(backbones: dict[str, LoadedBackbone], cut: Cut) -> None:
    with pytest.raises(InputError, match="cannot be cut") as caught:
        resolve_cuts(backbones["mobilenet"], cut)
    assert caught.value.mend == "`cutpoint layers mobilenet` lists them all"


@pytest.mark.parametrize("cut", ["conv_pw_13_rel", "Out_relu", "--5", "²", "1.5", "input_layer", "conv1,nothing"])
def test_names_that_are_no_layer(backbones: dict[str, LoadedBackbone], cut: str) -> None:
    with pytest.raises(InputError, match="has no layer") as caught:
        resolve_cuts(backbones["mobilenet"], cut)
    assert "cutpoint layers mobilenet" in caught.value.mend


def test_auto_is_no_layer_of_a_list(backbones: dict[str, LoadedBackbone]) -> None:
    with pytest.raises(InputError, match="'auto' stands where a layer is needed"):
        resolve_cuts(backbones["mobilenet"], ("auto", "conv1"))


def test_the_nearest_layer_is_named(backbones: dict[str, LoadedBackbone]) -> None:
    with pytest.raises(InputError) as caught:
        resolve_cuts(backbones["mobilenet"], "conv_pw13_relu")
    assert "'conv_pw_13_relu'" in caught.value.expected
