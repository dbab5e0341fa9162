"""Tabular columns of the CSV beside the pictures: their cells, and what the training split teaches of them.

Light: numpy only. `exporters.columns` turns cells into the model's numbers, `pipeline.encoding` makes layers of them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.columns import BUCKET, CATEGORY, NUMBER, Column, encode_cells, number_of
from exporters.errors import InputError
from exporters.report_columns import ranges_told
from pipeline.column_checks import MOST_CATEGORIES
from pipeline.splitting import Example, relative_path

if TYPE_CHECKING:
    from pipeline.config import ColumnSection


def check_data(path: Path, columns: Mapping[str, ColumnSection]) -> None:
    """Raise InputError where columns are asked for of data that have none: a folder."""
    if columns and path.is_dir():
        raise InputError(
            f"{path} is a folder of pictures, which has no column '{next(iter(columns))}'.",
            "a CSV with a line for each picture: path, the targets, and the columns",
            "set --data or data.path to a CSV, or take [columns] out",
        )


def check_cells(path: Path, name: str, section: ColumnSection, examples: Sequence[Example]) -> None:
    """Raise InputError where a cell is no number and should be, named by its picture, or where all cells say the same."""
    base = path if path.is_dir() else path.parent
    for each in examples if section.kind != CATEGORY else ():
        try:
            if each.cells[name]:
                number_of(each.cells[name], name)
        except InputError as fault:
            raise InputError(
                f"The picture {relative_path(each.path, base)} has {each.cells[name]!r} in the column '{name}'.",
                fault.expected,
                f'correct the cell or leave it empty, or set columns.{name}.kind = "{CATEGORY}"',
            ) from None
    _check_varies(name, section.kind, [each.cells[name] for each in examples], "the data")


def _check_varies(name: str, kind: str, cells: Sequence[str], where: str) -> None:
    found = {cell if kind == CATEGORY else np.float32(number_of(cell, name)) for cell in cells if cell}
    # An empty cell of a category is something else than the one category that there is.
    if len(found) + (kind == CATEGORY and "" in cells) < 2:
        only = f"{next(iter(found))!s} or empty" if found and "" in cells else str(next(iter(found), "empty"))
        raise InputError(
            f"The column '{name}' is {only} for every picture of {where}.",
            "cells that differ: nothing can be learned from others",
            f"take [columns.{name}] out, or fill the column in",
        )


def learn_columns(sections: Mapping[str, ColumnSection], train: Sequence[Example]) -> tuple[Column, ...]:
    """Return the columns as the training pictures teach them: mean and deviation, ranges, vocabulary.

    Args:
        sections: `config.columns`.
        train: the training pictures, with their cells.

    Raises:
        InputError: a column that says the same of all of them, or has too many categories.
    """
    learned: dict[str, Callable[[str, ColumnSection, list[str]], Column]] = {
        NUMBER: _learn_number,
        CATEGORY: _learn_category,
        BUCKET: _learn_bucket,
    }
    found = []
    for name, section in sections.items():
        cells = [each.cells[name] for each in train]
        _check_varies(name, section.kind, cells, "the training split")
        found.append(learned[section.kind](name, section, cells))
    return tuple(found)


def _learn_number(name: str, section: ColumnSection, cells: list[str]) -> Column:
    values = _numbers(name, cells)
    mean = _as_float32(values.mean())
    return Column(name, NUMBER, default=mean, mean=mean, standard_deviation=_as_float32(values.std()))


def _learn_bucket(name: str, section: ColumnSection, cells: list[str]) -> Column:
    values = _numbers(name, cells)
    if section.boundaries:
        bounds = np.array(section.boundaries, np.float32)
    else:
        quantiles = np.quantile(values, np.linspace(0, 1, section.buckets + 1)[1:-1])
        bounds = np.unique(quantiles.astype(np.float32))
        # A number on a boundary belongs above it: nothing would be below the smallest one.
        bounds = bounds[bounds > values.min()]
        bounds = bounds if len(bounds) else np.array([values[values > values.min()].min()], np.float32)
    return Column(name, BUCKET, default=_as_float32(np.median(values)), boundaries=tuple(map(float, bounds)))


def _learn_category(name: str, section: ColumnSection, cells: list[str]) -> Column:
    counts = collections.Counter(cell for cell in cells if cell)
    vocabulary = section.categories or sorted(each for each in counts if counts[each] >= (section.min_count or 1))
    if len(vocabulary) > MOST_CATEGORIES or not vocabulary:
        raise InputError(
            f"The column '{name}' has {len(vocabulary)} categories in the training split"
            + (f" with at least {section.min_count} pictures." if section.min_count else "."),
            f"1 to {MOST_CATEGORIES}",
            f'change columns.{name}.min_count, or set columns.{name}.kind = "{NUMBER}" where it holds numbers',
        )
    column = Column(name, CATEGORY, categories=tuple(vocabulary))
    if len({column.categories.index(cell) if cell in column.categories else -1 for cell in cells}) < 2:
        raise InputError(
            f"Every training picture has the same of '{name}': none or one of {', '.join(vocabulary[:6])}.",
            "categories that part the training pictures",
            f"correct columns.{name}.categories or min_count, or take [columns.{name}] out",
        )
    return column


def _numbers(name: str, cells: Sequence[str]) -> np.ndarray:
    # As the model will get them, float32; computed with in more digits.
    return np.array([number_of(cell, name) for cell in cells if cell], np.float32).astype(np.float64)


def _as_float32(value: float) -> float:
    return float(np.float32(value))


def raw_columns(columns: Sequence[Column], examples: Sequence[Example]) -> np.ndarray:
    """Return what the model takes of examples beside their pictures, float32 (N, len(columns))."""
    return encode_cells(columns, [each.cells for each in examples])


def notes_of_columns(columns: Sequence[Column], train: Sequence[Example]) -> list[str]:
    """Return sentences on what no training picture shows of the columns: heads take it for unknown."""
    notes = []
    raw = raw_columns(columns, train)
    for place, column in enumerate(columns):
        if column.kind == CATEGORY:
            shown = set(raw[:, place].astype(int))
            unseen = [repr(each) for index, each in enumerate(column.categories, 1) if index not in shown]
        elif column.kind == BUCKET:
            shown = set(np.searchsorted(np.array(column.boundaries, np.float32), raw[:, place], side="right"))
            unseen = [each for index, each in enumerate(ranges_told(column.boundaries)) if index not in shown]
        else:
            unseen = []
        if unseen:
            notes.append(
                f"No training picture has {' or '.join(unseen[:6])} in the column '{column.name}': "
                "that tells the heads nothing."
            )
    return notes
