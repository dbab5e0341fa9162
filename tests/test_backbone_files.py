"""Backbones out of `.keras` and `.h5` files: of any age, nested, with a top, recognised or not, and never running anything."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import legacy_files
import numpy as np
import pytest
from commands import cutpoint
from keras.src.backend.common import global_state
from pictures import write_picture

from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights, load_backbone
from pipeline.backbones.loading_files import load_model_file
from pipeline.backbones.recognition import name_of_scaling, scaling_in_front
from pipeline.config import BackboneSection, read_config
from pipeline.cut import truncate
from pipeline.quickstart import WEIGHTS

REALDATA = os.environ.get("CUTPOINT_REALDATA")
PX = 32
SIZE = Resize(PX, PX)
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, PX, PX, 3)).astype(np.float32)


def load(path: Path, scaling: str = "auto", px: int = PX, *, trust: bool = False) -> LoadedBackbone:
    section = BackboneSection(name=str(path), pixel_scaling=scaling, trust=trust)
    return load_backbone(section, Resize(px, px))


def small(top: bool = False) -> keras.Model:
    """MobileNet 0.25 whose answers depend on its picture."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNet(
        alpha=0.25, include_top=top, weights=None, input_shape=(PX, PX, 3), classes=4 if top else 1000
    )
    draw = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([draw.uniform(0.7, 1.3, each.shape) for each in layer.get_weights()])
    return model


def test_a_legacy_file_that_keras_3_refuses_is_repaired_and_laid_flat(tmp_path: Path) -> None:
    path = legacy_files.teachable_machine(tmp_path / "model.h5")
    with pytest.raises(Exception):  # noqa: B017  Keras raises TypeError or ValueError by version
        keras.models.load_model(path, compile=False)
    loaded = load(path, "none")
    assert [layer.name for layer in loaded.model.layers][1:4] == ["Conv1", "bn_Conv1", "Conv1_relu"]
    # Of three colours, that their answers differ.
    images = (np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1]])[:, None, None] * IMAGES) / 255
    expected = legacy_files.answers(images)
    found = np.asarray(loaded.model(images, training=False))
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert loaded.usual_cut == "out_relu"
    assert truncate(loaded.model, ("Conv1_relu",)).output_shape == (None, 16, 16, 8)


def test_what_keras_3_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    for changed in ({"groups": 2}, {"activation": "hard_sigmoid"}):
        path = legacy_files.teachable_machine(tmp_path / "model.h5", changed=changed)
        with pytest.raises(InputError, match=r"groups=2|hard_sigmoid"):
            load(path, "none")


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([("math.truediv", {"y": 127.5}), ("math.subtract", {"y": 1.0})], "tf"),
        ([("math.multiply", {"y": 1 / 255})], "unit"),
        (
            [
                ("math.truediv", {"y": 255.0}),
                ("nn.bias_add", {"bias": [-0.485, -0.456, -0.406], "data_format": "NHWC"}),
                ("math.truediv", {"y": [0.229, 0.224, 0.225]}),
            ],
            "torch",
        ),
        (
            [
                (
                    "__operators__.getitem",
                    {"slice_spec": [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]},
                ),
                ("nn.bias_add", {"bias": [-103.939, -116.779, -123.68]}),
            ],
            "caffe",
        ),
    ],
)
def test_arithmetic_of_tensorflow_in_a_legacy_file_becomes_layers(
    tmp_path: Path, operations: list[tuple[str, dict]], expected: str
) -> None:
    path = legacy_files.with_operations(
        tmp_path / "m.h5", *({"function": name, "options": each} for name, each in operations)
    )
    loaded = load(path)
    assert loaded.pixel_scaling == "none"
    assert name_of_scaling(loaded.model, scaling_in_front(loaded.model)) == expected


