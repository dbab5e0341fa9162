"""Models made elsewhere: exported with `cutpoint export MODEL.keras`, compared with `cutpoint verify --reference`."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from commands import cutpoint
from pictures import write_drawings

from pipeline.foreign import describe
from pipeline.quickstart import WEIGHTS

ROOT = Path(__file__).parents[1]
PX = 96
LABELS = ("circle", "star", "zigzag")
FORMATS = "tfjs-float32,tflite-float32,onnx-float32"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawings and three models of one network: without pixel scaling, with it, and nested."""
    root = tmp_path_factory.mktemp("foreign")
    write_drawings(root / "photos", LABELS, per_class=40)
    backbone = keras.applications.MobileNetV2(
        alpha=0.35, include_top=False, weights=None, input_shape=(PX, PX, 3), pooling="avg"
    )
    backbone.load_weights(WEIGHTS)
    head = keras.layers.Dense(
        len(LABELS), "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 0.3, seed=1)
    )
    image = keras.Input((PX, PX, 3))
    model = keras.Model(image, head(backbone(image)), name="Mein_Modell")
    model.save(root / "unscaled.keras")
    scaled = keras.Sequential([keras.Input((PX, PX, 3)), keras.layers.Rescaling(1 / 127.5, -1.0), backbone, head])
    scaled.save(root / "scaled.keras")
    (root / "unscaled.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    head.set_weights([np.flip(head.get_weights()[0], 1).copy(), head.get_weights()[1]])
    (root / "swapped.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return root


@pytest.mark.slow
def test_a_model_that_scales_its_pixels_is_exported_and_verified(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = cutpoint(
        "export", here / "scaled.keras", "--data", here / "photos", "--formats", FORMATS, "--out", out, "--json"
    )
    report = ended.json()
    assert (ended.exit_code, report["verdict"]) == (0, "verified"), ended.stderr
    assert [each["name"] for each in report["artifacts"]] == FORMATS.split(",")
    assert all(each["runtimes"][0]["images"] > 0 for each in report["artifacts"])
    assert [each["audit"]["constants"]["layers"] for each in report["artifacts"]] == [53, 53, 53]
    again = keras.models.load_model(out / "model.keras")
    assert [each.name for each in again.inputs] == ["image"]
    assert isinstance(again.output, dict)


def test_pixel_scaling_is_asked_for_never_guessed(here: Path, tmp_path: Path) -> None:
    ended = cutpoint("export", here / "unscaled.keras", "--data", here / "photos", "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert "--pixel-scaling none|unit|tf|torch|caffe" in ended.stderr
    assert not (tmp_path / "out" / "artifacts").exists()


@pytest.mark.slow
def test_with_its_scaling_it_answers_as_the_model_does_on_scaled_pixels(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = cutpoint(
        "export", here / "unscaled.keras", "--data", here / "photos", "--pixel-scaling", "tf",
        "--formats", "onnx-float32", "--out", out,
    )  # fmt: skip
    assert ended.exit_code == 0, ended.stderr
    images = np.load(out / "golden" / "images.npz")["images"].astype(np.float32)
    with np.load(out / "golden" / "reference.npz") as arrays:
        (reference,) = (arrays[name] for name in arrays.files)
    expected = keras.models.load_model(here / "unscaled.keras").predict(images / 127.5 - 1, verbose=0)
    assert np.abs(reference - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).max() > 0.1


@pytest.mark.slow
def test_a_repeated_export_comes_from_the_cache(here: Path, tmp_path: Path) -> None:
    command = ("export", here / "scaled.keras", "--data", here / "photos", "--formats", "onnx-float32", "--json")
    first, second = (cutpoint(*command, "--out", tmp_path / name) for name in ("a", "b"))
    stages = {each["name"]: each["cached"] for each in second.json()["stages"]}
    assert first.exit_code == second.exit_code == 0
    assert stages["export onnx-float32"] is True


def test_a_model_without_data_is_refused_before_anything_is_made(here: Path, tmp_path: Path) -> None:
    ended = cutpoint("export", here / "scaled.keras", "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert "--data" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_lambda_is_refused(here: Path, tmp_path: Path) -> None:
    image = keras.Input((PX, PX, 3))
    keras.Model(image, keras.layers.Lambda(lambda value: value * 2)(image)).save(tmp_path / "lambda.keras")
    ended = cutpoint("export", tmp_path / "lambda.keras", "--data", here / "photos", "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("artifact", "code", "verdict"), [("unscaled", 0, "verified"), ("swapped", 1, "failed")])
def test_an_artifact_made_elsewhere_is_judged(here: Path, artifact: str, code: int, verdict: str) -> None:
    ended = cutpoint(
        "verify", "--reference", here / "unscaled.keras", "--artifact", here / f"{artifact}.tflite",
        "--data", here / "photos", "--pixel-scaling", "tf", "--json",
    )  # fmt: skip
    report = ended.json()
    assert (ended.exit_code, report["verdict"]) == (code, verdict), ended.stderr
    runtime = report["artifacts"][0]["runtimes"][0]
    assert runtime["images"] == 120
    if code:
        assert "agreement" in runtime["reason"]


def test_a_file_of_the_usual_name_beside_it_is_not_taken_for_it(here: Path, tmp_path: Path) -> None:
    shutil.copy(here / "unscaled.tflite", tmp_path / "mine.tflite")
    shutil.copy(here / "swapped.tflite", tmp_path / "model.tflite")
    ended = cutpoint(
        "verify", "--reference", here / "unscaled.keras", "--artifact", tmp_path / "mine.tflite",
        "--data", here / "photos", "--pixel-scaling", "tf",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.stderr


def test_a_part_of_the_three_options_is_refused(here: Path) -> None:
    ended = cutpoint("verify", "--reference", here / "unscaled.keras")
    assert ended.exit_code == 2
    assert "--artifact" in ended.stderr


def test_the_workflow_of_the_readme_does_what_it_says(here: Path, tmp_path: Path) -> None:
    """Its own command, with the files of this test in place of the reader's."""
    block = re.search(r"```yaml\n(name: parity\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    steps = yaml.safe_load(block[1])["jobs"]["parity"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("run", "").startswith("cutpoint verify")]
    names = {"model.keras": "scaled.keras", "model.tflite": "unscaled.tflite", "test_photos/": "photos"}
    words = [str(here / names[word]) if word in names else word for word in shlex.split(command)[1:]]
    ended = cutpoint(*words, "--pixel-scaling", "none", cwd=tmp_path)
    assert ended.exit_code == 1, "the artifact was made without the pixel scaling"
    written = {path.name for path in (tmp_path / "parity").iterdir()}
    assert written == {"report.md", "report.xml", "report.html", "report.json"}
    summary = [step["run"] for step in steps if "GITHUB_STEP_SUMMARY" in step.get("run", "")]
    assert summary and "parity/report.md" in summary[0]
    suite = ElementTree.parse(tmp_path / "parity" / "report.xml").getroot()
    assert int(suite.get("failures")) > 0
    assert "failed" in (tmp_path / "parity" / "report.md").read_text(encoding="utf-8").splitlines()[0]


def test_out_without_a_reference_is_refused(here: Path, tmp_path: Path) -> None:
    ended = cutpoint("verify", here, "--out", tmp_path / "parity")
    assert ended.exit_code == 2 and "--reference" in ended.stderr


@pytest.mark.parametrize(
    ("units", "activation", "labels", "task", "named"),
    [
        (1, "sigmoid", ("a", "b"), "binary", ("a", "b")),
        (1, "sigmoid", ("a", "b", "c"), "binary", ()),
        (3, "sigmoid", ("a", "b", "c"), "multilabel", ()),
        (3, "softmax", ("a", "b", "c"), "multiclass", ("a", "b", "c")),
        (2, "linear", ("a", "b"), "regression", ()),
    ],
)
def test_what_an_output_answers_is_told_by_its_layer(
    units: int, activation: str, labels: tuple[str, ...], task: str, named: tuple[str, ...]
) -> None:
    values = keras.Input((4,))
    model = keras.Model(values, {"out": keras.layers.Dense(units, activation=activation)(values)})
    answers = np.asarray(model(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))["out"])
    found = describe(model, "out", answers, labels)
    assert (found.task, found.labels, found.shape) == (task, named, (units,))


def test_a_softmax_over_a_map_is_a_segmentation() -> None:
    values = keras.Input((4, 4, 2))
    model = keras.Model(values, {"out": keras.layers.Conv2D(3, 1, activation="softmax")(values)})
    assert (
        describe(model, "out", np.asarray(model(np.ones((2, 4, 4, 2)))["out"]), ("a", "b", "c")).task == "segmentation"
    )
