"""Answers of any artifact to image files, in the artifact's own runtime. Light: no TensorFlow, no Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.columns import CATEGORY, Column, text_of
from exporters.contract import FORMATS, SEGMENTATION, Card, Output
from exporters.errors import InputError
from exporters.explanation import Seen, explain
from exporters.golden import ARTIFACTS
from exporters.inputs import with_cells
from exporters.masks import write_mask
from exporters.papers import parse_artifact_name
from exporters.pixels import load_images_and_sizes
from exporters.runtimes import open_runner

SHOWN_VALUES = 6


def predict_pictures(
    folder_or_artifact: Path,
    pictures: list[Path],
    top: int,
    masks: Path | None = None,
    cells: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Answer pictures.

    Args:
        folder_or_artifact: a result folder (a float32 artifact answers where there is one, best one that needs no Node),
            an artifact's folder, or the file in it.
        pictures: image files.
        top: how many labels to give for each.
        masks: a folder, made where it is missing, for the segmentations as `<picture>.<head>.png`, see `write_mask`.
        cells: column -> its cell, one mapping for each picture, see `columns.encode_cells`; None: nothing is known of any.

    Returns:
        `[{"path", "artifact", "outputs": {head: answer}}]`, each answer as `explain` gives it; one that was written as a
        mask has the path of it as `mask` too. Of a model with columns each has `columns` too, column -> the cell that the
        answer rests on, None where nothing is known, and `unknown`, those categories that training never saw.

    Raises:
        InputError: no artifact there, a picture that cannot be read, masks of a model that gives none, a folder of them
            that cannot be written, or cells that the model has no column for or that hold no number.
    """
    folder = find_artifact(folder_or_artifact)
    card = Card.read(folder / "card.json")
    outputs = sorted(card.outputs, key=lambda output: output.name)
    if masks is not None and not any(output.task == SEGMENTATION for output in outputs):
        raise InputError(
            f"{folder.name} gives no masks.",
            "a head of the task 'segmentation'",
            "leave --masks out, or use another model",
        )
    # Cells are looked at before the pictures, of which there may be many.
    with_cells(np.empty((len(pictures), 0)), card.columns, cells)
    images, sizes = load_images_and_sizes(pictures, card.resize)
    with open_runner(folder, parse_artifact_name(folder.name).format) as runner:
        answers = runner.predict(with_cells(images, card.columns, cells))
    found = []
    for index, (path, size) in enumerate(zip(pictures, sizes, strict=True)):
        seen = Seen(*size, card.resize)
        told = {output.name: explain(answers[output.name][index], output, seen, top) for output in outputs}
        for output in outputs if masks is not None else ():
            if output.task == SEGMENTATION:
                target = _mask_path(masks, pictures, index, output)
                told[output.name]["mask"] = str(write_mask(answers[output.name][index], seen, target))
        known = columns_told(card.columns, cells[index] if cells is not None else {})
        found.append({"path": str(path), "artifact": folder.name, **known, "outputs": told})
    return found


def columns_told(columns: Sequence[Column], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer rests on: `columns`, column -> text of its cell or None, and `unknown`, the names of categories
    that training never saw; nothing for a model that takes pictures alone.
    """
    if not columns:
        return {}
    texts = {column.name: text_of(row.get(column.name)) or None for column in columns}
    strange = [
        column.name
        for column in columns
        if column.kind == CATEGORY and texts[column.name] and texts[column.name] not in column.categories
    ]
    return {"columns": texts, "unknown": strange}


def remark_on_columns(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on what `predict_pictures` was not told of the columns, for stderr; nothing where it was told all."""
    empty = {name for each in answers for name, cell in each.get("columns", {}).items() if cell is None}
    strange = {(name, each["columns"][name]) for each in answers for name in each.get("unknown", ())}
    parts = []
    if empty:
        parts.append(f"Nothing is said of {', '.join(sorted(empty))}: taken as unknown.")
    if strange:
        named = ", ".join(f"{name} {cell!r}" for name, cell in sorted(strange))
        parts.append(f"Training never saw {named}: answered as an unknown category.")
    return " ".join(parts)


def _mask_path(folder: Path, pictures: list[Path], index: int, output: Output) -> Path:
    stem = pictures[index].stem
    # Pictures of one name in several folders are told apart by their place.
    before = sum(each.stem == stem for each in pictures[:index])
    return folder / f"{stem}{f'-{before + 1}' if before else ''}.{output.name}.png"


def find_artifact(named: Path) -> Path:
    """Return the artifact's folder that a path means; raises InputError where it means none."""
    named = named.resolve()
    files = {row.file for row in FORMATS.values()}
    if named.is_file() and named.name in files:
        return named.parent
    if any((named / file).is_file() for file in files):
        return named
    if (named / ARTIFACTS).is_dir():
        found = sorted(
            (folder for folder in (named / ARTIFACTS).iterdir() if folder.is_dir() and not folder.name.startswith(".")),
            key=lambda folder: (list(FORMATS).index(parse_artifact_name(folder.name).format), folder.name),
        )
        plain = [folder for folder in found if parse_artifact_name(folder.name).precision == "float32"]
        # Runtimes that start no program of their own come first: they answer sooner.
        chosen = [folder for folder in plain if not FORMATS[parse_artifact_name(folder.name).format].needs]
        for candidates in (chosen, plain, found):
            if candidates:
                return candidates[0]
    raise InputError(
        f"{named} is no artifact.",
        "a result folder, a folder under its artifacts/, or the model's file in one",
        "check the path; `cutpoint run` makes artifacts",
    )


def describe(answer: Mapping[str, Any]) -> str:
    """Return one head's answer, as `explain` gives it, in a line of text."""
    if "areas" in answer:
        parts = ", ".join(f"{each['label']} {each['share']:.1%}" for each in answer["areas"])
        return f"{parts} ({answer['mask']})" if "mask" in answer else parts
    if "box_px" in answer:
        sides, shares = answer["box_px"], answer["box"]
        px = f"x {sides['x_min']:.0f} to {sides['x_max']:.0f} px, y {sides['y_min']:.0f} to {sides['y_max']:.0f} px"
        return f"{px} (shares {', '.join(f'{side} {share:.3f}' for side, share in shares.items())})"
    if "vector" in answer:
        vector = answer["vector"]
        shown = ", ".join(f"{value:.4g}" for value in vector[:SHOWN_VALUES])
        return f"{len(vector)} values: {shown}" + (", ..." if len(vector) > SHOWN_VALUES else "")
    if "values" in answer:
        unit = f" {answer['unit']}" if answer["unit"] else ""
        return ", ".join(f"{column} {value:.6g}{unit}" for column, value in answer["values"].items())
    likely = ", ".join(f"{each['label']} {each['probability']:.3f}" for each in answer["top"])
    if "labels" in answer:
        return f"{' + '.join(each['label'] for each in answer['labels']) or 'none'} ({likely})"
    return f"{answer['label']}, rank {answer['rank']} ({likely})" if "rank" in answer else likely
