"""The result folder: made, recognised, and changed only in whole pieces."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from exporters.contract import FORMATS, Card
from exporters.errors import InputError
from exporters.fingerprints import LAYERS, WEIGHTS
from exporters.golden import ARTIFACTS, FEATURES, GOLDEN, MANIFEST, read_manifest
from exporters.inputs import Inputs
from exporters.ways import WAYS

MARK = ".cutpoint"
MODEL = "model.keras"
CARD = "card.json"
LOG = "log.txt"
TENSORBOARD = "logs"
# How TensorBoard names what it reads.
_EVENTS = "events.out.tfevents."
STATE = "run.json"
# Embeddings of the pictures that were learned from: those are the user's, and no site publishes them.
GALLERY = "gallery"
CALIBRATION = "calibration.npz"
# Pictures of the validation split, by which the export chooses between ways of making an artifact.
SELECTION = "selection.npz"
# What is true of its pictures, behind which stands the output's name.
_LABELS = "labels_"
_GOLDEN_FILES = frozenset({MANIFEST, FEATURES, WEIGHTS, LAYERS, WAYS, "images.npz", "reference.npz"})
# What a run makes; anything else in the folder is somebody else's.
ENTRIES = frozenset(
    {
        *(MARK, MODEL, CARD, LOG, TENSORBOARD, "report.json", "report.md", "report.html", "report.xml"),
        *("artifacts", "golden", "backbone", GALLERY),
    }
)
RUNS = Path("runs")
# Named so that `cutpoint cache --clear` takes nothing of anybody else's in a folder that is shared.
CACHE_ENTRIES = (
    "cutpoint-advice",
    "cutpoint-artifacts",
    "cutpoint-drawings",
    "cutpoint-features",
    "cutpoint-heads",
    "cutpoint-saved-models",
)


def cache_folder() -> Path:
    """Return `$CUTPOINT_CACHE`, else the user's cache folder, which is made where it is missing."""
    named = os.environ.get("CUTPOINT_CACHE")
    folder = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("cutpoint"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise InputError(
            f"The cache folder {folder} cannot be written: {fault.strerror or fault}.",
            "a folder that can be written",
            "set CUTPOINT_CACHE to one",
        ) from fault
    return folder


def claim(out: Path) -> Path:
    """Make sure that a run may write into `out`: new, empty, or made by a run, and nothing foreign in it.

    Returns:
        `out`, with the mark in it by which a later run recognises it.

    Raises:
        InputError: it cannot be written, or holds something that a run did not make.
    """
    try:
        present = {entry.name for entry in out.iterdir()} if out.exists() else set()
    except NotADirectoryError as fault:
        raise InputError(f"The output {out} is a file.", "a folder", "set --out to another place") from fault
    except OSError as fault:
        raise _unwritable(out, fault) from fault
    foreign = sorted(present - ENTRIES) or _foreign_inside(out)
    if foreign or (present and MARK not in present):
        example = foreign[0] if foreign else sorted(present)[0]
        raise InputError(
            f"The output folder {out} holds '{example}', which a run of cutpoint did not make.",
            "a new or empty folder, or one that an earlier run made",
            "set --out to another folder, or move that away",
        )
    try:
        (out / MARK).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / MARK):
            pass
    except OSError as fault:
        raise _unwritable(out, fault) from fault
    return out


def _foreign_inside(out: Path) -> list[str]:
    """Return what lies in the folders that a run replaces whole, and is not of a run's making."""
    try:
        ours = set(read_manifest(out)["files"]) | {f"{GOLDEN}/{MANIFEST}"}
    except InputError:
        # A run that was interrupted left no manifest: its folders are known by their names.
        ours = None
    found = [path for top in (ARTIFACTS, GOLDEN) for path in sorted((out / top).rglob("*")) if not path.is_dir()]
    names = [path.relative_to(out).as_posix() for path in found]
    logs = [path for path in sorted((out / TENSORBOARD).rglob("*")) if not path.is_dir()]
    galleries = [path for path in sorted((out / GALLERY).rglob("*")) if not path.is_dir()]
    strange = [path for path in logs if not path.name.startswith(_EVENTS)]
    strange += [path for path in galleries if path.parent.name != GALLERY or path.suffix != ".npz"]
    strange = [path.relative_to(out).as_posix() for path in strange]
    return strange + [name for name in names if (not _may_be_ours(name) if ours is None else name not in ours)]


def _may_be_ours(name: str) -> bool:
    top, _, rest = name.partition("/")
    if top == GOLDEN:
        return rest in _GOLDEN_FILES or rest.startswith("files/")
    folder, inside, _ = rest.partition("/")
    return bool(inside) and (folder.startswith(".") or folder.partition("-")[0] in FORMATS)


def _unwritable(out: Path, fault: OSError) -> InputError:
    return InputError(
        f"The output folder {out} cannot be written: {fault.strerror or fault}.",
        "a folder that can be written",
        "set --out to another place, or change its permissions",
    )


