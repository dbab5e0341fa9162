"""What layers cost: against counts by hand, against what is published of well-known networks, and in graphs that branch."""

from __future__ import annotations

import functools

import keras
import pytest

from exporters.contract import Resize
from pipeline.backbones import BACKBONES
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.costs import LayerCost, layer_costs, multiply_accumulates

layers = keras.layers


@functools.cache
def network(name: str) -> keras.Model:
    px = BACKBONES[name].usual_px
    return load_backbone(BackboneSection(name=name, weights="none"), Resize(px, px)).model


def costs(model: keras.Model) -> dict[str, LayerCost]:
    return {row.name: row for row in layer_costs(model)}


# --- one layer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(8, 3, padding="same"), 10 * 12 * 3 * 3 * 4 * 8),
        (layers.Conv2D(8, 3), 8 * 10 * 3 * 3 * 4 * 8),
        (layers.Conv2D(8, (3, 1), 2, padding="same", use_bias=False), 5 * 6 * 3 * 4 * 8),
        (layers.Conv2D(8, 3, padding="same", groups=2), 10 * 12 * 3 * 3 * 2 * 8),
        (layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2), 5 * 6 * 3 * 3 * 4 * 2),
        (layers.SeparableConv2D(8, 3, padding="same"), 10 * 12 * (3 * 3 * 4 + 4 * 8)),
        (layers.Conv2DTranspose(8, 3, 2, padding="same"), 10 * 12 * 3 * 3 * 4 * 8),
        (layers.Dense(8), 10 * 12 * 4 * 8),
        (layers.BatchNormalization(), 0),
        (layers.ReLU(), 0),
        (layers.AveragePooling2D(2), 0),
    ],
    ids=lambda each: each.name if isinstance(each, layers.Layer) else "",
)
def test_multiply_accumulates_by_hand(layer: layers.Layer, expected: int) -> None:
    image = keras.Input((10, 12, 4))
    layer(image)
    assert multiply_accumulates(layer) == expected


# --- whole networks ------------------------------------------------------------------------------------------------

# The published counts are of the whole classifier: what its top adds is added here.
PUBLISHED = {
    # Sandler et al. 2018, table 4: 300 million; Howard et al. 2017, table 4: 569 million.
    "mobilenet_v2": (1280 * 1000, 0.995e6 * 300, 1.005e6 * 301),
    "mobilenet": (1024 * 1000, 568e6, 570e6),
    # He et al. 2015, table 1: 3.8 billion, with the strides at another place than Keras has them.
    "resnet50": (2048 * 1000, 3.8e9, 4.1e9),
    # Widely quoted as 15.5 billion.
    "vgg16": (7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000, 15.3e9, 15.5e9),
    # Tan and Le 2019, table 2: 0.39 billion.
    "efficientnet_b0": (1280 * 1000, 0.38e9, 0.395e9),
    # Szegedy et al. 2015: 5 billion and more; counted as 5.7 billion by others.
    "inception_v3": (2048 * 1000, 5.6e9, 5.8e9),
}
EXACT = {"mobilenet_v2": 299_494_272, "mobilenet": 567_716_352, "vgg16": 15_346_630_656, "resnet50": 3_855_925_248}


