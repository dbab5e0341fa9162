"""What a model takes of several pictures: their pixels, and the tabular columns beside them where it has such."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporters.columns import Column, encode_cells
from exporters.contract import COLUMNS_NAME, INPUT_NAME
from exporters.errors import InputError, ParityError
from exporters.measures import spread


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Pictures and their columns; counted, indexed by slices or arrays, and joined like an array of pictures.

    `images` uint8 or float32 (N, height, width, 3), 0..255; `columns` float32 (N, C) as `columns.encode_cells` gives them,
    None for a model that takes pictures alone.
    """

    images: np.ndarray
    columns: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.columns is not None and len(self.columns) != len(self.images):
            raise ValueError(f"{len(self.images)} pictures, and columns of {len(self.columns)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Inputs:
        return Inputs(self.images[index], None if self.columns is None else self.columns[index])

    def sample(self, most: int) -> Inputs:
        """Return at most so many pictures, evenly spread: they often lie in the order of their labels."""
        return self[spread(len(self), most)]

    def named(self) -> dict[str, np.ndarray]:
        """Return input name -> float32 array, as a Keras model with named inputs takes them."""
        columns = {} if self.columns is None else {COLUMNS_NAME: np.asarray(self.columns, np.float32)}
        return {INPUT_NAME: np.asarray(self.images, np.float32), **columns}


def as_inputs(given: Inputs | np.ndarray) -> Inputs:
    """Return pictures, with columns or as an array by themselves, as `Inputs`."""
    return given if isinstance(given, Inputs) else Inputs(np.asarray(given))


def join(parts: Sequence[Inputs]) -> Inputs:
    """Return several as one, in their order; all of them have columns or none has; at least one."""
    columns = [each.columns for each in parts if each.columns is not None]
    return Inputs(np.concatenate([each.images for each in parts]), np.concatenate(columns) if columns else None)


def one_of(given: Inputs | np.ndarray) -> Inputs:
    """Return one picture, (height, width, 3), (1, height, width, 3) or `Inputs` of length 1, as `Inputs`."""
    if isinstance(given, Inputs):
        return given[:1]
    image = np.asarray(given)
    return Inputs(image if image.ndim == 4 else image[np.newaxis])


def with_cells(
    images: np.ndarray, columns: Sequence[Column], cells: Sequence[Mapping[str, Any]] | None = None
) -> Inputs:
    """Return pictures as a model takes them that has these columns.

    Args:
        images: (N, height, width, 3).
        columns: `Card.columns`; none for a model that takes pictures alone.
        cells: column -> its cell, one mapping for each picture; None: nothing is known of any picture.

    Raises:
        InputError: as `columns.encode_cells` does, also for cells that a model without columns has no place for.
    """
    rows = cells if cells is not None else [{}] * len(images)
    if len(rows) != len(images):
        raise InputError(
            f"{len(images)} pictures, and cells for {len(rows)}.", "cells for each picture", "give as many of both"
        )
    encoded = encode_cells(columns, rows)
    return Inputs(images, encoded if columns else None)


def fill_up(given: Inputs, size: int) -> Inputs:
    """Return `given` with its last picture repeated until the length is a multiple of `size`; for a model of fixed batch."""
    missing = -len(given) % size
    return join([given, *[given[-1:]] * missing]) if missing else given


def input_names(taken: Sequence[str], what: str) -> tuple[str, str | None]:
    """Return which of a model's inputs takes the picture and which the columns, None where none does.

    A single input may have any name, as models made elsewhere do; columns are found by theirs.

    Raises:
        ParityError: there are other inputs.
    """
    if len(taken) == 1 and taken[0] != COLUMNS_NAME:
        return taken[0], None
    if len(taken) == 2 and COLUMNS_NAME in taken:
        image = next(name for name in taken if name != COLUMNS_NAME)
        return image, COLUMNS_NAME
    raise ParityError(
        f"{what} takes {sorted(taken)}.",
        f"one input, or '{INPUT_NAME}' and '{COLUMNS_NAME}'",
        "export the artifact again",
    )


def check_columns(given: Inputs, columns_input: str | None, what: str, count: int | None = None) -> None:
    """Raise InputError where a model that takes columns is given none or another number than `count`, where that is known,
    or where one that takes none is given some.
    """
    if columns_input and given.columns is None:
        raise InputError(
            f"{what} takes columns beside the picture, and none were given.",
            "pictures with their columns",
            "give it the columns that its card.json lists",
        )
    if not columns_input and given.columns is not None:
        raise InputError(
            f"{what} takes pictures alone, and columns were given.",
            "pictures without columns",
            "leave the columns out, or use a model that was trained with them",
        )
    if given.columns is None:
        return
    if given.columns.ndim != 2 or count not in (None, given.columns.shape[1]):
        raise InputError(
            f"{what} was given columns of the shape {given.columns.shape}.",
            f"(N, {'columns' if count is None else count})",
            "encode the cells by its card",
        )


def to_bytes(given: Inputs) -> tuple[dict[str, Any], bytes]:
    """Return pictures and columns as JavaScript takes them.

    Returns:
        `{"shape", "dtype"}` of the pictures, with `columns`, the shape of the columns, where there are such; and the bytes of
        both, one behind the other, little-endian, columns in float32.
    """
    images = given.images
    told: dict[str, Any] = {"shape": list(images.shape), "dtype": images.dtype.name}
    payload = np.ascontiguousarray(images, images.dtype.newbyteorder("<")).tobytes()
    if given.columns is None:
        return told, payload
    return {**told, "columns": list(given.columns.shape)}, payload + given.columns.astype("<f4").tobytes()
