"""Backbones out of SavedModels: moved into a known network where they fit, else taken as they are; refused where they do more."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import cutpoint
from pictures import write_drawings
from random_backbones import settle

from exporters import opaque
from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones.loading import LoadedBackbone, load_backbone
from pipeline.backbones.origin import size_of_foreign
from pipeline.backbones.transplanting import by_layer
from pipeline.config import BackboneSection
from pipeline.quickstart.drawings import draw

PX = 32
SIZE = Resize(PX, PX)
IMAGES = np.random.default_rng(0).uniform(0, 255, (32, PX, PX, 3)).astype(np.float32)


def load(folder: Path | str, scaling: str = "auto", *, trust: bool = False) -> LoadedBackbone:
    section = BackboneSection(name=str(folder), pixel_scaling=scaling, trust=trust)
    height, width = size_of_foreign(section)
    return load_backbone(section, Resize(width or PX, height or PX))


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def with_dense(backbone: LoadedBackbone) -> keras.Model:
    """The usual five-class classifier on a backbone's features."""
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.model.output)
    return keras.Model(backbone.model.inputs, keras.layers.Dense(5)(pooled))


@pytest.fixture(scope="module")
def feature_vector() -> keras.Model:
    """MobileNetV2 1.0's feature vector with random weights, its answers depending on the picture."""
    model = keras.applications.MobileNetV2(include_top=False, weights=None, pooling="avg", input_shape=(PX, PX, 3))
    seen = [draw(label, np.random.default_rng(number), PX) for number in range(10) for label in ("circle", "star")]
    return settle(model, np.stack(seen).astype(np.float32) / 127.5 - 1)


def export_strange(
    network: keras.Model,
    folder: Path,
    *,
    batch: int | None = None,
    names: tuple[str, ...] = ("serving_default",),
    answer: Callable[[Any], Any] = lambda features: {"embedding": features},
) -> Path:
    """Export a network with variables of names that tell nothing, under signatures of any name."""
    module = tf.Module()
    module.kept = [tf.Variable(values, name=f"w{number}") for number, values in enumerate(network.get_weights())]
    variables = {id(weight): variable for weight, variable in zip(network.weights, module.kept, strict=True)}

    @tf.function(input_signature=[tf.TensorSpec([batch, *network.input_shape[1:]], tf.float32, name="photo")])
    def serve(photo: tf.Tensor) -> Any:
        parts = ([variables[id(each)] for each in group] for group in _groups(network))
        return answer(network.stateless_call(*parts, photo, training=False)[0])

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures=dict.fromkeys(names, serve))
    return folder


def _groups(network: keras.Model) -> tuple[list, list]:
    return network.trainable_variables, network.non_trainable_variables


