"""What the page taught, as a file: read and checked before anything is made of it. Loads no framework.

The file is JSON, written by `web_demo/teach_file.js`, and `TaughtFile` is its form. One JSON text unpacks to nothing larger
and names no path; pictures in it are PNGs of exactly the model's size. Numbers are float32, little-endian, in base64.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from exporters import pixels
from exporters.contract import CEILINGS, SCHEMA_VERSION, Backbone, Resize
from exporters.errors import InputError
from pipeline.dataset import is_one_line

PATTERNS = 8
LARGEST_BYTES = 2**29
MOST_LABELS = 1000
WIDEST = 2**16
# Both are the same sum in double precision, of at most 65536 products, rounded to float32.
LARGEST_HEAD_DIFFERENCE = 1e-5
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A part of the file: every field in its type, and no other fields."""


class HeadPart(_Strict, frozen=True):
    """One dense layer with softmax: `kernel` (width, labels), `bias` (labels); it takes features as the model gives them."""

    width: int
    kernel: bytes
    bias: bytes


class TrainingPart(_Strict, frozen=True):
    """How it was taught: pictures per class that it learned from, pictures per class held out, how many of these it got right."""

    seed: int
    pictures: list[int]
    held_out: list[int]
    correct: int


class PatternsPart(_Strict, frozen=True):
    """For each of PATTERNS pictures that are nobody's (see `pattern`): features (width) and the head's answer (labels)."""

    features: list[bytes]
    probabilities: list[bytes]


class PicturePart(_Strict, frozen=True):
    """A picture: its class, the side it was on, a PNG of the model's size, and the head's answer (labels)."""

    label: int
    held_out: bool
    png: bytes
    probabilities: bytes | None


