"""A small real network under the raw-pixel contract, its pictures, and a whole result folder of it, for many test files.

The network is small but not tame: random filters, BatchNorm statistics measured on pictures, heads fitted to what the
pictures show, so that its answers vary, are mostly sure, and change with every fault that an exporter could make.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from exporters.contract import (
    CEILINGS,
    FORMATS,
    WHOLE_NUMBERS,
    ArtifactName,
    Backbone,
    Card,
    Output,
    Resize,
    usual_formats,
)
from exporters.export import export_artifact
from exporters.fingerprints import write_fingerprints
from exporters.golden import FEATURES_IMAGES, GoldenSet, write_golden, write_manifest
from exporters.golden_files import images_of_files, prepare_files
from exporters.inference import InferenceModels
from exporters.measures import spread
from exporters.runners.keras import KerasRunner
from exporters.saved_model import write_saved_model

SIDE_PX = 32
CUT = "cut_relu"
COLORS = {
    "blue": (40, 60, 210),
    "grün": (30, 160, 60),
    "red": (220, 40, 40),
    "sky blue": (90, 200, 240),
    "yellow": (230, 210, 50),
}
TEXTURES = ("across", "checked", "down", "plain", "spotted")
# Two heads of one shape, the first in the model being the last by name: whoever pairs by position is found out.
LABELS = {"zebra": TEXTURES, "apple": tuple(COLORS)}
OUTPUTS = tuple(
    Output(name, "linear", "multiclass", (len(LABELS[name]),), labels=LABELS[name]) for name in sorted(LABELS)
)
CARD = Card(
    "small", Resize(SIDE_PX, SIDE_PX), OUTPUTS, Backbone("small", None, "", "tf"), (CUT,), created_from="sha256:small"
)
GOLDEN_IMAGES = 240
CALIBRATION_IMAGES = 48
# Of those formats that hold every model.
EVERY_ARTIFACT = tuple(
    ArtifactName(name, precision) for name in usual_formats() for precision in FORMATS[name].precisions
)


@dataclasses.dataclass(frozen=True)
class Small:
    """A model with everything that an export of it needs; `truth` is the label that each golden picture bears."""

    model: keras.Model
    card: Card
    images: np.ndarray
    truth: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    calibration_images: np.ndarray


def pictures(count: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Textures in colours on grey with noise: uint8 (count, 32, 32, 3), and what they show, head -> int64 (count,)."""
    generator = np.random.default_rng(seed)
    shown = {"zebra": generator.integers(0, len(TEXTURES), count), "apple": generator.integers(0, len(COLORS), count)}
    drawn = [
        _picture(TEXTURES[texture], list(COLORS.values())[color], generator)
        for texture, color in zip(shown["zebra"], shown["apple"], strict=True)
    ]
    return np.stack(drawn), shown


def _picture(texture: str, color: tuple[int, int, int], generator: np.random.Generator) -> np.ndarray:
    row, column = np.mgrid[0:SIDE_PX, 0:SIDE_PX] + generator.integers(0, 8, (2, 1, 1))
    masks = {
        "across": row % 8 < 4,
        "down": column % 8 < 4,
        "checked": (row % 8 < 4) ^ (column % 8 < 4),
        "plain": np.ones_like(row, bool),
        "spotted": (row % 8 - 3.5) ** 2 + (column % 8 - 3.5) ** 2 < 6,
    }
    background = generator.integers(0, 40)
    drawn = np.where(masks[texture][:, :, None], np.array(color), background).astype(np.float64)
    noisy = drawn * generator.uniform(0.8, 1.1) + generator.normal(0, 3, drawn.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def build_model(seed: int = 0, heads: tuple[str, ...] = tuple(LABELS)) -> keras.Model:
    """Return `image` (N, 32, 32, 3) 0..255 -> {"zebra", "apple"}, each (N, 5) probabilities."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    values = layers.Rescaling(1 / 127.5, offset=-1.0, name="pixel_scaling")(image)
    values = _normed(layers.Conv2D(12, 3, 2, padding="same", use_bias=False, name="first"), values, "first_relu")
    values = _normed(layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="deep"), values, "deep_relu")
    values = _normed(layers.Conv2D(24, 1, use_bias=False, name="point"), values, "point_relu")
    values = _normed(layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False, name="deep_2"), values, "deep_2_relu")
    values = _normed(layers.Conv2D(96, 1, use_bias=False, name="point_2"), values, CUT)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(values)
    dropped = layers.Dropout(0.2)(pooled)
    outputs = {name: layers.Dense(len(LABELS[name]), activation="softmax", name=name)(dropped) for name in heads}
    model = keras.Model(image, outputs, name="small")
    images, shown = pictures(600, seed + 1000)
    _settle_statistics(model, images, np.random.default_rng(seed))
    _fit_heads(model, images, {name: shown[name] for name in heads})
    return model


def _normed(layer: keras.layers.Layer, values: keras.KerasTensor, name: str) -> keras.KerasTensor:
    normed = keras.layers.BatchNormalization(name=f"{layer.name}_norm")(layer(values))
    return keras.layers.ReLU(6.0, name=name)(normed)


def _settle_statistics(model: keras.Model, images: np.ndarray, generator: np.random.Generator) -> None:
    """Give every BatchNorm the mean and variance that its input really has, and a gamma and beta of its own."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            found = np.asarray(keras.Model(model.inputs, layer.input)(images.astype(np.float32)))
            count = found.shape[-1]
            gamma, beta = generator.uniform(0.7, 1.6, count), generator.normal(0.4, 0.4, count)
            layer.set_weights([gamma, beta, found.mean((0, 1, 2)), found.var((0, 1, 2))])


def _fit_heads(model: keras.Model, images: np.ndarray, shown: dict[str, np.ndarray]) -> None:
    """Fit each Dense by softmax regression on the pooled features, in plain numpy."""
    features = np.asarray(keras.Model(model.inputs, model.get_layer("pooled").output)(images.astype(np.float32)))
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    scaled = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], axis=1)
    for name, labels in shown.items():
        truth = np.eye(len(LABELS[name]))[labels]
        weights = np.zeros((scaled.shape[1], truth.shape[1]))
        for _ in range(500):
            logits = scaled @ weights
            odds = np.exp(logits - logits.max(1, keepdims=True))
            weights += 0.3 * scaled.T @ (truth - odds / odds.sum(1, keepdims=True)) / len(truth) - 1e-3 * weights
        # Milder than they were fitted, so that float16's rounding stays well within its limit.
        weights *= 0.8
        kernel = weights[:-1] / deviation[:, None]
        model.get_layer(name).set_weights([kernel, weights[-1] - mean @ kernel])


