"""The golden set: test images with the Keras model's answers, and a manifest of checksums, that travel with the artifacts.

Whoever holds it can judge every artifact again without Keras, TensorFlow or the training data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.columns import check_encoded
from exporters.contract import SCHEMA_VERSION, Card, Limits
from exporters.errors import InputError
from exporters.fingerprints import WeightSet, read_fingerprints
from exporters.golden_files import FILES, write_expected
from exporters.inputs import Inputs
from exporters.truth import check_truth
from exporters.ways import read_choices

ARTIFACTS = "artifacts"
GOLDEN = "golden"
MANIFEST = "manifest.json"
MODEL = "model.keras"
FEATURES = "features.npz"
# Feature maps are large, and a few of them tell one layer from another.
FEATURES_IMAGES = 4
# What numpy and zipfile raise at an .npz that is not as it was written, and a manifest that is none.
_DAMAGE = (
    *(OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, IndexError, OverflowError, RecursionError),
)


@dataclasses.dataclass(frozen=True)
class GoldenSet:
    """Images, true labels and reference answers.

    `images` uint8 (N, height, width, 3); `truth` head -> what is true of each image, see `exporters.truth`, only for heads
    that have it;
    `reference` head -> float32 (N, ...); `card` is the Keras model's; `limits` precision -> limits; `fingerprints`
    precision -> the weights that its artifacts must hold, empty where none were written; `features` name of
    an output (see `contract.features_names`) -> float32 (M, height, width, channels), a cut's feature map of
    `measures.spread(N, M)` of the images, empty without a cut; `columns` float32 (N, C), what stands beside each image, as
    `columns.encode_cells` gives it, None for a model that takes images alone; `ways` precision -> how its
    weights were made and what else was tried, see `exporters.ways`, where there was a choice.
    """

    images: np.ndarray
    truth: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]
    card: Card
    limits: Mapping[str, Limits]
    fingerprints: Mapping[str, WeightSet] = dataclasses.field(default_factory=dict)
    features: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    columns: np.ndarray | None = None
    ways: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def inputs(self) -> Inputs:
        """The images with their columns, as runners take them."""
        return Inputs(self.images, self.columns)


def write_golden(
    golden: GoldenSet,
    out: Path,
    pictures: list[Path],
    reference_of_files: Mapping[str, np.ndarray],
    cells: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """Write `out/golden` except for the manifest, which `write_manifest` adds once the artifacts are in place.

    Args:
        golden: what to write.
        out: the result folder.
        pictures: the golden files, which `golden_files.prepare_files` wrote into `out/golden/files` already.
        reference_of_files: head -> float32 (len(pictures), ...), the Keras model's answers to those files.
        cells: for a model with columns, column -> the cell's text, one mapping for each of `pictures`.
    """
    folder = out / GOLDEN
    folder.mkdir(parents=True, exist_ok=True)
    labels = {f"labels_{name}": values for name, values in sorted(golden.truth.items())}
    columns = {} if golden.columns is None else {"columns": np.asarray(golden.columns, np.float32)}
    np.savez_compressed(folder / "images.npz", images=golden.images, **columns, **labels)
    np.savez_compressed(folder / "reference.npz", **dict(sorted(golden.reference.items())))
    if golden.features:
        np.savez_compressed(folder / FEATURES, **dict(sorted(golden.features.items())))
    write_expected(folder / FILES, pictures, golden.card, reference_of_files, cells)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(out: Path, card: Card, limits: Mapping[str, Limits], *, publish: str = "samples") -> None:
    """Write `out/golden/manifest.json`: the sha256 of every file of the artifacts and the golden set, and the limits.

    `publish` says which of the test pictures may be published: `samples`, `none` or `all`.
    """
    files = {path.relative_to(out).as_posix(): sha256_of(path) for path in _files_of(out)}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created_from": card.created_from,
        "card": card.to_json(),
        "publish": publish,
        "limits": {precision: dataclasses.asdict(each) for precision, each in sorted(limits.items())},
        "files": dict(sorted(files.items())),
        "model": sha256_of(out / MODEL) if (out / MODEL).is_file() else None,
    }
    _write_json(out / GOLDEN / MANIFEST, manifest)


def read_manifest(out: Path) -> dict:
    """Read the manifest of a result folder; raises InputError where there is none or it is damaged."""
    path = out / GOLDEN / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["files"], dict) or manifest["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"not of schema_version {SCHEMA_VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise InputError(
            f"{out} has no golden set that can be read: {fault}.",
            "a result folder, as `cutpoint run` or `cutpoint export` writes it",
            f"name the folder that holds {GOLDEN}/{MANIFEST}, or make one with `cutpoint run`",
        ) from fault
    return manifest


def check_files(out: Path, manifest: Mapping) -> dict[str, object]:
    """Compare the files of a result folder with the manifest's checksums, and its card with the manifest's.

    Returns:
        `{"status": "verified"|"failed", "changed": [...], "missing": [...], "unexpected": [...]}`, paths relative to out.
    """
    promised = manifest["files"]
    present = {path.relative_to(out).as_posix(): path for path in _files_of(out)}
    changed = sorted(name for name in promised if name in present and sha256_of(present[name]) != promised[name])
    if (out / "card.json").is_file() and not _same_card(out / "card.json", manifest):
        changed = sorted([*changed, "card.json"])
    # The Keras model may stay behind; the one that is there has to be the one that was exported.
    if manifest.get("model") and (out / MODEL).is_file() and sha256_of(out / MODEL) != manifest["model"]:
        changed = sorted([*changed, MODEL])
    missing = sorted(set(promised) - set(present))
    unexpected = sorted(set(present) - set(promised))
    status = "failed" if changed or missing or unexpected else "verified"
    return {"status": status, "changed": changed, "missing": missing, "unexpected": unexpected}


def _same_card(path: Path, manifest: Mapping) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8")) == manifest.get("card")
    except ValueError:
        return False


def read_golden(out: Path, manifest: Mapping) -> GoldenSet:
    """Read the golden set of a result folder; raises InputError where an array is missing or damaged."""
    folder = out / GOLDEN
    try:
        with np.load(folder / "images.npz", allow_pickle=False) as arrays:
            images = arrays["images"]
            columns = arrays["columns"] if "columns" in arrays.files else None
            truth = {name.removeprefix("labels_"): arrays[name] for name in arrays.files if name.startswith("labels_")}
        with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
            reference = {name: arrays[name] for name in arrays.files}
        for name, values in (*reference.items(), *truth.items()):
            if len(values) != len(images):
                raise ValueError(f"it holds {len(images)} images, and {len(values)} answers or labels of '{name}'")
        _check_arrays(reference, truth, Card.from_json(manifest["card"]))
        limits = {precision: _limits_from_json(each) for precision, each in manifest["limits"].items()}
        card = Card.from_json(manifest["card"])
        if images.dtype != np.uint8 or images.shape[1:] != (card.resize.height, card.resize.width, 3):
            raise ValueError(f"its images are {images.dtype} {images.shape}, which the model does not take")
        check_encoded(card.columns, columns, len(images))
        fingerprints = read_fingerprints(folder)
        features = _read_features(folder / FEATURES, len(images))
        ways = read_choices(folder)
    except _DAMAGE as fault:
        raise InputError(
            f"The golden set of {out} cannot be read: {fault}.",
            "images.npz and reference.npz as the export wrote them",
            "export the model again",
        ) from fault
    return GoldenSet(images, truth, reference, card, limits, fingerprints, features, columns, ways)


def _check_arrays(reference: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], card: Card) -> None:
    """Raise ValueError for answers that are no floats, and for truth that is not what the head's task has."""
    for name, values in reference.items():
        if values.dtype != np.float32:
            raise ValueError(f"the answers of '{name}' are {values.dtype}")
    outputs = {output.name: output for output in card.outputs}
    for name, values in truth.items():
        if name not in outputs:
            raise ValueError(f"the labels of '{name}' belong to no head")
        check_truth(values, outputs[name])


