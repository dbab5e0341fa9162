"""The golden images with the largest differences, with what the Keras model and the artifacts say to them."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

from exporters import report_facts as facts

if TYPE_CHECKING:
    import numpy as np

MOST_IMAGES = 12
MOST_ANSWERS = 4
# Answers that are nearer than this to the Keras model's are written with the same digits.
LEAST_DIFFERENCE = 5e-4
LARGEST_SIDE_PX = 128


@dataclasses.dataclass(frozen=True)
class WorstImage:
    """One image of the golden set, and who answers it otherwise than the Keras model.

    `thumbnail` is a data address, empty where the images are not at hand; `keras` and each answer are written out;
    `answers` holds (artifact, answer, whether the label is another), the largest difference first, each artifact by its
    worst runtime; `more` counts the artifacts left out, apart from those whose answer reads like the Keras model's.
    """

    index: int
    output: str
    thumbnail: str
    keras: str
    answers: tuple[tuple[str, str, bool], ...]
    more: int


def worst_images(report: Mapping[str, Any], images: np.ndarray | None) -> list[WorstImage]:
    """Return the images with the largest differences over all artifacts, each once for an output.

    Args:
        report: as `report_facts.plain` leaves it.
        images: the golden images, uint8 (N, height, width, 3); None, or too few of them: no thumbnails.
    """
    found: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
    for row in facts.rows(report):
        for output, figures in row.outputs.items():
            for each in figures.get("worst") or []:
                if isinstance(each.get("image"), int) and each.get("difference") is not None:
                    of_artifacts = found.setdefault((each["image"], output), {})
                    if each["difference"] > of_artifacts.get(row.artifact, {"difference": -1})["difference"]:
                        of_artifacts[row.artifact] = each
    ordered = {
        key: sorted(each.items(), key=lambda one: (-one[1]["difference"], one[0])) for key, each in found.items()
    }
    first = sorted(ordered, key=lambda key: (-ordered[key][0][1]["difference"], key))[:MOST_IMAGES]
    labels = (report.get("data") or {}).get("labels") or {}
    return [_worst_image(key, ordered[key], images, labels.get(key[1]) or []) for key in first]


def _worst_image(
    key: tuple[int, str], entries: list[tuple[str, Mapping[str, Any]]], images: np.ndarray | None, labels: list[str]
) -> WorstImage:
    index, output = key
    entries = [entry for entry in entries if entry[1]["difference"] >= LEAST_DIFFERENCE] or entries[:1]
    answers = tuple(
        (artifact, _said(each.get("artifact") or {}, labels), _other_label(each))
        for artifact, each in entries[:MOST_ANSWERS]
    )
    thumbnail = thumbnail_of(images[index]) if images is not None and 0 <= index < len(images) else ""
    keras = _said(entries[0][1].get("keras") or {}, labels)
    return WorstImage(index, output, thumbnail, keras, answers, max(len(entries) - MOST_ANSWERS, 0))


def _said(answer: Mapping[str, Any], names: list[str]) -> str:
    if answer.get("box") is not None:
        return ", ".join(facts.NONE if each is None else f"{each:.3f}" for each in answer["box"])
    if answer.get("label") is None:
        column = f"{facts.one_line(answer['column'])} " if answer.get("column") else ""
        return facts.NONE if answer.get("value") is None else f"{column}{answer['value']:.4g}"
    index = answer["label"]
    name = names[index] if isinstance(index, int) and 0 <= index < len(names) else index
    number = answer["probability"] if answer.get("probability") is not None else answer.get("value")
    return facts.one_line(name) + ("" if number is None else f" {number:.3f}")


def _other_label(each: Mapping[str, Any]) -> bool:
    keras, artifact = each.get("keras") or {}, each.get("artifact") or {}
    return any(keras.get(key) != artifact.get(key) for key in ("label", "yes"))


def thumbnail_of(image: np.ndarray) -> str:
    """Return an image, uint8 (height, width, 3), as the data address of a JPEG of at most 128 px."""
    picture = Image.fromarray(image)
    picture.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
