"""Answers of any artifact to image files, in the artifact's own runtime. Light: no TensorFlow, no Keras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import FORMATS, Card, Output
from exporters.errors import InputError
from exporters.golden import ARTIFACTS
from exporters.papers import parse_artifact_name
from exporters.pixels import load_images
from exporters.runtimes import open_runner

SHOWN_VALUES = 6


def predict_pictures(folder_or_artifact: Path, pictures: list[Path], top: int) -> list[dict[str, Any]]:
    """Answer pictures.

    Args:
        folder_or_artifact: a result folder (a float32 artifact answers where there is one, best one that needs no Node),
            an artifact's folder, or the file in it.
        pictures: image files.
        top: how many labels to give for each.

    Returns:
        `[{"path", "artifact", "outputs": {head: {"top": [{"label", "probability"}]}}}]`; heads without labels give
        `{"values": [...]}`.

    Raises:
        InputError: no artifact there, or a picture that cannot be read.
    """
    folder = find_artifact(folder_or_artifact)
    card = Card.read(folder / "card.json")
    images = load_images(pictures, card.resize)
    with open_runner(folder, parse_artifact_name(folder.name).format) as runner:
        answers = runner.predict(images)
    return [
        {
            "path": str(path),
            "artifact": folder.name,
            "outputs": {
                output.name: _describe(answers[output.name][index], output, top)
                for output in sorted(card.outputs, key=lambda output: output.name)
            },
        }
        for index, path in enumerate(pictures)
    ]


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


def describe(output: Mapping[str, Any]) -> str:
    """Return one head's answer, as `predict_pictures` gives it, in a line of text: labels, or how many values and the first."""
    if "top" in output:
        return ", ".join(f"{each['label']} {each['probability']:.3f}" for each in output["top"])
    values = output["values"]
    shown = ", ".join(f"{value:.4g}" for value in values[:SHOWN_VALUES])
    return shown if len(values) <= SHOWN_VALUES else f"{len(values)} values: {shown}, ..."


def _describe(answer: np.ndarray, output: Output, top: int) -> dict[str, Any]:
    if not output.labels:
        return {"values": [float(value) for value in np.ravel(answer)]}
    order = np.argsort(-answer, kind="stable")[:top]
    return {"top": [{"label": output.labels[index], "probability": float(answer[index])} for index in order]}
