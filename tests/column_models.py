"""The small network with tabular columns beside the picture, and its pictures and columns, for many test files."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np

from exporters.columns import BUCKET, CATEGORY, NUMBER, Column
from exporters.contract import COLUMNS_ENCODED, COLUMNS_NAME, Card, Output
from exporters.inputs import Inputs
from tests import small_models

# A number far from 0 that hardly varies, one of a range of its own, ranges whose edges are hit, and a vocabulary.
COLUMNS = (
    Column("year", NUMBER, default=2020.4, mean=2020.4, standard_deviation=2.5),
    Column("income", NUMBER, default=240_000.0, mean=243_210.0, standard_deviation=61_000.0),
    Column("weight", BUCKET, default=3.5, boundaries=(1.25, 3.5, 7.1)),
    Column("skin", CATEGORY, categories=("dark", "fair", "mid", "naïve, «odd»", "zebra")),
)
OUTPUTS = (
    Output("price", "linear", "regression", (2,), columns=("price", "rent"), unit="EUR"),
    Output("texture", "linear", "multiclass", (5,), labels=small_models.TEXTURES),
)
CARD = dataclasses.replace(small_models.CARD, name="with columns", outputs=OUTPUTS, columns=COLUMNS)
CLIP = 5


@dataclasses.dataclass(frozen=True)
class WithColumns:
    """A model with columns and what an export of it needs."""

    model: keras.Model
    card: Card
    inputs: Inputs
    truth: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    calibration: Inputs


def draw(count: int, seed: int) -> tuple[Inputs, dict[str, np.ndarray]]:
    """Pictures of `small_models` with columns, and what they show; what a head must answer needs both."""
    images, shown = small_models.pictures(count, seed)
    generator = np.random.default_rng(seed + 1)
    columns = np.stack(
        [
            np.rint(generator.normal(2020.4, 2.5, count)),
            generator.normal(243_210, 61_000, count),
            generator.choice([0.5, 1.25, 2.0, 3.5, 5.0, 7.1, 9.0], count),
            generator.integers(0, 6, count),
        ],
        axis=1,
    ).astype(np.float32)
    year, income, weight, skin = columns.astype(np.float64).T
    price = 300_000 + 40_000 * (year - 2020.4) / 2.5 + 0.5 * (income - 243_210) + 20_000 * (shown["apple"] == 2)
    rent = 12 + 3 * (weight >= 3.5) - 2 * (skin == 2) + 1.0 * (shown["zebra"] == 1) + (year - 2020.4) / 5
    # What a picture shows tells most of the label, its category the rest.
    texture = np.where(skin == 5, 3, shown["zebra"])
    truth = {"price": np.stack([price, rent], axis=1), "texture": texture}
    return Inputs(images, columns), truth


def edges() -> Inputs:
    """Inputs at the edges: unknown categories, numbers a hundred standard deviations off, numbers on a boundary."""
    below = np.nextafter(np.float32(7.1), np.float32(0))
    rows = [
        (2020, 243_210, 3.0, 0),
        (2270.4, 243_210, 3.0, 1),
        (1770.4, 243_210, 3.0, 2),
        (2020, 6.4e6, 3.0, 3),
        (2020, -6e6, 3.0, 4),
        (2021, 200_000, 1.25, 5),
        (2021, 200_000, 3.5, 5),
        (2021, 200_000, 7.1, 5),
        (2021, 200_000, below, 5),
        (2021, 200_000, 1e9, 1),
        (2021, 200_000, -1e9, 1),
    ]
    images, _ = small_models.pictures(len(rows), 99)
    return Inputs(images, np.asarray(rows, np.float32))


def encode(columns: keras.KerasTensor, described: tuple[Column, ...] = COLUMNS) -> keras.KerasTensor:
    """Lay Keras's preprocessing layers over raw columns (N, C), as a run does."""
    layers, parts = keras.layers, []
    for index, column in enumerate(described):
        value = columns[:, index : index + 1]
        name = f"columns_{column.name}"
        if column.kind == NUMBER:
            variance = [column.standard_deviation**2]
            normalised = layers.Normalization(axis=-1, mean=[column.mean], variance=variance, name=f"{name}_normalized")
            parts.append(keras.ops.clip(normalised(value), -CLIP, CLIP))
        elif column.kind == BUCKET:
            ranges = layers.Discretization(list(column.boundaries), output_mode="int", name=f"{name}_ranges")
            one_hot = layers.CategoryEncoding(column.width, output_mode="one_hot", name=f"{name}_one_hot")
            parts.append(one_hot(ranges(value)))
        elif column.kind == CATEGORY:
            one_hot = layers.CategoryEncoding(column.width + 1, output_mode="one_hot", name=f"{name}_one_hot")
            parts.append(one_hot(value)[:, 1:])
    return layers.Concatenate(name=COLUMNS_ENCODED)(parts)


