"""Which test pictures the page and a site may publish, as `golden.publish` rules: they can be private."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.errors import InputError
from exporters.golden import GOLDEN, golden_images, read_manifest
from exporters.golden_files import EXPECTED, FILES, LOSSLESS

ARRAYS = ("images.npz", "reference.npz")


def published_files(out: Path) -> dict[str, Path | bytes]:
    """Return what of the golden set may be published: path on the site -> file or content.

    `samples`: the golden files in PNG (24 at most) with the Keras model's answers to them; `all`: the golden images and
    their reference answers too; `none`, or without a golden set: nothing.
    """
    publish, folder = _publish_of(out), out / GOLDEN / FILES
    if publish == "none":
        return {}
    pictures = [path for path in sorted(folder.glob("*")) if path.suffix in LOSSLESS and not path.is_symlink()]
    names = {path.name for path in pictures}
    files: dict[str, Path | bytes] = {f"{GOLDEN}/{FILES}/{path.name}": path for path in pictures}
    expected = read_object(folder / EXPECTED)
    expected["files"] = [each for each in expected.get("files", []) if each.get("file") in names]
    files[f"{GOLDEN}/{FILES}/{EXPECTED}"] = (json.dumps(expected, ensure_ascii=False, indent=1) + "\n").encode()
    if publish == "all":
        files |= {f"{GOLDEN}/{name}": out / GOLDEN / name for name in ARRAYS if (out / GOLDEN / name).is_file()}
    return files


def samples_listed(files: Mapping[str, Any]) -> dict[str, str]:
    """Return what models.json says of the published pictures: `samples`, where the list of them is; nothing without one."""
    listed = f"{GOLDEN}/{FILES}/{EXPECTED}"
    return {"samples": listed} if listed in files else {}


def count_pictures(out: Path) -> int:
    """Return how many test pictures `published_files` gives away."""
    files = published_files(out)
    images = golden_images(out) if f"{GOLDEN}/{ARRAYS[0]}" in files else None
    return sum(name.endswith(LOSSLESS) for name in files) + (len(images) if images is not None else 0)


def _publish_of(out: Path) -> str:
    try:
        manifest = read_manifest(out)
    except InputError:
        return "none"
    # A folder of an earlier version says nothing: then nobody has allowed it.
    found = manifest.get("publish", "none")
    return found if found in ("samples", "all") else "none"


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; an empty one where there is no such file, or it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
