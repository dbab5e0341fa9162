"""What whole numbers cost: accuracy and agreement on all photographs by 5-fold, stock converters and ours, two real networks.

Takes more than ten minutes. `CUTPOINT_BENCH_FOLDS` and `CUTPOINT_BENCH_PHOTOGRAPHS` take fewer, for a look; the table with its
plot goes to `$CUTPOINT_BENCH`, by default `runs/bench`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from exporters.contract import ArtifactName
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.pixels import load_images
from exporters.runtimes import open_runner
from pipeline.reference import SELECTION_IMAGES
from pipeline.terminal import Terminal
from tests.benchmarks import stock
from tests.benchmarks.networks import CLASSES, REALDATA, RESIZE, V1, V2, Network, card, photographs, with_head
from tests.benchmarks.table import folder, write_table

pytestmark = pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set")

FOLDS = 5
FOLDS_TAKEN = int(os.environ.get("CUTPOINT_BENCH_FOLDS", FOLDS))
PHOTOGRAPHS = int(os.environ.get("CUTPOINT_BENCH_PHOTOGRAPHS", "0")) or None
CALIBRATION_IMAGES = 200
BATCH = 32
EPOCHS = 50
OURS = tuple(ArtifactName(*name.split("-")) for name in ("tflite-int8", "onnx-int8", "tflite-dynamic_int8"))
STOCK = (ArtifactName("tflite", "int8"), ArtifactName("onnx", "int8"))
MOST_POINTS, MOST_DISAGREEMENT = 1.0, 0.04


@dataclasses.dataclass(frozen=True)
class Fold:
    """A head trained on four fifths, and what the whole model answers to the last: `reference` float32 (N, classes)."""

    model: keras.Model
    calibration: np.ndarray
    selection: np.ndarray
    images: np.ndarray
    truth: np.ndarray
    reference: np.ndarray


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one artifact costs over all photographs: points of accuracy with their standard error, and 1 - agreement."""

    network: str
    artifact: str
    points: float
    error: float
    disagreement: float

    def __str__(self) -> str:
        lost = f"{self.points:+.2f} points below float (standard error {self.error:.2f})"
        return f"{self.network} {self.artifact}: {lost}, 1 - agreement {self.disagreement:.4f}"


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Photographs, uint8 (N, 224, 224, 3), in an order drawn by lot, and the digit that each shows."""
    paths = photographs()
    order = np.random.default_rng(0).permutation(len(paths))[:PHOTOGRAPHS]
    truth = np.array([int(paths[index].parent.name) for index in order])
    return load_images([paths[index] for index in order], RESIZE), truth


def in_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    parts = [model(images[start : start + BATCH].astype(np.float32)) for start in range(0, len(images), BATCH)]
    return np.concatenate([np.asarray(keras.tree.flatten(part)[0]) for part in parts])


def trained_head(features: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """The kernel and the bias of a linear head."""
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(CLASSES, "softmax")
    model = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dropout(0.2), head])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(features, truth, epochs=EPOCHS, batch_size=64, verbose=0)
    return head.get_weights()


def folds(network: Network, images: np.ndarray, truth: np.ndarray) -> Iterator[Fold]:
    whole = with_head(network)
    features = in_batches(keras.Model(whole.input, whole.get_layer("pooled").output), images)
    for number in range(FOLDS_TAKEN):
        held = np.arange(number, len(truth), FOLDS)
        rest = np.setdiff1d(np.arange(len(truth)), held)
        # Those that calibrate and those that choose between ways are not learned from twice: both come from the four fifths.
        drawn = np.random.default_rng(number).permutation(rest)
        calibration, selection = np.split(drawn[: CALIBRATION_IMAGES + SELECTION_IMAGES], [CALIBRATION_IMAGES])
        model = with_head(network, trained_head(features[rest], truth[rest]))
        reference = in_batches(model, images[held])
        yield Fold(model, images[calibration], images[selection], images[held], truth[held], reference)


def artifacts(network: Network, fold: Fold, work: Path) -> Iterator[tuple[str, Path]]:
    """Whose it is and its name, and its folder."""
    for name in STOCK:
        made = work / "stock" / str(name)
        yield f"{name}, stock", stock.make(fold.model, name.format, name.precision, made, fold.calibration)
    models = InferenceModels(
        *(fold.model, network.cut, fold.calibration, work / "saved"),
        features_everywhere=False,
        selection=Inputs(fold.selection),
    )
    for name in OURS:
        saved = models.saved_model(name.precision)
        yield f"{name}, ours", export_artifact(name, saved, card(network), work / "ours", fold.calibration)


def answers(made: Path, images: np.ndarray) -> np.ndarray:
    with open_runner(made, made.name.partition("-")[0]) as runner:
        parts = [runner.predict(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return np.concatenate([next(iter(part.values())) for part in parts])


def costs(network: Network, images: np.ndarray, truth: np.ndarray, work: Path) -> list[Cost]:
    lost: dict[str, list[np.ndarray]] = {}
    unlike: dict[str, list[np.ndarray]] = {}
    for number, fold in enumerate(folds(network, images, truth)):
        expected = fold.reference.argmax(1)
        for name, made in artifacts(network, fold, work / str(number)):
            found = answers(made, fold.images).argmax(1)
            lost.setdefault(name, []).append((expected == fold.truth).astype(float) - (found == fold.truth))
            unlike.setdefault(name, []).append(found != expected)
    return [
        Cost(
            *(f"{network.name} {network.alpha}", name, 100 * float(np.concatenate(parts).mean())),
            100 * float(np.concatenate(parts).std()) / sum(map(len, parts)) ** 0.5,
            float(np.concatenate(unlike[name]).mean()),
        )
        for name, parts in lost.items()
    ]


def test_int8_keeps_its_accuracy(pictures: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    with Terminal().logging_to(tmp_path / "log.txt"):
        found = [each for network in (V1, V2) for each in costs(network, *pictures, tmp_path / network.name)]
    print(*found, sep="\n")
    rows = [
        (each.network, each.artifact, f"{each.points:+.2f} ± {each.error:.2f}", f"{each.disagreement:.4f}")
        for each in found
    ]
    write_table("int8", ("network", "artifact", "points below float", "1 - agreement"), rows)
    draw(found, folder() / "int8.png")
    ours = [each for each in found if each.artifact.endswith("ours")]
    assert len(ours) == 2 * len(OURS)
    assert max(each.points for each in ours) <= MOST_POINTS
    assert max(each.disagreement for each in ours) <= MOST_DISAGREEMENT


def draw(found: list[Cost], path: Path) -> None:
    """Draw what each artifact costs, with the standard errors and the bars."""
    figure = Figure(figsize=(9, 1 + 0.35 * len(found)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(found))
    left.barh(places, [each.points for each in found], xerr=[each.error for each in found], color="#4c78a8")
    right.barh(places, [each.disagreement for each in found], color="#f58518")
    for axes, most, label in ((left, MOST_POINTS, "points below float"), (right, MOST_DISAGREEMENT, "1 - agreement")):
        axes.axvline(most, color="#e45756", linestyle="--")
        axes.set_xlabel(label)
    left.set_yticks(places, [f"{each.network} {each.artifact}" for each in found])
    left.invert_yaxis()
    figure.savefig(path, dpi=120)