class TaughtFile(_Strict, frozen=True):
    """The whole file.

    `created_from`, `backbone`, `cut`, `resize` say which model's features the head takes, as its card does; `artifact`,
    `precision`, `backend` what computed them; `cut` is the layer, `pooling` how its feature map becomes features.
    """

    kind: Literal["cutpoint-taught-head"]
    schema_version: int
    name: str
    created_from: str
    backbone: Backbone
    cut: str
    resize: Resize
    artifact: str
    precision: str
    backend: str
    pooling: Literal["average"]
    labels: list[str]
    head: HeadPart
    training: TrainingPart
    patterns: PatternsPart
    pictures: list[PicturePart]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture that came with the file: `image` uint8 (height, width, 3), its class, the head's answer float32 (labels)."""

    image: np.ndarray
    png: bytes
    label: int
    held_out: bool
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True)
class Taught:
    """A head that was taught on the page, checked.

    `kernel` float32 (width, labels), `bias` float32 (labels); `features` float32 (PATTERNS, width) and `probabilities`
    float32 (PATTERNS, labels) are what the page's model and this head gave of the patterns; `pictures` may be empty.
    """

    path: Path
    told: TaughtFile
    kernel: np.ndarray
    bias: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray
    pictures: tuple[Shown, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the head's answers."""
        return tuple(self.told.labels)


def read_taught(path: Path) -> Taught:
    """Read and check a file that the page wrote; raises InputError for whatever is wrong with it."""
    told = _decoded(path)
    _check_labels(told, path)
    width, count = told.head.width, len(told.labels)
    if not 1 <= width <= WIDEST:
        raise _damaged(path, f"its head takes {width} features")
    kernel = _numbers(told.head.kernel, (width, count), path, "the kernel")
    bias = _numbers(told.head.bias, (count,), path, "the bias")
    if len(told.patterns.features) != PATTERNS or len(told.patterns.probabilities) != PATTERNS:
        raise _damaged(path, f"it has not {PATTERNS} patterns")
    features = np.stack([_numbers(each, (width,), path, "a pattern") for each in told.patterns.features])
    answers = np.stack([_numbers(each, (count,), path, "an answer") for each in told.patterns.probabilities])
    apart = float(np.abs(head_answers(kernel, bias, features) - answers).max())
    if not apart <= LARGEST_HEAD_DIFFERENCE:
        raise _damaged(path, f"its head does not give the answers that stand beside it: {apart:.2g} apart")
    _check_training(told, path)
    pictures = tuple(_picture(each, told, path) for each in told.pictures)
    return Taught(path, told, kernel, bias, features, answers, pictures)


def head_answers(kernel: np.ndarray, bias: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return a head's probabilities, float64 (N, labels), of features (N, width)."""
    logits = features.astype(np.float64) @ kernel.astype(np.float64) + bias
    grown = np.exp(logits - logits.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def pattern(index: int, resize: Resize) -> np.ndarray:
    """Return a picture of coloured stripes, uint8 (height, width, 3), as `pattern` of `web_demo/teach_file.js` makes it."""
    across, down = 256 * (1 + index % 4), 256 * (1 + (index >> 1))
    places = (np.arange(resize.width) * across // resize.width)[None, :] + (
        np.arange(resize.height) * down // resize.height
    )[:, None]
    phases = (places[:, :, None] + np.arange(3) * (85 + 31 * index)) % 512
    return np.minimum(phases, 511 - phases).astype(np.uint8)


def _decoded(path: Path) -> TaughtFile:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise _damaged(path, f"it is larger than {LARGEST_BYTES // 2**20} MiB")
        told = msgspec.json.decode(path.read_bytes(), type=TaughtFile)
    except OSError as fault:
        raise InputError(
            f"{path} cannot be read: {fault.strerror or fault}.", "the file that the page wrote", "check the path"
        ) from fault
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise _damaged(path, str(fault)) from fault
    if told.schema_version != SCHEMA_VERSION:
        raise _damaged(path, f"it has schema_version {told.schema_version}")
    if told.precision not in CEILINGS:
        raise _damaged(path, f"it names the precision {told.precision[:80]!r}")
    if not told.name.strip() or len(told.name) > 200 or not is_one_line(told.name):
        raise _damaged(path, "its name is empty, or no line of a text")
    return told


def _check_labels(told: TaughtFile, path: Path) -> None:
    labels = told.labels
    if not 2 <= len(labels) <= MOST_LABELS:
        raise _damaged(path, f"it has {len(labels)} labels")
    wrong = [each for each in labels if not each.strip() or len(each) > 200 or not is_one_line(each)]
    wrong += [each for each in set(labels) if labels.count(each) > 1]
    if wrong:
        raise _damaged(path, f"its label {wrong[0][:80]!r} is empty, there twice, or no line of a text")


def _check_training(told: TaughtFile, path: Path) -> None:
    count, training = len(told.labels), told.training
    sides = (training.pictures, training.held_out)
    if any(len(side) != count or min(side) < 0 for side in sides) or not 0 <= training.correct <= sum(sides[1]):
        raise _damaged(path, "its counts of pictures do not fit its labels")


def _numbers(data: bytes, shape: tuple[int, ...], path: Path, what: str) -> np.ndarray:
    if len(data) != 4 * int(np.prod(shape)):
        raise _damaged(path, f"{what} has {len(data)} bytes where {4 * int(np.prod(shape))} belong")
    values = np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise _damaged(path, f"{what} has a number that is none")
    return values


def _picture(part: PicturePart, told: TaughtFile, path: Path) -> Shown:
    if not 0 <= part.label < len(told.labels):
        raise _damaged(path, f"a picture is of class {part.label}")
    if part.probabilities is None:
        raise _damaged(path, "a picture has no answer")
    answers = _numbers(part.probabilities, (len(told.labels),), path, "an answer")
    size = struct.pack(">II", told.resize.width, told.resize.height)
    # Its size is looked at first: a small file may unpack to a picture that fills the memory.
    if not part.png.startswith(_PNG + size):
        raise _damaged(path, f"a picture is no PNG of {told.resize.width} x {told.resize.height} px")
    try:
        image = pixels.decode(part.png)
    except ValueError as fault:
        raise _damaged(path, f"a picture is {fault}") from fault
    if image.shape != (told.resize.height, told.resize.width, 3):
        raise _damaged(path, "a picture is of another size than it says")
    return Shown(image, part.png, part.label, part.held_out, answers)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is not what the page wrote: {why}.",
        "a file that the page's Download wrote, unchanged",
        "download it again where it was taught",
    )
