"""TF.js layers models: true in every layer, found out when they are not, refused by name, and trainable further."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from exporters import tfjs_layers_pieces
from exporters.audit.auditing import audit
from exporters.audit.tfjs_layers import read
from exporters.contract import CEILINGS, FORMATS, ArtifactName, Card
from exporters.errors import InputError, ParityError
from exporters.export import export_artifact
from exporters.folding import fold
from exporters.golden import write_manifest
from exporters.inference import InferenceModels
from exporters.keras_model import read_keras_model
from exporters.layers.reference import reference_of
from exporters.layers.tracing import trace_artifact
from exporters.papers import artifact_card
from exporters.prediction import predict_pictures
from exporters.runners.chromium import close_session
from exporters.runners.tfjs import TfjsRunner, layers_runner
from exporters.runtimes import open_runtime
from exporters.saved_model import write_saved_model
from exporters.tfjs_layers import _check_order, _Layers, export
from exporters.verification import verify_folder
from tests import small_models
from tests.commands import cutpoint
from tests.pictures import SMALL, write_drawings
from tests.test_rewriting import motley

NAME = ArtifactName("tfjs_layers", "float32")
PACKAGES = Path(__file__).parents[1] / "web_demo" / "node_modules" / "@tensorflow"
SIDE_PX = 12
layers = keras.layers


@pytest.fixture(scope="module")
def one() -> small_models.Small:
    return small_models.small()


@pytest.fixture(scope="module")
def out(one: small_models.Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with the layers model of the small network alone."""
    folder = tmp_path_factory.mktemp("layers")
    models = small_models.inference_models(tmp_path_factory.getbasetemp())
    export_artifact(NAME, models.saved_model("float32"), one.card, folder / "artifacts", one.calibration_images)
    small_models.write_fingerprints_of(models, folder)
    small_models.write_golden_of(folder, one)
    return folder


@pytest.fixture(scope="module")
def artifact(out: Path) -> Path:
    return out / "artifacts" / str(NAME)


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / str(NAME)))


