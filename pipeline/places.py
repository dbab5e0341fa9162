"""Where things are in a picture, from the cells of the data: the truth of boxes and of label maps. Light: numpy and Pillow."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from exporters.contract import BOXES, SEGMENTATION, UNKNOWN_PIXEL, Resize
from exporters.errors import InputError
from pipeline.geometry import label_map_shape, picture_size, place_box, place_mask
from pipeline.targets import columns_of, number

if TYPE_CHECKING:
    from pipeline.config import Config, HeadSection
    from pipeline.splitting import Example

# Boxes are often drawn up to the edge and a pixel over it.
SLACK_PX = 1.0
MASK_MODES = ("P", "L", "1")
# Label maps that are kept, of 3 kB each with an input of 224 px: every split is asked for several times.
_MAPS_KEPT = 2**14


def check_places(config: Config, how: Resize, examples: Sequence[Example]) -> None:
    """Raise InputError for a box or a mask that cannot be learned; pictures that cannot be read are left to the decoding."""
    from pipeline.heads import task_of

    tasks = {name: task_of(section) for name, section in sorted(config.heads.items())}
    if not {BOXES, SEGMENTATION} & set(tasks.values()):
        return
    readable = [example for example in examples if _is_readable(example.path)]
    for name, task in tasks.items():
        columns = columns_of(config.heads[name], task)
        if task == BOXES:
            boxes_of(readable, columns, how)
        if task == SEGMENTATION:
            _check_classes(name, labels_of_map(name, config.heads[name]), readable, columns[0], how)


def boxes_of(examples: Sequence[Example], columns: Sequence[str], how: Resize) -> np.ndarray:
    """Return the true boxes, float32 (N, 4): x_min, y_min, x_max, y_max in shares of the model's input.

    Args:
        examples: pictures whose cells have the box in px of the picture, after EXIF rotation.
        columns: x_min, y_min, x_max, y_max.
        how: the resize; boxes are cut off where it crops.

    Raises:
        InputError: a cell is no box, or nothing of the box is left by the crop; the picture is named.
    """
    rows = [_box(example, columns, how) for example in examples]
    return np.array(rows, np.float32).reshape(len(examples), 4)


def _box(example: Example, columns: Sequence[str], how: Resize) -> tuple[float, ...]:
    box = tuple(number(example.targets[column]) for column in columns)
    told = ", ".join(f"{column} {value:g}" for column, value in zip(columns, box, strict=True))
    width, height = _size(example.path)
    across, down = box[2] - box[0], box[3] - box[1]
    if min(across, down) <= 0:
        raise InputError(
            f"The box of the picture {example.path} ends before it begins: {told}.",
            f"{columns[0]} below {columns[2]} and {columns[1]} below {columns[3]}, corners and not width and height",
            "correct the cells, or take the line out of the CSV",
        )
    if max(box) <= 1 and min(width, height) > 1:
        raise InputError(
            f"The box of the picture {example.path} is smaller than a pixel: {told}.",
            f"px of the picture, which is {width} x {height} px, not shares of it",
            "multiply x by the width and y by the height",
        )
    if min(box) < -SLACK_PX or box[2] > width + SLACK_PX or box[3] > height + SLACK_PX:
        raise InputError(
            f"The box of the picture {example.path} leaves the picture, which is {width} x {height} px: {told}.",
            "px of the picture as it is shown, turned as its EXIF block says",
            "correct the cells, or take the line out of the CSV",
        )
    placed = place_box(box, (width, height), how)
    if placed is None:
        raise InputError(
            f"Nothing of the box of the picture {example.path} is left by the resize with crop '{how.crop}': {told}.",
            "boxes that the model sees at least a part of",
            'set resize.crop = "pad" or "stretch", or take the line out of the CSV',
        )
    return placed


def label_maps_of(examples: Sequence[Example], column: str, labels: Sequence[str], how: Resize) -> np.ndarray:
    """Return the true label maps, uint8 (N, height, width): class indices, UNKNOWN_PIXEL where nobody knows.

    Args:
        examples: pictures whose cells have the whole path of a mask, see `with_masks`.
        column: of the masks.
        labels: of the classes, in index order.
        how: the resize, which the masks follow.

    Raises:
        InputError: a mask is none, has another size than its picture, or holds an index beyond the labels.
    """
    shape = label_map_shape(how)
    maps = np.empty((len(examples), *shape), np.uint8)
    for row, mask in enumerate(_masks(examples, column, labels, how)):
        maps[row] = mask.placed
    return maps


def labels_of_map(name: str, section: HeadSection) -> tuple[str, ...]:
    """Return the labels of a segmentation head in index order; raises InputError where they are not listed."""
    labels = section.labels
    if len(labels) < 2 or len(set(labels)) != len(labels) or len(labels) > UNKNOWN_PIXEL:
        raise InputError(
            f"heads.{name}.labels lists {', '.join(map(repr, labels)) or 'nothing'}, and masks hold only numbers.",
            f"two to {UNKNOWN_PIXEL} labels, each once: the first is what 0 stands for in a mask",
            f'set heads.{name}.labels = ["background", "figure"], with your labels',
        )
    return labels


def with_masks(examples: Sequence[Example], column: str, folder: Path) -> list[Example]:
    """Return the examples with the whole path of each mask; raises InputError where one is missing."""
    found = []
    for each in examples:
        path = folder / each.targets[column].strip()
        if not path.is_file():
            raise InputError(
                f"The mask {path} of the picture {each.path} is not there.",
                f"a PNG, with its path taken from the folder of the CSV, in '{column}'",
                "correct the cell, or take the line out of the CSV",
            )
        found.append(dataclasses.replace(each, targets={**each.targets, column: str(path)}))
    return found


@dataclasses.dataclass(frozen=True)
class _Mask:
    placed: np.ndarray
    indices: frozenset[int]


def _masks(examples: Sequence[Example], column: str, labels: Sequence[str], how: Resize) -> list[_Mask]:
    def read(example: Example) -> _Mask:
        path = Path(example.targets[column])
        mask = _placed(path, path.stat().st_mtime_ns, _size(example.path), how)
        beyond = sorted(index for index in mask.indices if index >= len(labels) and index != UNKNOWN_PIXEL)
        if beyond:
            raise InputError(
                f"The mask {path} holds the index {beyond[0]}, and there are {len(labels)} labels.",
                f"0 to {len(labels) - 1} ({', '.join(labels[:6])}), or {UNKNOWN_PIXEL} where nobody knows",
                "add the label to heads.NAME.labels, or correct the mask",
            )
        return mask

    with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="masks") as pool:
        return list(pool.map(read, examples))


@functools.lru_cache(maxsize=_MAPS_KEPT)
def _placed(path: Path, changed: int, size: tuple[int, int], how: Resize) -> _Mask:
    """Read a mask, which `changed` distinguishes from what the file held before."""
    try:
        with Image.open(path) as opened:
            mode, found = opened.mode, opened.size
            values = np.array(opened) if mode in MASK_MODES else None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as fault:
        raise InputError(f"The mask {path} cannot be read: {fault}.", "an indexed PNG", "write it anew") from fault
    if values is None:
        raise InputError(
            f"The mask {path} has colours, not class indices: its mode is {mode}.",
            "a PNG with a palette or of 8 bits grey, whose values are 0 for the first label, 1 for the second ...",
            "save it as an indexed PNG",
        )
    if found != size:
        raise InputError(
            f"The mask {path} is {found[0]} x {found[1]} px, and its picture {size[0]} x {size[1]} px.",
            "one size, that of the picture as it is shown, turned as its EXIF block says",
            "draw the mask on the turned picture, or take the line out of the CSV",
        )
    values = values.astype(np.uint8)
    indices = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256))
    return _Mask(place_mask(values, how, label_map_shape(how)), frozenset(indices.tolist()))


def _check_classes(name: str, labels: Sequence[str], examples: Sequence[Example], column: str, how: Resize) -> None:
    masks = _masks(examples, column, labels, how)
    seen = frozenset().union(*(mask.indices for mask in masks)) - {UNKNOWN_PIXEL}
    if examples and len(seen) < 2:
        only = f"only {min(seen)}" if seen else "nothing"
        raise InputError(
            f"The masks of the head '{name}' hold {only} beside {UNKNOWN_PIXEL}, which stands for what nobody knows.",
            f"at least two of {', '.join(f'{index} ({label})' for index, label in enumerate(labels[:6]))}",
            "write 1, not 255, where the figure is",
        )


def _is_readable(path: Path) -> bool:
    try:
        picture_size(path)
    except ValueError:
        return False
    return True


def _size(path: Path) -> tuple[int, int]:
    try:
        return picture_size(path)
    except ValueError as fault:
        raise InputError(
            f"The picture {path} cannot be used: {fault}.", "a JPEG, PNG, BMP, GIF or WebP file", "give another picture"
        ) from fault
