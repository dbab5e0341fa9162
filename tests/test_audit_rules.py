"""The audit's rules over made-up and real insides: what is equal or half a step off passes, what is more does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.audit.auditing import audit
from exporters.audit.contents import Constant, Layer
from exporters.audit.weights import Pair, compare_layer, pair_layers, with_scaling
from exporters.contract import ArtifactName, Card
from exporters.export import export_artifact
from exporters.fingerprints import Fingerprint
from exporters.inference import InferenceModels
from tests import small_models

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
BIAS = np.random.default_rng(1).normal(size=8).astype(np.float32)
EXPECTED = Fingerprint("first", "conv", KERNEL, BIAS, "relu6")


def layer_of(kernel: np.ndarray, bias: np.ndarray | None, step: float = 0.0, dtype: str = "float32") -> Layer:
    stored = [
        Constant("weights", dtype, each, np.full(1, step, np.float32)) for each in (kernel, bias) if each is not None
    ]
    return Layer("conv 1", "conv", stored[0], stored[1] if len(stored) > 1 else None, "relu6", "out")


def excess(kernel: np.ndarray, bias: np.ndarray | None = BIAS, step: float = 0.0, dtype: str = "float32") -> float:
    return compare_layer(Pair(layer_of(kernel, bias, step, dtype), EXPECTED)).excess


@pytest.mark.parametrize(
    ("off", "step", "dtype", "caught"),
    [
        (0.0, 0.0, "float32", False),
        (1e-7, 0.0, "float32", False),
        (1e-4, 0.0, "float32", True),
        (0.005, 0.01, "int8", False),
        (0.0055, 0.01, "int8", True),
        (0.01, 0.01, "int8", True),
    ],
)
def test_one_value_may_be_off_by_half_a_step(off: float, step: float, dtype: str, caught: bool) -> None:
    kernel = KERNEL.copy()
    kernel[1, 2, 3, 4] += off
    found = compare_layer(Pair(layer_of(kernel, BIAS, step, dtype), EXPECTED))
    assert (found.excess > 1) == caught and found.compared == KERNEL.size + BIAS.size
    if caught:
        assert found.place.startswith("kernel[1, 2, 3, 4] is")
    assert (found.steps is None) == (step == 0)


def test_float16_may_be_off_by_its_own_rounding() -> None:
    assert (
        excess(KERNEL.astype(np.float16).astype(np.float32), BIAS.astype(np.float16).astype(np.float32), 0, "float16")
        <= 1
    )
    assert excess(KERNEL * 1.002, BIAS, 0, "float16") > 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_equal(value: float) -> None:
    kernel = KERNEL.copy()
    kernel[0, 0, 0, 0] = value
    assert excess(kernel) == np.inf


def test_a_missing_bias_is_zeros() -> None:
    assert excess(KERNEL, None) > 1
    without = dataclasses.replace(EXPECTED, bias=None)
    assert compare_layer(Pair(layer_of(KERNEL, None), without)).excess <= 1
    assert compare_layer(Pair(layer_of(KERNEL, np.zeros(8, np.float32)), without)).excess <= 1
    assert compare_layer(Pair(layer_of(KERNEL, BIAS), without)).excess > 1
    assert compare_layer(Pair(layer_of(KERNEL, BIAS[:4]), EXPECTED)).excess == np.inf


def test_layers_are_paired_in_order_or_by_the_nearest_kernel() -> None:
    prints = [dataclasses.replace(EXPECTED, name=f"l{index}", kernel=KERNEL + index) for index in range(3)]
    layers = [layer_of(each.kernel, BIAS) for each in prints]
    for order in ([0, 1, 2], [2, 0, 1]):
        pairs = pair_layers([layers[index] for index in order], prints)
        assert [pair.expected.name for pair in pairs] == ["l0", "l1", "l2"]
        assert all(np.array_equal(pair.layer.kernel.values, pair.expected.kernel) for pair in pairs)
    pairs = pair_layers(layers[:2], prints)
    assert [pair.layer is None for pair in pairs] == [False, False, True]
    pairs = pair_layers(layers, prints[1:])
    assert pairs[-1].expected is None and np.array_equal(pairs[-1].layer.kernel.values, prints[0].kernel)


@pytest.mark.parametrize(("kind", "shape"), [("conv", (3, 3, 3, 5)), ("depthwise", (3, 3, 3, 2)), ("dense", (3, 5))])
@pytest.mark.parametrize("offset", [-1.0, np.array([-2.0, 0.5, 1.0], np.float32)], ids=["scalar", "per channel"])
def test_pixel_scaling_folded_into_a_layer(kind: str, shape: tuple[int, ...], offset: float | np.ndarray) -> None:
    """The formula against Keras itself."""
    generator = np.random.default_rng(2)
    make = {
        "conv": lambda: keras.layers.Conv2D(5, 3),
        "depthwise": lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
        "dense": lambda: keras.layers.Dense(5),
    }[kind]
    image = generator.uniform(0, 255, (2, 3) if kind == "dense" else (2, 6, 6, 3)).astype(np.float32)
    scale = np.array([0.01, 0.02, 0.03], np.float32)
    layer, folded = make(), make()
    layer(image), folded(image)
    kernel, bias = generator.normal(size=shape).astype(np.float32), generator.normal(size=layer.get_weights()[1].shape)
    layer.set_weights([kernel, bias])
    found = with_scaling(
        Fingerprint("first", kind, kernel, bias.astype(np.float32), "linear"), scale, np.float32(offset)
    )
    folded.set_weights([found.kernel, found.bias])
    np.testing.assert_allclose(folded(image), layer(image * scale + offset), atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_converter_may_fold_the_pixel_scaling(precision: str, tmp_path: Path) -> None:
    """TFLite's does, where no padding is in the way."""
    one = small_models.small()
    image = keras.Input((32, 32, 3), name="image")
    values = keras.layers.Rescaling(1 / 127.5, -1.0, name="pixel_scaling")(image)
    values = keras.layers.Conv2D(8, 3, 2, padding="valid", activation="relu", name="first")(values)
    values = keras.layers.GlobalAveragePooling2D()(values)
    outputs = {each.name: keras.layers.Dense(5, "softmax", name=each.name)(values) for each in one.card.outputs}
    model = keras.Model(image, outputs)
    models = InferenceModels(model, "first", one.calibration_images, tmp_path, features_everywhere=False)
    for format_name in ("tflite", "onnx"):
        name = ArtifactName(format_name, precision)
        card = dataclasses.replace(one.card, cut=("first",))
        folder = export_artifact(name, models.saved_model(precision), card, tmp_path / "out", one.calibration_images)
        found = audit(folder, name, Card.read(folder / "card.json"), models.weight_set(precision))
        assert (found["status"], found["reason"]) == ("verified", ""), (format_name, found["reason"])
        assert found["constants"]["layers"] == 3


