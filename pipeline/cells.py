"""The cells that `cutpoint predict` is told of pictures: by `--column` for all of them, by `--data` for each. Light."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from exporters.columns import Column
from exporters.errors import InputError, nearest

Cells = list[dict[str, str]]


def cells_told(
    columns: Sequence[Column], pictures: Sequence[Path], named: Sequence[str], data: Path | None
) -> tuple[list[Path], Cells | None]:
    """Return pictures, and what was told of the columns beside each of them.

    Args:
        columns: of the model; none where it takes pictures alone.
        pictures: those that were named; none with `data`: all of its pictures.
        named: `NAME=VALUE` of `--column`, for every picture; goes before what `data` says.
        data: a CSV with the columns `path` and those of the model; others in it do not matter.

    Returns:
        The pictures; column -> cell for each, None where nothing was told and the model has no columns.

    Raises:
        InputError: no picture, a `--column` that is no NAME=VALUE or none of the model's, or a CSV that lacks something.
    """
    given = _given(columns, named)
    wanted = [column.name for column in columns if column.name not in given]
    rows = _read(data, wanted) if data is not None else {}
    if not pictures and not rows:
        raise InputError(
            "No picture is named." if data is None else f"The CSV {data} names no picture.",
            "pictures, or a CSV with the column 'path'",
            "cutpoint predict FOLDER photo.jpg, or --data photos.csv",
        )
    shown = list(pictures) or list(rows)
    if not columns:
        return shown, None
    found = {path.resolve(): cells for path, cells in rows.items()}
    for path in shown if data is not None else ():
        if path.resolve() not in found:
            raise InputError(
                f"The CSV {data} has no line for {path}.", nearest(path.name, {each.name for each in rows}), "add one"
            )
    return shown, [{**found.get(path.resolve(), {}), **given} for path in shown]


def _given(columns: Sequence[Column], named: Sequence[str]) -> dict[str, str]:
    known, given = [column.name for column in columns], {}
    for each in named:
        name, found, value = each.partition("=")
        if not found or not name.strip():
            raise InputError(f"'--column {each}' names no cell.", "NAME=VALUE", "for example --column age=40")
        if name.strip() not in known:
            raise InputError(
                f"The model takes no column '{name.strip()}'.",
                nearest(name.strip(), known) if known else "a picture alone",
                "correct --column, or leave it out",
            )
        given[name.strip()] = value
    return given


def _read(path: Path, wanted: Sequence[str]) -> dict[Path, dict[str, str]]:
    """Return picture -> column -> cell, in the order of the CSV's lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            for name in ("path", *wanted):
                if name not in header:
                    raise InputError(
                        f"The CSV {path} has no column '{name}'.",
                        nearest(name, header) if header else "a header line",
                        "add it; an empty cell is unknown" + ("" if name == "path" else f", or give --column {name}="),
                    )
            return {
                path.parent / row["path"]: {name: row[name] or "" for name in wanted} for row in reader if row["path"]
            }
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"The CSV {path} cannot be read: {fault}.", "a CSV in UTF-8", "save it as such") from fault
