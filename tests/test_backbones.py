"""The table of backbones: every image classifier of keras.applications, scaled as it was trained, in stock layers."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.cloning import set_weights
from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones import BACKBONES, PIXEL_SCALINGS, check_backbone, smallest_of_families, table_name
from pipeline.backbones.loading import LoadedBackbone, build_application, load_backbone
from pipeline.backbones.stock import to_stock_layers
from pipeline.backbones.table import with_table
from pipeline.config import BackboneSection, read_config
from pipeline.scaling import scale_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3)).astype(np.float32)
IMAGES[0, 0, 0] = (0, 128, 255)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SMALLEST = smallest_of_families()
# They have hundreds of layers, which take long to build: with every other backbone in `make test-all`.
DEEPEST = {"densenet", "inception_resnet_v2", "inception_v3", "nasnet"}
# Where keras.applications keeps what prepares the pixels, for families whose module has another name.
MODULES = {"vgg16": "vgg16", "vgg19": "vgg19"}


def built(name: str) -> LoadedBackbone:
    px = BACKBONES[name].smallest_px
    return load_backbone(BackboneSection(name=name, weights="none"), Resize(px, px))


def test_every_image_classifier_of_keras_is_in_the_table() -> None:
    functions = {name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)}
    assert {row.builder.partition(":")[2] for row in BACKBONES.values()} == functions
    assert len(functions) >= 40


@pytest.mark.parametrize("name", BACKBONES)
def test_our_scaling_is_that_of_keras(name: str) -> None:
    row = BACKBONES[name]
    module = importlib.import_module(f"keras.applications.{MODULES.get(name, row.family)}")
    image = keras.Input((None, None, 3))
    ours = np.asarray(keras.Model(image, scale_pixels(image, row.pixel_scaling))(IMAGES))
    assert np.abs(ours - module.preprocess_input(IMAGES.copy())).max() < 2e-5
    # `none` only where the network scales raw pixels itself, which `test_what_scales_itself` looks at.
    assert (row.pixel_scaling == "none") == (row.family in SCALED_INSIDE)


def _of_inside(family: str) -> dict[str, np.ndarray]:
    torch = (IMAGES / 255 - MEAN) / DEVIATION
    # Without ImageNet's weights EfficientNet has no statistics to take out yet.
    return {
        "mobilenet_v3": IMAGES / 127.5 - 1,
        "efficientnet": IMAGES / 255,
        "efficientnet_v2": torch,
        "convnext": torch,
    }[family]


SCALED_INSIDE = ("mobilenet_v3", "efficientnet", "efficientnet_v2", "convnext")


@pytest.mark.parametrize("family", SCALED_INSIDE)
def test_what_scales_itself(family: str) -> None:
    check_scaled_inside(SMALLEST[family], built(SMALLEST[family]))


@pytest.fixture(scope="module")
def apart() -> Iterator[ProcessPoolExecutor]:
    """A process for the largest networks: TensorFlow keeps what it once took, several gigabytes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process


def check_scaled_inside(name: str, backbone: LoadedBackbone) -> None:
    model, family = backbone.model, BACKBONES[name].family
    scaling = [layer for layer in model.layers[1:4] if type(layer).__name__ in ("Rescaling", "Normalization")]
    assert scaling
    value = keras.ops.convert_to_tensor(IMAGES)
    for layer in scaling:
        value = layer(value)
    expected = (
        IMAGES / 128 - 1 if name[-2:] in ("_s", "_m", "_l") and family == "efficientnet_v2" else _of_inside(family)
    )
    assert np.abs(np.asarray(value) - expected).max() < 2e-5


@pytest.mark.parametrize("family", sorted(SMALLEST.keys() - DEEPEST))
def test_the_smallest_of_a_family_is_as_the_table_says(family: str) -> None:
    check_row(SMALLEST[family], built(SMALLEST[family]))


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_as_the_table_says(name: str, apart: ProcessPoolExecutor) -> None:
    apart.submit(check_whole, name).result()


def check_whole(name: str) -> None:
    """Built once for both: the largest ones have hundreds of millions of weights."""
    backbone = built(name)
    check_row(name, backbone)
    if BACKBONES[name].family in SCALED_INSIDE:
        check_scaled_inside(name, backbone)


def check_row(name: str, backbone: LoadedBackbone) -> None:
    row, model = BACKBONES[name], backbone.model
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert model.count_params() == row.params
    assert not model.trainable_weights
    assert backbone.usual_cut == row.usual_cuts[-1] == names[-1]
    heights = [model.get_layer(cut).output.shape[1] for cut in row.usual_cuts]
    assert heights == sorted(set(heights), reverse=True)
    for layer in model.operations:
        assert getattr(keras.layers, type(layer).__name__) is type(layer)
        assert not isinstance(layer, keras.Model)
    assert row.pixel_scaling in PIXEL_SCALINGS


