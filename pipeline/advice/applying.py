"""`cutpoint advise --apply`: writes the chosen cut into a configuration, and leaves everything else as it stands."""

from __future__ import annotations

import contextlib
import os
import tomllib
from pathlib import Path

from exporters.errors import InputError


def write_cut(path: Path, cut: str) -> str:
    """Set `backbone.cut` in a TOML file; comments, order and spacing stay.

    Args:
        path: a configuration that can be read.
        cut: a layer's name.

    Returns:
        What stood there before, as TOML; empty where nothing did.

    Raises:
        InputError: the file cannot be written.
    """
    # Imported here: nobody else needs it.
    import tomlkit
    from tomlkit.items import AbstractTable

    # The line endings stay too.
    with path.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    marked = text.startswith("\ufeff")
    document = tomlkit.parse(text.removeprefix("\ufeff"))
    backbone = document.setdefault("backbone", tomlkit.table())
    if not isinstance(backbone, AbstractTable | dict):
        raise InputError(f"{path}: 'backbone' is no table.", "[backbone]", "correct it")
    before = backbone.get("cut")
    if before is not None and hasattr(before, "trivia"):
        value = tomlkit.string(cut)
        # A comment behind the value belongs to the line, not to the value.
        value.trivia.indent, value.trivia.comment_ws = before.trivia.indent, before.trivia.comment_ws
        value.trivia.comment, value.trivia.trail = before.trivia.comment, before.trivia.trail
        backbone["cut"] = value
    else:
        backbone["cut"] = cut
    written = tomlkit.dumps(document)
    if tomllib.loads(written)["backbone"]["cut"] != cut:
        raise InputError(
            f"The cut could not be written into {path}.", "a table [backbone]", f'write cut = "{cut}" into it'
        )
    _replace(path, ("\ufeff" if marked else "") + written)
    return "" if before is None else before.as_string() if hasattr(before, "as_string") else repr(before)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8", newline="")
        draft.chmod(path.stat().st_mode & 0o7777)
        # Through a link, to the file itself.
        os.replace(draft, path.resolve())
    except OSError as fault:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise InputError(
            f"The configuration {path} cannot be written: {fault.strerror or fault}.",
            "a file that can be written",
            "change its permissions, or write the cut into it yourself",
        ) from fault
