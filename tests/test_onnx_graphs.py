"""ONNX files as tools read them: opset, shapes, what is left in the graph, and what the file says of itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tf2onnx
from tf2onnx.graph import Node

from exporters.audit.auditing import audit
from exporters.contract import FORMATS, ArtifactName, Backbone, Card, Output, Resize, parse_formats
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.onnx import COPIES
from exporters.runners.onnx import OnnxRunner
from exporters.saved_model import write_saved_model
from tests import column_models, mixed_heads, small_models
from tests.mixed_heads import TASKS
from tests.onnx_graphs import check_graph, in_float, kinds_of
from tests.small_models import CUT, LABELS, SIDE_PX

PRECISIONS = FORMATS["onnx"].precisions
# One where pictures come in, one more for each map that goes out.
TRANSPOSES = {name: 2 if output.task == "segmentation" else 1 for name, output in TASKS.items()}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.result_folder(tmp_path_factory.getbasetemp()) / "artifacts"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> InferenceModels:
    one, work = mixed_heads.mixed(), tmp_path_factory.mktemp("mixed")
    return InferenceModels(one.model, CUT, one.calibration_images, work, features_everywhere=True)


def exported(models: InferenceModels, precision: str, card: Card, images: object, artifacts: Path) -> Path:
    name = ArtifactName("onnx", precision)
    return export_artifact(name, models.saved_model(precision), card, artifacts, images) / "model.onnx"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_heads_on_one_network(precision: str, out: Path) -> None:
    check_graph(out / f"onnx-{precision}" / "model.onnx", transposes=1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_head_of_every_task_and_the_features(precision: str, mixed: InferenceModels, tmp_path: Path) -> None:
    one = mixed_heads.mixed()
    path = exported(mixed, precision, one.card, one.calibration_images, tmp_path)
    # The map that the mask is made of and the features are one, and the mask goes out as the features do.
    check_graph(path, transposes=3)
    model = onnx.load(path)
    shapes = {
        each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim[1:]] for each in model.graph.output
    }
    assert shapes == {**{name: list(each.shape) for name, each in TASKS.items()}, "features": [8, 8, 96]}
    with OnnxRunner(path.parent) as runner:
        answers = runner.predict(one.images[:8], outputs=None)
    assert set(answers) == {*TASKS, "features"}


@pytest.mark.parametrize("head", TASKS)
def test_one_head_alone(head: str, tmp_path: Path) -> None:
    one = mixed_heads.mixed((head,))
    saved = write_saved_model(one.model, None, tmp_path / "saved")
    folder = export_artifact(ArtifactName("onnx", "float32"), saved, one.card, tmp_path, one.calibration_images)
    check_graph(folder / "model.onnx", TRANSPOSES[head])


def test_an_optimiser_of_the_converter_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without copies of the graph its failure ends the conversion, which is then done once more with them."""
    tried, write = [], Node.update_proto

    class Failing:
        graph_been_opt = False

        def optimize(self, graph: object, iteration: int) -> None:
            tried.append((os.environ.get(COPIES), Node.update_proto is write))
            raise IndexError("not for this graph")

    monkeypatch.setitem(tf2onnx.optimizer._get_optimizers(), "einsum_optimizer", Failing)
    one = small_models.small()
    saved = write_saved_model(one.model, CUT, tmp_path / "saved")
    folder = export_artifact(ArtifactName("onnx", "float32"), saved, one.card, tmp_path, one.calibration_images)
    assert tried[0] == ("FALSE", False) and set(tried[1:]) == {(None, True)}
    assert COPIES not in os.environ and Node.update_proto is write
    with OnnxRunner(folder) as runner:
        answers = runner.predict(one.images[:8])
    for name, expected in one.reference.items():
        np.testing.assert_allclose(answers[name], expected[:8], atol=1e-5)


def test_columns_beside_the_picture(tmp_path: Path) -> None:
    one = column_models.with_columns()
    models = InferenceModels(one.model, CUT, one.calibration, tmp_path / "saved", features_everywhere=False)
    for precision in ("float32", "int8"):
        kinds = kinds_of(onnx.load(exported(models, precision, one.card, one.calibration, tmp_path)))
        assert kinds["Transpose"] == 1