@pytest.mark.parametrize("family", ["mobilenet_v3", "densenet", pytest.param("nasnet", marks=pytest.mark.slow)])
def test_names_do_not_depend_on_what_was_built_before(family: str) -> None:
    first = [layer.name for layer in built(SMALLEST[family]).model.layers]
    keras.layers.Activation("relu"), keras.layers.Conv2D(3, 3)
    assert [layer.name for layer in built(SMALLEST[family]).model.layers] == first
    assert first[0] == "input_layer"


@pytest.mark.parametrize(
    "name",
    [
        *("efficientnet_b0", "mobilenet_v3_small"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("convnext_tiny", "inception_resnet_v2")),
    ],
)
def test_stock_layers_answer_as_the_original_does(name: str) -> None:
    row = BACKBONES[name]
    original = build_application(row, 1.0, None, row.smallest_px, row.smallest_px)
    generator = np.random.default_rng(1)
    original.set_weights(
        [
            generator.uniform(0.5, 1.5, value.shape) if value.ndim == 1 else generator.normal(0, 0.05, value.shape)
            for value in original.get_weights()
        ]
    )
    stock = to_stock_layers(original)
    assert stock is not original
    images = generator.uniform(-1, 1, (2, row.smallest_px, row.smallest_px, 3)).astype(np.float32)
    expected, found = np.asarray(original(images)), np.asarray(stock(images))
    assert expected.std() > 0
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert stock.count_params() == original.count_params()


def test_weights_of_imagenet_bring_the_scaling_that_they_need(tmp_path: Path) -> None:
    row = BACKBONES["efficientnet_b0"]
    donor = build_application(row, 1.0, None, 32, 32)
    # As the published file has it: deviations where variances should stand.
    set_weights(donor.layers[2], [MEAN, DEVIATION, np.array(0)])
    donor.save_weights(tmp_path / "b0.weights.h5")
    section = BackboneSection(name="efficientnet_b0", weights=str(tmp_path / "b0.weights.h5"))
    model = load_backbone(section, Resize(32, 32)).model
    assert [layer.name for layer in model.layers[1:4]] == ["rescaling", "normalization", "rescaling_1"]
    scaled = keras.Model(model.inputs, model.get_layer("rescaling_1").output)
    images = np.random.default_rng(2).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    assert np.abs(np.asarray(scaled(images)) - (images / 255 - MEAN) / DEVIATION).max() < 2e-5


def test_a_network_whose_published_weights_are_of_one_size_takes_others(monkeypatch: pytest.MonkeyPatch) -> None:
    row, made = BACKBONES["nasnet_mobile"], []
    function = keras.applications.NASNetMobile

    def without_network(weights: str | None, **options: object) -> keras.Model:
        made.append((weights, options["input_shape"]))
        return function(weights=None, **options)

    monkeypatch.setattr(keras.applications, "NASNetMobile", without_network)
    model = load_backbone(BackboneSection(name="nasnet_mobile"), Resize(64, 32)).model
    assert made == [("imagenet", (row.usual_px, row.usual_px, 3)), (None, (32, 64, 3))]
    assert model.input_shape == (None, 32, 64, 3)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ResNet50V2", "resnet50_v2"),
        ("MobileNetV3Small", "mobilenet_v3_small"),
        ("EfficientNetB0", "efficientnet_b0"),
        ("efficientnetv2-b0", "efficientnet_v2_b0"),
        ("vgg16", "vgg16"),
        ("nothing", None),
    ],
)
def test_names_as_people_write_them(written: str, name: str | None) -> None:
    assert table_name(written) == name
    assert read_config(None, {"backbone.name": written}).backbone.name == (name or written)


@pytest.mark.parametrize(
    ("section", "px", "expected"),
    [
        (BackboneSection(name="resnet50", alpha=0.5, weights="none"), 64, "alpha 1, or one of mobilenet, "),
        (BackboneSection(name="inception_v3", weights="none"), 64, "at least 75 x 75 px"),
        (BackboneSection(name="mobilenet_v3_small", alpha=0.5), 64, "alpha one of 0.75, 1"),
        (BackboneSection(name="resnet51"), 64, "'resnet50'"),
    ],
)
def test_what_a_backbone_does_not_have(section: BackboneSection, px: int, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        check_backbone(section, Resize(px, px))
    assert expected in caught.value.expected


def test_an_alpha_other_than_imagenets_without_its_weights() -> None:
    check_backbone(BackboneSection(name="mobilenet_v3_small", alpha=0.5, weights="none"), Resize(64, 64))


def test_the_readme_shows_this_very_table() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert with_table(text) == text, "`make readme` makes it again"
    assert all(f"| `{name}`" in text for name in BACKBONES)
