"""Rewriting and folding: exact, at every name that can be cut at, and of a kind that all formats hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from random_backbones import COLORS, pictures, settle
from small_models import write_pictures

from exporters.contract import (
    CEILINGS,
    WHOLE_NUMBERS,
    ArtifactName,
    Backbone,
    Card,
    Output,
    Resize,
    parse_formats,
    usual_formats,
)
from exporters.convolutions import gelu
from exporters.correction import can_correct, correct
from exporters.errors import InputError
from exporters.export import export_artifact
from exporters.fingerprints import write_fingerprints
from exporters.folding import fold
from exporters.golden import FEATURES_IMAGES, GoldenSet, write_golden, write_manifest
from exporters.golden_files import images_of_files, prepare_files
from exporters.inference import InferenceModels
from exporters.measures import spread
from exporters.rewriting import rewrite
from exporters.rounding import PART, per_channel_grid, round_by_least_squares, round_in_parts
from exporters.runners.keras import KerasRunner
from exporters.verification import verify_folder

SIDE_PX = 32
CUT = "stem"
NOTHING = 1e-6
LABELS = tuple(COLORS)
# Not those on request: TFLite's converter has no hard swish in 16 bits.
EVERY_ARTIFACT = parse_formats(list(usual_formats()))
CARD = Card(
    "motley",
    Resize(SIDE_PX, SIDE_PX),
    (Output("label", "linear", "multiclass", (len(LABELS),), labels=LABELS),),
    Backbone("motley", None, "", "none"),
    (CUT,),
    created_from="sha256:motley",
)
layers = keras.layers


def motley() -> keras.Model:
    """One layer or more of every kind that a backbone of the table has, and of some that none has."""
    keras.utils.set_random_seed(2)
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06])(layers.Rescaling(1 / 255)(image))
    values = layers.ZeroPadding2D(((0, 1), (0, 1)))(values)
    values = layers.BatchNormalization()(layers.Conv2D(12, 3, 2, use_bias=False)(values))
    values = layers.Activation("hard_silu")(values)
    values = layers.SeparableConv2D(12, 3, padding="same", use_bias=False, name="separable")(values)
    values = layers.ReLU(name="behind_separable")(layers.BatchNormalization(name="separable_norm")(values))
    values = _excited(values) + _inverted(values)
    values = layers.Concatenate()([values, layers.AveragePooling2D(3, 1, padding="same")(values)])
    values = layers.Activation("relu")(layers.BatchNormalization(name="before")(values))
    values = layers.Conv2D(16, 3, 2, groups=2, padding="same", use_bias=False, name="halves")(values)
    values = layers.Activation("silu", name="silu")(layers.BatchNormalization(name="halves_norm")(values))
    stem = [layers.Conv2D(24, 1, name="silu_"), layers.BatchNormalization(), layers.ReLU(6.0, name="inner_relu")]
    values = layers.Dropout(0.3)(keras.Sequential(stem, name=CUT)(values))
    values = layers.GlobalAveragePooling2D(name="pooled")(values)
    return keras.Model(
        image, {"label": layers.Dense(len(LABELS), activation="softmax", name="label")(values)}, name="motley"
    )


def _excited(values: keras.KerasTensor) -> keras.KerasTensor:
    gate = layers.GlobalAveragePooling2D(keepdims=True)(values)
    gate = layers.Conv2D(12, 1, name="excite")(layers.Conv2D(4, 1, activation="relu", name="squeeze")(gate))
    gate = layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)
    return layers.BatchNormalization(name="excited")(layers.Conv2D(12, 1, name="project")(values * gate))


def _inverted(values: keras.KerasTensor) -> keras.KerasTensor:
    values = layers.Conv2D(12, 5, padding="same", groups=12, name="depthwise")(values)
    values = layers.LayerNormalization(epsilon=1e-6, name="normed")(values)
    values = layers.Activation("gelu", name="gelu")(layers.Dense(24, name="wide")(values))
    values = layers.Dense(12, name="narrow")(values)
    return layers.DepthwiseConv2D(1, use_bias=False, name="branch_scale")(values)


@pytest.fixture(scope="module")
def settled() -> keras.Model:
    model = motley()
    shown, truth = pictures(300, SIDE_PX, 3)
    settle(model, shown[:24])
    _fit(model.get_layer("label"), _values(model, "pooled", shown), truth)
    return model


def _values(model: keras.Model, name: str, images: np.ndarray) -> np.ndarray:
    return np.asarray(keras.Model(model.inputs, model.get_layer(name).output)(images.astype(np.float32)))


def _fit(dense: keras.layers.Dense, features: np.ndarray, truth: np.ndarray) -> None:
    """Fit a softmax regression by gradient descent, in plain numpy."""
    mean, deviation = features.mean(0), features.std(0) + 0.05
    scaled, wanted = (features - mean) / deviation, np.eye(len(LABELS))[truth]
    kernel, bias = np.zeros((features.shape[1], len(LABELS))), np.zeros(len(LABELS))
    for _ in range(200):
        odds = np.exp(scaled @ kernel + bias)
        off = (wanted - odds / odds.sum(1, keepdims=True)) / len(truth)
        kernel, bias = kernel + 0.5 * scaled.T @ off, bias + 0.5 * off.sum(0)
    kernel = kernel / deviation[:, None]
    dense.set_weights([kernel, bias - mean @ kernel])


@pytest.mark.parametrize("format_name", ["tfjs", "tflite", "onnx"])
def test_what_a_format_cannot_hold_is_told_by_the_layers_name(format_name: str, tmp_path: Path) -> None:
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Resizing(8, 8, interpolation="lanczos3", name="squeezed")(layers.Conv2D(4, 3, name="first")(image))
    values = layers.Dense(len(LABELS), name="label")(layers.GlobalAveragePooling2D()(values))
    model = keras.Model(image, {"label": values})
    models = InferenceModels(model, None, pictures(4, SIDE_PX, 0)[0], tmp_path / "models", features_everywhere=False)
    name, card = ArtifactName(format_name, "float32"), dataclasses.replace(CARD, cut=())
    with pytest.raises(InputError, match=r"'squeezed' \(ScaleAndTranslate\)") as raised:
        export_artifact(
            name, models.saved_model("float32"), card, tmp_path, np.zeros((0, SIDE_PX, SIDE_PX, 3), np.uint8)
        )
    assert raised.value.exit_code == 2
    assert "--formats" in raised.value.mend


CUTS = (
    "stem",
    "separable",
    "separable_norm",
    "behind_separable",
    "halves",
    "before",
    "excited",
    "narrow",
    "normed",
    "gelu",
)


@pytest.mark.parametrize("cut", [*CUTS, "branch_scale", "normalization", "dropout"])
def test_what_a_name_stands_for_stays_the_same(cut: str, settled: keras.Model) -> None:
    images = pictures(6, SIDE_PX, 4)[0]
    name = cut if cut in {each.name for each in settled.layers} else _name_of_kind(settled, cut)
    folded = fold(settled, [name])
    assert folded.model.output_names == ["label"]
    expected, found = _values(settled, name, images), _values(folded.model, folded.layer_name(name), images)
    assert np.abs(expected - found).max() <= 3e-5 * np.abs(expected).max() and np.ptp(expected)


def _name_of_kind(model: keras.Model, kind: str) -> str:
    return next(each.name for each in model.layers if type(each).__name__.lower() == kind)


def test_only_kinds_that_every_format_holds_are_left(settled: keras.Model) -> None:
    folded = fold(settled, [CUT])
    kinds = [type(each).__name__ for each in folded.model.operations]
    assert not {"SeparableConv2D", "Normalization", "Dropout", "Sequential", "Functional"} & set(kinds)
    # What stands behind the concatenations cannot be folded.
    assert kinds.count("BatchNormalization") == 2
    # Of two pixel scalings one is left; the gate's + 3 and 1 / 6 and the branch's scale are in the layers around them.
    assert kinds.count("Rescaling") == 1
    assert all(each.groups == 1 for each in folded.model.layers if isinstance(each, layers.Conv2D))
    assert can_correct(folded.model)
    names = [each.name for each in folded.model.operations]
    assert len(set(names)) == len(names)


def test_a_rewritten_model_leaves_the_given_one_alone(settled: keras.Model) -> None:
    before = [each.copy() for each in settled.get_weights()]
    rewritten = rewrite(settled).model
    mine = {id(each) for each in settled._flatten_layers()}
    assert not any(id(each) in mine for each in rewritten.layers)
    for one, other in zip(before, settled.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gelu_is_keras_own() -> None:
    values = np.linspace(-9, 9, 4001, dtype=np.float32)
    expected = np.asarray(keras.activations.gelu(values))
    assert np.abs(np.asarray(gelu(values)) - expected).max() <= NOTHING


def test_approximate_gelu_is_left_as_it_is() -> None:
    values = keras.Input((4, 4, 2))
    model = keras.Model(
        values, layers.Activation(keras.activations.relu6)(layers.Conv2D(2, 1, activation="gelu")(values))
    )
    kinds = [each.activation for each in rewrite(model).model.layers if hasattr(each, "activation")]
    assert kinds == [gelu, keras.activations.relu6]


def test_a_layer_called_twice_stays_one_and_is_not_folded_into() -> None:
    values = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    behind = layers.BatchNormalization(name="behind")(shared(shared(values)))
    model = keras.Model(values, {"label": behind})
    settle(model, pictures(4, 8, 0)[0] / 255)
    folded = fold(model).model
    assert [each.name for each in folded.layers if each.weights] == ["shared", "behind"]
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(folded(images)["label"], model(images)["label"], atol=1e-5)


def test_nothing_is_folded_into_a_layer_that_is_wanted_itself() -> None:
    values = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 1, name="first")(values)
    model = keras.Model(values, {"label": layers.ReLU()(layers.BatchNormalization(name="norm")(first))})
    assert [each.name for each in fold(model).model.layers if each.weights] == ["first"]
    kept = fold(model, ["first"])
    assert [each.name for each in kept.model.layers if each.weights] == ["first", "norm"]
    assert kept.layer_name("norm") == "norm"


STEMS = {
    "convolution": (layers.Conv2D, {"filters": 4, "kernel_size": 3}),
    "strided": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "strides": 2, "use_bias": False}),
    "depthwise": (layers.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}),
}


@pytest.mark.parametrize("kind", STEMS)
@pytest.mark.parametrize("offset", [0.0, -1.0, [0.5, -0.25, 2.0]], ids=["none", "number", "channels"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pixel_scaling_goes_into_the_first_layer_unless_a_padding_of_0_is_between(
    kind: str, offset: Any, padding: str
) -> None:
    layer, settings = STEMS[kind]
    image = keras.Input((8, 8, 3))
    values = layers.Rescaling(1 / 127.5, offset=offset, name="pixel_scaling")(image)
    values = layers.BatchNormalization(name="norm")(layer(padding=padding, name="stem", **settings)(values))
    model = keras.Model(image, {"label": values})
    shown = pictures(6, 8, 0)[0].astype(np.float32)
    settle(model, shown)
    folded = fold(model, ["norm"])
    names = {each.name for each in folded.model.layers}
    assert ("pixel_scaling" in names) == (padding == "same" and bool(np.any(offset)))
    assert folded.layer_name("norm") == "stem"
    np.testing.assert_allclose(folded.model(shown)["label"], model(shown)["label"], atol=1e-5)
    assert "pixel_scaling" in {each.name for each in fold(model, ["pixel_scaling"]).model.layers}


def test_pixel_scaling_that_two_layers_take_stays() -> None:
    image = keras.Input((8, 8, 3))
    values = layers.Rescaling(1 / 255, name="pixel_scaling")(image)
    both = layers.Concatenate()([layers.Conv2D(2, 3)(values), layers.Conv2D(2, 3)(values)])
    assert "pixel_scaling" in {each.name for each in fold(keras.Model(image, {"label": both})).model.layers}


def test_a_dense_layer_takes_over_the_scaling_before_it() -> None:
    values = keras.Input((3,))
    scaled = layers.Rescaling([0.5, 2.0, 1.0], offset=[1.0, 0.0, -1.0])(values)
    model = keras.Model(values, {"label": layers.Dense(2, use_bias=False)(scaled)})
    folded = fold(model).model
    assert len(folded.layers) == 2
    numbers = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(folded(numbers)["label"], model(numbers)["label"], atol=1e-6)


def test_a_large_kernel_is_rounded_in_parts_nearly_as_well() -> None:
    generator = np.random.default_rng(0)
    count = PART + 200
    rows = generator.normal(size=(1, 2048, count)) + generator.normal(size=(1, 2048, 1))
    matrix = generator.normal(size=(1, count, 3))
    grid = per_channel_grid(matrix)
    truth = rows[0] - rows[0].mean(0)
    nearest = np.stack([grid(matrix[:, index], np.asarray(index)) for index in range(count)], axis=1)
    errors = {
        name: np.abs(truth @ (values - matrix)[0]).mean()
        for name, values in (
            ("nearest", nearest),
            ("whole", round_by_least_squares(matrix, rows, grid)),
            ("parts", round_in_parts(matrix, rows, grid)),
        )
    }
    assert errors["parts"] < 0.7 * errors["nearest"]
    assert errors["whole"] <= errors["parts"] < 2 * errors["whole"]


def test_the_correction_goes_through_every_kind_of_layer(settled: keras.Model) -> None:
    shown = pictures(48, SIDE_PX, 5)[0]
    folded = fold(settled).model
    rounded = correct(folded, "int8", shown)
    for layer in rounded.layers:
        if isinstance(layer, layers.Conv2D):
            steps = np.asarray(layer.kernel) / (np.abs(np.asarray(layer.kernel)).max((0, 1, 2)) / 127)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    held_out = pictures(60, SIDE_PX, 6)[0].astype(np.float32)
    expected, found = (np.asarray(each(held_out)["label"]) for each in (folded, rounded))
    assert np.abs(expected - found).mean() < 0.02


@pytest.fixture(scope="module")
def report(settled: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out, work = tmp_path_factory.mktemp("motley"), tmp_path_factory.mktemp("models")
    images, truth = pictures(240, SIDE_PX, 7)
    calibration = pictures(64, SIDE_PX, 8)[0]
    models = InferenceModels(settled, CUT, calibration, work, features_everywhere=False)
    for name in EVERY_ARTIFACT:
        export_artifact(name, models.saved_model(name.precision), CARD, out / "artifacts", calibration)
    precisions = {name.precision: models.rounding(name.precision) for name in EVERY_ARTIFACT}
    ordered = sorted(precisions, key=lambda precision: precision in WHOLE_NUMBERS)
    write_fingerprints({precisions[each]: models.weight_set(each) for each in ordered}, precisions, out / "golden")
    files = prepare_files(write_pictures(out / "pictures"), out)
    with KerasRunner(settled) as runner:
        reference, of_files = runner.predict(images), runner.predict(images_of_files(files, CARD))
    features = _values(settled, CUT, images[spread(len(images), FEATURES_IMAGES)])
    golden = GoldenSet(images, {"label": truth}, reference, CARD, CEILINGS, features={"features": features})
    write_golden(golden, out, files, of_files)
    write_manifest(out, CARD, CEILINGS)
    return verify_folder(Path(out), runtimes=("tfjs-node", "litert", "onnxruntime"))


@pytest.mark.parametrize("name", EVERY_ARTIFACT, ids=str)
def test_every_format_holds_every_kind_of_layer(name: Any, report: dict[str, Any]) -> None:
    entry = next(each for each in report["artifacts"] if each["name"] == str(name))
    assert entry["audit"]["status"] == "verified", entry["audit"]["reason"]
    for runtime in entry["runtimes"]:
        assert runtime["status"] == "verified", runtime["reason"]


def test_what_is_activated_twice_is_activated_once() -> None:
    image = keras.Input((8, 8, 3), name="image")
    value = keras.layers.Conv2D(4, 3, name="conv")(image)
    first = keras.layers.Activation("relu", name="first")(value)
    second = keras.layers.Activation("relu", name="second")(value)
    other = keras.layers.Activation("tanh", name="other")(value)
    model = keras.Model(image, {"label": keras.layers.Concatenate(name="label")([first, second, other])})
    rewritten = rewrite(model)
    assert [layer.name for layer in rewritten.model.layers] == ["image", "conv", "first", "other", "label"]
    assert rewritten.renamed["second"] == "first"
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    found, expected = (np.asarray(each(images)["label"]) for each in (rewritten.model, model))
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(found, expected)
