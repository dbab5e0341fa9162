"""Several cuts at once, from the command to every artifact: which features reach which head, under which name, and no more."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import Outcome, cutpoint
from pictures import SMALL, write_drawings, write_picture
from random_backbones import settle

from exporters.contract import CEILINGS, FORMATS, Backbone, Card, Output, Resize, features_names
from exporters.errors import InputError
from exporters.export import export_artifact
from exporters.feature_maps import judge_features
from exporters.golden import GoldenSet, read_golden, read_manifest
from exporters.inference import InferenceModels
from exporters.papers import parse_artifact_name
from exporters.pixels import load_images
from exporters.runtimes import open_runner
from exporters.saved_model import named_outputs
from exporters.verification import verify_artifact
from pipeline.assembly import Part, assemble
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection, read_config
from pipeline.cut import truncate
from pipeline.dataset import list_examples
from pipeline.extraction import cuts_of_head, extract
from pipeline.heads import build_head
from pipeline.quickstart.drawings import LABELS, draw
from pipeline.terminal import Terminal

# Two of them give maps of one shape: whoever pairs by position or by shape is found out.
CUTS = ("block_6_expand_relu", "block_11_add", "block_12_add", "out_relu")
NAMES = ("features_block_6_expand_relu", "features_block_11_add", "features_block_12_add", "features")
CONFIG = """
[backbone]
name = "mobilenet_v2"
alpha = 0.35
weights = "quickstart"
cut = ["out_relu", "block_12_add", "stride:8", "block_11_add"]
[resize]
width = 96
[heads.label]
features = ["block_12_add", -1]
[heads.near]
kind = "embedding"
features = "block_6_expand_relu"
[heads.pyramid]
kind = "mlp"
hidden = [8]
pooling = "max"
[training]
epochs = 4
[export]
features = true
calibration_images = 16
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several_cuts")


