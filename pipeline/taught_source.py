"""Which result folder a taught head belongs to, and with which settings it is imported. Loads no framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.contract import Card
from exporters.errors import InputError
from pipeline import bundle
from pipeline.config import Config, read_config
from pipeline.taught_file import Taught

SUFFIX = ".cutpoint.json"


def find_source(named: Path | None, taught: Taught) -> Path:
    """Return the result folder whose model a head was taught on: the one that was named, else the newest under `runs/`.

    Raises:
        InputError: there is none, or the one that was named holds another model.
    """
    if named is not None:
        found = bundle.find_result_folder(named, bundle.MODEL)
        check_model(taught, bundle.read_card(found), found)
        return found
    runs = [folder for folder in bundle.RUNS.glob("*") if (folder / bundle.MODEL).is_file()]
    same = [folder for folder in runs if _created_from(folder) == taught.told.created_from]
    if not same:
        raise InputError(
            f"No result folder under {bundle.RUNS}/ holds the model that {taught.path} was taught on.",
            "the result folder whose page it was taught on",
            "name it with --from",
        )
    newest = max(same, key=lambda folder: (folder / bundle.MODEL).stat().st_mtime)
    check_model(taught, bundle.read_card(newest), newest)
    return newest


def check_model(taught: Taught, card: Card, out: Path) -> None:
    """Raise InputError where a head was taught on another model than that of a card."""
    told = taught.told
    mine = {"run": card.created_from, "backbone": card.backbone, "cut": card.cut[-1:], "resize": card.resize}
    theirs = {"run": told.created_from, "backbone": told.backbone, "cut": (told.cut,), "resize": told.resize}
    other = [name for name in mine if mine[name] != theirs[name]]
    if not other:
        return
    shown = {
        "backbone": f"the backbone {told.backbone.name}, and {out} has {card.backbone.name}"
        + (" with other weights or pixels" if told.backbone.name == card.backbone.name else ""),
        "cut": f"the cut '{told.cut}', and {out} has {', '.join(map(repr, card.cut[-1:])) or 'none'}",
        "resize": f"pictures of {told.resize.width} x {told.resize.height} px, and {out} takes others",
        "run": f"the same backbone and cut in another run than {out}",
    }
    named = next(name for name in ("backbone", "cut", "resize", "run") if name in other)
    raise InputError(
        f"{taught.path} was taught on another model: {shown[named]}.",
        "the result folder whose page it was taught on",
        "name it with --from",
    )


def import_settings(
    taught: Taught, source: Path, out: Path, flags: Mapping[str, Any], settings: tuple[str, ...]
) -> Config:
    """Return the configuration of an import: the source folder's formats and what it publishes, where nothing else is said.

    Of pictures that came with the file none are published: somebody was told that they stay where they are.

    Raises:
        InputError: a key or a value is wrong, or `out` is the source folder itself.
    """
    if out.exists() and out.resolve() == source.resolve():
        raise InputError(
            f"{out} holds the model that the head was taught on, and would be overwritten.",
            "another folder for the result",
            "set --out to another place",
        )
    try:
        state = bundle.read_state(source)
    except InputError:
        state = {}
    publish = "none" if taught.pictures and not flags.get("data.path") else state.get("publish")
    usual = {"golden.publish": publish, "export.formats": state.get("formats")}
    given = {key: value for key, value in flags.items() if value is not None}
    return read_config(None, {**usual, **given}, settings)


def usual_name(path: Path) -> str:
    """Return what a result is called after its file: `signs` for `signs.cutpoint.json`."""
    return path.name.removesuffix(SUFFIX).removesuffix(path.suffix) or "taught"


def _created_from(folder: Path) -> str | None:
    try:
        return bundle.read_card(folder).created_from
    except InputError:
        return None
