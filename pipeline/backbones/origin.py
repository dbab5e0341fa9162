"""Where a backbone comes from: the table, a model file, a SavedModel or a hub. Light: told by its name and what lies there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters.errors import InputError, nearest
from pipeline.config import BackboneSection

TABLE, FILE, SAVED_MODEL, HUB = "table", "file", "saved_model", "hub"
FILE_SUFFIXES = (".keras", ".h5", ".hdf5")
# owner/model/framework/variation, and a version: how kagglehub names models.
_KAGGLE_HANDLE = re.compile(r"[\w.-]+/[\w.-]+/tensorflow[12]?/[\w.-]+(/[0-9]+)?", re.IGNORECASE)
_LOADERS = {
    FILE: "pipeline.backbones.files:load_from_file",
    SAVED_MODEL: "pipeline.backbones.saved_models:load_from_saved_model",
    HUB: "pipeline.backbones.saved_models:load_from_saved_model",
}
_SIZES = {
    FILE: "pipeline.backbones.loading_files:picture_size",
    SAVED_MODEL: "pipeline.backbones.saved_models:picture_size",
    HUB: "pipeline.backbones.saved_models:picture_size",
}


def origin_of(name: str) -> str:
    """Return `table`, `file`, `saved_model` or `hub` for what `backbone.name` holds; a wrong name counts as the table's."""
    from pipeline.backbones import table_name

    path = Path(name).expanduser()
    if table_name(name):
        return TABLE
    if re.match(r"[a-z]+://", name):
        return HUB
    if path.is_dir():
        return SAVED_MODEL
    if path.is_file() or path.suffix.lower() in FILE_SUFFIXES:
        return FILE
    if _KAGGLE_HANDLE.fullmatch(name):
        return HUB
    return SAVED_MODEL if "/" in name or name.startswith(("~", ".")) else TABLE


def is_of_table(section: BackboneSection) -> bool:
    """Tell whether a backbone is one of the table's, and no file's."""
    return origin_of(section.name) == TABLE


def anchored(name: str, folder: Path) -> str:
    """Return a backbone's name in a configuration file with a path taken from that file's folder; other names stay."""
    origin = origin_of(name)
    path = folder / Path(name).expanduser()
    if path.exists() and origin != TABLE:
        return str(path)
    return str(path) if origin in (FILE, SAVED_MODEL) else name


def check_foreign(section: BackboneSection) -> None:
    """Raise InputError for what can be seen to be wrong with a backbone that is not of the table, before it is loaded."""
    from pipeline.backbones import PIXEL_SCALINGS

    if section.pixel_scaling not in ("auto", *PIXEL_SCALINGS):
        raise InputError(
            f"There is no pixel scaling '{section.pixel_scaling}'.",
            nearest(section.pixel_scaling, ("auto", *PIXEL_SCALINGS)),
            "set backbone.pixel_scaling",
        )
    if section.weights != "imagenet":
        raise InputError(
            f"The weights '{section.weights}' do not go with the backbone {section.name}, which brings its own.",
            "a model alone, or a name of the table with weights",
            "take --weights away, or set --backbone to a name of the table",
        )
    if section.alpha != 1:
        raise InputError(
            f"The backbone {section.name} has the width that it was saved with, and alpha was set to {section.alpha:g}.",
            "no alpha",
            "take backbone.alpha out",
        )
    path = Path(section.name).expanduser()
    if origin_of(section.name) != HUB and not path.exists():
        raise InputError(
            f"The backbone {section.name} is not there.",
            "a name of the table, a .keras or .h5 file, the folder of a SavedModel, or a hub handle",
            "check the path; `cutpoint layers` with a wrong name lists the table's",
        )
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise InputError(
            f"The folder {section.name} holds no SavedModel.", "a folder with saved_model.pb", "check the path"
        )


def size_of_foreign(section: BackboneSection) -> tuple[int | None, int | None]:
    """Return the height and width in px that a backbone from elsewhere takes, None where it takes any size."""
    check_foreign(section)
    origin = origin_of(section.name)
    source = section.name if origin == HUB else Path(section.name).expanduser()
    return _function(_SIZES[origin])(source)


def loader_of(section: BackboneSection) -> Callable[..., Any]:
    """Return the function that loads a backbone from elsewhere: (section, resize) -> LoadedBackbone."""
    check_foreign(section)
    return _function(_LOADERS[origin_of(section.name)])


def _function(address: str) -> Callable[..., Any]:
    module, _, attribute = address.partition(":")
    return getattr(importlib.import_module(module), attribute)