def exported(model: keras.Model, tmp_path: Path, card: Card | None = None) -> Path:
    """Export a model as it is, without folding."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    saved = write_saved_model(model, None, tmp_path / "saved")
    bare = dataclasses.replace(small_models.CARD, outputs=(), cut=())
    export(saved, card or bare, folder, precision="float32", calibration_images=np.zeros((0, 8, 8, 3), np.uint8))
    return folder


def edited(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.json"
    model = json.loads(path.read_text(encoding="utf-8"))
    edit(model)
    path.write_text(json.dumps(model), encoding="utf-8")


def entry_of(model: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in model["modelTopology"]["model_config"]["config"]["layers"] if each["name"] == name)


@pytest.mark.parametrize("backend", ["wasm", "cpu"])
def test_it_answers_as_keras_does_and_gives_the_features(backend: str, artifact: Path, one: small_models.Small) -> None:
    expected = small_models.features_of(one)["features"]
    shown = one.images[small_models.spread(len(one.images), small_models.FEATURES_IMAGES)][:8]
    with layers_runner(artifact, backend=backend) as runner:
        assert (runner.input_name, runner.output_names) == ("image", ("apple", "features", "zebra"))
        answers, features = runner.predict(one.images[:40]), runner.features(shown)
        held = {runner._ask(runner._checked(shown), {"command": "predict", "outputs": ["apple"]})[0]["tensors"]}
        held |= {runner._ask(runner._checked(shown), {"command": "predict", "outputs": ["apple"]})[0]["tensors"]}
        assert len(held) == 1, "tensors are left"
        with pytest.raises(ParityError, match="no output pear; it has apple, features, zebra"):
            runner.predict(shown, outputs=("pear",))
        with pytest.raises(ParityError, match="shape"):
            runner.predict(np.zeros((1, 16, 16, 3), np.uint8))
    assert set(answers) == set(one.reference)
    for name, values in answers.items():
        np.testing.assert_allclose(values, one.reference[name][:40], rtol=0, atol=1e-5)
    np.testing.assert_allclose(features["features"], expected[:8], rtol=0, atol=1e-4)


def test_the_folder_is_verified_in_every_runtime_here(out: Path) -> None:
    report = verify_folder(out, runtimes="local")
    assert (report["verdict"], report["exit_code"]) == ("verified", 0)
    (entry,) = report["artifacts"]
    assert [each["backend"] for each in entry["runtimes"]] == ["wasm", "cpu"]
    assert all("features" in each["outputs"] or each["status"] == "verified" for each in entry["runtimes"])
    assert entry["audit"]["constants"]["compared"] > 4000 and entry["audit"]["constants"]["uncompared"] == 0
    assert entry["audit"]["operators"]["DepthwiseConv2D"] == 2


@pytest.mark.parametrize("backend", ["wasm", pytest.param("webgl", marks=pytest.mark.slow)])
def test_it_answers_in_a_browser(backend: str, artifact: Path, one: small_models.Small) -> None:
    runtimes = {each.backend: each for each in FORMATS[NAME.format].runtimes if each.browser}
    if os.environ.get("CUTPOINT_NO_BROWSER", "0") not in ("", "0"):
        pytest.skip("CUTPOINT_NO_BROWSER=1: not run")
    with open_runtime(runtimes[backend], artifact) as runner:
        answers = runner.predict(one.images[:6])
    for name, values in answers.items():
        np.testing.assert_allclose(values, one.reference[name][:6], rtol=0, atol=1e-4)
    close_session()


def test_layers_are_traced_and_the_first_wrong_one_is_named(
    artifact: Path, one: small_models.Small, tmp_path: Path
) -> None:
    against = reference_of(one.model)
    good = trace_artifact(artifact, NAME.format, one.images[:8], against)
    assert (good["status"], good["first_off"], good["reason"]) == ("traced", None, "")
    assert [row["name"] for row in good["rows"]][:3] == ["first", "deep", "point"]
    assert all(row["snr_db"] > 80 for row in good["rows"])
    bad = Path(shutil.copytree(artifact, tmp_path / "bad"))
    relu_for_relu6(bad)
    edited(bad, lambda model: entry_of(model, "point")["config"].update(activation="tanh"))
    assert trace_artifact(bad, NAME.format, one.images[:8], against)["first_off"] == "point"


def test_pictures_are_answered(out: Path, one: small_models.Small) -> None:
    found = predict_pictures(out, small_models.write_pictures(out / "pictures"), 2)
    assert {each["artifact"] for each in found} == {str(NAME)}
    assert all(set(each["outputs"]) == set(one.reference) for each in found)


def test_the_same_export_makes_the_same_bytes(
    out: Path, artifact: Path, one: small_models.Small, tmp_path: Path
) -> None:
    models = small_models.inference_models(out.parent)
    again = export_artifact(NAME, models.saved_model("float32"), one.card, tmp_path, one.calibration_images)
    for path in artifact.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_large_weights_are_cut_into_shards(tmp_path: Path) -> None:
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    wide = layers.Dense(4000, name="wide")(layers.Flatten()(image))
    folder = exported(keras.Model(image, {"label": layers.Dense(3, name="label")(wide)}), tmp_path)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.bin")}
    assert sorted(sizes) == ["group1-shard1of2.bin", "group1-shard2of2.bin"]
    assert max(sizes.values()) == 4 * 1024 * 1024
    assert len(read(folder).layers) == 2


def wrong_weight(folder: Path) -> None:
    (path,) = folder.glob("*.bin")
    values = np.frombuffer(path.read_bytes(), "<f4").copy()
    values[500] += 0.01
    path.write_bytes(values.tobytes())


def relu_for_relu6(folder: Path) -> None:
    edited(folder, lambda model: entry_of(model, "point_relu")["config"].update(max_value=None))


def another_scaling(folder: Path) -> None:
    edited(folder, lambda model: entry_of(model, "pixel_scaling")["config"].update(offset=-0.9))


def unknown_class(folder: Path) -> None:
    edited(folder, lambda model: entry_of(model, "pooled").update(class_name="GlobalMedianPooling2D"))


def unknown_activation(folder: Path) -> None:
    edited(folder, lambda model: entry_of(model, "apple")["config"].update(activation="hard_swish"))


def renamed_input(folder: Path) -> None:
    edited(folder, lambda model: model["signature"].update(inputs={"pixels": model["signature"]["inputs"]["image"]}))


def stale_card(folder: Path) -> None:
    edited(folder, lambda model: model["userDefinedMetadata"]["card"].update(name="another"))


def graph_model(folder: Path) -> None:
    edited(folder, lambda model: model.update(format="graph-model"))


def shorter_shard(folder: Path) -> None:
    (path,) = folder.glob("*.bin")
    path.write_bytes(path.read_bytes()[:-40])


DAMAGES = {
    wrong_weight: "weights",
    relu_for_relu6: "activations",
    another_scaling: "constants",
    unknown_class: "operators",
    unknown_activation: "operators",
    renamed_input: "input",
    stale_card: "card inside",
    graph_model: "file",
    shorter_shard: "file",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_inside_is_found(damage: Callable, copied: Path, one: small_models.Small, out: Path) -> None:
    expected = small_models.inference_models(out.parent).weight_set("float32")
    card = artifact_card(one.card, NAME)
    assert audit(copied, NAME, card, expected)["status"] == "verified"
    damage(copied)
    found = audit(copied, NAME, card, expected)
    assert found["status"] == "failed"
    assert DAMAGES[damage] in {each["check"] for each in found["faults"]}, found["faults"]


def test_swapped_heads_are_found_in_the_answers(out: Path, one: small_models.Small, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(out, tmp_path / "out"))

    def swap(model: dict[str, Any]) -> None:
        for weight in model["weightsManifest"][0]["weights"]:
            layer, _, name = weight["name"].partition("/")
            weight["name"] = {"apple": "zebra", "zebra": "apple"}.get(layer, layer) + f"/{name}"

    edited(folder / "artifacts" / str(NAME), swap)
    write_manifest(folder, one.card, CEILINGS)
    report = verify_folder(folder, runtimes="tfjs-node/wasm")
    assert report["exit_code"] == 1
    (runtime,) = report["artifacts"][0]["runtimes"]
    assert runtime["status"] == "failed" and runtime["outputs"]["apple"]["max_abs"] > 0.5


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (graph_model, "not a TF.js layers model"),
        (shorter_shard, "bytes, and model.json describes"),
        (unknown_class, "GlobalMedianPooling2D"),
        (unknown_activation, "hardSwish"),
    ],
    ids=["format", "shard", "class", "activation"],
)
def test_what_cannot_be_loaded_is_said_to_be(damage: Callable, words: str, copied: Path) -> None:
    damage(copied)
    with pytest.raises(ParityError, match=words) as caught, layers_runner(copied):
        pass
    assert "could not be loaded" in caught.value.what
    assert caught.value.expected == "a layers model that TF.js loads and runs"


def test_neither_kind_of_model_is_taken_for_the_other(artifact: Path) -> None:
    with pytest.raises(ParityError, match=r"not a TF\.js graph model"), TfjsRunner(artifact):
        pass


def zoo() -> keras.Model:
    """A model with every layer and every activation of the allowlist, each with settings that are not the usual ones."""
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Rescaling([0.01, 0.02, 0.015], offset=[-1.0, 0.5, 0.1])(image)
    values = layers.ZeroPadding2D(((0, 1), (2, 1)))(values)
    values = layers.Conv2D(6, 3, dilation_rate=2, activation="elu", name="dilated")(values)
    values = layers.BatchNormalization(epsilon=0.01, scale=False)(values)
    values = layers.DepthwiseConv2D((3, 3), 2, padding="same", depth_multiplier=2, activation="tanh")(values)
    values = layers.LeakyReLU(0.17)(values)
    values = layers.Conv2DTranspose(5, 3, 2, padding="same", activation="silu")(values)
    values = layers.LayerNormalization(epsilon=1e-5)(values)
    pooled = [
        layers.MaxPooling2D(3, 1, padding="same")(values),
        layers.AveragePooling2D((3, 2), 1, padding="same")(values),
        layers.Conv2D(5, 2, padding="same", use_bias=False)(values),
    ]
    kinds = (layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    values = layers.Concatenate(axis=-2)([values, *(kind()(pooled) for kind in kinds)])
    values = layers.Cropping2D(((1, 0), (2, 3)))(values)
    values = layers.UpSampling2D((2, 3))(values)
    values = layers.ELU()(values)
    values = layers.BatchNormalization()(values)
    several = [layers.Activation(function, name=f"act_{name}")(values) for function, name in ACTIVATIONS]
    several += [layers.Softmax()(values), layers.ReLU(0.4)(values), layers.ReLU()(values)]
    values = layers.Concatenate()(several)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(values)
    gate = layers.Add()([gate, layers.GlobalMaxPooling2D(keepdims=True)(values)])
    values = layers.Multiply()([values, gate])
    flat = layers.Flatten()(layers.Permute((3, 1, 2))(layers.MaxPooling2D(5)(values)))
    flat = layers.Concatenate()([flat, layers.GlobalMaxPooling2D()(values), layers.GlobalAveragePooling2D()(values)])
    flat = layers.Dropout(0.3)(layers.Reshape((-1, 5))(flat) if flat.shape[-1] % 5 == 0 else flat)
    ends = {"first": layers.Dense(4, activation="sigmoid", name="last")(layers.Flatten()(flat))}
    return keras.Model(image, {**ends, "second": layers.Activation("softmax")(ends["first"])}, name="zoo")


ACTIVATIONS = [
    *(
        (function, name)
        for function, name in tfjs_layers_pieces._ACTIVATIONS
        if function is not tfjs_layers_pieces.gelu
    ),
    *((function, function.__name__) for function in tfjs_layers_pieces._HARD),
]


def test_every_layer_of_the_allowlist_answers_as_in_keras(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model, generator = zoo(), np.random.default_rng(0)
    assert {type(layer).__name__ for layer in model.layers} >= set(tfjs_layers_pieces._RULES)
    for weight in model.weights:
        spread = generator.uniform(0.5, 1.5, weight.shape) if "variance" in weight.name else None
        weight.assign(generator.normal(0, 0.4, weight.shape) if spread is None else spread)
    images = generator.integers(0, 256, (3, SIDE_PX, SIDE_PX, 3)).astype(np.float32)
    inner = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    expected = keras.Model(model.inputs, [layer.output for layer in inner])(images, training=False)
    renamed = {"last": "first", model.layers[-1].name: "second"}
    names = [renamed.get(layer.name, layer.name) for layer in inner]
    with layers_runner(exported(model, tmp_path)) as runner:
        assert runner.output_names == ("first", "second")
        found = runner.values_of(images, names)
    for name, values in zip(names, map(np.asarray, expected), strict=True):
        assert np.ptp(values) > 1e-3, name
        assert found[name].shape == values.shape, name
        np.testing.assert_allclose(found[name], values, rtol=0, atol=2e-5 * max(1, np.abs(values).max()), err_msg=name)


@keras.saving.register_keras_serializable(package="tests")
def doubled(values: Any) -> Any:
    return values * 2


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.layers.Layer):
    """Somebody's own layer."""

    def call(self, values: Any) -> Any:
        return values


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "hard_sigmoid inside": (layers.Conv2D(4, 3, activation="hard_sigmoid", name="it"), "that of Keras 2"),
    "hard_swish inside": (layers.Conv2D(4, 3, activation="hard_silu", name="it"), "answers as 'hard_silu' does"),
    "own activation": (layers.Activation(doubled, name="it"), "answers as 'doubled' does"),
    "negative slope": (layers.ReLU(negative_slope=0.1, name="it"), "negative_slope is 0.1: TF.js skips it"),
    "threshold": (layers.ReLU(threshold=0.5, name="it"), "threshold is 0.5: TF.js skips it"),
    "elu": (layers.ELU(0.5, name="it"), "alpha is 0.5: TF.js computes it with 1 alone"),
    "groups": (layers.Conv2D(6, 3, groups=3, name="it"), "groups is 3: TF.js has no groups"),
    "dilated depthwise": (layers.DepthwiseConv2D(3, dilation_rate=2, name="it"), "TF.js skips the dilation"),
    "output padding": (
        layers.Conv2DTranspose(4, 3, 2, padding="same", output_padding=1, name="it"),
        "TF.js skips it",
    ),
    "bilinear": (layers.UpSampling2D(2, interpolation="bilinear", name="it"), "interpolates between other places"),
    "resizing": (layers.Resizing(8, 8, name="it"), "resizes between other places"),
    "normalization": (layers.Normalization(mean=[1, 2, 3], variance=[1, 1, 1], name="it"), "no such layer"),
    "no layer": (layers.UnitNormalization(name="it"), "no layer that is known to answer the same"),
    "no subtraction": (lambda value: layers.Subtract(name="it")([value, value]), "known to answer the same"),
    "own layer": (Own(name="it"), "known to answer the same"),
    "own axis": (layers.BatchNormalization(axis=1, name="it"), "along the last one alone"),
    "softmax axis": (layers.Softmax(axis=1, name="it"), "along the last one alone"),
    "several axes": (layers.LayerNormalization(axis=(1, 2, 3), name="it"), "only a single one"),
    "renorm": (layers.BatchNormalization(renorm=True, name="it"), "renorm is True: TF.js skips it"),
    "root mean square": (layers.LayerNormalization(rms_scaling=True, name="it"), "rms_scaling is True"),
    "channels first": (layers.GlobalAveragePooling2D(data_format="channels_first", name="it"), "'channels_first'"),
    "name": (layers.Conv2D(4, 3, name="it is"), "names of letters, digits"),
    "regularised": (layers.Dense(4, activity_regularizer="l2", name="it"), "would be lost"),
    "outside of layers": (lambda value: keras.ops.split(value, 3, axis=-1)[0], "an operation outside of layers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_wrong_is_refused_by_name(case: str, tmp_path: Path) -> None:
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    make, reason = REFUSED[case]
    values = layers.Flatten()(make(layers.Rescaling(0.1)(image)))
    model = keras.Model(image, {"label": layers.Dense(3, name="label")(values)})
    with pytest.raises(InputError) as caught:
        _Layers(model, {})
    name = "split" if case == "outside of layers" else "it is" if case == "name" else "it"
    assert f"the layer '{name}" in caught.value.what and reason in caught.value.what
    assert caught.value.exit_code == 2 and "--formats" in caught.value.mend


def test_a_refused_model_leaves_nothing(tmp_path: Path, one: small_models.Small) -> None:
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    pooled = layers.GlobalAveragePooling2D()(layers.Resizing(8, 8, name="squeezed")(image))
    model = keras.Model(image, {"label": layers.Dense(3, name="label")(pooled)})
    saved = write_saved_model(model, None, tmp_path / "saved")
    card = dataclasses.replace(one.card, cut=())
    with pytest.raises(InputError, match=r"the layer 'squeezed' \(Resizing\) in a layers model"):
        export_artifact(NAME, saved, card, tmp_path / "artifacts", one.calibration_images)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_the_motley_model_is_refused_by_its_first_operation_outside_of_layers(tmp_path: Path) -> None:
    model = fold(motley(), ["stem"])
    with pytest.raises(InputError, match=r"the layer 'split\w*' \(Split\) in a layers model: it is an operation"):
        _Layers(model.model, {})


def branched() -> keras.Model:
    """What the motley model has and layers can do: hard SiLU, squeeze and excite, bare sums, a model inside, GELU."""
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Conv2D(8, 3, use_bias=False, name="first")(layers.Rescaling(1 / 127.5, offset=-1.0)(image))
    values = layers.Activation("hard_silu", name="swished")(layers.BatchNormalization()(values))
    gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(values))
    gate = layers.ReLU(6.0)(layers.Conv2D(8, 1)(gate) + 3.0) * (1.0 / 6.0)
    values = values + values * gate
    values = layers.SeparableConv2D(8, 3, padding="same", name="separable")(values)
    values = layers.Dense(8, activation="gelu", name="wide")(values)
    stem = [layers.Conv2D(16, 1, name="taken"), layers.BatchNormalization(), layers.ReLU(6.0, name="inner_relu")]
    values = layers.GlobalAveragePooling2D()(keras.Sequential(stem, name="stem")(values))
    shared = layers.Dense(3, activation="softmax", name="shared")
    # The answers are called as other layers are, and two of them come out of one layer.
    ends = {"taken": shared(values), "swished": shared(layers.Rescaling(0.5)(values))}
    return keras.Model(image, ends, name="branched")


