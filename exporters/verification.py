"""Runs artifacts in their own runtimes on the golden set and judges the answers. Light: no TensorFlow, no Keras."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters import parity
from exporters.contract import CEILINGS, FEATURES_NAME, FORMATS, INPUT_NAME, SCHEMA_VERSION, ArtifactName, Card, Limits
from exporters.errors import InputError, NotVerifiedError, ParityError
from exporters.golden import ARTIFACTS, GoldenSet, check_files, check_pixels, read_golden, read_manifest, sha256_of

LATENCY_REPEATS = 20
_DOCUMENTS = ("card.json", "README.md")
_NO_RUNTIME: dict[str, Any] = {"runner": "", "version": "", "backend": "", "images": 0, "latency_ms": {}, "outputs": {}}
VERDICTS = {0: "verified", 1: "failed", 3: "not_verified"}


def verify_folder(out: Path, progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Judge every artifact of a result folder by its golden set.

    Args:
        out: the result folder.
        progress: called with each artifact's name before it is judged.

    Returns:
        The keys `integrity`, `pixels`, `artifacts`, `notes`, `verdict`, `exit_code` of report.json.

    Raises:
        InputError: there is no golden set, or it cannot be read.
    """
    manifest = read_manifest(out)
    integrity = check_files(out, manifest)
    golden = read_golden(out, manifest)
    folders = sorted({Path(name).parts[1] for name in manifest["files"] if name.startswith(f"{ARTIFACTS}/")})
    artifacts = []
    for name in sorted(folders, key=_order):
        progress(name)
        changed = [path for path in integrity["changed"] if path.startswith(f"{ARTIFACTS}/{name}/")]
        artifacts.append(verify_artifact(out / ARTIFACTS / name, golden, [Path(path).name for path in changed]))
    # The manifest says itself which limits hold: whoever loosened them, the report says so.
    notes = loosened_notes(golden.limits, CEILINGS)
    pixels = check_pixels(out, golden.card)
    if pixels["status"] == parity.FAILED:
        notes.append(f"Decode and resize: {pixels['reason']}.")
    verdict = judge(artifacts, integrity, pixels)
    return {"integrity": integrity, "pixels": pixels, "artifacts": artifacts, "notes": notes, **verdict}