def _read_features(path: Path, images: int) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        features = {name: arrays[name] for name in arrays.files}
    for name, values in features.items():
        if values.dtype != np.float32 or values.ndim < 2 or not 0 < len(values) <= images:
            raise ValueError(f"its {name} are {values.dtype} {values.shape}")
    if len({len(values) for values in features.values()}) != 1:
        raise ValueError("its features are not of equally many images")
    return features


def golden_images(out: Path) -> np.ndarray | None:
    """Return the golden images, uint8 (N, height, width, 3), for the report; None where they cannot be read."""
    try:
        with np.load(out / GOLDEN / "images.npz", allow_pickle=False) as arrays:
            return arrays["images"]
    except _DAMAGE:
        return None


def _limits_from_json(data: Mapping[str, float | None]) -> Limits:
    # JSON as Python reads it has NaN, and nothing is greater than that: no difference would ever be over such a limit.
    # An int may be too large for a float, and True is a 1 that nobody meant.
    numbers = [value for value in data.values() if value is not None]
    if any(isinstance(value, bool) or not math.isfinite(value) or value < 0 for value in numbers):
        raise ValueError("a limit that is no finite number of 0 or more")
    if data.get("agreement") is None or data.get("relative_error") is None:
        raise ValueError("no limit for the agreement or for the relative error")
    return Limits(**data)


def _files_of(out: Path) -> list[Path]:
    found = [path for top in (ARTIFACTS, GOLDEN) for path in (out / top).rglob("*") if path.is_file()]
    return sorted(path for path in found if path != out / GOLDEN / MANIFEST)


def _write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
