"""The small network with tabular columns beside the picture: one head that takes them, one that does not; for many test files."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import keras
import numpy as np

from exporters.columns import BUCKET, CATEGORY, NUMBER, Column, encode_cells
from exporters.contract import (
    CEILINGS,
    WHOLE_NUMBERS,
    ArtifactName,
    Card,
    Output,
)
from exporters.export import export_artifact
from exporters.fingerprints import write_fingerprints
from exporters.golden import GoldenSet, write_golden, write_manifest
from exporters.golden_files import cells_of_files, inputs_of_files, prepare_files
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.runners.keras import KerasRunner
from pipeline.encoding import columns_input, encoded
from tests import small_models
from tests.small_models import CUT, EVERY_ARTIFACT, LABELS

GRADES = ("bad", "fair", "good", "très bon", "worst")
COLUMNS = (
    Column("age", NUMBER, default=41.5, mean=41.5, standard_deviation=17.25),
    # Words that mean something to JavaScript, and one that two encodings write otherwise.
    Column("skin", CATEGORY, categories=("__proto__", "dark", "hell", "müde")),
    Column("weight", BUCKET, default=72.0, boundaries=(50.0, 70.5, 90.0)),
)
OUTPUTS = (
    Output("apple", "linear", "multiclass", (5,), labels=LABELS["apple"]),
    Output("grade", "linear", "multiclass", (5,), labels=GRADES),
)
CARD = dataclasses.replace(
    small_models.CARD, name="columned", outputs=OUTPUTS, columns=COLUMNS, created_from="sha256:columned"
)
FLOAT32 = tuple(name for name in EVERY_ARTIFACT if name.precision == "float32")


@dataclasses.dataclass(frozen=True)
class Columned:
    """A model with columns, its card, golden pictures with their cells and truth, its answers, and calibration inputs."""

    model: keras.Model
    card: Card
    inputs: Inputs
    cells: tuple[dict[str, str], ...]
    truth: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    calibration: Inputs


def cells(count: int, seed: int) -> tuple[dict[str, str], ...]:
    """Cells as a CSV may have them: numbers in several spellings, some empty, some of categories that nobody has seen."""
    generator = np.random.default_rng(seed)
    skins = (*COLUMNS[1].categories, "", "unseen")
    rows = []
    for _ in range(count):
        age, weight = generator.uniform(2, 90), generator.uniform(30, 110)
        spelled = [f"{age:.1f}", f" {age:.0f} ", f"{age:.3e}", ""][generator.choice(4, p=(0.5, 0.2, 0.2, 0.1))]
        row = {"age": spelled, "skin": skins[generator.integers(len(skins))], "weight": f"{weight:.1f}"}
        rows.append({name: cell for name, cell in row.items() if generator.random() > 0.05})
    return tuple(rows)


def truth_of(columns: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return the grade of each: by skin and weight where they say something, else by the picture; int64 (N,)."""
    age, skin, weight = columns.T
    grades = np.where(age > 60, 3, colors % 3)
    grades = np.where(weight >= 90, 4, grades)
    return np.where(skin == 2, 0, np.where(skin == 4, 2, grades))