def test_branches_shared_layers_and_names_that_others_bear(tmp_path: Path, one: small_models.Small) -> None:
    keras.utils.set_random_seed(1)
    model, images = branched(), one.images[:8, :SIDE_PX, :SIDE_PX]
    models = InferenceModels(model, "stem", images, tmp_path, features_everywhere=False)
    card = dataclasses.replace(small_models.CARD, cut=("stem",), outputs=())
    folder = export_artifact(NAME, models.saved_model("float32"), card, tmp_path / "artifacts", images)
    expected = model(images.astype(np.float32), training=False)
    features = keras.Model(model.inputs, model.get_layer("stem").output)(images.astype(np.float32), training=False)
    with layers_runner(folder) as runner:
        assert runner.output_names == ("features", "swished", "taken")
        answers, inner = runner.predict(images), runner.values_of(images, ["stem"])["stem"]
        np.testing.assert_allclose(runner.features(images)["features"], inner, rtol=0, atol=0)
    np.testing.assert_allclose(inner, np.asarray(features), rtol=0, atol=1e-5 * np.ptp(features))
    for name, values in answers.items():
        assert np.abs(answers["taken"] - answers["swished"]).max() > 1e-3
        np.testing.assert_allclose(values, np.asarray(expected[name]), rtol=0, atol=1e-5)