@functools.cache
def small(seed: int = 0) -> Small:
    """The small model, shared by all tests, which leave it as it is; right on nine of ten pictures, as models are."""
    model = build_model(seed)
    images, truth = pictures(GOLDEN_IMAGES, seed + 1)
    with KerasRunner(model) as runner:
        reference = runner.predict(images)
    calibration_images, _ = pictures(CALIBRATION_IMAGES, seed + 2)
    return Small(model, CARD, images, truth, reference, calibration_images)


@functools.cache
def saved_model(session_folder: Path) -> Path:
    """The small model's SavedModel, with the signatures that the exporters want."""
    return write_saved_model(small().model, CUT, session_folder / "small_saved_model")


@functools.cache
def inference_models(session_folder: Path) -> InferenceModels:
    """The small model's SavedModels as a run makes them: folded, and corrected where a precision wants it."""
    work, one = session_folder / "small_inference_models", small()
    work.mkdir()
    return InferenceModels(one.model, CUT, one.calibration_images, work, features_everywhere=False)


@functools.cache
def result_folder(session_folder: Path) -> Path:
    """A whole result folder of the small model in every format and precision, which tests leave as it is."""
    out, one = session_folder / "small", small()
    for name in EVERY_ARTIFACT:
        saved = inference_models(session_folder).saved_model(name.precision)
        export_artifact(name, saved, one.card, out / "artifacts", one.calibration_images)
    write_fingerprints_of(inference_models(session_folder), out)
    write_golden_of(out, one)
    one.model.save(out / "model.keras")
    one.card.write(out / "card.json")
    return out


def write_golden_of(out: Path, one: Small) -> None:
    """Write the golden set and the manifest over whatever artifacts lie in `out`."""
    files = prepare_files(write_pictures(out / "pictures"), out)
    with KerasRunner(one.model) as runner:
        of_files = runner.predict(images_of_files(files, one.card))
    golden = GoldenSet(one.images, one.truth, one.reference, one.card, CEILINGS, features=features_of(one))
    write_golden(golden, out, files, of_files)
    write_manifest(out, one.card, CEILINGS)


def features_of(one: Small) -> dict[str, np.ndarray]:
    """The cut point's output for the images whose features the golden set keeps, by the name of the output."""
    extractor = keras.Model(one.model.inputs, one.model.get_layer(CUT).output)
    return {"features": np.asarray(extractor(one.images[spread(len(one.images), FEATURES_IMAGES)].astype(np.float32)))}


def write_fingerprints_of(models: InferenceModels, out: Path) -> None:
    """Write what artifacts of every precision must hold into the golden set of a result folder."""
    precisions = {name.precision: models.rounding(name.precision) for name in EVERY_ARTIFACT}
    # Precisions of one rounding share a set, of which the one of the whole numbers tells most.
    ordered = sorted(precisions, key=lambda precision: precision in WHOLE_NUMBERS)
    write_fingerprints({precisions[each]: models.weight_set(each) for each in ordered}, precisions, out / "golden")


def write_pictures(folder: Path, count: int = 3) -> list[Path]:
    """Write a few pictures as PNG files, larger than the network's input, and not square."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"picture {index}.png" for index in range(count)]
    for path, image in zip(paths, pictures(count, 7)[0], strict=True):
        Image.fromarray(image).resize((71, 53), Image.Resampling.BICUBIC).save(path)
    return paths
