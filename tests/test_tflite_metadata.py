"""TFLite metadata, as MediaPipe's own tasks read it: the right labels, the right numbers, from the file alone."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import keras
import mediapipe
import numpy as np
import pytest
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.python import BaseOptions, vision

from exporters.columns import Column
from exporters.contract import ArtifactName, Backbone, Card, Output, Resize, parse_formats
from exporters.export import export_artifact
from exporters.runners.tflite import TfliteRunner
from exporters.saved_model import write_saved_model
from exporters.tflite_metadata import label_files, metadata_of
from tests import small_models
from tests.small_models import LABELS, SIDE_PX

IMAGES = 40
COLORS = LABELS["apple"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.result_folder(tmp_path_factory.getbasetemp()) / "artifacts"


def options(path: Path) -> BaseOptions:
    return BaseOptions(model_asset_path=str(path / "model.tflite"))


def picture(image: np.ndarray) -> mediapipe.Image:
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))


def classified(path: Path, images: np.ndarray) -> dict[str, tuple[list[str], np.ndarray]]:
    """Head -> its labels in index order as MediaPipe names them, and the scores (N, labels)."""
    found: dict[str, tuple[list[str], list[np.ndarray]]] = {}
    with vision.ImageClassifier.create_from_options(
        vision.ImageClassifierOptions(base_options=options(path), max_results=-1)
    ) as classifier:
        for image in images:
            for head in classifier.classify(picture(image)).classifications:
                ordered = sorted(head.categories, key=lambda each: each.index)
                _, scores = found.setdefault(head.head_name, ([each.category_name for each in ordered], []))
                scores.append(np.array([each.score for each in ordered]))
    return {name: (labels, np.stack(scores)) for name, (labels, scores) in found.items()}


def exported(model: keras.Model, output: Output, work: Path, precision: str) -> Path:
    card = Card("made", Resize(SIDE_PX, SIDE_PX), (output,), Backbone("made", None, "", "none"), ())
    saved = write_saved_model(model, None, work / "saved")
    images, _ = small_models.pictures(24, 3)
    return export_artifact(ArtifactName("tflite", precision), saved, card, work / "artifacts", images)


def own_model(name: str, last: keras.layers.Layer) -> keras.Model:
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    keras.utils.set_random_seed(8)
    values = keras.layers.Conv2D(12, 5, 4, activation="relu")(keras.layers.Rescaling(1 / 127.5, -1.0)(image))
    pooled = values if isinstance(last, keras.layers.Conv2D) else keras.layers.GlobalAveragePooling2D()(values)
    return keras.Model(image, {name: last(pooled)})


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic_int8", "int8"])
def test_mediapipe_names_the_labels_of_every_head(precision: str, folder: Path) -> None:
    images = small_models.small().images[:IMAGES]
    path = folder / f"tflite-{precision}"
    with TfliteRunner(path) as runner:
        expected = runner.predict(images)
    found = classified(path, images)
    assert sorted(found) == sorted(expected) == ["apple", "zebra"]
    for name, (labels, scores) in found.items():
        assert labels == list(LABELS[name])
        # MediaPipe's float answers may round otherwise; in whole numbers one step is 1/256.
        np.testing.assert_allclose(scores, expected[name], atol=1e-5 if precision != "int8" else 1.01 / 256)
    truth = small_models.small().truth["apple"][:IMAGES]
    assert (found["apple"][1].argmax(1) == truth).mean() > 0.8


@pytest.mark.parametrize(
    "name", ["tflite-int8-float_io", "tflite-int8-batch1", "tflite-int16x8", "tflite-float32-batch1"]
)
def test_mediapipe_names_the_labels_of_variants_too(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, (parsed,) = small_models.small(), parse_formats([name])
    saved = small_models.inference_models(tmp_path_factory.getbasetemp()).saved_model(parsed.precision)
    path = export_artifact(parsed, saved, one.card, tmp_path, one.calibration_images)
    with TfliteRunner(path) as runner:
        expected = runner.predict(one.images[:IMAGES])
    found = classified(path, one.images[:IMAGES])
    assert sorted(found) == ["apple", "zebra"]
    for head, (labels, scores) in found.items():
        assert labels == list(LABELS[head])
        np.testing.assert_allclose(scores, expected[head], atol=1e-5 if parsed.precision != "int8" else 1.01 / 256)


def test_a_binary_head_names_the_label_whose_probability_it_is(tmp_path: Path) -> None:
    output = Output("fresh", "linear", "binary", (1,), activation="sigmoid", labels=("no", "yes"))
    model = own_model("fresh", keras.layers.Dense(1, activation="sigmoid"))
    path, images = exported(model, output, tmp_path, "float32"), small_models.small().images[:4]
    labels, scores = classified(path, images)["fresh"]
    assert labels == ["yes"]
    np.testing.assert_allclose(scores, np.asarray(model(images.astype(np.float32))["fresh"]), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_mediapipe_embeds_with_an_embedding(precision: str, tmp_path: Path) -> None:
    output = Output("near", "embedding", "embedding", (12,), activation="unit_length", unit="unit length")
    path = exported(own_model("near", keras.layers.UnitNormalization()), output, tmp_path, precision)
    images = small_models.small().images[:4]
    with TfliteRunner(path) as runner:
        expected = runner.predict(images)["near"]
    with vision.ImageEmbedder.create_from_options(vision.ImageEmbedderOptions(base_options=options(path))) as embedder:
        found = [embedder.embed(picture(image)).embeddings[0] for image in images]
    assert {each.head_name for each in found} == {"near"}
    np.testing.assert_allclose([each.embedding for each in found], expected, atol=1e-5)


def test_mediapipe_segments_with_a_label_map(tmp_path: Path) -> None:
    side = SIDE_PX // 4 - 1
    output = Output("parts", "segmentation", "segmentation", (side, side, 3), labels=("back", "körper", "rand"))
    model = own_model("parts", keras.layers.Conv2D(3, 1, activation="softmax"))
    output = Output(**{**output.__dict__, "shape": tuple(model.output["parts"].shape[1:])})
    path, image = exported(model, output, tmp_path, "float32"), small_models.small().images[0]
    with vision.ImageSegmenter.create_from_options(
        vision.ImageSegmenterOptions(base_options=options(path), output_confidence_masks=True)
    ) as segmenter:
        assert segmenter.labels == ["back", "körper", "rand"]
        masks = segmenter.segment(picture(image)).confidence_masks
    found = np.array([mask.numpy_view().mean() for mask in masks])
    # MediaPipe enlarges the masks to the picture; shares of the area stay.
    expected = np.asarray(model(image[None].astype(np.float32))["parts"]).mean((0, 1, 2))
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_labels_are_a_zip_archive_behind_the_model(folder: Path) -> None:
    content = (folder / "tflite-int8" / "model.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.apple.txt").decode() == "".join(f"{label}\n" for label in COLORS)
        assert archive.namelist() == ["labels.apple.txt", "labels.zebra.txt"]
        assert {each.date_time for each in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert label_files(small_models.CARD) == {f"labels.{name}.txt": LABELS[name] for name in sorted(LABELS)}


def test_the_tables_say_what_the_card_says() -> None:
    columns = (Column("age", "number", default=3.5), Column("skin", "category", categories=("dark", "fair")))
    outputs = (Output("price", "linear", "regression", (2,), activation="linear", columns=("a", "b"), unit="EUR"),)
    card = Card("made", Resize(8, 6), outputs, Backbone("net", None, "", "none"), ("cut",), columns=columns)
    assert label_files(card) == {}
    content = metadata_of(card, ["image", "columns"], ["price", "features"])
    assert content == metadata_of(card, ["image", "columns"], ["price", "features"])
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
    graph = schema.ModelMetadata.GetRootAs(content, 0).SubgraphMetadata(0)
    image, tabular = (graph.InputTensorMetadata(place) for place in range(2))
    assert (image.Name(), tabular.Name()) == (b"image", b"columns")
    assert tabular.Description() == b"age: a number, 3.5 where it is unknown; skin: 0 for unknown, 1 dark, 2 fair"
    properties = schema.ImageProperties()
    properties.Init(image.Content().ContentProperties().Bytes, image.Content().ContentProperties().Pos)
    assert properties.ColorSpace() == schema.ColorSpaceType.RGB
    assert (properties.DefaultSize().Width(), properties.DefaultSize().Height()) == (8, 6)
    unit = image.ProcessUnits(0)
    normalisation = schema.NormalizationOptions()
    normalisation.Init(unit.Options().Bytes, unit.Options().Pos)
    assert (normalisation.Mean(0), normalisation.Std(0)) == (0.0, 1.0)
    price, features = (graph.OutputTensorMetadata(place) for place in range(2))
    assert (price.Name(), price.Description()) == (b"price", b"regression: EUR")
    assert (features.Name(), features.Description()) == (b"features", b"feature map")
    assert price.AssociatedFilesIsNone() and features.AssociatedFilesIsNone()