def convolution(
    values: keras.KerasTensor, activation: str | keras.layers.Layer = "relu", **options: object
) -> keras.KerasTensor:
    made = keras.layers.Conv2D(8, 3, padding="same", **options)(values)
    return (activation if isinstance(activation, keras.layers.Layer) else keras.layers.Activation(activation))(made)


def residual(values: keras.KerasTensor) -> keras.KerasTensor:
    short = keras.layers.Conv2D(8, 1)(values)
    return keras.layers.ReLU()(keras.layers.Add()([short, keras.layers.Conv2D(8, 3, padding="same")(values)]))


def branches(values: keras.KerasTensor) -> keras.KerasTensor:
    narrow = keras.layers.Conv2D(4, 1, activation="relu")(values)
    return keras.layers.Concatenate()(
        [narrow, convolution(values), keras.layers.AveragePooling2D(3, 1, "same")(values)]
    )


def squeeze_and_excite(values: keras.KerasTensor) -> keras.KerasTensor:
    made = convolution(values, "silu")
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(made)
    gate = keras.layers.Conv2D(8, 1, activation="sigmoid")(keras.layers.Conv2D(4, 1, activation="relu")(gate))
    return keras.layers.Multiply()([made, gate])


def squeeze_and_excite_by_hand(values: keras.KerasTensor) -> keras.KerasTensor:
    """As MobileNetV3 does it: `ReLU6(x + 3) / 6`, whose 3 a converter may add to the bias before it."""
    made = convolution(values, "hard_silu")
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(made)
    gate = keras.layers.Conv2D(8, 1)(keras.layers.Conv2D(4, 1, activation="relu")(gate))
    return convolution(keras.layers.Multiply()([made, keras.layers.ReLU(6.0)(gate + 3.0) * (1 / 6)]))


