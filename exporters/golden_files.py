"""The golden files: a few test pictures as image files, by which decoding and resizing are judged apart from the model.

Most are PNG, which every decoder must read alike. The first ones are there a second time as JPEG with an EXIF
orientation: decoders may differ by a level there, and turn the picture or forget to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exporters.columns import encode_cells, text_of
from exporters.contract import SCHEMA_VERSION, Card
from exporters.errors import InputError
from exporters.inputs import Inputs, with_cells
from exporters.measures import spread
from exporters.pixels import read_picture, resize

FILES = "files"
EXPECTED = "expected.json"
PIXELS = "pixels.npz"
MOST_FILES = 24
LOSSLESS = (".png",)
# Orientation of EXIF (section 4.6.4.A of the Exif 2.3 standard) -> what makes a file of it that is shown upright.
_TURNED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_ORIENTATION_TAG = 0x0112
JPEG_QUALITY = 92
# Larger pictures are made smaller before they travel: the files prove decoding and resizing, not storage.
LONGEST_SIDE_PX = 512
_DAMAGE = (
    InputError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
    IndexError,
    OverflowError,
    RecursionError,
)
# What the decoders of two systems may make of one JPEG, in levels of 0..255.
LARGEST_DECODE_DIFFERENCE = 2


@dataclasses.dataclass(frozen=True)
class GoldenFile:
    """One file: where it lies, the sha256 of its pixels as the model got them, and the Keras model's answers to them.

    `cells` column -> the text of its cell, as a CSV has it or somebody types it, so that the lookup of categories is judged
    too; None for a model that takes pictures alone.
    """

    path: Path
    pixels_sha256: str
    outputs: Mapping[str, Any]
    cells: Mapping[str, str] | None = None

    @property
    def lossless(self) -> bool:
        """Whether every decoder must give the same pixels."""
        return self.path.suffix in LOSSLESS


def prepare_files(pictures: list[Path], out: Path) -> list[Path]:
    """Copy up to 24 test pictures as PNG into `out/golden/files`, four of them as turned JPEG too.

    They are spread evenly over all, which often lie in the order of their labels, and are called by their place.

    Returns:
        The copies' paths, those in PNG first.
    """
    folder = out / "golden" / FILES
    folder.mkdir(parents=True, exist_ok=True)
    written, turned = [], []
    for count, index in enumerate(spread(len(pictures), MOST_FILES)):
        picture = Image.fromarray(read_picture(pictures[index]))
        picture.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
        target = folder / f"{index:04d}.png"
        picture.save(target)
        written.append(target)
        if count < len(_TURNED):
            turned.append(_write_turned(picture, folder / f"{index:04d}.jpg", list(_TURNED)[count]))
    return written + turned


def _write_turned(upright: Image.Image, target: Path, orientation: int) -> Path:
    turn, exif = _TURNED[orientation], Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    stored = upright.transpose(turn) if turn is not None else upright
    stored.save(target, quality=JPEG_QUALITY, exif=exif)
    return target


def images_of_files(paths: list[Path], card: Card) -> np.ndarray:
    """Return the golden files as the model takes them: uint8 (N, height, width, 3)."""
    shape = (0, card.resize.height, card.resize.width, 3)
    return np.stack([resize(read_picture(path), card.resize) for path in paths]) if paths else np.empty(shape, np.uint8)


def cells_of_files(paths: list[Path], cells: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the cells that belong to each of the files that `prepare_files` wrote.

    Args:
        paths: what `prepare_files` returned.
        cells: column -> cell, one mapping for each of the pictures that it was given.
    """
    return [cells[int(path.stem)] for path in paths]


def inputs_of_files(paths: list[Path], card: Card, cells: Sequence[Mapping[str, str]] | None = None) -> Inputs:
    """Return the golden files as the model takes them, with columns where the card has such.

    Raises:
        InputError: a cell that cannot be encoded, or cells for a model that takes pictures alone.
    """
    return with_cells(images_of_files(paths, card), card.columns, cells)