def build_model(seed: int = 0) -> keras.Model:
    """Return [image, columns] -> {"texture": (N, 5) probabilities, "price": (N, 2) in EUR}."""
    network = small_models.build_model(seed)
    pooled = network.get_layer("pooled").output
    columns = keras.Input((len(COLUMNS),), name=COLUMNS_NAME)
    encoded = encode(columns)
    beside = {
        name: keras.layers.Concatenate(name=f"{name}_with_columns")([pooled, encoded]) for name in ("texture", "price")
    }
    texture = keras.layers.Dense(5, activation="softmax", name="texture")(keras.layers.Dropout(0.2)(beside["texture"]))
    hidden = keras.layers.Dense(16, activation="relu", name="price_hidden")(beside["price"])
    price = keras.layers.Dense(2, name="price")(hidden)
    model = keras.Model([network.inputs[0], columns], {"texture": texture, "price": price}, name="with_columns")
    inputs, truth = draw(600, seed + 1000)
    features = np.asarray(keras.Model(model.inputs, beside["texture"])(list(inputs.named().values())), np.float64)
    _fit(model, features, truth, np.random.default_rng(seed))
    return model


def _fit(
    model: keras.Model, features: np.ndarray, truth: dict[str, np.ndarray], generator: np.random.Generator
) -> None:
    """Fit the heads in plain numpy: the softmax by gradient descent, the regression by least squares.

    Of its hidden units two carry the numbers in shares of their spread, such that ReLU lets them pass; the others are random.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-2
    scaled = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], axis=1)
    wanted, weights = np.eye(5)[truth["texture"]], np.zeros((scaled.shape[1], 5))
    for _ in range(800):
        odds = np.exp(scaled @ weights - (scaled @ weights).max(1, keepdims=True))
        weights += 0.3 * scaled.T @ (wanted - odds / odds.sum(1, keepdims=True)) / len(scaled) - 1e-3 * weights
    drawn = generator.normal(0, 0.05, (scaled.shape[1], 16))
    shares = (truth["price"] - truth["price"].mean(0)) / truth["price"].std(0)
    drawn[:, :2] = np.linalg.solve(scaled.T @ scaled + 10 * np.eye(scaled.shape[1]), scaled.T @ shares)
    drawn[-1, :2] += 4
    for name, each in (("texture", 0.8 * weights), ("price_hidden", drawn)):
        kernel = each[:-1] / deviation[:, None]
        model.get_layer(name).set_weights([kernel, each[-1] - mean @ kernel])
    units = np.concatenate([np.maximum(scaled @ drawn, 0), np.ones((len(scaled), 1))], axis=1)
    solved = np.linalg.solve(units.T @ units + np.eye(units.shape[1]), units.T @ truth["price"])
    model.get_layer("price").set_weights([solved[:-1], solved[-1]])


def answers(model: keras.Model, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return what Keras answers."""
    found = model(list(inputs.named().values()), training=False)
    return {name: np.asarray(each) for name, each in found.items()}


@functools.cache
def with_columns() -> WithColumns:
    """The model, shared by all tests, which leave it as it is."""
    model = build_model()
    inputs, truth = draw(small_models.GOLDEN_IMAGES, 1)
    calibration, _ = draw(small_models.CALIBRATION_IMAGES, 2)
    return WithColumns(model, CARD, inputs, truth, answers(model, inputs), calibration)