def test_calls_that_would_be_counted_otherwise_are_refused() -> None:
    def entry(name: str, *calls: tuple[tuple[str, int], ...]) -> dict[str, Any]:
        return {"name": name, "inbound_nodes": [[[*each, 0, {}] for each in call] for call in calls]}

    first, last = entry("image"), entry("end", (("shared", 0), ("shared", 1)))
    _check_order([first, entry("shared", (("image", 0),), (("other", 0),)), entry("other", (("image", 0),)), last])
    wrong = entry("shared", (("other", 0),), (("image", 0),))
    with pytest.raises(InputError, match="calls of the layer 'shared'"):
        _check_order([first, wrong, entry("other", (("image", 0),)), last])


def test_the_keras_model_comes_back_as_it_was_written(one: small_models.Small, tmp_path: Path) -> None:
    model, features = read_keras_model(write_saved_model(one.model, small_models.CUT, tmp_path / "saved"))
    assert features == {"features": small_models.CUT}
    found, expected = (each(one.images[:4].astype(np.float32), training=False) for each in (model, one.model))
    for name in expected:
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(expected[name]))


_TRAIN = """
const tf = require("@tensorflow/tfjs-core");
const layers = require("@tensorflow/tfjs-layers");
require("@tensorflow/tfjs-backend-cpu");
const { setWasmPaths } = require("@tensorflow/tfjs-backend-wasm");
const { readFileSync } = require("node:fs");
const { dirname, join } = require("node:path");

const [folder, cut, backend] = process.argv.slice(1);
const load = async () => {
  const json = JSON.parse(readFileSync(join(folder, "model.json"), "utf8"));
  const shards = json.weightsManifest[0].paths.map((path) => new Uint8Array(readFileSync(join(folder, path))).buffer);
  const weights = async (manifest) => [manifest[0].weights, tf.io.concatenateArrayBuffers(shards)];
  return tf.io.getModelArtifactsForJSON(json, weights);
};
(async () => {
  setWasmPaths(dirname(require.resolve("@tensorflow/tfjs-backend-wasm")) + "/");
  await tf.setBackend(backend);
  const model = await layers.loadLayersModel({ load });
  for (const layer of model.layers) layer.trainable = false;
  const features = model.getLayer(cut).output;
  const pooled = layers.layers.globalAveragePooling2d({}).apply(features);
  const hidden = layers.layers.dense({ units: 12, activation: "relu", name: "own_hidden",
    kernelInitializer: layers.initializers.glorotUniform({ seed: 1 }) }).apply(pooled);
  const answer = layers.layers.dense({ units: 2, activation: "softmax", name: "own",
    kernelInitializer: layers.initializers.glorotUniform({ seed: 2 }) }).apply(hidden);
  const own = layers.model({ inputs: model.inputs, outputs: answer });
  const [, height, width] = model.inputs[0].shape;
  const images = tf.randomUniform([8, height, width, 3], 0, 255, "float32", 3);
  const dark = tf.mul(images, tf.tensor4d([1, 1, 1, 1, 0.2, 0.2, 0.2, 0.2], [8, 1, 1, 1]));
  const truth = tf.oneHot(tf.tensor1d([0, 0, 0, 0, 1, 1, 1, 1], "int32"), 2);
  const before = await features.sourceLayer.getWeights().concat(model.layers[2].getWeights())[0]?.data();
  own.compile({ optimizer: tf.train.adam(0.02), loss: "categoricalCrossentropy" });
  const { history } = await own.fit(dark, truth, { epochs: 12, batchSize: 8, shuffle: false, verbose: 0 });
  const after = await features.sourceLayer.getWeights().concat(model.layers[2].getWeights())[0]?.data();
  const kept = before ? before.every((value, at) => value === after[at]) : null;
  console.log(JSON.stringify({ loss: history.loss, kept, trainable: own.trainableWeights.length }));
})();
"""


