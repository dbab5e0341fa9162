"""The second level of parity: image files in. Decoding and resizing are judged by themselves, in each runtime's language.

So a user learns whether a difference comes from the converter, from the decoder or from the resize.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from exporters import gates_numbers, parity
from exporters.contract import BOXES, REGRESSION, Card, Limits, Output
from exporters.errors import NotVerifiedError, ParityError
from exporters.golden_files import (
    LARGEST_DECODE_DIFFERENCE,
    GoldenFile,
    encoded_cells,
    images_of_files,
    read_files,
)
from exporters.inputs import Inputs
from exporters.pixels import read_picture, resize

PYTHON, CHROMIUM = "python", "chromium"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The golden files, decoded and resized: `pixels` place -> uint8 (N, height, width, 3), `entries` for report.json.

    `columns` place -> float32 (N, C), their cells as that place encodes them; empty for a model that takes pictures alone.
    """

    files: tuple[GoldenFile, ...]
    pixels: Mapping[str, np.ndarray]
    entries: tuple[Mapping[str, Any], ...]
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def of(self, place: str) -> tuple[tuple[GoldenFile, ...], Inputs]:
        """Return the files and what that place makes of them; none where it decoded none."""
        pixels = self.pixels.get(place)
        if pixels is None:
            return (), Inputs(np.empty((0, 1, 1, 3), np.uint8))
        return self.files, Inputs(pixels, self.columns.get(place))


def decode_everywhere(out: Path, card: Card, checked: Mapping[str, Any], *, browser: bool) -> Decoded:
    """Decode and resize the golden files in Python and, where it is asked for, in a Chromium.

    Args:
        out: the result folder.
        card: how files are resized.
        checked: what `check_pixels` found here.
        browser: whether Chromium decodes them too.
    """
    entry = {
        "where": "Python",
        "decoder": f"Pillow {PIL.__version__}",
        "files": checked["files"],
        "largest_decode_difference": checked["largest_difference"],
        "largest_resize_difference": checked["largest_difference"],
        "status": checked["status"],
        "reason": checked["reason"],
    }
    if checked["status"] == parity.FAILED or not checked["files"]:
        return Decoded((), {}, (entry,))
    files = tuple(read_files(out))
    pixels = {PYTHON: images_of_files([each.path for each in files], card)}
    entries = [entry]
    encoded = encoded_cells(files, card)
    columns = {} if encoded is None else {PYTHON: encoded}
    if browser:
        found, chromium_entry = _in_chromium(files, Inputs(pixels[PYTHON], encoded), card)
        entries.append(chromium_entry)
        if found is not None:
            pixels[CHROMIUM] = found.images
            columns |= {} if found.columns is None else {CHROMIUM: found.columns}
    return Decoded(files, pixels, tuple(entries), columns)


def _in_chromium(files: tuple[GoldenFile, ...], expected: Inputs, card: Card) -> tuple[Inputs | None, dict[str, Any]]:
    """Decode the files with predict.js, and let it resize what Pillow decoded: each by itself must give Pillow's pixels.

    It encodes their cells too, which must give Python's numbers.
    """
    entry: dict[str, Any] = {"where": "Chromium", "decoder": "predict.js", "files": 0}
    entry |= {"largest_decode_difference": None, "largest_resize_difference": None}
    try:
        from exporters.runners.chromium import session

        running = session()
        entry["where"] = running.name
        pictures = [read_picture(each.path) for each in files]
        decoded = running.decode_files([each.path.read_bytes() for each in files], card.resize)
        resized = running.resize_pictures(pictures, card.resize)
        rows = [each.cells or {} for each in files]
        columns = running.encode_cells(card.columns, rows) if card.columns else None
    except (NotVerifiedError, ImportError) as fault:
        return None, entry | {"status": parity.NOT_VERIFIED, "reason": str(fault)}
    except ParityError as fault:
        return None, entry | {"status": parity.FAILED, "reason": fault.what}
    decode = max(_levels(mine, theirs) for mine, (theirs, _) in zip(pictures, decoded, strict=True))
    other = max(_levels(resize(each, card.resize), mine) for each, mine in zip(pictures, resized, strict=True))
    entry |= {"files": len(files), "largest_decode_difference": decode, "largest_resize_difference": other}
    same = columns is None or np.array_equal(columns, expected.columns)
    shaped = _shaped([mine for _, mine in decoded], expected.images)
    return (None if shaped is None else Inputs(shaped, columns)), entry | _judged(decode, other, same)


