"""An artifact's papers: the name of its folder, its card and its labels, held against what the Keras model's card promises."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from exporters.contract import CEILINGS, CLASSIFICATIONS, FORMATS, SEGMENTATION, ArtifactName, Card, variants_of
from exporters.errors import InputError


def parse_artifact_name(folder_name: str) -> ArtifactName:
    """Turn `tflite-int8` or `tflite-int8-batch1` into a name; raises InputError for an unknown format, precision or variant."""
    format_name, _, rest = folder_name.partition("-")
    if format_name not in FORMATS:
        raise InputError(
            f"The artifact folder '{folder_name}' is of no known format.",
            f"a name that begins with one of {', '.join(FORMATS)}",
            "take the folder out of artifacts/, or export again",
        )
    precision, _, variant = rest.partition("-")
    if precision not in CEILINGS:
        raise InputError(
            f"The artifact folder '{folder_name}' is of no known precision.",
            f"{format_name}- and one of {', '.join(CEILINGS)}",
            "take the folder out of artifacts/, or export again",
        )
    if variant not in ("", *variants_of(format_name, precision)):
        raise InputError(
            f"The artifact folder '{folder_name}' is of no known variant.",
            " or ".join(f"{format_name}-{precision}-{each}" for each in variants_of(format_name, precision))
            or f"{format_name}-{precision}",
            "take the folder out of artifacts/, or export again",
        )
    return ArtifactName(format_name, precision, variant)


def card_fault(folder: Path, name: ArtifactName, promised: Card) -> str:
    """Return what the artifact's own papers get wrong, or an empty string."""
    if not (folder / FORMATS[name.format].file).is_file():
        return f"{FORMATS[name.format].file} is missing"
    card = Card.read(folder / "card.json")
    if card.created_from != promised.created_from:
        return "its card belongs to another run than the golden set"
    if card.precision != name.precision:
        return f"its card says precision {card.precision}, its folder {name.precision}"
    if (card.resize, card.cut, card.backbone) != (promised.resize, promised.cut, promised.backbone):
        return "its card names another resize, cut or backbone than the golden set"
    if card.columns != promised.columns:
        return "its card describes the columns otherwise than the Keras model does"
    for output in promised.outputs:
        if output.name not in {each.name for each in card.outputs}:
            return f"its card has no output '{output.name}'"
        if card.output(output.name).labels != output.labels:
            return f"its card lists the labels of '{output.name}' otherwise than the Keras model does"
        if dataclasses.replace(card.output(output.name), dtype=output.dtype) != output:
            return f"its card describes the output '{output.name}' otherwise than the Keras model does"
    if _without_versions(json.loads((folder / "card.json").read_text(encoding="utf-8"))) != _without_versions(
        artifact_card(promised, name).to_json()
    ):
        return "its card describes its input or its types otherwise than the export does"
    return _labels_fault(folder, promised)


def _without_versions(card: dict[str, Any]) -> dict[str, Any]:
    # A model may be trained in one installation and exported in another.
    return {key: value for key, value in card.items() if key != "versions"}


def artifact_card(card: Card, name: ArtifactName) -> Card:
    """Return the card of an artifact: the model's, with the artifact's precision and the dtypes of its file."""
    integer = name.takes_integers
    outputs = tuple(
        dataclasses.replace(output, dtype="uint8" if integer and output.task in CLASSIFICATIONS else "float32")
        for output in card.outputs
    )
    dtype = "uint8" if integer else "float32"
    return dataclasses.replace(card, precision=name.precision, input_dtype=dtype, outputs=outputs, batch=name.batch)


def _labels_fault(folder: Path, promised: Card) -> str:
    for file_name, labels in labels_files(promised).items():
        path = folder / file_name
        found = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        if tuple(found) != labels:
            return f"{file_name} lists the labels otherwise than the Keras model does"
    return ""


def labels_files(card: Card) -> dict[str, tuple[str, ...]]:
    """Return file name -> labels: `labels.txt`, or `labels.<head>.txt` each where several heads have labels.

    Heads with labels are classifications and segmentations; whatever else a head was trained with, its answers name none.
    """
    labelled = [output for output in card.outputs if output.labels and output.task in (*CLASSIFICATIONS, SEGMENTATION)]
    if len(labelled) == 1:
        return {"labels.txt": labelled[0].labels}
    return {f"labels.{output.name}.txt": output.labels for output in labelled}