def test_a_map_laid_flat(tmp_path: Path) -> None:
    """Keras lays it flat channels last: one transposition more, and no guess at the batch."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    values = keras.layers.Conv2D(8, 3, 2, activation="relu", name="conv")(keras.layers.Rescaling(1 / 255)(image))
    label = keras.layers.Dense(5, "softmax", name="label")(keras.layers.Flatten()(values))
    card = Card(
        *("flat", Resize(16, 16), (Output("label", "linear", "multiclass", (5,), labels=tuple("abcde")),)),
        *(Backbone("flat", None, "", "unit"), ()),
    )
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype(np.uint8)
    models = InferenceModels(keras.Model(image, {"label": label}), None, images, tmp_path, features_everywhere=False)
    for precision in PRECISIONS:
        path = exported(models, precision, card, images, tmp_path / "artifacts")
        check_graph(path, transposes=2)


def test_int8_computes_in_floats_only_what_it_must(mixed: InferenceModels, out: Path, tmp_path: Path) -> None:
    one = mixed_heads.mixed()
    path = exported(mixed, "int8", one.card, one.calibration_images, tmp_path)
    length = {"Mul": 2, "ReduceSum": 1, "Max": 1, "Sqrt": 1, "Reciprocal": 1}
    answers = {"Gemm": 1, "Sigmoid": 1}
    # The length of an embedding; the answers `amounts` and `place`; maps that are only turned as they go out.
    assert in_float(onnx.load(path)) == {**length, **answers, "Transpose": 2}
    assert in_float(onnx.load(out / "onnx-int8" / "model.onnx")) == {}


def test_a_batch_of_one(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    one, session = small_models.small(), tmp_path_factory.getbasetemp()
    for name in parse_formats(["onnx-float32-batch1", "onnx-int8-batch1"]):
        saved = small_models.inference_models(session).saved_model(name.precision)
        folder = export_artifact(name, saved, one.card, tmp_path, one.calibration_images)
        check_graph(folder / "model.onnx", transposes=1, batch=1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_labels_and_card_can_be_read_with_onnxruntime_alone(precision: str, out: Path) -> None:
    folder = out / f"onnx-{precision}"
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert set(told) == {"card", "labels.apple", "labels.zebra"}
    assert json.loads(told["card"]) == json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert {head: tuple(json.loads(told[f"labels.{head}"])) for head in LABELS} == LABELS


def test_the_labels_of_one_head_are_called_labels(tmp_path: Path) -> None:
    one = mixed_heads.mixed(("kind",))
    saved = write_saved_model(one.model, None, tmp_path / "saved")
    folder = export_artifact(ArtifactName("onnx", "float32"), saved, one.card, tmp_path, one.calibration_images)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == list(TASKS["kind"].labels)


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("card", '{"name": "another"}', "card inside"),
        ("card", "no JSON", "card inside"),
        ("labels.zebra", '["a", "b"]', "labels inside"),
        ("labels.other", '["a", "b"]', "labels inside"),
    ],
)
def test_what_the_file_says_otherwise_than_its_card_is_found(
    key: str, value: str, check: str, out: Path, tmp_path: Path
) -> None:
    name = ArtifactName("onnx", "float32")
    model = onnx.load(out / str(name) / "model.onnx")
    told = {each.key: each.value for each in model.metadata_props} | {key: value}
    onnx.helper.set_model_props(model, told)
    onnx.save(model, tmp_path / "model.onnx")
    card = Card.read(out / str(name) / "card.json")
    assert check in {each["check"] for each in audit(tmp_path, name, card, None)["faults"]}
    assert audit(tmp_path, name, None, None)["faults"] == [], "made elsewhere, it may say what it likes"
    assert audit(out / str(name), name, card, None)["faults"] == []


def test_the_small_network_has_few_nodes(out: Path) -> None:
    kinds = kinds_of(onnx.load(out / "onnx-float32" / "model.onnx"))
    assert kinds == {
        "Mul": 1,
        "Add": 1,
        "Transpose": 1,
        "Conv": 5,
        "Clip": 5,
        "GlobalAveragePool": 1,
        "Squeeze": 1,
        "Gemm": 2,
        "Softmax": 2,
    }
    image = onnx.load(out / "onnx-float32" / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in image] == ["batch", SIDE_PX, SIDE_PX, 3]
