"""Boxes and masks follow their picture through resize and crop. Numpy and Pillow only; pictures are not decoded for it."""

from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from exporters.contract import UNKNOWN_PIXEL, Resize
from exporters.pixels import window

# A pixel of a label map is so many of the model's input wide and high.
LABEL_MAP_STRIDE = 4
# Of EXIF: these turn a picture by a quarter.
_QUARTER_TURNS = (5, 6, 7, 8)
_PNG_SIGNATURE = 8


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a head of label maps takes and gives: `maps` (height, width, channels) of every cut, `shape` (height, width)."""

    maps: tuple[tuple[int, int, int], ...]
    shape: tuple[int, int]

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Where each map begins and ends in a row of flattened maps that stand one behind the other."""
        ends = np.cumsum([math.prod(shape) for shape in self.maps]).tolist()
        return tuple(zip([0, *ends[:-1]], ends, strict=True))


def label_map_shape(how: Resize) -> tuple[int, int]:
    """Return (height, width) of the label maps for an input size: a quarter of it, rounded up."""
    return -(-how.height // LABEL_MAP_STRIDE), -(-how.width // LABEL_MAP_STRIDE)


def picture_size(path: Path) -> tuple[int, int]:
    """Return the width and height in px that `exporters.pixels.read_picture` gives a picture, from its header.

    Raises:
        ValueError: not a picture; the message is the reason alone.
    """
    try:
        with path.open("rb") as stream, Image.open(stream) as opened:
            width, height = opened.size
            return (height, width) if _orientation(opened, stream) in _QUARTER_TURNS else (width, height)
    except Image.DecompressionBombError as fault:
        raise ValueError(f"too large: {fault}") from fault
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, struct.error) as fault:
        raise ValueError(f"cannot be read: {fault}") from fault


def _orientation(opened: Image.Image, stream: BinaryIO) -> int:
    # Pillow decodes a PNG in search of EXIF, which may stand behind the pixels, and mostly does not.
    early = opened.format == "PNG" and not _has_late_notes(stream)
    try:
        exif = Image.Image.getexif(opened) if early else opened.getexif()
        return exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # a picture with damaged EXIF is not turned when it is decoded either
        return 1


def _has_late_notes(stream: BinaryIO) -> bool:
    """Tell whether a PNG has EXIF or text behind its pixels."""
    before, pixels = stream.tell(), False
    stream.seek(_PNG_SIGNATURE)
    try:
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            pixels = pixels or kind == b"IDAT"
            if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            stream.seek(length + 4, 1)
        return False
    finally:
        stream.seek(before)


def place_box(box: tuple[float, ...], size: tuple[int, int], how: Resize) -> tuple[float, ...] | None:
    """Return a box in shares of the model's input, cut off where the crop cuts.

    Args:
        box: x_min, y_min, x_max, y_max in px of the picture.
        size: width and height of the picture in px.
        how: the resize.

    Returns:
        x_min, y_min, x_max, y_max, 0..1; None where nothing of the box is left.
    """
    left, top, right, bottom = window(*size, how)
    start, extent = np.array([left, top] * 2), np.array([right - left, bottom - top] * 2)
    placed = np.clip((np.array(box, np.float64) - start) / extent, 0.0, 1.0)
    return tuple(placed.tolist()) if (placed[2:] > placed[:2]).all() else None


def place_mask(mask: np.ndarray, how: Resize, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask as the label map of the model's input: each pixel of it has the class in its middle.

    Args:
        mask: uint8 (height, width) of the picture, class indices.
        how: the resize.
        shape: (height, width) of the label map.

    Returns:
        uint8 of that shape; what lies beyond the picture is UNKNOWN_PIXEL.
    """
    height, width = mask.shape
    left, top, right, bottom = window(width, height, how)
    rows, beyond_rows = _middles(top, bottom, shape[0], height)
    columns, beyond_columns = _middles(left, right, shape[1], width)
    placed = mask[rows[:, None], columns[None]]
    placed[beyond_rows[:, None] | beyond_columns[None]] = UNKNOWN_PIXEL
    return placed


def _middles(low: float, high: float, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel in the middle of each of `count` equal parts, and whether it lies outside of the picture."""
    found = np.floor(low + (np.arange(count) + 0.5) / count * (high - low)).astype(np.int64)
    return np.clip(found, 0, size - 1), (found < 0) | (found >= size)
