"""From a folder of pictures or a CSV to labelled, split examples. Decodes nothing: that happens once, in `features`."""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from exporters.errors import InputError, nearest
from exporters.golden import sha256_of
from exporters.pixels import IMAGE_SUFFIXES
from pipeline import bundle
from pipeline.columns import check_cells, check_data
from pipeline.places import with_masks
from pipeline.splitting import (
    SPLITS,
    Example,
    check_class_sizes,
    check_groups,
    relative_path,
    take_out_copies,
    with_splits_of_copies,
)
from pipeline.targets import LABEL, LABELS, MASK, NUMBER, SIDE, as_readings, labels_of, number, split_labels

if TYPE_CHECKING:
    from pipeline.config import ColumnSection

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def list_examples(
    path: Path,
    targets: Sequence[str] | Mapping[str, str],
    group: str,
    columns: Mapping[str, ColumnSection] = MappingProxyType({}),
) -> tuple[Example, ...]:
    """List the pictures of a folder or a CSV, with the sha256 of their bytes.

    Args:
        path: a folder with a folder per class, inside `train`, `val`, `test` or directly; or a CSV with the columns
            `path`, the targets, the tabular columns, and perhaps `group` and `split`.
        targets: the columns that the heads learn, or column -> how it is read (see `pipeline.targets.READINGS`); a folder
            has only `label`. Without any, every picture in the folder counts, in whatever folders they lie, and none has a
            label.
        group: a CSV column, or a regular expression searched in the path (its first group, else the whole match).
        columns: the tabular columns that the model takes beside the picture, whose cells are kept.

    Raises:
        InputError: nothing there, no pictures, a missing column, an unusable label.
    """
    if not path.exists():
        raise InputError(f"The data {path} is not there.", "a folder per class, or a CSV", "set --data or data.path")
    readings = as_readings(targets)
    check_data(path, columns)
    if path.is_file():
        drafts = _read_csv(path, tuple(readings), group, tuple(columns))
    else:
        drafts = _walk_folder(path, tuple(readings))
    if not drafts:
        raise InputError(
            f"{path} holds no pictures.",
            f"a folder per class with files ending in {', '.join(IMAGE_SUFFIXES)}",
            "give another --data",
        )
    drafts = _with_groups(drafts, path, group)
    for name, section in columns.items():
        check_cells(path, name, section, drafts)
    for target, reading in readings.items():
        _check_cells(path, target, reading, drafts)
        if reading == MASK:
            drafts = with_masks(drafts, target, path.parent)
    # What is too few even if every picture can be read need not wait for the reading.
    check_class_sizes(drafts, path, readings)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, (draft.path for draft in drafts)))
    examples = [dataclasses.replace(draft, sha256=digest) for draft, digest in zip(drafts, digests, strict=True)]
    kept, _ = take_out_copies(with_splits_of_copies(examples), path)
    check_groups([each for each in kept if each.split])
    return tuple(examples)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        # Not readable: it is skipped with its reason when it should be decoded.
        return "unreadable:" + hashlib.sha256(os.fsencode(path)).hexdigest()