def _judged(decode: int, other: int, same_columns: bool) -> dict[str, str]:
    reasons = []
    if not same_columns:
        reasons.append("it encodes the columns of the golden files otherwise than Python does")
    if decode > LARGEST_DECODE_DIFFERENCE:
        reasons.append(
            f"it decodes the golden files {decode} levels apart, at most {LARGEST_DECODE_DIFFERENCE} is allowed"
        )
    if other:
        reasons.append(f"it resizes the golden files {other} levels apart, and must give the same pixels")
    return {"status": parity.FAILED if reasons else parity.VERIFIED, "reason": "; ".join(reasons)}


def _levels(expected: np.ndarray, found: np.ndarray) -> int:
    if expected.shape != found.shape:
        return 255
    return int(np.abs(expected.astype(np.int16) - found).max(initial=0))


def _shaped(pixels: list[np.ndarray], expected: np.ndarray) -> np.ndarray | None:
    stacked = np.stack(pixels)
    return stacked if stacked.shape == expected.shape else None


def judge_files(
    files: Sequence[GoldenFile],
    answers: Mapping[str, np.ndarray],
    card: Card,
    limits: Limits,
    reference: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Compare an artifact's answers to the golden files with the Keras model's; returns `files` of a runtime's entry.

    Args:
        files: the golden files; `answers` are to the first ones of them.
        answers: head -> float32 (M, ...).
        card: which heads there are.
        limits: what the answers may differ by; JPEGs are only told of, as decoders differ there.
        reference: head -> float32 (N, ...), the Keras model's answers to the golden images: the spread of a regression.
    """
    count = min((len(values) for values in answers.values()), default=0)
    # That an output is missing altogether is for the comparison of arrays to say.
    outputs = [output for output in card.outputs if output.name in answers]
    gaps = {
        (output.name, files[index].lossless, index): _gap(files[index].outputs.get(output.name), answers, output, index)
        for output in outputs
        for index in range(count)
    }
    lossless, lossy = (
        [float(gap.max()) for (_, kind, _), gap in gaps.items() if kind is wanted] for wanted in (True, False)
    )
    if not lossless:
        return {"images": 0, "status": parity.NOT_VERIFIED, "reason": "no golden file was compared"}
    entry = {
        "images": sum(each.lossless for each in files[:count]),
        "max_abs": max(lossless),
        "max_abs_jpeg": max(lossy, default=None),
    }
    reasons = []
    for output in outputs:
        of_output = [gap for (name, kind, _), gap in gaps.items() if kind and name == output.name]
        largest = functools.reduce(np.maximum, of_output)
        allowed = _allowed(output, limits, reference.get(output.name))
        if not np.isfinite(largest).all():
            reasons.append(f"{output.name}: an answer to an image file is missing, of another shape, or not a number")
        elif allowed is not None and not (largest <= allowed).all():
            largest, allowed = np.broadcast_arrays(largest, allowed)
            place = (largest - allowed).argmax()
            told = f"differ by {largest[place]:.2g}, more than {allowed[place]:.2g}"
            reasons.append(f"{output.name}: the answers to image files {told}")
    if reasons:
        return entry | {"status": parity.FAILED, "check": "files", "reason": "; ".join(reasons)}
    return entry | {"status": parity.VERIFIED, "reason": ""}


def _gap(expected: Any, answers: Mapping[str, np.ndarray], output: Output, index: int) -> np.ndarray:
    """Return the differences of one answer, flat; infinity where there is nothing to compare with."""
    nothing = np.array([np.inf])
    if expected is None:
        return nothing
    wanted, found = np.asarray(expected, np.float64), answers[output.name][index]
    if wanted.shape != found.shape:
        return nothing
    gap = np.abs(wanted - found).reshape(-1)
    return np.where(np.isfinite(gap), gap, np.inf)


def _allowed(output: Output, limits: Limits, reference: np.ndarray | None) -> np.ndarray | None:
    """Return the largest difference that is allowed of each number, or of all, in its own unit; None: there is no such limit."""
    # Each file is an image by itself, and may be the worst one.
    largest = limits.relative_error if limits.worst_relative_error is None else limits.worst_relative_error
    if output.task == REGRESSION and reference is not None:
        return largest * gates_numbers.units(reference).reshape(-1)
    if output.task == BOXES:
        return np.array([min(largest, limits.max_abs or largest)])
    return None if limits.max_abs is None else np.array([limits.max_abs])