@pytest.mark.parametrize("backend", ["wasm", "cpu"])
def test_a_head_behind_the_cut_is_trained_in_javascript(backend: str, artifact: Path) -> None:
    command = ["node", "--eval", _TRAIN, str(artifact), small_models.CUT, backend]
    ended = subprocess.run(command, cwd=PACKAGES.parents[1], capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    assert found["trainable"] == 4 and found["kept"] is True
    assert len(found["loss"]) == 12 and found["loss"][-1] < 0.5 * found["loss"][0]


@pytest.mark.slow
def test_the_embedded_default_is_verified_and_answers(tmp_path: Path) -> None:
    """MobileNetV2 0.35 at 96 px with its shipped weights, end to end, by the command."""
    write_drawings(tmp_path / "drawings", per_class=60)
    run = ("run", "--data", tmp_path / "drawings", "--out", tmp_path / "out", "--formats", "tfjs_layers", *SMALL)
    ended = cutpoint(*run, "--set", "training.epochs=8", "--json")
    report = ended.json()
    assert ended.exit_code in (0, 3), ended.stderr
    (entry,) = report["artifacts"]
    assert entry["name"] == str(NAME)
    for runtime in entry["runtimes"]:
        assert runtime["outputs"]["label"]["max_abs"] < CEILINGS["float32"].max_abs
    assert entry["audit"]["status"] == "verified"
    card = Card.read(tmp_path / "out" / "artifacts" / str(NAME) / "card.json")
    model = json.loads((tmp_path / "out" / "artifacts" / str(NAME) / "model.json").read_text(encoding="utf-8"))
    names = [each["name"] for each in model["modelTopology"]["model_config"]["config"]["layers"]]
    assert set(card.cut) <= set(names) and not any(name.endswith("_BN") for name in names)
    assert model["modelTopology"]["model_config"]["config"]["output_layers"] == [["label", 0, 0]]
    picture = next((tmp_path / "drawings").glob("*/000.png"))
    found = cutpoint("predict", tmp_path / "out", picture, "--json")
    assert found.exit_code == 0, found.stderr
    assert found.json()[0]["artifact"] == str(NAME)