@pytest.fixture(scope="module")
def folders(feature_vector: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature vector as Keras exports it, as a hub module takes its pixels, and under names that tell nothing."""
    root = tmp_path_factory.mktemp("saved_models")
    feature_vector.export(root / "keras", verbose=False)
    image = keras.Input((PX, PX, 3))
    keras.Model(image, feature_vector(keras.layers.Rescaling(2.0, -1.0)(image))).export(root / "unit", verbose=False)
    export_strange(feature_vector, root / "strange")
    return root


@pytest.mark.parametrize("name", ["keras", pytest.param("unit", marks=pytest.mark.slow)])
def test_weights_of_a_known_network_are_moved_into_it(folders: Path, feature_vector: keras.Model, name: str) -> None:
    backbone = load(folders / name)
    assert (backbone.usual_cut, backbone.pixel_scaling) == ("out_relu", "tf")
    assert "moved into mobilenet_v2 alpha 1" in backbone.notes[0]
    model = with_dense(backbone)
    assert backbone.model.count_params() == 2_257_984 == model.count_params() - trainable(model)
    assert trainable(model) == 6_405
    assert model(IMAGES).shape == (32, 5)
    pooled = np.asarray(backbone.model(IMAGES / 127.5 - 1)).mean((1, 2))
    expected = np.asarray(feature_vector(IMAGES / 127.5 - 1, training=False))
    np.testing.assert_allclose(pooled, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_what_matches_no_network_is_taken_as_it_is_and_frozen(folders: Path, feature_vector: keras.Model) -> None:
    backbone = load(folders / "strange", "tf")
    layer = backbone.model.get_layer("saved_model")
    by_default = keras.layers.TFSMLayer(layer.filepath, call_endpoint=opaque.ENDPOINT)
    assert by_default.trainable and not layer.trainable
    model = with_dense(backbone)
    assert backbone.model.count_params() == 2_257_984 == model.count_params() - trainable(model)
    assert trainable(model) == 6_405
    assert model(IMAGES).shape == (32, 5)
    expected = np.asarray(feature_vector(IMAGES / 127.5 - 1, training=False))
    found = np.asarray(backbone.model(IMAGES / 127.5 - 1))
    assert found.shape == (32, 1, 1, 1280)
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-4 * np.abs(expected).max())
    assert any("ships as backbone/" in note for note in backbone.notes)


def test_its_pixel_scaling_is_asked_for(folders: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(folders / "strange")
    assert "backbone.pixel_scaling" in caught.value.expected


@pytest.mark.slow
def test_names_that_fit_but_answers_that_do_not_keep_it_as_it_is(feature_vector: keras.Model, tmp_path: Path) -> None:
    image = keras.Input((PX, PX, 3))
    keras.Model(image, feature_vector(image) * 2.0).export(tmp_path / "doubled", verbose=False)
    backbone = load(tmp_path / "doubled", "tf")
    assert backbone.usual_cut == "saved_model_features"
    assert "answers otherwise" in backbone.notes[0]


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    keras.utils.set_random_seed(5)
    image = keras.Input((PX, PX, 3))
    value = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="a")(image)
    value = keras.layers.BatchNormalization(name="b")(value)
    value = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="c")(value)
    return keras.Model(image, value)


def pooled(features: Any) -> dict[str, Any]:
    return {"vector": tf.reduce_mean(features, [1, 2])}


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_signatures_of_other_names_and_batches_answer_any_number(tiny: keras.Model, tmp_path: Path, batch: int) -> None:
    backbone = load(export_strange(tiny, tmp_path / "m", batch=batch, names=("embed",), answer=pooled), "unit")
    expected = np.asarray(tiny(IMAGES / 255, training=False)).mean((1, 2))
    np.testing.assert_allclose(np.asarray(backbone.model(IMAGES / 255))[:, 0, 0], expected, atol=1e-5)


def test_a_feature_map_stays_one(tiny: keras.Model, tmp_path: Path) -> None:
    backbone = load(export_strange(tiny, tmp_path / "m"), "unit")
    assert backbone.model.output_shape == (None, 7, 7, 8) and backbone.usual_cut == "saved_model"


def test_signatures_that_do_not_say_enough_are_refused(tiny: keras.Model, tmp_path: Path) -> None:
    two = export_strange(tiny, tmp_path / "two", names=("first", "second"))
    several = export_strange(tiny, tmp_path / "several", answer=lambda value: {"a": value, "b": value})
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "none"))
    numbers = tf.Module()
    numbers.serve = tf.function(lambda value: {"y": value}, input_signature=[tf.TensorSpec([None, 7], tf.float32)])
    tf.saved_model.save(numbers, str(tmp_path / "numbers"), signatures=numbers.serve)
    for folder in (two, several, tmp_path / "none", tmp_path / "numbers"):
        ended = cutpoint("layers", folder)
        assert ended.exit_code == 2 and "signature" in ended.stderr and "Traceback" not in ended.stderr, ended.stderr


def test_a_module_of_tensorflow_1_has_no_tags(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(0, 0.3, (3, 3, 3, 4)).astype(np.float32)
    builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "hub"))
    for tags in ([], ["train"]):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            photo = tf.compat.v1.placeholder(tf.float32, [None, PX, PX, 3], name="images")
            weights = tf.compat.v1.get_variable("Net/conv/weights", initializer=kernel, use_resource=False)
            features = tf.reduce_mean(tf.nn.relu6(tf.nn.conv2d(photo, weights, 2, "SAME")), [1, 2])
            definition = tf.compat.v1.saved_model.predict_signature_def({"images": photo}, {"default": features})
            session.run(tf.compat.v1.global_variables_initializer())
            if tags:
                builder.add_meta_graph(tags, {"default": definition})
            else:
                builder.add_meta_graph_and_variables(session, tags, {"default": definition})
    builder.save()
    backbone = load(tmp_path / "hub", "unit")
    expected = tf.reduce_mean(tf.nn.relu6(tf.nn.conv2d(IMAGES / 255, kernel, 2, "SAME")), [1, 2])
    np.testing.assert_allclose(np.asarray(backbone.model(IMAGES / 255))[:, 0, 0], expected, atol=1e-5)


def test_names_of_slim_are_those_of_keras() -> None:
    """Every variable of MobileNet V1 and V2 as TF-Slim names it, made from Keras's own names backwards."""
    for build, version in ((keras.applications.MobileNet, "V1"), (keras.applications.MobileNetV2, "V2")):
        network = build(include_top=False, weights=None, input_shape=(PX, PX, 3))
        wanted = {
            (layer.name, weight.name.replace("depthwise_kernel", "kernel"))
            for layer in network.layers
            for weight in layer.weights
        }
        named = {_slim_name(layer, weight, version): np.zeros(1) for layer, weight in wanted}
        found = {(layer, weight) for layer, weights in by_layer(named).items() for weight in weights}
        assert found == wanted


def _slim_name(layer: str, weight: str, version: str) -> str:
    scope = f"module/Mobilenet{version}/"
    if version == "V1":
        plain = layer.removesuffix("_bn")
        parts = plain.split("_")
        kind = {"dw": "depthwise", "pw": "pointwise"}.get(parts[1]) if len(parts) > 1 else None
        scope += f"Conv2d_{parts[2]}_{kind}" if kind else "Conv2d_0"
    elif layer in ("Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn"):
        plain = layer
        scope += "Conv" if "Conv1" in layer else "Conv_1"
    else:
        plain = layer.removesuffix("_BN")
        block, kind = plain.rsplit("_", 1)
        scope += f"{block.replace('block', 'expanded_conv')}/{kind}"
    if weight == "kernel":
        return f"{scope}/{'depthwise_weights' if 'depthwise' in scope else 'weights'}"
    return f"{scope}/BatchNorm/{weight}"


@pytest.mark.parametrize("nested", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_graph_that_writes_files_is_refused(tmp_path: Path, nested: bool) -> None:
    marker = str(tmp_path / "marker")

    @tf.function
    def inner(value: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.io.write_file(marker, "x")]):
            return tf.identity(value)

    def answer(value: tf.Tensor) -> dict[str, tf.Tensor]:
        value = tf.cond(tf.reduce_sum(value) > -1, lambda: inner(value), lambda: value) if nested else inner(value)
        return {"features": tf.reduce_mean(value, [1, 2])}

    module = tf.Module()
    module.serve = tf.function(answer, input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "bad"), signatures=module.serve)
    ended = cutpoint(
        "run", "--backbone", tmp_path / "bad", "--set", "backbone.pixel_scaling=unit", "--out", tmp_path / "o"
    )
    assert ended.exit_code == 2 and "WriteFile" in ended.stderr and "--trust" in ended.stderr
    assert not Path(marker).exists()
    load(tmp_path / "bad", "unit", trust=True)
    assert Path(marker).exists()