def find_result_folder(named: Path | None, needed: str) -> Path:
    """Return the result folder that was named, or the newest one under `runs/`.

    Args:
        named: what the user gave; None: look for the newest.
        needed: a file or folder that it must hold.

    Raises:
        InputError: there is none.
    """
    if named is None:
        found = [folder for folder in RUNS.glob("*") if (folder / needed).exists()] if RUNS.is_dir() else []
        if not found:
            raise InputError("There is no result folder under runs/.", "one that a run made", "`cutpoint run` first")
        return max(found, key=lambda folder: (folder / needed).stat().st_mtime)
    if not (named / needed).exists():
        raise InputError(
            f"{named} is no result folder: it holds no {needed}.",
            "a folder as `cutpoint run` makes it",
            "check the path, or make one with `cutpoint run`",
        )
    return named


def staging(out: Path) -> tempfile.TemporaryDirectory:
    """Return a temporary folder on the same file system as `out`, for what will be moved into place whole."""
    return tempfile.TemporaryDirectory(prefix="next-", dir=out / MARK)


def replace_results(out: Path, staged: Path) -> None:
    """Put a new model in place of an earlier run's: its artifacts, golden set and reports go, as they are of another."""
    # Without it no later stage takes a half-replaced folder for a trained one; it comes back last.
    (out / MARK / STATE).unlink(missing_ok=True)
    for name in ENTRIES - {MARK, LOG, MODEL, CARD}:
        target = out / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    for entry in sorted(staged.iterdir(), key=lambda entry: (entry.name == STATE, entry.name)):
        target = out / MARK / entry.name if entry.name in (STATE, CALIBRATION, SELECTION) else out / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what a later stage must know of the earlier ones, whole or not at all."""
    draft = folder / f".{STATE}"
    draft.write_text(json.dumps(state, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(draft, folder / STATE)


def read_state(out: Path) -> dict[str, Any]:
    """Read what `train` left for `export` and `verify`; raises InputError where it is missing or damaged."""
    try:
        return json.loads((out / MARK / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{out} holds no trained model of cutpoint: {fault}.",
            "a folder in which `cutpoint train` has ended",
            "run `cutpoint train` or `cutpoint run`",
        ) from fault


def read_card(out: Path) -> Card:
    """Return the Keras model's card."""
    return Card.read(out / CARD)


def write_inputs(staged: Path, name: str, inputs: Inputs, truth: Mapping[str, np.ndarray] | None = None) -> None:
    """Keep pictures, with their columns where the model takes such, for the export.

    Args:
        staged: a folder.
        name: CALIBRATION or SELECTION.
        inputs: the pictures.
        truth: output -> what is true of each picture (see `exporters.truth`), where it is known.
    """
    columns = {} if inputs.columns is None else {"columns": inputs.columns}
    labels = {f"{_LABELS}{output}": values for output, values in sorted((truth or {}).items())}
    np.savez_compressed(staged / name, images=inputs.images, **columns, **labels)


def read_calibration(out: Path) -> Inputs:
    """Return the calibration images, uint8, and their columns: what `train` chose from the training split."""
    return _read_inputs(out, CALIBRATION, "calibration images")


def read_selection(out: Path) -> Inputs | None:
    """Return pictures of the validation split, as `read_calibration` does of the training split; None where none were kept."""
    return _read_inputs(out, SELECTION, "selection images") if (out / MARK / SELECTION).is_file() else None


def read_truth_of_selection(out: Path) -> dict[str, np.ndarray]:
    """Return output -> what is true of each picture of `read_selection`; nothing of outputs where it was not kept."""
    arrays = _read_arrays(out, SELECTION, "selection images") if (out / MARK / SELECTION).is_file() else {}
    return {name.removeprefix(_LABELS): values for name, values in arrays.items() if name.startswith(_LABELS)}


def _read_inputs(out: Path, name: str, said: str) -> Inputs:
    arrays = _read_arrays(out, name, said)
    return Inputs(arrays["images"], arrays.get("columns"))


def _read_arrays(out: Path, name: str, said: str) -> dict[str, np.ndarray]:
    try:
        with np.load(out / MARK / name, allow_pickle=False) as stored:
            arrays = {each: stored[each] for each in stored.files}
            if "images" not in arrays:
                raise KeyError("images")
            return arrays
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as fault:
        raise InputError(
            f"The {said} of {out} cannot be read: {fault}.", "what `cutpoint train` wrote", "train again"
        ) from fault


def cache_rows(folder: Path) -> dict[str, int]:
    """Return what the cache holds: kind -> bytes."""
    return {
        name.removeprefix("cutpoint-"): sum(
            path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()
        )
        for name in CACHE_ENTRIES
        if (folder / name).is_dir()
    }


def clear_cache(folder: Path) -> None:
    """Remove what cutpoint put into the cache, and nothing else that may lie in the folder."""
    for name in CACHE_ENTRIES:
        shutil.rmtree(folder / name, ignore_errors=True)