@pytest.fixture(scope="module", autouse=True)
def cache(here: Path) -> Any:
    """A cache for this file's runs alone, which begins empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUTPOINT_CACHE", str(here / "cache"))
        yield here / "cache"


@pytest.fixture(scope="module")
def data(here: Path) -> Path:
    return write_drawings(here / "drawings")


@pytest.fixture(scope="module")
def config(here: Path) -> Path:
    path = here / "several.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(here: Path, data: Path, config: Path) -> tuple[Outcome, Path]:
    formats = "tfjs-float32,tflite-float32,onnx-float32"
    return cutpoint("run", config, "--data", data, "--out", here / "out", "--formats", formats), here / "out"


# --- a whole run ---------------------------------------------------------------------------------------------------


def test_a_run_with_several_cuts_is_verified(done: tuple[Outcome, Path]) -> None:
    outcome, out = done
    assert outcome.exit_code == 0, outcome.stderr
    card = json.loads((out / "card.json").read_text())
    assert card["cut"] == list(CUTS)
    near = {output["name"]: output for output in card["outputs"]}["near"]
    assert (near["kind"], near["task"], near["unit"], near["labels"]) == ("embedding", "embedding", "unit length", [])
    report = json.loads((out / "report.json").read_text())
    assert set(report["reference"]["accuracy"]) == set(report["training"]) == set(report["data"]["labels"])
    assert set(report["training"]) == {"label", "pyramid"}
    for artifact in report["artifacts"]:
        for runtime in artifact["runtimes"]:
            assert set(runtime["outputs"]) == {"label", "near", "pyramid"}
            assert runtime["outputs"]["near"]["least_cosine"] > 0.999999
            assert "accuracy" not in runtime["outputs"]["near"]
            found = runtime["features"]["outputs"]
            assert {name: each["cut"] for name, each in found.items()} == dict(zip(NAMES, CUTS, strict=True))
            assert all(each["status"] == "verified" and each["relative"] < 1e-4 for each in found.values())


def test_every_format_gives_every_cut_by_its_name(done: tuple[Outcome, Path]) -> None:
    _, out = done
    golden = read_golden(out, read_manifest(out))
    model = keras.models.load_model(out / "model.keras")
    extractor = keras.Model(model.inputs, {cut: model.get_layer(cut).output for cut in CUTS})
    images = golden.images[:2]
    expected = {cut: np.asarray(value) for cut, value in extractor(images.astype(np.float32)).items()}
    assert expected[CUTS[1]].shape == expected[CUTS[2]].shape
    for folder in (out / "artifacts").iterdir():
        with open_runner(folder, parse_artifact_name(folder.name).format) as runner:
            answers = runner.predict(images, outputs=NAMES)
        for name, cut in zip(NAMES, CUTS, strict=True):
            np.testing.assert_allclose(answers[name], expected[cut], atol=1e-3)
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert all(
            f"- `{name}`: feature map of the layer `{cut}`" in readme for name, cut in zip(NAMES, CUTS, strict=True)
        )


def test_heads_answer_from_the_features_of_their_own_cuts(done: tuple[Outcome, Path]) -> None:
    _, out = done
    model = keras.models.load_model(out / "model.keras")

    def reached_by(head: str) -> set[str]:
        layers = {layer.name for layer in keras.Model(model.inputs, named_outputs(model)[head]).layers}
        return {name.partition("_of_")[2] for name in layers if "_of_" in name} or layers & {CUTS[0]}

    assert (reached_by("label"), reached_by("pyramid")) == ({CUTS[2], CUTS[3]}, set(CUTS))
    assert reached_by("near") == {CUTS[0]}
    assert model.get_layer("near_average").output.shape[-1] == 96
    assert CUTS[3] not in {layer.name for layer in keras.Model(model.inputs, named_outputs(model)["near"]).layers}


def test_an_artifact_without_a_promised_cut_fails(done: tuple[Outcome, Path], tmp_path: Path) -> None:
    _, out = done
    folder = shutil.copytree(out / "artifacts" / "tfjs-float32", tmp_path / "tfjs-float32")
    golden = read_golden(out, read_manifest(out))
    for gone in (NAMES[:1], NAMES[1:]):
        model = json.loads((folder / "model.json").read_text())
        for name in gone:
            model["signature"]["outputs"].pop(name)
        model["userDefinedMetadata"]["structuredOutputKeys"] = sorted(model["signature"]["outputs"])
        (folder / "model.json").write_text(json.dumps(model))
        runtime = verify_artifact(folder, golden)["runtimes"][0]
        assert (runtime["status"], runtime["features"]["status"]) == ("failed", "failed")
        assert f"{gone[0]}: the artifact has no such output" in runtime["reason"]


def test_embeddings_are_shown_short_and_given_whole(done: tuple[Outcome, Path], data: Path) -> None:
    _, out = done
    picture = sorted(data.rglob("*.png"))[0]
    artifact = out / "artifacts" / "onnx-float32"
    lines = cutpoint("predict", artifact, picture).stdout.splitlines()
    assert next(line for line in lines if "near: " in line).partition("near: ")[2].startswith("96 values: ")
    values = cutpoint("predict", artifact, picture, "--json").json()[0]["outputs"]["near"]["vector"]
    assert len(values) == 96
    assert np.isclose(np.linalg.norm(values), 1, atol=1e-5)


# --- what is cached ------------------------------------------------------------------------------------------------


def test_features_of_a_subset_are_those_of_the_whole_list(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    settings = read_config(None, {"data.path": str(data), "backbone.weights": "quickstart", "backbone.alpha": 0.35})
    how, examples = Resize(64, 64), list_examples(data, ("label",), "")[:12]
    backbone = load_backbone(settings.backbone, how)

    def found(cuts: tuple[str, ...], cache: str) -> tuple[np.ndarray, int]:
        monkeypatch.setenv("CUTPOINT_CACHE", str(tmp_path / cache))
        extracted = extract(settings, backbone, [(cut, "average") for cut in cuts], examples, how, "cpu", Terminal())
        return extracted.of_head(cuts, "average", examples), extracted.computed

    whole, computed = found(CUTS, "shared")
    assert computed == len(examples)
    widths = [backbone.model.get_layer(cut).output.shape[-1] for cut in CUTS]
    start = np.cumsum([0, *widths])
    for chosen in ((0,), (3,), (0, 2), (1, 3)):
        cuts = tuple(CUTS[index] for index in chosen)
        expected = np.concatenate([whole[:, start[index] : start[index + 1]] for index in chosen], axis=1)
        again, computed = found(cuts, "shared")
        assert computed == 0
        assert np.array_equal(again, expected)
        afresh, computed = found(cuts, f"cuts {chosen}")
        assert computed == len(examples)
        np.testing.assert_allclose(afresh, expected, atol=1e-5)
    # One cut more: only what is missing is computed, and what was there is left as it was.
    more, computed = found(("block_3_expand_relu", *CUTS), "shared")
    assert computed == len(examples)
    assert np.array_equal(more[:, -whole.shape[1] :], whole)


def test_heads_take_only_what_is_cut_at() -> None:
    backbone = load_backbone(BackboneSection(alpha=0.35, weights="none"), Resize(64, 64))
    section = read_config(None, {"heads": {"label": {"features": ["stride:16", "block_2_add"]}}}).heads["label"]
    cuts = ("block_2_add", "block_13_expand_relu", "out_relu")
    assert cuts_of_head("label", section, backbone, cuts) == cuts[:2]
    with pytest.raises(InputError, match="head 'label' takes the features of 'block_2_add'") as caught:
        cuts_of_head("label", section, backbone, cuts[1:])
    assert "block_13_expand_relu, out_relu" in caught.value.expected


# --- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--cut", "out_relu,-1"], "are the same layer"),
        (["--cut", "stride:7"], "no cut 'stride:7'"),
        (["--cut", "out_relu,nothing"], "has no layer 'nothing'"),
        (["--cut", "out_relu,auto"], "'auto' stands where a layer is needed"),
        (["--set", "backbone.cut=[]"], "list of cuts is empty"),
        (["--set", 'heads.label.features=["Conv1"]'], "takes the features of 'Conv1', which is not cut at"),
        (["--set", "heads.features_x.kind=linear"], "cannot be called 'features_x'"),
        (["--set", "heads.label.kind=embedding", "--set", "heads.label.task=multiclass"], "cannot answer the task"),
    ],
)
def test_what_cannot_be(data: Path, tmp_path: Path, settings: list[str], said: str) -> None:
    outcome = cutpoint("run", "--data", data, "--out", tmp_path / "out", *SMALL, *settings, "--json")
    assert outcome.exit_code == 2
    assert said in outcome.json()["error"]["what"]


# --- an embedding alone --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_embedding_needs_no_labels(tmp_path: Path) -> None:
    for number in range(60):
        label = LABELS[number % 6]
        write_picture(tmp_path / "photos" / f"{number:02d}.png", draw(label, np.random.default_rng(number), 64))
    formats = "tflite-int8,onnx-int8"
    options = ["--head", "embedding", "--formats", formats, "--set", "data.split=[0.4,0.1,0.5]"]
    outcome = cutpoint("run", "--data", tmp_path / "photos", "--out", tmp_path / "out", *SMALL, *options)
    assert outcome.exit_code == 0, outcome.stderr
    assert "%" not in outcome.stdout.splitlines()[0]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["reference"]["accuracy"] == report["training"] == report["data"]["labels"] == {}
    for artifact in report["artifacts"]:
        figures = artifact["runtimes"][0]["outputs"]["label"]
        assert figures["least_cosine"] >= CEILINGS[artifact["precision"]].least_cosine
        assert figures["neighbours"] >= 0.9 and "accuracy" not in figures
        assert figures["length_error"] < 0.1
        card = json.loads((tmp_path / "out" / "artifacts" / artifact["name"] / "card.json").read_text())
        assert card["outputs"][0]["dtype"] == "float32"
        assert not list((tmp_path / "out" / "artifacts" / artifact["name"]).glob("labels*.txt"))


# --- features by name and by value ---------------------------------------------------------------------------------


def golden_of(reference: dict[str, np.ndarray], cut: tuple[str, ...]) -> GoldenSet:
    card = Card("", Resize(4, 4), (), Backbone("", None, "", "none"), cut)
    return GoldenSet(np.zeros((3, 4, 4, 3), np.uint8), {}, {}, card, CEILINGS, features=reference)


def maps(*seeds: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).uniform(0, 1, (3, 2, 2, 5)).astype(np.float32) for seed in seeds]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_cuts_of_one_shape_must_not_change_places(precision: str) -> None:
    first, last = maps(1, 2)
    # As alike as what neighbouring blocks of a residual network give.
    last = (0.8 * first + 0.2 * last).astype(np.float32)
    golden = golden_of({"features_a": first, "features": last}, ("A", "b"))
    right = judge_features({"features_a": first, "features": last}, golden, precision)
    assert right["status"] == "verified" and right["outputs"]["features_a"]["cut"] == "A"
    swapped = judge_features({"features_a": last, "features": first}, golden, precision)
    assert swapped["status"] == "failed"
    if precision == "int8":
        assert "they are nearer to those of features_a" in swapped["outputs"]["features"]["reason"]
    noisy = {"features_a": first * np.float32(1.0005), "features": last}
    assert judge_features(noisy, golden, precision)["status"] == "verified"


def test_features_missing_or_too_many_or_without_reference() -> None:
    first, last = maps(1, 2)
    golden = golden_of({"features_a": first, "features": last}, ("A", "b"))
    missing = judge_features({"features": last}, golden, "float32")
    assert (missing["status"], missing["reason"]) == ("failed", "features_a: the artifact has no such output")
    strange = judge_features({"features_a": first, "features": last, "features_c": last}, golden, "float32")
    assert "features_c: the card names no cut" in strange["reason"]
    other = judge_features({"features_a": first, "features": last[:, :1]}, golden, "float32")
    assert other["status"] == "failed" and "shape" in other["reason"]
    without = judge_features({"features": last}, golden_of({}, ("b",)), "float32")
    assert without["status"] == "not_verified"
    assert judge_features({}, golden_of({}, ()), "float32") is None


def test_names_of_outputs_that_carry_features() -> None:
    assert features_names(()) == {}
    assert features_names(("out_relu",)) == {"out_relu": "features"}
    assert list(features_names(CUTS).items()) == list(zip(CUTS, NAMES, strict=True))
    odd = features_names(("Conv 1/a", "conv_1_a", "Conv-1-A", "end"))
    assert list(odd.values()) == ["features_conv_1_a", "features_conv_1_a_2", "features_conv_1_a_3", "features"]


# --- style and content ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_taps_for_style_and_content(tmp_path: Path) -> None:
    """The layers of Gatys et al. 2016 ("Image style transfer using convolutional neural networks"), at a small input."""
    style = [f"block{block}_conv1" for block in (1, 2, 3)]
    folder = write_drawings(tmp_path / "drawings", per_class=12)
    how = Resize(32, 32)
    images = load_images(sorted(folder.rglob("*.png"))[::3], how)
    settled = settle(load_backbone(BackboneSection(name="vgg19", weights="none"), how).model, images / 60 - 2)
    settled.save_weights(tmp_path / "vgg19.weights.h5")
    options = [
        "--backbone",
        "vgg19",
        "--weights",
        tmp_path / "vgg19.weights.h5",
        "--cut",
        ",".join([*style, "block3_conv2"]),
    ]
    options += ["--formats", "onnx-float32", "--set", "export.features=true", "--set", "export.calibration_images=4"]
    options += ["--set", "resize.width=32", "--set", 'heads.label.features="block3_conv2"']
    outcome = cutpoint("run", "--data", folder, "--out", tmp_path / "out", *options, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    (artifact,) = outcome.json()["artifacts"]
    found = artifact["runtimes"][0]["features"]["outputs"]
    assert {name: each["cut"] for name, each in found.items()} == {
        **{f"features_{cut}": cut for cut in style},
        "features": "block3_conv2",
    }
    with np.load(tmp_path / "out" / "golden" / "features.npz") as reference:
        assert reference["features_block1_conv1"].shape[1:] == (32, 32, 64)
        assert reference["features"].shape[1:] == (8, 8, 256)


# --- nothing beyond the cut ----------------------------------------------------------------------------------------


def exported(cuts: tuple[str, ...], out: Path) -> tuple[keras.Model, Path]:
    """Every format and precision of a small MobileNet that is cut there, with a head."""
    keras.utils.set_random_seed(0)
    backbone = load_backbone(BackboneSection(name="mobilenet", alpha=0.25, weights="none"), Resize(32, 32))
    truncated = truncate(backbone.model, cuts)
    width = sum(truncated.get_layer(cut).output.shape[-1] for cut in cuts)
    section = read_config(None, {}).heads["label"]
    model = assemble(truncated, "tf", {"label": Part("average", cuts, build_head("label", section, width, 3, 0))})
    output = Output("label", "linear", "multiclass", (3,), labels=("a", "b", "c"))
    card = Card("small", Resize(32, 32), (output,), Backbone("mobilenet", 0.25, "", "tf"), cuts)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    models = InferenceModels(model, cuts, images, out / "saved", features_everywhere=True)
    for format_name, row in FORMATS.items():
        for precision in row.precisions:
            name = parse_artifact_name(f"{format_name}-{precision}")
            export_artifact(name, models.saved_model(precision), card, out / "artifacts", images)
    return model, out / "artifacts"


def kernels_of_keras(model: keras.Model) -> Counter:
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return Counter(tuple(layer.weights[0].shape) for layer in model.layers if isinstance(layer, kinds))


def kernels_of(folder: Path) -> Counter:
    module, _, attribute = FORMATS[parse_artifact_name(folder.name).format].reader.partition(":")
    contents = getattr(__import__(module, fromlist=[attribute]), attribute)(folder)
    return Counter(tuple(layer.kernel.values.shape) for layer in contents.layers)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name not in ("README.md", "card.json"))


@pytest.mark.slow
def test_nothing_beyond_the_cuts_is_left_in_any_format(tmp_path: Path) -> None:
    early, artifacts = exported(("conv_pw_1_relu", "conv_pw_2_relu"), tmp_path / "early")
    # The stem, two pairs and the head; in the whole network there are thirteen pairs.
    assert sum(kernels_of_keras(early).values()) == 6
    for folder in sorted(artifacts.iterdir()):
        assert kernels_of(folder) == kernels_of_keras(early), folder.name
    whole, others = exported(("conv_pw_13_relu",), tmp_path / "whole")
    assert sum(kernels_of_keras(whole).values()) == 28
    for folder in sorted(others.iterdir()):
        assert kernels_of(folder) == kernels_of_keras(whole), folder.name
        assert size_of(artifacts / folder.name) < size_of(folder) / 3, folder.name