def _walk_folder(root: Path, targets: tuple[str, ...]) -> list[Example]:
    if not targets:
        return _without_labels(root)
    if targets != ("label",):
        raise InputError(
            f"A folder of pictures has no target {sorted(set(targets) - {'label'})}.",
            "the one target 'label', which is the name of the class's folder",
            'set heads.NAME.target = "label", or give a CSV with that column',
        )
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    named_splits = [folder for folder in folders if folder.name.lower() in _SPLIT_FOLDERS]
    if not any(_SPLIT_FOLDERS[each.name.lower()] == "train" and _has_folders(each) for each in named_splits):
        return [draft for folder in folders for draft in _pictures_of_class(folder, "")]
    strangers = [each for each in folders if each not in named_splits and _pictures_of_class(each, "")]
    if strangers:
        raise InputError(
            f"{root} holds the folder '{strangers[0].name}' with pictures beside its split folders.",
            f"{nearest(strangers[0].name, SPLITS)} (folders for splits only, or folders for classes only)",
            "rename it, or move it into a split",
        )
    return [
        draft
        for split_folder in named_splits
        for folder in sorted(split_folder.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for draft in _pictures_of_class(folder, _SPLIT_FOLDERS[split_folder.name.lower()])
    ]


def _without_labels(root: Path) -> list[Example]:
    folders = sorted(each for each in root.iterdir() if each.is_dir() and each.name.lower() in _SPLIT_FOLDERS)
    splits = {folder: _SPLIT_FOLDERS[folder.name.lower()] for folder in folders}
    found = splits if "train" in splits.values() else {root: ""}
    drafts = [draft for folder, split in found.items() for draft in _pictures_of_class(folder, split)]
    return [dataclasses.replace(draft, targets={}) for draft in drafts]


def _has_folders(folder: Path) -> bool:
    return any(each.is_dir() and not each.name.startswith(".") for each in folder.iterdir())


def _pictures_of_class(folder: Path, split: str) -> list[Example]:
    # A result folder under `runs/` holds pictures too, and is no class.
    results = {mark.parent for mark in folder.rglob(bundle.MARK)}
    return [
        Example(path, "", {"label": folder.name}, split=split)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not results.intersection(path.parents)
    ]


def _read_csv(path: Path, targets: tuple[str, ...], group: str, beside: tuple[str, ...]) -> list[Example]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            for needed in ("path", *targets, *beside):
                if needed not in columns:
                    mend = "set heads.NAME.target" if needed not in beside else f"correct [columns.{needed}]"
                    raise InputError(
                        f"The CSV {path} has no column '{needed}'.",
                        nearest(needed, columns) if columns else "a header line",
                        f"add the column, or {mend}",
                    )
            return [_row_to_example(path, row, targets, group, line, beside) for line, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"The CSV {path} cannot be read: {fault}.", "a CSV in UTF-8", "save it as such") from fault


def _row_to_example(
    path: Path, row: dict, targets: tuple[str, ...], group: str, line: int, beside: tuple[str, ...]
) -> Example:
    split = (row.get("split") or "").strip().lower()
    if split and split not in _SPLIT_FOLDERS:
        raise InputError(
            f"Line {line} of {path} has the split '{split}'.", nearest(split, SPLITS), "correct it, or leave it empty"
        )
    if not row["path"] or any(row[target] is None for target in targets):
        raise InputError(
            f"Line {line} of {path} has too few values.", ", ".join(["path", *targets]), "complete the line"
        )
    group_column = group or "group"
    return Example(
        path=path.parent / row["path"],
        sha256="",
        targets={target: row[target] for target in targets},
        group=(row.get(group_column) or "") if group_column in row else "",
        split=_SPLIT_FOLDERS.get(split, ""),
        cells={name: (row[name] or "").strip() for name in beside},
    )


def _with_groups(drafts: list[Example], root: Path, group: str) -> list[Example]:
    if not group or any(draft.group for draft in drafts):
        return drafts
    try:
        pattern = re.compile(group)
    except re.error as fault:
        raise InputError(
            f"data.group '{group}' is no regular expression: {fault}.",
            "a CSV column, or a regular expression on the path",
            "correct data.group",
        ) from fault
    base = root if root.is_dir() else root.parent
    matches = [pattern.search(relative_path(draft.path, base)) for draft in drafts]
    if not any(matches):
        raise InputError(
            f"data.group '{group}' matches no path.",
            "a column of the CSV or a match in the paths",
            "correct data.group",
        )
    return [
        dataclasses.replace(draft, group=(match.group(1) if match.re.groups else match.group(0)) or "")
        if match
        else draft
        for draft, match in zip(drafts, matches, strict=True)
    ]


def is_one_line(label: str) -> bool:
    """Tell whether a label can be a line of labels.txt: text that UTF-8 can hold, without line breaks and control characters."""
    try:
        label.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return not any(ord(character) < 32 or character in "\x85\u2028\u2029" for character in label)


def _check_cells(path: Path, target: str, reading: str, drafts: list[Example]) -> None:
    """Raise InputError for cells that cannot be read as what their column holds; a cell is named by its picture."""
    cells = {draft.targets[target] for draft in drafts}
    if reading in (LABEL, LABELS):
        _check_labels(path, target, set(labels_of(cells, reading)), least=2 if reading == LABEL else 1)
    if reading == LABELS and not any(map(split_labels, cells)):
        raise InputError(
            f"No picture of {path} has a label in '{target}'.", "labels with | between them", "fill in the column"
        )
    for draft in drafts if reading in (NUMBER, SIDE, MASK) else ():
        cell = draft.targets[target]
        try:
            if reading != MASK:
                number(cell)
            elif not cell.strip():
                raise ValueError(cell)
        except ValueError:
            base = path if path.is_dir() else path.parent
            raise InputError(
                f"The picture {relative_path(draft.path, base)} has {cell!r} in '{target}'.",
                "the path of a mask" if reading == MASK else "a number, such as 3.5",
                "correct the cell, or take the line out of the CSV",
            ) from None


def _check_labels(path: Path, target: str, labels: set[str], least: int) -> None:
    for label in sorted(labels):
        if not label.strip() or not is_one_line(label):
            raise InputError(
                f"The label {label!r} of '{target}' in {path} cannot be a line of labels.txt.",
                "a label that is not empty and holds no line break or control character",
                "rename the class",
            )
    if 0 < len(labels) < least:
        raise InputError(
            f"{path} holds one class only: {sorted(labels)[0]!r}.",
            "at least two classes, each a folder of pictures (or a value of the CSV's column)",
            "add pictures of another class; for something against everything else, add a folder 'other'",
        )