def shared(values: keras.KerasTensor) -> keras.KerasTensor:
    layer = keras.layers.Conv2D(8, 3, padding="same", activation="relu")
    return layer(layer(keras.layers.Conv2D(8, 1)(values)))


def normalised_before(values: keras.KerasTensor) -> keras.KerasTensor:
    normed = keras.layers.BatchNormalization(beta_initializer="ones")(convolution(values))
    return convolution(keras.layers.ReLU()(normed))


GOOD = {
    "leaky": lambda values: convolution(values, keras.layers.LeakyReLU(0.2)),
    "prelu": lambda values: convolution(values, keras.layers.PReLU("random_normal", shared_axes=[1, 2])),
    "silu": lambda values: convolution(values, "silu"),
    "elu": lambda values: convolution(values, "elu"),
    "hard sigmoid": lambda values: convolution(convolution(values, "hard_sigmoid")),
    "without bias": lambda values: convolution(values, use_bias=False),
    "residual": residual,
    "branches": branches,
    "squeeze and excite": squeeze_and_excite,
    "squeeze and excite by hand": squeeze_and_excite_by_hand,
    "shared layer": shared,
    "normalised before": normalised_before,
    "separable": lambda values: keras.layers.SeparableConv2D(8, 3, padding="same", activation="relu")(values),
    "max pooling and flatten": lambda values: keras.layers.MaxPooling2D(8)(convolution(values)),
}


# Enough for every run of the tests: weights in most places that one can be looked for.
ALWAYS = ("squeeze and excite", "shared layer", "separable")


@pytest.mark.parametrize(
    "kind", [each if each in ALWAYS else pytest.param(each, marks=pytest.mark.slow) for each in GOOD]
)
def test_good_models_of_many_kinds_are_not_rejected(kind: str, tmp_path: Path) -> None:
    """Whatever a converter makes of them: what it may fold, merge or leave out is no fault."""
    one = small_models.small()
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    values = keras.layers.Rescaling(1 / 127.5, -1.0, name="pixel_scaling")(image)
    values = GOOD[kind](values)
    pooled = keras.layers.Flatten()(values) if "flatten" in kind else keras.layers.GlobalAveragePooling2D()(values)
    model = keras.Model(
        image, {each.name: keras.layers.Dense(5, "softmax", name=each.name)(pooled) for each in one.card.outputs}
    )
    for layer in model.layers:
        # Weights as training leaves them, biases that are not zero among them.
        layer.set_weights([each + np.random.default_rng(1).normal(0, 0.05, each.shape) for each in layer.get_weights()])
    cut = model.layers[2].name
    models = InferenceModels(model, cut, one.calibration_images, tmp_path, features_everywhere=False)
    card = dataclasses.replace(one.card, cut=(cut,))
    for format_name, precision in (("tflite", "float32"), ("tflite", "int8"), ("onnx", "int8"), ("onnx", "float16")):
        name = ArtifactName(format_name, precision)
        folder = export_artifact(name, models.saved_model(precision), card, tmp_path / "out", one.calibration_images)
        found = audit(folder, name, Card.read(folder / "card.json"), models.weight_set(precision))
        assert (found["status"], found["reason"]) == ("verified", ""), (str(name), found["reason"])
        assert found["constants"]["layers"] >= 2, "the two heads at least are compared"
