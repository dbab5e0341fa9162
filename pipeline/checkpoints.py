"""How far a training has come, on disk: written whole or not at all, and read back bit for bit. Numpy only."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_STATE = "state"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Kind of variables -> their values in order; `state` is all else that the next epoch needs, any JSON."""

    arrays: Mapping[str, tuple[np.ndarray, ...]]
    state: Mapping[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before; a kill at any time leaves one of the two."""
    text = json.dumps(checkpoint.state).encode()
    named = {f"{kind}_{index}": values for kind, row in checkpoint.arrays.items() for index, values in enumerate(row)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two runs of one configuration may train at once.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as stream:
            np.savez(stream, **{_STATE: np.frombuffer(text, np.uint8)}, **named)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_checkpoint(path: Path, shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> Checkpoint | None:
    """Read a checkpoint; None where there is none.

    Args:
        path: the file.
        shapes: kind of variables -> the shape of each, in order; a kind that the file has not at all stays empty.

    Raises:
        ValueError: the file is damaged, or is of other variables; the message is the reason alone.
    """
    if not path.is_file():
        return None
    try:
        # Whatever is wrong with the file is found here: numpy reads a member, and zipfile checks its sum, on access.
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        state = json.loads(found.pop(_STATE).tobytes())
        arrays = {}
        for kind, expected in shapes.items():
            there = f"{kind}_0" in found
            row = [found.pop(f"{kind}_{index}") for index in range(len(expected))] if there else []
            if row and [values.shape for values in row] != [tuple(shape) for shape in expected]:
                raise ValueError("its variables have other shapes")
            arrays[kind] = tuple(row)
        if found or not isinstance(state, dict):
            raise ValueError("it holds other variables")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as fault:
        raise ValueError(str(fault) or type(fault).__name__) from fault
    return Checkpoint(arrays, state)
