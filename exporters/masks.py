"""Segmentations as picture files: indexed PNGs of the size of the picture that was answered."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

from exporters.contract import UNKNOWN_PIXEL
from exporters.errors import InputError
from exporters.explanation import Seen, classes_of
from exporters.pixels import window

# Of a turn of the circle of hues: neighbouring classes are far apart, however many there are.
_GOLDEN = (5**0.5 - 1) / 2


def palette() -> list[int]:
    """Return red, green and blue 0..255 of 256 colours, one after another; what nobody knows is black, class 0 dark grey."""
    colours = [(0.25, 0.25, 0.25)]
    colours += [colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.75, 0.95) for index in range(1, UNKNOWN_PIXEL)]
    return [round(255 * part) for colour in (*colours, (0.0, 0.0, 0.0)) for part in colour]


def full_mask(answer: np.ndarray, seen: Seen) -> np.ndarray:
    """Return the class of each pixel of a picture, uint8 (height, width), UNKNOWN_PIXEL where the model did not see it.

    Args:
        answer: (height, width, classes), of what the model saw; each pixel takes the class of the nearest place in it.
        seen: the picture.
    """
    classes = classes_of(answer)
    left, top, right, bottom = window(seen.width, seen.height, seen.resize)
    places = []
    for size, start, end, count in zip(
        (seen.height, seen.width), (top, left), (bottom, right), classes.shape, strict=True
    ):
        nearest = np.floor((np.arange(size) + 0.5 - start) / (end - start) * count).astype(int)
        places.append(np.where((nearest >= 0) & (nearest < count), nearest, -1))
    rows, columns = places
    found = classes[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)[None, :]]
    found[(rows < 0)[:, None] | (columns < 0)[None, :]] = UNKNOWN_PIXEL
    return found


def write_mask(answer: np.ndarray, seen: Seen, path: Path) -> Path:
    """Write a segmentation as an indexed PNG, see `full_mask`, and return its path; raises InputError where it cannot."""
    image = Image.fromarray(full_mask(answer, seen), mode="P")
    image.putpalette(palette())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except OSError as fault:
        raise InputError(
            f"The mask {path} cannot be written: {fault.strerror or fault}.", "a folder to write to", "change --masks"
        ) from fault
    return path