def judge(
    artifacts: list[dict[str, Any]], integrity: Mapping[str, Any], pixels: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return `verdict` and `exit_code` over all artifacts: 1 where one failed, else 3 where one was not verified.

    Changed files, and golden files that are decoded or resized otherwise here, fail the whole folder.
    """
    statuses = [runtime["status"] for artifact in artifacts for runtime in artifact["runtimes"]]
    if parity.FAILED in (*statuses, integrity["status"], (pixels or {}).get("status")):
        code = 1
    else:
        code = 0 if statuses and set(statuses) == {parity.VERIFIED} else 3
    return {"verdict": VERDICTS[code], "exit_code": code}


def verify_artifact(folder: Path, golden: GoldenSet, changed: Sequence[str] = ()) -> dict[str, Any]:
    """Judge one artifact folder; returns its entry of report.json.

    Args:
        folder: the artifact's.
        golden: what it is judged by.
        changed: names of its files whose checksums differ. A changed model is not loaded: a runtime may not survive it.
    """
    name = parse_artifact_name(folder.name)
    files = model_files(folder)
    damaged = [path.name for path in files if path.name in changed]
    return {
        "name": folder.name,
        "format": name.format,
        "precision": name.precision,
        "size_bytes": sum(path.stat().st_size for path in files),
        "gzip_bytes": sum(len(gzip.compress(path.read_bytes(), 6, mtime=0)) for path in files),
        "sha256": {path.name: sha256_of(path) for path in files},
        "runtimes": [_not_loaded(damaged) if damaged else _verify_in_runtime(folder, name, golden)],
    }


def _not_loaded(damaged: list[str]) -> dict[str, Any]:
    reason = f"{', '.join(damaged)}: changed since the export, as the checksum tells; not loaded"
    return _NO_RUNTIME | {"status": parity.FAILED, "reason": reason}


def parse_artifact_name(folder_name: str) -> ArtifactName:
    """Turn `tflite-int8` or `tflite-int8-batch1` into format and precision; raises InputError for an unknown format."""
    format_name, _, rest = folder_name.partition("-")
    if format_name not in FORMATS:
        raise InputError(
            f"The artifact folder '{folder_name}' is of no known format.",
            f"a name that begins with one of {', '.join(FORMATS)}",
            "take the folder out of artifacts/, or export again",
        )
    return ArtifactName(format_name, rest.split("-")[0])


def model_files(folder: Path) -> list[Path]:
    """Return the files of an artifact that a device must fetch: not its card, its labels or its README."""
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return sorted(path for path in found if path.name not in _DOCUMENTS and path.suffix != ".txt")


def open_runner(folder: Path, format_name: str, **options: Any) -> Any:
    """Return the runner of an artifact folder, not yet entered.

    Raises:
        NotVerifiedError: the runtime is not installed.
    """
    module, _, attribute = FORMATS[format_name].runner.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(folder, **options)
    except ImportError as fault:
        raise NotVerifiedError(
            f"The runtime of {folder.name} is not installed: {fault}.",
            "the packages that `pip install cutpoint` brings",
            "pip install cutpoint",
        ) from fault


def _verify_in_runtime(folder: Path, name: ArtifactName, golden: GoldenSet) -> dict[str, Any]:
    entry = dict(_NO_RUNTIME)
    try:
        fault = _card_fault(folder, name, golden.card)
        if fault:
            return entry | {"status": parity.FAILED, "reason": fault}
        if not len(golden.images):
            return entry | {
                "status": parity.NOT_VERIFIED,
                "reason": "the golden set holds no images: nothing was compared",
            }
        with open_runner(folder, name.format) as runner:
            entry |= {"runner": runner.name, "version": runner.version, "backend": runner.backend}
            fault = _input_fault(runner, name)
            if fault:
                return entry | {"status": parity.FAILED, "reason": fault}
            answers = runner.predict(golden.images)
            entry["images"] = len(golden.images)
            entry["latency_ms"] = _latency(runner.time_one(golden.images[0], LATENCY_REPEATS))
    except NotVerifiedError as fault:
        return entry | {"status": parity.NOT_VERIFIED, "reason": str(fault)}
    except (ParityError, InputError) as fault:
        return entry | {"status": parity.FAILED, "reason": fault.what}
    answers.pop(FEATURES_NAME, None)
    return entry | judge_answers(golden, answers, golden.limits.get(name.precision))


def _input_fault(runner: Any, name: ArtifactName) -> str:
    """Return in what the input breaks the raw-pixel contract, or an empty string."""
    if runner.input_name != INPUT_NAME:
        return f"the input is called '{runner.input_name}', not '{INPUT_NAME}'"
    wanted = "uint8" if name.precision in FORMATS[name.format].integer_precisions else "float32"
    if runner.input_dtype != wanted:
        return f"the input is {runner.input_dtype}, not {wanted}"
    scale, zero_point = runner.input_scale
    if abs(scale - 1.0) > 1e-6 or zero_point != 0:
        return f"the input's scale is {scale:g} and its zero point {zero_point}: raw pixels need 1.0 and 0"
    return ""


def judge_answers(golden: GoldenSet, answers: Mapping[str, np.ndarray], limits: Limits | None) -> dict[str, Any]:
    """Compare answers with the golden set; returns `status`, `reason` and `outputs` of a runtime's entry."""
    if limits is None:
        return {"status": parity.NOT_VERIFIED, "reason": "the manifest has no limits for this precision", "outputs": {}}
    compared = parity.compare(golden.reference, answers, golden.card.outputs, limits, golden.truth)
    status = parity.worst([each.status for each in compared.values()])
    reasons = [f"{name}: {each.reason}" for name, each in compared.items() if each.reason]
    outputs = {name: {**each.figures, "status": each.status, "reason": each.reason} for name, each in compared.items()}
    return {"status": status, "reason": "; ".join(reasons), "outputs": outputs}


def _card_fault(folder: Path, name: ArtifactName, promised: Card) -> str:
    """Return what the artifact's own papers get wrong, or an empty string."""
    if not (folder / FORMATS[name.format].file).is_file():
        return f"{FORMATS[name.format].file} is missing"
    card = Card.read(folder / "card.json")
    if card.created_from != promised.created_from:
        return "its card belongs to another run than the golden set"
    if card.precision != name.precision:
        return f"its card says precision {card.precision}, its folder {name.precision}"
    if (card.resize, card.cut, card.backbone) != (promised.resize, promised.cut, promised.backbone):
        return "its card names another resize, cut or backbone than the golden set"
    for output in promised.outputs:
        if output.name not in {each.name for each in card.outputs}:
            return f"its card has no output '{output.name}'"
        if card.output(output.name).labels != output.labels:
            return f"its card lists the labels of '{output.name}' otherwise than the Keras model does"
        if dataclasses.replace(card.output(output.name), dtype=output.dtype) != output:
            return f"its card describes the output '{output.name}' otherwise than the Keras model does"
    return _labels_fault(folder, promised)


def _labels_fault(folder: Path, promised: Card) -> str:
    for file_name, labels in labels_files(promised).items():
        path = folder / file_name
        found = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        if tuple(found) != labels:
            return f"{file_name} lists the labels otherwise than the Keras model does"
    return ""


def labels_files(card: Card) -> dict[str, tuple[str, ...]]:
    """Return file name -> labels: `labels.txt`, or `labels.<head>.txt` each where several heads have labels."""
    labelled = [output for output in card.outputs if output.labels]
    if len(labelled) == 1:
        return {"labels.txt": labelled[0].labels}
    return {f"labels.{output.name}.txt": output.labels for output in labelled}


def _latency(times_ms: list[float]) -> dict[str, float]:
    return {"median": float(np.median(times_ms)), "p95": float(np.quantile(times_ms, 0.95))}


def _order(folder_name: str) -> tuple[int, int, str]:
    name = parse_artifact_name(folder_name)
    precisions = FORMATS[name.format].precisions
    rank = precisions.index(name.precision) if name.precision in precisions else len(precisions)
    return list(FORMATS).index(name.format), rank, folder_name


def read_report(out: Path) -> dict[str, Any]:
    """Return the result folder's report.json, or the least of one where it has none that can be read."""
    try:
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = {}
    return report if isinstance(report, dict) and report.get("schema_version") == SCHEMA_VERSION else {}


def loosened_notes(limits: Mapping[str, Limits], ceilings: Mapping[str, Limits]) -> list[str]:
    """Say in words which limits are looser than the ceilings."""
    notes = []
    for precision, each in limits.items():
        ceiling = ceilings.get(precision)
        if ceiling is None:
            continue
        for field in dataclasses.fields(Limits):
            mine, theirs = getattr(each, field.name), getattr(ceiling, field.name)
            looser = mine < theirs if field.name == "agreement" else _over(mine, theirs)
            if looser:
                notes.append(f"The limit {field.name} of {precision} was loosened from {theirs} to {mine}.")
    return notes


def _over(mine: float | None, theirs: float | None) -> bool:
    return theirs is not None and (mine is None or mine > theirs)
