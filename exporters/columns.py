"""Tabular columns beside the picture: from what a person or a CSV says to the numbers that a model takes.

The model takes raw numbers: `columns`, float32 (N, C), one after the other as `Card.columns` lists them. Only what no
format can hold, the lookup of strings, happens here, outside the graph; normalising, buckets and one-hot are inside.
`web_demo/columns.js` does the same arithmetic.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporters.errors import InputError, nearest

NUMBER, CATEGORY, BUCKET = "number", "category", "bucket"
KINDS = (NUMBER, CATEGORY, BUCKET)
# The numbers that JavaScript reads alike.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# What stands for an empty cell, and for a category that training never saw.
UNKNOWN = 0


@dataclasses.dataclass(frozen=True)
class Column:
    """One tabular column, as the training split taught it.

    `kind` is `number` (normalised inside the model by `mean` and `standard_deviation`), `bucket` (which of the ranges
    between `boundaries`, ascending, it lies in; a number on a boundary belongs to the range above it) or `category` (one of
    `categories`, the vocabulary in index order; index 0 of the model's input is none of them, 1 the first). `default` is the
    number that stands for an empty cell of a number or a bucket: the mean or the median of the training split.
    """

    name: str
    kind: str
    default: float = 0.0
    mean: float = 0.0
    standard_deviation: float = 1.0
    boundaries: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many values the model makes of it: 1 of a number, else one for each range or category."""
        return {NUMBER: 1, CATEGORY: len(self.categories), BUCKET: len(self.boundaries) + 1}[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Return the column as card.json has it: its name and kind, and what its kind needs."""
        numbers = {"default": self.default, "mean": self.mean, "standard_deviation": self.standard_deviation}
        of_kind = {
            NUMBER: numbers,
            BUCKET: {"default": self.default, "boundaries": list(self.boundaries)},
            CATEGORY: {"categories": list(self.categories)},
        }
        return {"name": self.name, "kind": self.kind, **of_kind[self.kind]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Column:
        """Build a column from card.json; raises KeyError, TypeError or ValueError where it is none."""
        if not isinstance(data, Mapping):
            raise TypeError(f"{data!r} is no column")
        lists = {key: tuple(data.get(key, ())) for key in ("boundaries", "categories")}
        column = Column(**{**data, **lists})
        if fault := column._fault():
            raise ValueError(f"a column {column.name!r} of the kind {column.kind!r}: {fault}")
        return column

    def _fault(self) -> str:
        numbers = (self.default, self.mean, self.standard_deviation, *self.boundaries)
        if not isinstance(self.name, str) or self.kind not in KINDS:
            return "there is no such kind"
        if not all(_is_float32(each) for each in numbers):
            return "a number of it is none that float32 can hold"
        if any(low >= high for low, high in itertools.pairwise(self.boundaries)):
            return "its boundaries do not ascend"
        if not all(isinstance(each, str) for each in self.categories):
            return "a category is no text"
        return "it has a category twice" if len(set(self.categories)) < len(self.categories) else ""


def encode_cells(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return what the model takes of rows of cells.

    Args:
        columns: `Card.columns`.
        rows: column -> its cell, text as a CSV has it or a number; a cell that is empty or not there is unknown.

    Returns:
        float32 (len(rows), len(columns)): numbers as they are, categories as their index from 1.

    Raises:
        InputError: a row names a column that the model does not have, or a cell of a number holds none.
    """
    known = [column.name for column in columns]
    for row in rows:
        for name in row:
            if name not in known:
                raise InputError(
                    f"The model takes no column '{name}'.",
                    nearest(name, known) if known else "a picture alone",
                    "correct the name of the column, or leave it out",
                )
    values = [[_encoded(column, row.get(column.name)) for column in columns] for row in rows]
    return np.asarray(values, np.float32).reshape(len(rows), len(columns))


def check_encoded(columns: Sequence[Column], values: np.ndarray | None, rows: int) -> None:
    """Check stored numbers of columns.

    Args:
        columns: `Card.columns`; none for a model that takes pictures alone.
        values: what is stored, None where nothing is.
        rows: how many there must be.

    Raises:
        ValueError: columns that there are not to be, or none where there are to be some; or they are not float32
            (rows, len(columns)), finite, and indices where they are categories.
    """
    if values is None or not columns:
        if (values is not None) != bool(columns):
            raise ValueError(f"it holds {'' if columns else 'columns, and the card names '}no columns")
        return
    if values.dtype != np.float32 or values.shape != (rows, len(columns)):
        raise ValueError(f"its columns are {values.dtype} {values.shape}, not float32 {(rows, len(columns))}")
    if not np.isfinite(values).all():
        raise ValueError("its columns hold what is no finite number")
    for column, each in zip(columns, values.T, strict=True):
        if column.kind == CATEGORY and not np.isin(each, np.arange(len(column.categories) + 1)).all():
            raise ValueError(f"its column '{column.name}' holds what is no index of a category")


def _encoded(column: Column, cell: Any) -> float:
    text = text_of(cell)
    if column.kind == CATEGORY:
        return column.categories.index(text) + 1 if text in column.categories else UNKNOWN
    return number_of(text, column.name) if text else column.default


def text_of(cell: Any) -> str:
    """Return what a cell says: its text without white space around it; nothing where it is None."""
    return "" if cell is None else str(cell).strip()


def number_of(text: str, column: str) -> float:
    """Return the number that a cell of a column holds; raises InputError where it holds none that float32 can."""
    if not _NUMBER.fullmatch(text) or not _is_float32(float(text)):
        raise InputError(
            f"The column '{column}' has {text!r}.", "a number, such as 3.5, or nothing", "correct it, or leave it empty"
        )
    return float(text)


def _is_float32(value: Any) -> bool:
    """Tell whether a value is a number that float32 holds as a finite one, rounded."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    with np.errstate(over="ignore"):
        return abs(value) < 1e39 and bool(np.isfinite(np.float32(value)))