@functools.cache
def columned() -> Columned:
    """The model, shared by all tests, which leave it as it is."""
    base, layers = small_models.small().model, keras.layers
    columns = columns_input(COLUMNS)
    pooled = base.get_layer("pooled").output
    joined = layers.Concatenate(name="grade_with_columns")([pooled, encoded(COLUMNS, columns)])
    outputs = {
        "grade": layers.Dense(5, "softmax", name="grade")(joined),
        "apple": layers.Dense(5, "softmax", name="apple_again")(pooled),
    }
    model = keras.Model([base.inputs[0], columns], outputs, name="columned")
    model.get_layer("apple_again").set_weights(base.get_layer("apple").get_weights())
    fitted, shown = small_models.pictures(900, 51)
    values = encode_cells(COLUMNS, cells(900, 52))
    tapped = keras.Model(model.inputs, joined)([fitted.astype(np.float32), values])
    _fit(model.get_layer("grade"), np.asarray(tapped), truth_of(values, shown["apple"]))
    images, shown = small_models.pictures(small_models.GOLDEN_IMAGES, 53)
    rows = cells(len(images), 54)
    inputs = Inputs(images, encode_cells(COLUMNS, rows))
    with KerasRunner(model) as runner:
        reference = runner.predict(inputs)
    calibration_images, _ = small_models.pictures(small_models.CALIBRATION_IMAGES, 55)
    calibration = Inputs(calibration_images, encode_cells(COLUMNS, cells(len(calibration_images), 56)))
    truth = {"apple": shown["apple"], "grade": truth_of(inputs.columns, shown["apple"])}
    return Columned(model, CARD, inputs, rows, truth, reference, calibration)


def _fit(layer: keras.layers.Dense, features: np.ndarray, labels: np.ndarray) -> None:
    """Fit a Dense by softmax regression on standardised features, in plain numpy."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    scaled = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], axis=1)
    truth, weights = np.eye(5)[labels], np.zeros((scaled.shape[1], 5))
    for _ in range(600):
        logits = scaled @ weights
        odds = np.exp(logits - logits.max(1, keepdims=True))
        weights += 0.3 * scaled.T @ (truth - odds / odds.sum(1, keepdims=True)) / len(truth) - 1e-3 * weights
    kernel = weights[:-1] / deviation[:, None]
    layer.set_weights([kernel, weights[-1] - mean @ kernel])


@functools.cache
def result_folder(session_folder: Path, names: tuple[ArtifactName, ...] = FLOAT32) -> Path:
    """A whole result folder of the model in some formats and precisions, which tests leave as it is."""
    one, out = columned(), session_folder / f"columned-{len(names)}"
    work = session_folder / f"columned-{len(names)}-work"
    work.mkdir()
    models = InferenceModels(one.model, CUT, one.calibration, work, features_everywhere=False)
    for name in names:
        export_artifact(name, models.saved_model(name.precision), one.card, out / "artifacts", one.calibration)
    _write_fingerprints(models, names, out / "golden")
    write_golden_of(out, one)
    one.model.save(out / "model.keras")
    return out


def _write_fingerprints(models: InferenceModels, names: tuple[ArtifactName, ...], golden: Path) -> None:
    roundings = {name.precision: models.rounding(name.precision) for name in names}
    # Precisions of one rounding share a set, of which the one of the whole numbers tells most.
    ordered = sorted(roundings, key=lambda precision: precision in WHOLE_NUMBERS)
    write_fingerprints({roundings[each]: models.weight_set(each) for each in ordered}, roundings, golden)


def write_golden_of(out: Path, one: Columned, card: Card | None = None) -> None:
    """Write the golden set, the manifest and the card over whatever artifacts lie in `out`; `card`: another than the model's."""
    files = prepare_files(small_models.write_pictures(out / "pictures", 6), out)
    rows = cells_of_files(files, one.cells)
    with KerasRunner(one.model) as runner:
        of_files = runner.predict(inputs_of_files(files, one.card, rows))
    golden = GoldenSet(
        one.inputs.images,
        one.truth,
        one.reference,
        one.card,
        CEILINGS,
        features=features_of(one),
        columns=one.inputs.columns,
    )
    write_golden(golden, out, files, of_files, rows)
    write_manifest(out, card or one.card, CEILINGS)
    (card or one.card).write(out / "card.json")


def features_of(one: Columned) -> dict[str, np.ndarray]:
    """The cut point's output for the images whose features the golden set keeps, by the name of the output."""
    base = small_models.small().model
    extractor = keras.Model(base.inputs, base.get_layer(CUT).output)
    chosen = small_models.spread(len(one.inputs), small_models.FEATURES_IMAGES)
    return {"features": np.asarray(extractor(one.inputs.images[chosen].astype(np.float32)))}