def test_other_functions_of_tensorflow_are_refused(tmp_path: Path) -> None:
    for function, options in (("io.read_file", {}), ("image.resize", {"size": [8, 8]}), ("math.truediv", {"y": "a"})):
        path = legacy_files.with_operations(tmp_path / "m.h5", {"function": function, "options": options})
        with pytest.raises(InputError, match=function):
            load(path)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_scaling_that_was_traced_as_operations_is_recognised(tmp_path: Path, mode: str) -> None:
    image = keras.Input((PX, PX, 3))
    scaled = keras.applications.imagenet_utils.preprocess_input(image, mode=mode)
    inner = small()
    model = keras.Model(image, inner(scaled))
    model.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    assert loaded.pixel_scaling == "none"
    assert any(f"({mode})" in note for note in loaded.notes)
    expected = np.asarray(model(IMAGES, training=False))
    np.testing.assert_allclose(np.asarray(loaded.model(IMAGES)), expected, atol=1e-4 * np.abs(expected).max())
    assert {type(layer).__module__.split(".")[0] for layer in loaded.model.layers} == {"keras"}


def test_models_inside_models_are_laid_flat_and_clashing_names_told_apart(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((PX, PX, 3)), keras.layers.Conv2D(4, 3, name="conv")], name="inner")
    middle = keras.Sequential([keras.layers.RandomFlip(), inner, keras.layers.Dropout(0.5)], name="middle")
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    image = keras.Input((PX, PX, 3))
    value = middle(keras.layers.Rescaling(1 / 255)(image))
    value = shared(shared(value)) + value
    value = keras.layers.Conv2D(2, 1, name="conv")(value)
    model = keras.Model(image, value)
    model.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    names = [layer.name for layer in loaded.model.layers]
    assert len(set(names)) == len(names)
    assert {"conv", "shared"} < set(names) and len([name for name in names if name.endswith("conv")]) == 2
    kinds = {type(layer).__name__ for layer in loaded.model.layers}
    assert kinds == {"InputLayer", "Rescaling", "Conv2D", "Add"}
    np.testing.assert_allclose(np.asarray(loaded.model(IMAGES)), np.asarray(model(IMAGES, training=False)), atol=1e-5)
    for name in names[1:]:
        assert truncate(loaded.model, (name,)).predict(IMAGES, verbose=0).shape[0] == 3


def test_a_known_network_with_its_top_is_recognised(tmp_path: Path) -> None:
    model = small(top=True)
    model.save(tmp_path / "mine.keras")
    loaded = load(tmp_path / "mine.keras")
    assert (loaded.pixel_scaling, loaded.usual_cut, loaded.name) == ("tf", "conv_pw_13_relu", "mine.keras")
    assert any("mobilenet alpha 0.25" in note for note in loaded.notes)
    names = [layer.name for layer in loaded.model.layers]
    assert "conv_preds" in names, "what lies beyond stays listed"
    truncated = truncate(loaded.model, (loaded.usual_cut,))
    expected = keras.Model(model.inputs, model.get_layer("conv_pw_13_relu").output)(IMAGES, training=False)
    np.testing.assert_allclose(np.asarray(truncated(IMAGES)), np.asarray(expected), atol=1e-4)


@pytest.mark.slow
def test_an_alpha_that_no_weights_exist_for_is_recognised(tmp_path: Path) -> None:
    keras.applications.MobileNetV2(alpha=0.6, include_top=False, weights=None, input_shape=(PX, PX, 3)).save(
        tmp_path / "model.keras"
    )
    loaded = load(tmp_path / "model.keras")
    assert "mobilenet_v2 alpha 0.6" in loaded.notes[0] and loaded.usual_cut == "out_relu"


def test_one_changed_layer_makes_it_unknown_and_its_scaling_is_asked_for(tmp_path: Path) -> None:
    model = small()
    changed = keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            keras.layers.Conv2D(256, 1, name=layer.name)
            if layer.name == "conv_pw_13"
            else type(layer).from_config(layer.get_config())
        ),
    )
    changed.save(tmp_path / "model.keras")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "model.keras")
    assert "backbone.pixel_scaling" in caught.value.expected
    assert load(tmp_path / "model.keras", "unit").pixel_scaling == "unit"


def test_another_input_size_than_the_files_takes_the_network_before_its_top(tmp_path: Path) -> None:
    image = keras.Input((PX, PX, 3))
    value = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(value))).save(tmp_path / "model.keras")
    assert "dense" in load(tmp_path / "model.keras").model.layers[-1].name
    loaded = load(tmp_path / "model.keras", px=64)
    assert loaded.model.output_shape == (None, 32, 32, 4)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