def test_code_of_python_is_refused(tmp_path: Path) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.float32)])
    def serve(photo: tf.Tensor) -> dict[str, tf.Tensor]:
        value = tf.py_function(lambda each: each, [tf.reduce_mean(photo, [1, 2])], tf.float32)
        return {"features": tf.ensure_shape(value, [None, 3])}

    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "bad"), signatures=serve)
    with pytest.raises(InputError, match="PyFunc"):
        load(tmp_path / "bad", "unit")


def test_damaged_and_missing_folders_end_with_one_message(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"\x0a\xff\xff\xff")
    (tmp_path / "empty").mkdir()
    without = tmp_path / "without_variables"
    without.mkdir()
    (without / "saved_model.pb").write_bytes((folders / "strange" / "saved_model.pb").read_bytes())
    for name in ("damaged", "empty", "without_variables", "missing/folder"):
        ended = cutpoint("layers", tmp_path / name)
        assert ended.exit_code == 2 and "Traceback" not in ended.stderr, ended.stderr
        assert "Expected:" in ended.stderr and "To mend it:" in ended.stderr


@pytest.mark.parametrize(
    ("handle", "package"),
    [
        ("https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5", "tensorflow_hub"),
        ("https://www.kaggle.com/models/google/mobilenet-v2/tensorFlow2/100-224-feature-vector/2", "kagglehub"),
        ("google/mobilenet-v2/tensorFlow2/100-224-feature-vector/2", "kagglehub"),
    ],
)
def test_a_handle_without_the_hubs_library(monkeypatch: pytest.MonkeyPatch, handle: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ended = cutpoint("layers", handle)
    assert ended.exit_code == 2 and package in ended.stderr and "cutpoint[hub]" in ended.stderr


def test_an_address_of_no_hub(tmp_path: Path) -> None:
    ended = cutpoint("layers", "https://example.org/model")
    assert ended.exit_code == 2 and "no hub" in ended.stderr


def check_run(folders: Path, tmp_path: Path, formats: str) -> None:
    write_drawings(tmp_path / "photos", ("circle", "star"), per_class=40)
    out = tmp_path / "out"
    ended = cutpoint(
        *("run", "--backbone", folders / "strange", "--data", tmp_path / "photos", "--formats", formats),
        *("--set", "backbone.pixel_scaling=tf", "--out", out, "--json"),
    )
    assert ended.exit_code == 0, ended.stderr
    report = ended.json()
    assert {each["status"] for row in report["artifacts"] for each in row["runtimes"]} == {"verified"}
    assert any("ships as backbone/" in note for note in report["notes"])
    # The result can go elsewhere: the file names the folder beside it, and no place of this machine.
    moved = out.rename(tmp_path / "moved")
    model = opaque.load_model(moved / "model.keras")
    assert model.get_layer("saved_model").get_config()["filepath"] == str((moved / "backbone").resolve())
    with np.load(moved / "golden" / "reference.npz") as arrays:
        expected = arrays["label"]
    images = np.load(moved / "golden" / "images.npz")["images"].astype(np.float32)
    np.testing.assert_allclose(model.predict(images, verbose=0)["label"], expected, atol=1e-5)
    with pytest.raises(Exception, match=r"[Dd]isallowed"):
        keras.models.load_model(moved / "model.keras")
    assert json.loads((moved / "card.json").read_text())["backbone"]["name"] == "strange"
    assert cutpoint("verify", moved).exit_code == 0
    (moved / "backbone" / "saved_model.pb").unlink()
    with pytest.raises(InputError, match="SavedModel of its backbone"):
        opaque.load_model(moved / "model.keras")


@pytest.mark.slow
def test_a_run_with_a_saved_model_ships_it(folders: Path, tmp_path: Path) -> None:
    check_run(folders, tmp_path, "onnx-float32")


@pytest.mark.slow
def test_every_format_holds_a_saved_model(folders: Path, tmp_path: Path) -> None:
    check_run(folders, tmp_path, "tfjs-float32,tflite-float32,onnx-float32")