@pytest.mark.parametrize(
    "name", [name if name in EXACT else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
)
def test_networks_cost_what_is_published(name: str) -> None:
    model = network(name)
    rows = layer_costs(model)
    top, least, most = PUBLISHED[name]
    assert least <= rows[-1].macs + top <= most
    assert rows[-1].macs == EXACT.get(name, rows[-1].macs)
    assert rows[-1].params == model.count_params() == BACKBONES[name].params
    assert rows[0].params == rows[0].macs == 0


def test_every_step_of_vgg16_by_hand() -> None:
    rows = costs(network("vgg16"))
    macs, channels = 0, 3
    for block, (filters, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        side = 224 // 2 ** (block - 1)
        for index in range(1, count + 1):
            macs += side * side * 9 * channels * filters
            channels = filters
            assert rows[f"block{block}_conv{index}"].macs == macs
            assert rows[f"block{block}_conv{index}"].reduction == 2 ** (block - 1)
        assert rows[f"block{block}_pool"].reduction == 2**block


# --- graphs --------------------------------------------------------------------------------------------------------


def branched() -> keras.Model:
    """A stem; two branches, one with a gate and one that leads nowhere but to the second output's layer; a sum; an end."""
    image = keras.Input((32, 32, 3), name="image")
    stem = layers.Conv2D(4, 3, 2, padding="same", name="stem")(image)
    padded = layers.ZeroPadding2D(1, name="pad")(stem)
    left = layers.Conv2D(4, 3, 2, name="left")(padded)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(left)
    gate = layers.Conv2D(2, 1, name="reduce")(gate)
    gate = layers.Conv2D(4, 1, activation="sigmoid", name="expand")(gate)
    left = layers.Multiply(name="gated")([left, gate])
    right = layers.MaxPooling2D(2, name="right")(stem)
    total = layers.Add(name="sum")([left, right])
    up = layers.UpSampling2D(2, name="up")(total)
    end = layers.Conv2DTranspose(5, 3, 2, padding="same", name="end")(up)
    return keras.Model(image, end)


def test_reductions_are_strides_and_not_sizes() -> None:
    rows = costs(branched())
    found = {name: row.reduction for name, row in rows.items()}
    assert (found["image"], found["stem"], found["pad"], found["left"], found["right"], found["sum"]) == (
        1,
        2,
        2,
        4,
        4,
        4,
    )
    assert found["squeeze"] is found["reduce"] is found["expand"] is None
    assert (found["gated"], found["up"], found["end"]) == (4, 2, 1)
    assert rows["pad"].shape == (18, 18, 4)
    # Without padding a map is smaller than its stride says: 299 px come out of InceptionV3's stride of 16 as 17 px.
    mixed = costs(network("inception_v3"))["mixed4"]
    assert (mixed.shape[0], mixed.reduction) == (17, 16)


def test_only_what_a_layer_depends_on_is_counted() -> None:
    model = branched()
    rows = costs(model)
    of_stem = 16 * 16 * 27 * 4
    assert rows["right"].macs == rows["stem"].macs == of_stem
    assert rows["right"].params == 27 * 4 + 4
    of_left = 8 * 8 * 36 * 4
    of_gate = 4 * 2 + 2 * 4
    assert rows["left"].macs == of_stem + of_left
    assert rows["sum"].macs == of_stem + of_left + of_gate
    assert rows["end"].macs == rows["sum"].macs + 16 * 16 * 9 * 4 * 5
    assert rows["end"].params == model.count_params()


def test_bottlenecks_are_what_everything_goes_through() -> None:
    assert [row.name for row in layer_costs(branched()) if row.bottleneck] == ["image", "stem", "sum", "up", "end"]


def test_parts_are_thirds_of_the_depth() -> None:
    rows = costs(branched())
    assert [rows[name].depth for name in ("image", "stem", "left", "gated", "sum", "end")] == [0, 1, 2, 2, 2, 3]
    # A gate is no way along which a network grows deeper.
    assert rows["expand"].depth == 4
    assert [rows[name].part for name in ("stem", "sum", "end")] == ["early", "middle", "late"]


def test_parts_of_a_well_known_network() -> None:
    rows = costs(network("resnet50"))
    parts = {name: rows[name].part for name in ("conv2_block3_out", "conv4_block1_out", "conv5_block1_out")}
    assert parts == {"conv2_block3_out": "early", "conv4_block1_out": "middle", "conv5_block1_out": "late"}


def test_operators_beside_each_other() -> None:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    rows = costs(keras.Model(image, layers.Add(name="sum")([shared(image), layers.ReLU(name="relu")(image)])))
    assert rows["sum"].params == 84
    assert rows["sum"].macs == 8 * 8 * 27 * 3


def test_operations_outside_of_layers_are_walked_through() -> None:
    image = keras.Input((8, 8, 3), name="image")
    first = layers.Conv2D(3, 3, 2, padding="same", name="first")(image)
    second = layers.Conv2D(3, 3, padding="same", name="second")(first * 2 + 1)
    rows = costs(keras.Model(image, second))
    assert list(rows) == ["image", "first", "second"]
    assert (rows["second"].macs, rows["second"].reduction) == (2 * 4 * 4 * 27 * 3, 2)


def test_an_open_size_has_no_costs() -> None:
    image = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="no fixed size"):
        layer_costs(keras.Model(image, layers.Conv2D(2, 3)(image)))
