"""What the page needs to answer with TFLite and ONNX too: these artifacts, and the browser libraries that run them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import FORMATS, ArtifactName
from exporters.errors import ParityError
from exporters.runners.static_batch import TensorFacts, read_signature, with_static_batch
from pipeline.publishing import read_object

# In the folder of the page; the rest of it is for verifying.
LIBRARIES = "parity"
SHIPPED = (".mjs", ".wasm", "internal.js")


def library_files(page: Path) -> dict[str, Path]:
    """Return what LiteRT.js and onnxruntime-web fetch when they start: path on the site -> file."""
    paths = [path for path in sorted((page / LIBRARIES).glob("*")) if path.name.endswith(SHIPPED)]
    return {f"{LIBRARIES}/{path.name}": path for path in paths if path.is_file()}


def other_models(out: Path) -> list[dict[str, Any]]:
    """List the TFLite and ONNX artifacts of a result folder, as models.json holds them under `others`.

    Returns:
        `{"name", "format", "model", "size_bytes", "card"}` each, and what `FACTS` adds; `model` is a path relative to the
        page. What a browser cannot be given, such as a file that is none of its format, is left out.
    """
    listed = []
    for folder in sorted((out / "artifacts").glob("*")):
        name = folder.name.partition("-")[0]
        file = folder / FORMATS[name].file if name in FACTS else None
        if file is None or folder.is_symlink() or file.is_symlink() or not file.is_file():
            continue
        card, stat = read_object(folder / "card.json"), file.stat()
        facts = FACTS[name](file, stat.st_mtime_ns, stat.st_size)
        if card and facts is not None:
            url = f"artifacts/{folder.name}/{file.name}"
            told = {"name": folder.name, "format": name, "model": url, "size_bytes": stat.st_size}
            listed.append({**told, "card": card, **facts})
    return in_order(listed)


def in_order(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return artifacts in the order of FORMATS and its precisions; those that are not named there come after, by name."""
    order = [str(ArtifactName(name, precision)) for name, row in FORMATS.items() for precision in row.precisions]
    places = {name: place for place, name in enumerate(order)}
    return sorted(listed, key=lambda each: (places.get(each["name"], len(order)), each["name"]))


# The time and the size are there so that a file that was written again is read again.
@functools.lru_cache(maxsize=64)
def _litert_facts(file: Path, _mtime_ns: int, _size_bytes: int) -> dict[str, Any] | None:
    """What LiteRT.js does not tell and the page must know, None where the file cannot be read.

    `signature`; `inputs` and `outputs`, by name `{"dtype", "scale", "zero_point"}`; `batch_at`: where in the file, in bytes,
    there is a -1 for a free batch, to be overwritten with 1 (int32, little-endian): LiteRT.js wants a fixed batch.
    """
    try:
        model = file.read_bytes()
        signature, fixed = read_signature(model), with_static_batch(model)
    except (ParityError, OSError):
        return None
    changed = np.frombuffer(model, np.uint8) != np.frombuffer(fixed, np.uint8)
    # Of a -1 all four bytes change: each fourth place is where one begins.
    places = np.flatnonzero(changed)[::4].tolist()
    facts = {"inputs": _told(signature.inputs), "outputs": _told(signature.outputs)}
    return {"signature": signature.key, **facts, "batch_at": places}


def _told(tensors: dict[str, TensorFacts]) -> dict[str, dict[str, Any]]:
    return {name: dataclasses.asdict(facts) for name, facts in tensors.items()}


def _nothing(_file: Path, _mtime_ns: int, _size_bytes: int) -> dict[str, Any]:
    """onnxruntime-web tells all there is to know."""
    return {}


# Format -> what to tell of a file; the formats for which the page has a library besides TF.js.
FACTS: dict[str, Callable[[Path, int, int], dict[str, Any] | None]] = {"tflite": _litert_facts, "onnx": _nothing}
