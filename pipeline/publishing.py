"""Which test pictures the page and a site may publish, as `golden.publish` rules: they can be private."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.errors import InputError
from exporters.golden import GOLDEN, MANIFEST, golden_images, read_manifest, sha256_of
from exporters.golden_files import EXPECTED, FILES, LOSSLESS

ARRAYS = ("images.npz", "reference.npz")
# Where the site has the list of published pictures, and the checksums and limits by which the page's self-test judges.
SAMPLES = f"{GOLDEN}/{FILES}/{EXPECTED}"
PUBLISHED_MANIFEST = f"{GOLDEN}/{MANIFEST}"


def published_files(out: Path) -> dict[str, Path | bytes]:
    """Return what of the golden set may be published: path on the site -> file or content.

    `samples`: the golden files in PNG (24 at most) with the Keras model's answers to them; `all`: the golden images and
    their reference answers too; `none`, or without a golden set: nothing.
    """
    publish, folder = _publish_of(out), out / GOLDEN / FILES
    if publish == "none":
        return {}
    pictures = [path for path in sorted(folder.glob("*")) if path.suffix in LOSSLESS and not path.is_symlink()]
    files: dict[str, Path | bytes] = {f"{GOLDEN}/{FILES}/{path.name}": path for path in pictures}
    names = frozenset(path.name for path in pictures)
    files[SAMPLES] = _expected_of(folder / EXPECTED, _stamp(folder / EXPECTED), names)
    if publish == "all":
        files |= {f"{GOLDEN}/{name}": out / GOLDEN / name for name in ARRAYS if (out / GOLDEN / name).is_file()}
    return files


def with_manifest(out: Path, files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return the files of a site with the part of the golden set's manifest that concerns them.

    Card, limits, and the checksums of what is published, of nothing else; no manifest where no test picture is. What is
    written anew for the site has the checksum of that, but where its source is no longer the one that was exported.

    Args:
        out: the result folder.
        files: path on the site, as in the result folder -> file or content.
    """
    if SAMPLES not in files:
        return dict(files)
    manifest = read_manifest(out)
    # A picture that is gone is asked for too.
    promised = {name: digest for name, digest in manifest["files"].items() if name in files or _is_sample(name)}
    content = files[SAMPLES]
    if isinstance(content, bytes) and promised.get(SAMPLES) == _digest_of(out / SAMPLES, _stamp(out / SAMPLES)):
        promised[SAMPLES] = hashlib.sha256(content).hexdigest()
    kept = {key: manifest.get(key) for key in ("schema_version", "created_from", "card", "publish", "limits")}
    text = json.dumps({**kept, "files": promised}, ensure_ascii=False, indent=1) + "\n"
    return {**files, PUBLISHED_MANIFEST: text.encode()}


def _is_sample(name: str) -> bool:
    return name.startswith(f"{GOLDEN}/{FILES}/") and name.endswith(LOSSLESS)


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file does; the server asks for each request, and answers to label maps are long."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=8)
def _expected_of(path: Path, changed: tuple[int, int], names: frozenset[str]) -> bytes:
    expected = read_object(path)
    expected["files"] = [each for each in expected.get("files", []) if each.get("file") in names]
    return (json.dumps(expected, ensure_ascii=False, indent=1) + "\n").encode()


@functools.lru_cache(maxsize=8)
def _digest_of(path: Path, changed: tuple[int, int]) -> str:
    return sha256_of(path) if path.is_file() else ""


def samples_listed(files: Mapping[str, Any]) -> dict[str, str]:
    """Return what models.json says of the published pictures: where their list and the manifest are; nothing without one."""
    paths = {"samples": SAMPLES, "golden": PUBLISHED_MANIFEST}
    return {key: path for key, path in paths.items() if path in files}


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
