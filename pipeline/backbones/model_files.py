"""Opens model files without letting them do anything: what a `.keras` or `.h5` file says of its network, and its weights.

Neither kind is executable, but both can reach further than a reader expects: HDF5 can point at other files, a zip can
hold members with paths of their own or unpack to many times its size. All of that is refused before Keras sees the file.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from exporters.errors import InputError

KERAS = "keras"
HDF5 = "h5"
SUFFIXES = {".keras": KERAS, ".h5": HDF5, ".hdf5": HDF5}
WEIGHTS_SUFFIX = ".weights.h5"
_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
_LARGEST_CONFIG_BYTES = 2**26
# Weights hardly shrink: what unpacks to much more than it takes was made to fill a memory.
_LARGEST_EXPANSION = 100
_SMALLEST_BOMB_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A model file that was looked into: its `kind` (`keras` or `h5`), and its network's `config` as it stands in it."""

    path: Path
    kind: str
    config: dict[str, Any]


def is_model_file(name: str) -> bool:
    """Tell whether a name is that of a `.keras` or `.h5` model file, there or not."""
    return Path(name).suffix.lower() in SUFFIXES


def open_model_file(path: Path) -> ModelFile:
    """Read what a model file says of its network; runs nothing and makes no layer.

    Raises:
        InputError: it is not there, is no model file, holds weights alone, or reaches outside itself.
    """
    if not path.is_file():
        raise InputError(f"The model {path} is not there.", "a .keras or .h5 file", "check the path")
    with path.open("rb") as stream:
        start = stream.read(8)
    # What a file is, its first bytes say: its suffix may be wrong.
    if start.startswith(b"PK\x03\x04"):
        return ModelFile(path, KERAS, _config_of_keras(path))
    if start == b"\x89HDF\r\n\x1a\n":
        return ModelFile(path, HDF5, _config_of_h5(path))
    raise InputError(
        f"The model {path} is no file that Keras wrote.",
        "a .keras file, or an .h5 file",
        "save it anew with keras.Model.save('model.keras')",
    )


def extract_weights(file: ModelFile, folder: Path) -> Path:
    """Put the weights of a `.keras` file into `folder` as HDF5 and return their path; raises InputError as opening does."""
    target = folder / _WEIGHTS
    with zipfile.ZipFile(file.path) as archive, archive.open(_WEIGHTS) as member, target.open("wb") as stream:
        while chunk := member.read(2**20):
            stream.write(chunk)
    check_h5(target, shown=file.path)
    return target


def check_h5(path: Path, shown: Path | None = None) -> None:
    """Raise InputError where an HDF5 file refers to other files, or holds what would fill the memory.

    Args:
        path: the file.
        shown: what the message calls it, where it was taken out of another file.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_group(file, file, set(), shown or path)
    except OSError as fault:
        raise InputError(
            f"{shown or path} cannot be read: {fault}.", "an HDF5 file that Keras wrote", "fetch or save it again"
        ) from fault


def _check_group(file: h5py.File, group: h5py.Group, seen: set[int], path: Path) -> None:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _reaching_out(path, f"{group.name}/{name} is a link to another place")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            _check_group(file, item, seen, path)
        elif isinstance(item, h5py.Dataset):
            _check_dataset(item, path)


def _check_dataset(dataset: h5py.Dataset, path: Path) -> None:
    if dataset.external or dataset.is_virtual:
        raise _reaching_out(path, f"{dataset.name} keeps its values in other files")
    stored = max(dataset.id.get_storage_size(), 1)
    if dataset.nbytes > _SMALLEST_BOMB_BYTES and dataset.nbytes > _LARGEST_EXPANSION * stored:
        raise _reaching_out(path, f"{dataset.name} unpacks to {dataset.nbytes / 2**30:.1f} GiB")


def _config_of_keras(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_member(member, path)
            names = set(archive.namelist())
            if not {_CONFIG, _WEIGHTS} <= names:
                raise InputError(
                    f"The model {path} lacks {' and '.join(sorted({_CONFIG, _WEIGHTS} - names))}.",
                    "a .keras file as Keras 3 writes it",
                    "save it anew with keras.Model.save('model.keras')",
                )
            return _parsed(archive.read(_CONFIG), path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as fault:
        raise InputError(
            f"The model {path} cannot be read: {fault}.", "a whole .keras file", "fetch or save it again"
        ) from fault


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    if member.filename not in (_CONFIG, _WEIGHTS, _METADATA) and member.filename != "assets/":
        raise _reaching_out(path, f"it holds '{member.filename[:80]}'")
    limit = _LARGEST_CONFIG_BYTES if member.filename != _WEIGHTS else _SMALLEST_BOMB_BYTES
    if member.file_size > limit and member.file_size > _LARGEST_EXPANSION * max(member.compress_size, 1):
        raise _reaching_out(path, f"'{member.filename}' unpacks to {member.file_size / 2**30:.1f} GiB")
    if member.filename != _WEIGHTS and member.file_size > _LARGEST_CONFIG_BYTES:
        raise _reaching_out(path, f"'{member.filename}' is larger than a description of a network can be")


def _config_of_h5(path: Path) -> dict[str, Any]:
    check_h5(path)
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, TypeError, ValueError) as fault:
        raise InputError(f"The model {path} cannot be read: {fault}.", "a whole .h5 file", "fetch it again") from fault
    if text is None:
        raise InputError(
            f"The file {path} holds weights alone, and not the network they belong to.",
            "a whole model, or the name of the network",
            f"set --backbone to a name of the table and --weights to {path.name}",
        )
    return _parsed(text, path)


def _parsed(text: bytes | str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError, TypeError) as fault:
        raise InputError(
            f"The description of the network in {path} is no JSON: {fault}.", "a whole file", "fetch or save it again"
        ) from fault
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise InputError(f"The model {path} describes no network.", "a model that Keras saved", "save it anew")
    return config


def _reaching_out(path: Path, why: str) -> InputError:
    return InputError(
        f"The file {path} is not opened: {why}.",
        "a file that holds its own weights, and nothing else",
        "save it anew with keras.Model.save where it comes from",
    )
