"""Writes one artifact folder whole: the model by its format's exporter, then card, labels and README."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.columns import CATEGORY, Column
from exporters.contract import (
    BINARY,
    BOXES,
    COLUMNS_NAME,
    EMBEDDING,
    FORMATS,
    INPUT_NAME,
    MULTILABEL,
    ORDINAL,
    REGRESSION,
    SEGMENTATION,
    ArtifactName,
    Card,
    Output,
    features_names,
)
from exporters.inputs import Inputs
from exporters.papers import artifact_card, labels_files, parse_artifact_name
from exporters.usage import usage

# Of a long vocabulary the README lists the first ones.
MOST_CATEGORIES = 20


def export_artifact(
    name: ArtifactName,
    saved_model_dir: Path,
    card: Card,
    artifacts: Path,
    calibration_images: Inputs | np.ndarray,
    *,
    features_everywhere: bool = False,
    weights: str = "",
) -> Path:
    """Write `artifacts/<format>-<precision>[-variant]`, in a temporary place first, so that no half of it is ever left there.

    Args:
        name: format, precision and variant.
        saved_model_dir: as `write_saved_model` leaves it.
        card: the Keras model's card.
        artifacts: the folder for the artifact's folder; an artifact of that name is replaced.
        calibration_images: uint8 (N, height, width, 3) from the training split, with columns where the card has such.
        features_everywhere: whether the SavedModel gives every format the cuts' feature maps.
        weights: how its weights were made, in a few words; empty where there was no choice.

    Returns:
        The artifact's folder.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    card = artifact_card(card, name)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=artifacts) as work:
        folder = Path(work) / str(name)
        folder.mkdir()
        module, _, attribute = FORMATS[name.format].exporter.partition(":")
        export = getattr(importlib.import_module(module), attribute)
        asked = {"variant": name.variant} if name.variant else {}
        export(saved_model_dir, card, folder, precision=name.precision, calibration_images=calibration_images, **asked)
        carried = features_everywhere or FORMATS[name.format].carries_features
        write_papers(folder, card, features_names(card.cut) if carried else {}, weights)
        return move_into_place(folder, artifacts / str(name))


def move_into_place(folder: Path, target: Path) -> Path:
    """Move a finished folder to its place on the same file system, where it replaces an earlier one."""
    if target.exists():
        shutil.rmtree(target)
    os.replace(folder, target)
    return target


def keep_in_cache(folder: Path, target: Path) -> None:
    """Move a finished folder into the cache; where another run was quicker, its folder of the same content stays."""
    with contextlib.suppress(OSError):
        os.replace(folder, target)
    if not target.is_dir():
        raise OSError(f"{target} could not be written")


def write_papers(folder: Path, card: Card, features: Mapping[str, str] | None = None, weights: str = "") -> None:
    """Write `card.json`, the labels and `README.md` beside the model.

    `features` is layer -> output of the maps it gives; `weights` as `export_artifact` takes it.
    """
    card.write(folder / "card.json")
    for file_name, labels in labels_files(card).items():
        (folder / file_name).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8", newline="\n")
    text = _readme(folder.name, card, features or {}, weights)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def _readme(name: str, card: Card, features: Mapping[str, str], weights: str) -> str:
    outputs = "\n".join(_described(output, card) for output in sorted(card.outputs, key=lambda output: output.name))
    outputs += "".join(f"\n- `{output}`: feature map of the layer `{layer}`" for layer, output in features.items())
    size, reading = f"{_count(card)}, {card.resize.height}, {card.resize.width}, 3", _in_words(card)
    made = f"Weights: {weights}, in shares of the variance on validation pictures.\n\n" if weights else ""
    command = f"cutpoint predict {name} picture.jpg" + (f" --column {card.columns[0].name}=..." if card.columns else "")
    return f"""# {card.name}: {name}

Input `{INPUT_NAME}`: ({size}) {card.input_dtype}, RGB, raw values 0..255. Pixel scaling is inside the model: give it
the pixels as they are. Turn pictures by their EXIF orientation first, then resize them with {card.resize.method} as Pillow's
`Image.resize` does it, crop `{card.resize.crop}`.

{_columns_in_words(card)}Outputs:

{outputs}

{reading}{made}`{command}` answers with it; `cutpoint verify` on the folder above proves that it answers as
the Keras model does. `card.json` says the same for programs.

{usage(parse_artifact_name(name), card)}"""


def _columns_in_words(card: Card) -> str:
    """Return what the second input takes, one line for each column; nothing where there is none."""
    if not card.columns:
        return ""
    lines = "\n".join(f"- `{column.name}`: {_column_in_words(column)}" for column in card.columns)
    shape = f"{_count(card)}, {len(card.columns)}"
    return f"""Input `{COLUMNS_NAME}`: ({shape}) float32, one number for each of these, in this order. Numbers go
in as they are; normalising them, finding their range and one-hot are inside the model.

{lines}

"""


def _column_in_words(column: Column) -> str:
    if column.kind == CATEGORY:
        listed = [f"{index} {name}" for index, name in enumerate(column.categories, start=1)]
        more = ", and so on as `card.json` lists them" if len(listed) > MOST_CATEGORIES else ""
        return f"the index of a category, 0 for an unknown one: {', '.join(listed[:MOST_CATEGORIES])}{more}"
    bounds = f", in ranges between {', '.join(f'{each:g}' for each in column.boundaries)}" if column.boundaries else ""
    return f"a number{bounds}; {column.default:.6g} where it is unknown"


def _count(card: Card) -> str:
    """Return how many pictures a model takes at once, as shapes are written."""
    return "N" if card.batch is None else str(card.batch)


def _described(output: Output, card: Card) -> str:
    parts = [f"shape ({_count(card)}, {', '.join(map(str, output.shape))})", output.dtype, output.activation]
    parts += [f"{len(output.labels)} labels"] if output.labels else []
    parts += [f"columns {', '.join(output.columns)}"] if output.columns else []
    parts += [f"in {output.unit}"] if output.unit and output.task == REGRESSION else []
    return f"- `{output.name}`: {output.task}, {', '.join(parts)}"


# Task -> how its numbers are to be read, where the shape does not say it.
_READING = {
    BINARY: "one number is the probability of the second label",
    MULTILABEL: "each number is the probability of one label, which holds over 0.5",
    ORDINAL: "each number is the probability of lying above one more label; as many as are over 0.5, that many labels lie below",
    REGRESSION: "numbers are in the units of the training data",
    EMBEDDING: "the dot product of two answers tells how alike two pictures are",
    BOXES: "x_min, y_min, x_max, y_max in shares 0..1 of the input, so of the picture as it was resized",
    SEGMENTATION: "the probabilities of each class at each place of the input",
}


def _in_words(card: Card) -> str:
    tasks = sorted({output.task for output in card.outputs} & set(_READING))
    return "".join(f"{task.capitalize()}: {_READING[task]}.\n" for task in tasks) + ("\n" if tasks else "")
