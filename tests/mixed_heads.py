"""The small network with a head of every task on it, fitted to what its pictures show, for tests of outputs."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np

from exporters.contract import Backbone, Card, Output, Resize
from tests import small_models
from tests.small_models import CUT, SIDE_PX

SORTS, KINDS, SURE = ("dark", "medium", "bright"), ("cold", "mild", "warm"), ("no", "yes")
MARKS, STEPS = ("red", "green", "blue"), ("none", "few", "some", "many")
# The share of red, and a thousand times that of green: one column must not hide behind the other.
COLUMNS = ("share", "amount")
MASK_PX = 8
TASKS: dict[str, Output] = {
    each.name: each
    for each in (
        Output("amounts", "linear", "regression", (2,), activation="linear", columns=COLUMNS),
        Output("kind", "linear", "multiclass", (3,), labels=KINDS),
        Output("marks", "linear", "multilabel", (3,), activation="sigmoid", labels=MARKS),
        Output("mask", "segmentation", "segmentation", (MASK_PX, MASK_PX, 3), labels=SORTS),
        Output("near", "embedding", "embedding", (96,), activation="unit_length", unit="unit length"),
        Output("place", "boxes", "boxes", (4,), activation="sigmoid", columns=("x_min", "y_min", "x_max", "y_max")),
        Output("rank", "linear", "ordinal", (3,), activation="sigmoid", labels=STEPS),
        Output("sort", "linear", "multiclass", (3,), labels=SORTS),
        Output("sure", "linear", "binary", (1,), activation="sigmoid", labels=SURE),
    )
}


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A model with heads of several tasks, its card, pictures that it was not fitted to, and its answers to them."""

    model: keras.Model
    card: Card
    images: np.ndarray
    reference: dict[str, np.ndarray]
    calibration_images: np.ndarray


def card_of(names: tuple[str, ...]) -> Card:
    """Return the card of a model with the heads of those names."""
    outputs = tuple(TASKS[name] for name in sorted(names))
    backbone = Backbone("small", None, "", "tf")
    return Card("mixed", Resize(SIDE_PX, SIDE_PX), outputs, backbone, (CUT,), created_from="sha256:mixed")


@functools.cache
def mixed(names: tuple[str, ...] = tuple(TASKS), images: int = 120) -> Mixed:
    """Return the small network with the heads named, in that order; tests leave it as it is."""
    base, layers = small_models.small().model, keras.layers
    pooled, deep = base.get_layer("pooled").output, base.get_layer(CUT).output
    fitted, _ = small_models.pictures(400, 31)
    outputs = {name: _head(name, pooled, deep) for name in names}
    model = keras.Model(base.inputs, outputs, name="mixed")
    tapped = keras.Model(base.inputs, [pooled, deep])(fitted.astype(np.float32), training=False)
    features, maps = (np.asarray(each, np.float64) for each in tapped)
    for name in names:
        if any(isinstance(each, (layers.Dense, layers.Conv2D)) and each.name == name for each in model.layers):
            values = maps.reshape(-1, maps.shape[-1]) if name == "mask" else features
            kernel, bias = _fit(values, _wanted(name, fitted))
            kernel = kernel.reshape(model.get_layer(name).kernel.shape)
            model.get_layer(name).set_weights([kernel, bias])
    shown, _ = small_models.pictures(images, 32)
    answers = {name: np.asarray(each) for name, each in model(shown.astype(np.float32), training=False).items()}
    return Mixed(model, card_of(names), shown, answers, small_models.pictures(48, 33)[0])


def _head(name: str, pooled: keras.KerasTensor, deep: keras.KerasTensor) -> keras.KerasTensor:
    output, layers = TASKS[name], keras.layers
    if output.task == "embedding":
        return layers.UnitNormalization(name=name)(pooled)
    if output.task == "segmentation":
        return layers.Conv2D(output.shape[-1], 1, activation="softmax", name=name)(deep)
    return layers.Dense(output.shape[0], output.activation, name=name)(pooled)


def _wanted(name: str, images: np.ndarray) -> np.ndarray:
    """Return what a head should answer before its activation: float64 (N, width), or (N x pixels, classes) for the mask."""
    shares = images.astype(np.float64).mean((1, 2)) / 255
    red, green, blue = shares.T
    bright, warm = shares.mean(1), red - blue
    if name == "amounts":
        return np.stack([red, 1000 * green], 1)
    if name in ("sort", "kind"):
        values = bright if name == "sort" else warm
        bounds = np.quantile(values, (1 / 3, 2 / 3))
        return 6 * (np.eye(3)[np.digitize(values, bounds)] - 0.5)
    if name == "sure":
        return 20 * (green - np.median(green))[:, None]
    if name == "marks":
        return 20 * (shares - np.median(shares, axis=0))
    if name == "rank":
        return 30 * (bright[:, None] - np.quantile(bright, (0.25, 0.5, 0.75)))
    if name == "place":
        return 4 * np.stack([red - 0.9, green - 0.9, red, green], 1)
    values = images.reshape(len(images), MASK_PX, SIDE_PX // MASK_PX, MASK_PX, -1, 3).mean((2, 4, 5)).ravel()
    return 4 * np.eye(3)[np.digitize(values, np.quantile(values, (1 / 3, 2 / 3)))] - 2


def _fit(features: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias by ridge regression on standardised features."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    scaled, middle = (features - mean) / deviation, wanted.mean(0)
    penalty = 1e-2 * len(scaled) * np.eye(scaled.shape[1])
    kernel = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (wanted - middle)) / deviation[:, None]
    return kernel.astype(np.float32), (middle - mean @ kernel).astype(np.float32)
