"""The pictures that an imported head is exported and judged with: those that were given, that came along, or the source's own."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from exporters.contract import Resize
from exporters.errors import InputError, nearest
from exporters.golden import golden_images
from exporters.golden_files import FILES, LOSSLESS
from exporters.inputs import Inputs
from exporters.measures import spread
from exporters.pixels import load_images
from pipeline import bundle
from pipeline.config import Config
from pipeline.dataset import list_examples
from pipeline.features import find_unreadable
from pipeline.foreign import indices
from pipeline.reference import SELECTION_IMAGES
from pipeline.run import choose, split
from pipeline.splitting import Dataset, Example
from pipeline.taught_file import Taught
from pipeline.terminal import Terminal


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The pictures that a model is exported and judged with.

    `images` uint8 (N, height, width, 3) judge it, `truth` int64 (N,) or None where nobody knows; `files` are of the same
    pictures; `calibration` and `selection` as in a result folder; `dataset` tells of them, without examples where they are
    the source folder's own.
    """

    images: np.ndarray
    truth: np.ndarray | None
    files: list[Path]
    calibration: Inputs
    selection: Inputs | None
    dataset: Dataset


def gather(taught: Taught, source: Path, config: Config, work: Path, terminal: Terminal) -> Evidence:
    """Return the pictures to judge with: those of `data.path`, else those that came along, else the source folder's own.

    Raises:
        InputError: there are none, or the data have a class that the head does not know.
    """
    how = taught.told.resize
    if config.data.path:
        root = Path(config.data.path).expanduser()
        examples = list_examples(root, ("label",), config.data.group)
    elif taught.pictures:
        root = _write_pictures(taught, work)
        examples = list_examples(root, ("label",), "")
    else:
        return _of_source(source, config, terminal)
    unknown = sorted({each.targets["label"] for each in examples} - set(taught.labels))
    if unknown:
        raise InputError(
            f"{root} has the class '{unknown[0]}', which the head does not know.",
            nearest(unknown[0], taught.labels),
            "name the folders as the classes are called",
        )
    dataset = split(config, root, examples, find_unreadable(examples, how, config.data.bad_limit), terminal)
    test = choose(dataset.of_split("test"), config.parity.images, config.seed)
    calibration = choose(dataset.of_split("train"), config.export.calibration_images, config.seed)
    selection = choose(dataset.of_split("val"), SELECTION_IMAGES, config.seed)
    return Evidence(
        _images(test, how),
        indices(test, taught.labels),
        [each.path for each in test],
        Inputs(_images(calibration, how)),
        Inputs(_images(selection, how)) if selection else None,
        dataset,
    )


def _images(examples: tuple[Example, ...], how: Resize) -> np.ndarray:
    return load_images([each.path for each in examples], how)


def _write_pictures(taught: Taught, work: Path) -> Path:
    """Write the pictures that came along, under numbers, and a CSV that names their classes and sides; returns the CSV."""
    table = work / "pictures.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for index, each in enumerate(taught.pictures):
            (work / f"{index:05d}.png").write_bytes(each.png)
            writer.writerow([f"{index:05d}.png", taught.labels[each.label], "test" if each.held_out else "train"])
    return table


def _of_source(source: Path, config: Config, terminal: Terminal) -> Evidence:
    images = golden_images(source)
    if images is None or not len(images):
        raise InputError(
            f"There are no pictures to judge with: none came along, --data names none, and {source} has no golden images.",
            "pictures to calibrate with and to compare on",
            "give --data DIR, or tick the box on the page that puts your pictures into the download",
        )
    note = (
        f"The artifacts are compared on the golden images of {source.name}, which are not of the taught classes: accuracy is "
        "not known; --data DIR, or a download with pictures, would tell."
    )
    terminal.say(f"data: {note}")
    chosen = images[spread(len(images), config.parity.images)]
    files = [path for path in sorted((source / "golden" / FILES).glob("*")) if path.suffix in LOSSLESS]
    digest = hashlib.sha256(np.ascontiguousarray(chosen).tobytes()).hexdigest()
    # A model that takes pictures alone has no use for what stood beside them.
    calibration, selection = bundle.read_calibration(source), bundle.read_selection(source)
    return Evidence(
        chosen,
        None,
        files,
        Inputs(calibration.images),
        Inputs(selection.images) if selection is not None else None,
        Dataset((), {}, (), (note,), f"sha256:{digest}"),
    )