def write_expected(
    folder: Path,
    paths: list[Path],
    card: Card,
    answers: Mapping[str, np.ndarray],
    cells: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """Write `expected.json` beside the files.

    Args:
        folder: `out/golden/files`.
        paths: the files.
        card: how they are resized.
        answers: head -> float32 (len(paths), ...), the Keras model's.
        cells: for a model with columns, column -> the cell's text, one mapping for each file.
    """
    pixels = images_of_files(paths, card)
    expected = [
        {
            "file": path.name,
            "pixels_sha256": digest_of(pixels[index]),
            **({} if cells is None else {"columns": {name: text_of(cell) for name, cell in cells[index].items()}}),
            "outputs": {name: values[index].tolist() for name, values in answers.items()},
        }
        for index, path in enumerate(paths)
    ]
    text = json.dumps({"schema_version": SCHEMA_VERSION, "files": expected}, indent=1, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPECTED).write_text(text, encoding="utf-8", newline="\n")
    # A digest tells that pixels are equal; how far those of a JPEG are apart, only the pixels themselves.
    lossy = [index for index, path in enumerate(paths) if path.suffix not in LOSSLESS]
    if lossy:
        np.savez_compressed(folder / PIXELS, pixels=pixels[lossy])


def digest_of(pixels: np.ndarray) -> str:
    """Return the sha256 of an image's pixels, uint8 (height, width, 3)."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def read_files(out: Path) -> list[GoldenFile]:
    """Return the golden files of a result folder; raises OSError, ValueError, KeyError or TypeError where they are damaged."""
    folder = out / "golden" / FILES
    listed = json.loads((folder / EXPECTED).read_text(encoding="utf-8"))["files"]
    found = []
    for each in listed:
        outputs = {name: np.asarray(values, np.float64) for name, values in each["outputs"].items()}
        if not all(values.ndim and np.isfinite(values).all() for values in outputs.values()):
            raise ValueError(f"the answers to {each['file']} are no numbers")
        found.append(GoldenFile(folder / each["file"], each["pixels_sha256"], outputs, _cells(each)))
    return found


def _cells(listed: Mapping[str, Any]) -> Mapping[str, str] | None:
    cells = listed.get("columns")
    if cells is not None and not (isinstance(cells, dict) and all(isinstance(each, str) for each in cells.values())):
        raise ValueError(f"the columns of {listed['file']} are not texts by name")
    return cells


def encoded_cells(files: Sequence[GoldenFile], card: Card) -> np.ndarray | None:
    """Return the columns of the golden files, float32 (N, C), looked up here; None for a model that takes pictures alone.

    Raises:
        ValueError: the files have cells and the card has no columns, or the other way round.
        InputError: a cell that cannot be encoded.
    """
    for each in files:
        if (each.cells is None) != (not card.columns):
            told = "no columns, and the card names some" if card.columns else "columns, and the card names none"
            raise ValueError(f"{each.path.name} has {told}")
    return encode_cells(card.columns, [each.cells or {} for each in files]) if card.columns else None


def check_pixels(out: Path, card: Card) -> dict[str, Any]:
    """Decode and resize the golden files here, and compare with what the Keras model got on the day of the export.

    Returns:
        `{"status": "verified"|"failed"|"not_verified", "files": how many were compared, "largest_difference": levels
        0..255 or None, "reason": ""}`; another decoder or another resize is found out here, whatever the artifacts answer.
        A lossless file must give the same pixels, a JPEG may differ by two levels.
    """
    try:
        files = read_files(out)
        pixels = images_of_files([each.path for each in files], card)
        encoded_cells(files, card)
        other = [
            (each, mine) for each, mine in zip(files, pixels, strict=True) if each.pixels_sha256 != digest_of(mine)
        ]
        off = {each.path.name: _levels_off(out, files, each, mine) for each, mine in other}
    except _DAMAGE as fault:
        found = {"status": "failed", "files": 0, "largest_difference": None}
        told = fault.what if isinstance(fault, InputError) else fault
        return found | {"reason": f"the golden files cannot be read: {told}"}
    found = {"files": len(files), "largest_difference": max(off.values(), default=0) if files else None}
    wrong = [each.path.name for each, _ in other if each.lossless or off[each.path.name] > LARGEST_DECODE_DIFFERENCE]
    if wrong:
        reason = f"decoded and resized here, {len(wrong)} of {len(files)} golden files give other pixels: {wrong[0]}"
        return {"status": "failed", **found, "reason": reason}
    status = "verified" if files else "not_verified"
    return {"status": status, **found, "reason": "" if files else "there are no golden files"}


def _levels_off(out: Path, files: list[GoldenFile], wanted: GoldenFile, found: np.ndarray) -> int:
    """Return by how many levels the pixels of a file are off; 255 where they were not kept, as of lossless files."""
    path = out / "golden" / FILES / PIXELS
    if wanted.lossless or not path.is_file():
        return 255
    lossy = [each.path.name for each in files if not each.lossless]
    with np.load(path, allow_pickle=False) as stored:
        expected = stored["pixels"][lossy.index(wanted.path.name)]
    if expected.shape != found.shape:
        return 255
    return int(np.abs(expected.astype(np.int16) - found).max())
