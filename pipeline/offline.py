"""What makes the page work without a network after the first visit: its files by content, and the worker that keeps them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.publishing import PUBLISHED_MANIFEST

WORKER = "sw.js"


def digests(files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Return the sha256 of every file of a site, by its path on the site."""
    return {name: _digest(file) for name, file in sorted(files.items())}


def version_of(found: Mapping[str, str]) -> str:
    """Return a word that is another one when any file of a site is: the name of what a browser keeps."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def first_files(files: Mapping[str, Path | bytes], artifact: str) -> list[str]:
    """Return what is kept at the first visit: the page, the published golden set, and the artifact that it opens with.

    What is larger, and not always wanted, is kept when somebody uses it.
    """
    page = [name for name in files if "/" not in name]
    pictures = [name for name in files if name.startswith("golden/files/") or name == PUBLISHED_MANIFEST]
    return sorted([*page, *pictures, *(name for name in files if name.startswith(f"artifacts/{artifact}/"))])


def worker(source: str, version: str, found: Mapping[str, str], first: Sequence[str]) -> bytes:
    """Return web_demo/sw.js with what it has to know in front: another file of the site makes it another worker.

    Args:
        source: of the worker, which reads the constant SITE.
        version: see `version_of`.
        found: see `digests`.
        first: see `first_files`.
    """
    site = {"version": version, "first": list(first), "files": dict(found)}
    return f"const SITE = {json.dumps(site, ensure_ascii=False, sort_keys=True)};\n{source}".encode()


def _digest(file: Path | bytes) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    stat = file.stat()
    return _digest_of_file(file, stat.st_mtime_ns, stat.st_size)


# The time and the size are there so that a file that was written again is read again.
@functools.lru_cache(maxsize=1024)
def _digest_of_file(file: Path, _mtime_ns: int, _size_bytes: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
