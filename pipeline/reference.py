"""The Keras model's answers to test pictures, by which every artifact will be judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import Card, features_names
from exporters.errors import CutpointError
from exporters.golden import FEATURES_IMAGES, GoldenSet, write_golden
from exporters.golden_files import cells_of_files, inputs_of_files, prepare_files
from exporters.inputs import Inputs
from exporters.measures import spread
from exporters.pixels import load_images
from exporters.runners.keras import KerasRunner
from pipeline import bundle
from pipeline.assembly import Part
from pipeline.columns import raw_columns
from pipeline.config import Config, limits_of
from pipeline.run import choose
from pipeline.scores import score
from pipeline.splitting import Dataset, Example
from pipeline.targets import Target

# The assembled model and the head on cached features are the same arithmetic, up to the order of additions.
LARGEST_ASSEMBLY_DIFFERENCE = 1e-3
# Enough to tell ways of making an artifact apart; they are kept with the result folder.
SELECTION_IMAGES = 128
# Of one cut's reference feature maps: early layers' are large, and the golden set travels.
LARGEST_FEATURES_BYTES = 16 * 2**20


@dataclasses.dataclass(frozen=True)
class Taught:
    """One head, trained where it learns.

    `part` is the head and what it takes; `history` of the training, empty for one that does not learn; `answers` float32
    (N, ...) to all test pictures.
    """

    part: Part
    history: dict[str, Any]
    answers: np.ndarray


def write_reference(
    config: Config,
    model: keras.Model,
    card: Card,
    dataset: Dataset,
    taught: Mapping[str, Taught],
    targets: Mapping[str, Target],
    staged: Path,
) -> None:
    """Write the golden set, the calibration images and those of the validation split that the export chooses by.

    Raises:
        CutpointError: the assembled model answers otherwise than its heads do on cached features.
    """
    test = dataset.of_split("test")
    chosen = choose(test, config.parity.images, config.seed)
    inputs = _inputs(chosen, card)
    truth = {output.name: targets[output.name].truth(chosen) for output in card.outputs if targets[output.name].columns}
    files = prepare_files([example.path for example in chosen], staged)
    cells = cells_of_files(files, [example.cells for example in chosen]) if card.columns else None
    with KerasRunner(model) as runner:
        reference = runner.predict(inputs)
        of_files = runner.predict(inputs_of_files(files, card, cells))
    chosen_ones = {id(example) for example in chosen}
    positions = [index for index, example in enumerate(test) if id(example) in chosen_ones]
    for name in reference:
        answers = taught[name].answers
        # Numbers in units of their own may be large; probabilities are not.
        size = max(1.0, float(np.abs(answers).max()))
        difference = float(np.abs(reference[name] - answers[positions]).max()) / size
        if not difference <= LARGEST_ASSEMBLY_DIFFERENCE:
            raise CutpointError(
                f"The assembled model answers otherwise than the head '{name}' on its features: {difference:.2g} apart.",
                f"at most {LARGEST_ASSEMBLY_DIFFERENCE:g}",
                "clear the cache with `cutpoint cache --clear` and run again; report it if it stays",
            )
    features = reference_features(model, card, inputs.images)
    golden = GoldenSet(
        inputs.images, truth, reference, card, limits_of(config), features=features, columns=inputs.columns
    )
    write_golden(golden, staged, files, of_files, cells)
    calibration = choose(dataset.of_split("train"), config.export.calibration_images, config.seed)
    bundle.write_inputs(staged, bundle.CALIBRATION, _inputs(calibration, card))
    selection = choose(dataset.of_split("val"), SELECTION_IMAGES, config.seed)
    truth = {output.name: targets[output.name].truth(selection) for output in card.outputs if output.name in truth}
    bundle.write_inputs(staged, bundle.SELECTION, _inputs(selection, card), truth)


def _inputs(examples: tuple[Example, ...], card: Card) -> Inputs:
    """Return what the model takes of some examples."""
    images = load_images([example.path for example in examples], card.resize)
    return Inputs(images, raw_columns(card.columns, examples) if card.columns else None)


def reference_features(model: keras.Model, card: Card, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return output name -> feature map of every cut for a few golden images, float32 (M, height, width, channels)."""
    if not card.cut or not len(images):
        return {}
    extractor = keras.Model(
        model.inputs[0], {name: model.get_layer(cut).output for cut, name in features_names(card.cut).items()}
    )
    largest = max(4 * int(np.prod(tensor.shape[1:])) for tensor in extractor.outputs)
    count = min(FEATURES_IMAGES, max(1, LARGEST_FEATURES_BYTES // largest))
    chosen = images[spread(len(images), count)].astype(np.float32)
    answers = extractor(chosen, training=False)
    return {name: np.asarray(keras.ops.convert_to_numpy(values), np.float32) for name, values in answers.items()}


def accuracies(dataset: Dataset, taught: Mapping[str, Taught], targets: Mapping[str, Target]) -> dict[str, Any]:
    """Return `reference` of report.json: every head's own measures on all test pictures.

    `accuracy` and `confusion` are of heads that name labels; `measures` has all other figures of every head.
    """
    test = dataset.of_split("test")
    found: dict[str, dict[str, Any]] = {"accuracy": {}, "confusion": {}, "measures": {}}
    for name, each in taught.items():
        if not targets[name].columns:
            continue
        figures = score(targets[name], targets[name].truth(test), each.answers)
        for key in ("accuracy", "confusion"):
            if key in figures:
                found[key][name] = figures[key]
        found["measures"][name] = {key: value for key, value in figures.items() if key != "confusion"}
    return {"accuracy": found["accuracy"], "images": len(test), **found}