@pytest.mark.parametrize("top", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_weights_of_any_form_fit_a_network_of_the_table(tmp_path: Path, suffix: str, top: bool) -> None:
    model, path = small(top), tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    section = BackboneSection(name="mobilenet", alpha=0.25, weights=str(path))
    loaded = load_backbone(section, SIZE)
    for layer in loaded.model.layers[1:]:
        for mine, theirs in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(InputError, match="do not fit"):
        load_backbone(BackboneSection(name="mobilenet", alpha=0.5, weights=str(path)), SIZE)


def test_legacy_weights_alone_with_a_top_fit_too(tmp_path: Path) -> None:
    model = small(top=True)
    model.save(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as source, h5py.File(tmp_path / "weights.h5", "w") as target:
        for key, value in source["model_weights"].attrs.items():
            target.attrs[key] = value
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
    section = BackboneSection(name="mobilenet", alpha=0.25, weights=str(tmp_path / "weights.h5"))
    loaded = load_backbone(section, SIZE)
    np.testing.assert_array_equal(
        loaded.model.get_layer("conv_pw_13").get_weights()[0], model.get_layer("conv_pw_13").get_weights()[0]
    )


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_lambda_never_runs_without_trust(tmp_path: Path, name: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / name
    model = keras.Sequential(
        [
            keras.Input((PX, PX, 3)),
            keras.layers.Lambda(eval(f"lambda value: (open({str(marker)!r}, 'w').close(), value / 255.0)[1]")),
            keras.layers.Conv2D(4, 3),
        ]
    )
    model.save(path)
    marker.unlink()
    # Whatever a process has switched on: the file is looked through before Keras sees it.
    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(InputError, match="Lambda") as caught:
            load(path, "unit")
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)
    assert "--trust" in caught.value.mend
    ended = cutpoint("layers", path)
    assert ended.exit_code == 2 and "Lambda" in ended.stderr
    assert not marker.exists()
    assert cutpoint("layers", path, "--trust").exit_code == 0
    assert marker.exists()
    loaded = load(path, trust=True)
    assert loaded.pixel_scaling == "none", "a Lambda that only scales pixels becomes a layer that does so"
    assert "Lambda" not in {type(layer).__name__ for layer in loaded.model.layers}


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a `.keras` file with another description of its second layer."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config["config"]["layers"][1])
                data = json.dumps(config).encode()
            copy.writestr(name, data)
    return target


@pytest.mark.parametrize(
    "change",
    [
        {"class_name": "TFSMLayer", "config": {"filepath": "elsewhere", "name": "x"}},
        {"class_name": "TorchModuleWrapper", "config": {"module": "gASV", "name": "x"}},
        {"class_name": "StringLookup", "config": {"vocabulary": "/etc/hostname", "name": "x"}},
        {"class_name": "JaxLayer", "config": {"name": "x"}},
        {"module": "keras.utils", "class_name": "get_file"},
        {"module": "os", "class_name": "system"},
        {"module": "keras.src.utils.python_utils", "class_name": "Conv2D"},
        {"module": "mine", "class_name": "Conv2D", "registered_name": "Mine>Conv2D"},
        {"registered_name": "Mine>Conv2D"},
        {"config": {"name": "x", "activation": {"class_name": "function", "module": "builtins", "config": "eval"}}},
        {"config": {"name": "x", "activation": {"class_name": "__lambda__", "config": {"value": "4wEA"}}}},
        {"config": {"name": "x", "kernel_initializer": {"class_name": "__typespec__", "config": []}}},
    ],
    ids=lambda change: str(change.get("class_name") or change.get("registered_name") or list(change["config"])[1]),
)
def test_nothing_but_stock_layers_is_made(tmp_path: Path, change: dict[str, Any]) -> None:
    image = keras.Input((PX, PX, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3, name="x")(image)).save(tmp_path / "plain.keras")
    assert load(tmp_path / "plain.keras", "unit").usual_cut == "x"
    path = rewritten(tmp_path / "plain.keras", tmp_path / "bad.keras", lambda layer: layer.update(change))
    with pytest.raises(InputError, match="not loaded"):
        load(path, "unit")
    ended = cutpoint("export", path, "--data", tmp_path, "--out", tmp_path / "out")
    assert ended.exit_code == 2 and "not loaded" in ended.stderr and "Traceback" not in ended.stderr


def test_files_that_reach_outside_themselves_are_refused(tmp_path: Path) -> None:
    image = keras.Input((PX, PX, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3, name="x")(image)).save(tmp_path / "plain.keras")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(3)

    def linked(path: Path) -> None:
        legacy_files.teachable_machine(path)
        with h5py.File(path, "a") as file:
            file["model_weights/sequential_3/more"] = h5py.ExternalLink(str(other), "secret")

    def external(path: Path) -> None:
        legacy_files.teachable_machine(path)
        with h5py.File(path, "a") as file:
            file.create_dataset("model_weights/raw", (3,), "f4", external=[(str(other), 0, 12)])

    def huge(path: Path) -> None:
        legacy_files.teachable_machine(path)
        with h5py.File(path, "a") as file:
            file.create_dataset("model_weights/huge", (2**31,), "f4", compression="gzip", chunks=(2**20,))

    def member(name: str, size: int = 3) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            path.write_bytes((tmp_path / "plain.keras").read_bytes())
            with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, b"\0" * size)

        return write

    def inner_link(path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "plain.keras") as source, zipfile.ZipFile(path, "w") as copy:
            for name in source.namelist():
                data = source.read(name)
                if name.endswith(".h5"):
                    (tmp_path / "w.h5").write_bytes(data)
                    with h5py.File(tmp_path / "w.h5", "a") as file:
                        file["layers/more"] = h5py.ExternalLink(str(other), "secret")
                    data = (tmp_path / "w.h5").read_bytes()
                copy.writestr(name, data)

    makers = (linked, external, huge, member("../../evil"), member("/etc/evil"), member("assets/x.txt"), inner_link)
    for number, make in enumerate(makers):
        path = tmp_path / f"bad{number}{'.h5' if make in (linked, external, huge) else '.keras'}"
        make(path)
        with pytest.raises(InputError, match="not opened"):
            load(path, "unit")


def test_files_that_are_none_end_with_one_message(tmp_path: Path) -> None:
    whole = legacy_files.teachable_machine(tmp_path / "whole.h5").read_bytes()
    for name, data in (("a.keras", b"no zip"), ("b.h5", whole[:2000]), ("c.keras", b"PK\x03\x04 cut"), ("d.h5", b"")):
        (tmp_path / name).write_bytes(data)
        ended = cutpoint("layers", tmp_path / name)
        assert ended.exit_code == 2 and "Traceback" not in ended.stderr, ended.stderr
        assert "Expected:" in ended.stderr and "To mend it:" in ended.stderr
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_group("layers")
    ended = cutpoint("layers", tmp_path / "weights.h5")
    assert ended.exit_code == 2 and "weights alone" in ended.stderr


def test_options_of_the_table_do_not_go_with_a_file(tmp_path: Path) -> None:
    path = legacy_files.teachable_machine(tmp_path / "model.h5")
    for option in ("backbone.alpha=0.5", "backbone.weights=none"):
        ended = cutpoint("run", "--backbone", path, "--data", tmp_path, "--set", option, "--out", tmp_path / "out")
        assert ended.exit_code == 2 and option.split("=")[0].split(".")[1] in ended.stderr
    ended = cutpoint("run", "--backbone", tmp_path / "missing.keras", "--out", tmp_path / "out")
    assert ended.exit_code == 2 and "is not there" in ended.stderr


def test_a_path_in_a_configuration_is_taken_from_its_folder(tmp_path: Path) -> None:
    legacy_files.teachable_machine(tmp_path / "model.h5")
    (tmp_path / "my.toml").write_text('[backbone]\nname = "model.h5"\n[data]\npath = "photos"\n')
    assert read_config(tmp_path / "my.toml", {}).backbone.name == str(tmp_path / "model.h5")
    (tmp_path / "my.toml").write_text('[backbone]\nname = "google/mobilenet-v2/tensorFlow2/a/1"\n')
    assert read_config(tmp_path / "my.toml", {}).backbone.name == "google/mobilenet-v2/tensorFlow2/a/1"


def test_layers_of_a_file_are_listed_at_its_own_size(tmp_path: Path) -> None:
    rows = cutpoint("layers", legacy_files.teachable_machine(tmp_path / "model.h5"), "--json").json()
    by_name = {row["name"]: row for row in rows}
    assert by_name["out_relu"]["shape"] == [16, 16, 8] and by_name["out_relu"]["usual"]
    assert by_name["dense"]["shape"] == [3]


def write_colours(root: Path) -> None:
    """Pictures of a class for each colour: a network that was never trained knows nothing of shapes."""
    draw = np.random.default_rng(3)
    for number in range(120):
        colour = draw.integers(0, 256, 3) * (np.arange(3) == number % 3) + draw.integers(0, 60, (PX, PX, 3))
        write_picture(root / "rgb"[number % 3] / f"{number}.png", colour.clip(0, 255).astype(np.uint8))


def test_a_run_with_a_legacy_file_ends_with_verified_artifacts(tmp_path: Path) -> None:
    path = legacy_files.teachable_machine(tmp_path / "model.h5")
    write_colours(tmp_path / "photos")
    ended = cutpoint(
        *("run", "--backbone", path, "--data", tmp_path / "photos", "--set", "backbone.pixel_scaling=unit"),
        *("--cut", "Conv1_relu", "--formats", "onnx-float32,tflite-float32", "--out", tmp_path / "out", "--json"),
    )
    report = ended.json()
    assert ended.exit_code == 0, ended.stderr
    assert {each["runtimes"][0]["status"] for each in report["artifacts"]} == {"verified"}
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["backbone"]["name"] == "model.h5" and card["cut"] == ["Conv1_relu"]
    assert any("model.h5" in note for note in report["notes"])


def test_an_exported_model_may_be_a_legacy_file(tmp_path: Path) -> None:
    path = legacy_files.teachable_machine(tmp_path / "model.h5")
    write_colours(tmp_path / "photos")
    ended = cutpoint(
        *("export", path, "--data", tmp_path / "photos", "--pixel-scaling", "unit", "--formats", "onnx-float32"),
        *("--out", tmp_path / "out", "--json"),
    )
    assert ended.exit_code == 0, ended.stderr
    with np.load(tmp_path / "out" / "golden" / "reference.npz") as arrays:
        (reference,) = (arrays[name] for name in arrays.files)
    images = np.load(tmp_path / "out" / "golden" / "images.npz")["images"]
    np.testing.assert_allclose(reference, legacy_files.answers(images.astype(np.float32) / 255), atol=1e-5)


@pytest.mark.slow
def test_the_embedded_network_saved_whole_is_the_embedded_network(tmp_path: Path) -> None:
    by_table = load_backbone(BackboneSection(name="mobilenet_v2", alpha=0.35, weights=str(WEIGHTS)), Resize(96, 96))
    by_table.model.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras", px=96)
    assert loaded.weights_sha256 == by_table.weights_sha256 == digest_of_weights(loaded.model)
    assert (loaded.pixel_scaling, loaded.usual_cuts) == (by_table.pixel_scaling, by_table.usual_cuts)


@pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set")
def test_real_weights_make_the_same_backbone_by_file_and_by_table(tmp_path: Path) -> None:
    weights = Path(REALDATA) / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    by_table = load_backbone(BackboneSection(name="mobilenet_v2", alpha=0.35, weights=str(weights)), Resize(96, 96))
    nested = keras.Sequential([keras.Input((96, 96, 3)), by_table.model, keras.layers.GlobalAveragePooling2D()])
    nested.save(tmp_path / "nested.h5")
    loaded = load(tmp_path / "nested.h5", px=96)
    assert loaded.weights_sha256 == by_table.weights_sha256 and loaded.pixel_scaling == "tf"


def test_a_model_file_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = small(top=True)
    model.save(tmp_path / "model.keras")
    again = load_model_file(tmp_path / "model.keras").model
    np.testing.assert_allclose(np.asarray(again(IMAGES)), np.asarray(model(IMAGES, training=False)), atol=1e-6)
