"""Runs artifacts in their own runtimes on the golden set and judges the answers. Light: no TensorFlow, no Keras."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters import measures, parity
from exporters.audit.auditing import audit
from exporters.contract import (
    CEILINGS,
    FORMATS,
    LOCAL,
    QUANTISED,
    SCHEMA_VERSION,
    ArtifactName,
    Card,
    Limits,
    Runtime,
    is_features_name,
)
from exporters.errors import InputError, MissingKernelError, NotVerifiedError, ParityError
from exporters.feature_maps import inputs_of_features, judge_features
from exporters.golden import ARTIFACTS, GoldenSet, check_files, read_golden, read_manifest, sha256_of
from exporters.golden_files import check_pixels
from exporters.image_files import Decoded, decode_everywhere, judge_files
from exporters.papers import card_fault, parse_artifact_name
from exporters.runtimes import Plan, plan_runtimes, run_artifact

_DOCUMENTS = ("card.json", "README.md")
_NO_RUNTIME: dict[str, Any] = {
    "runner": "",
    "version": "",
    "backend": "",
    "where": "",
    "images": 0,
    "of_images": 0,
    "latency_ms": {},
    "inference_s": 0.0,
    "outputs": {},
}
# Limits that a figure must not be under.
_LEAST = ("agreement", "least_cosine", "neighbours", "iou")
VERDICTS = {0: "verified", 1: "failed", 3: "not_verified"}


def verify_folder(
    out: Path, progress: Callable[[str], None] = lambda name: None, *, runtimes: str | Sequence[str] = LOCAL
) -> dict[str, Any]:
    """Judge every artifact of a result folder by its golden set.

    Args:
        out: the result folder.
        progress: called with each artifact's name before it is judged.
        runtimes: in which, see `exporters.runtimes.plan_runtimes`.

    Returns:
        The keys `integrity`, `pixels`, `image_files`, `artifacts`, `not_run`, `notes`, `verdict`, `exit_code` of
        report.json.

    Raises:
        InputError: there is no golden set, it cannot be read, or there is no such runtime.
    """
    manifest = read_manifest(out)
    integrity = check_files(out, manifest)
    golden = read_golden(out, manifest)
    plan = plan_runtimes(runtimes)
    folders = sorted({Path(name).parts[1] for name in manifest["files"] if name.startswith(f"{ARTIFACTS}/")})
    formats = {parse_artifact_name(name).format for name in folders}
    concerned = {str(runtime) for each in formats for runtime in FORMATS[each].runtimes}
    browser = any(runtime.browser for each in formats for runtime in plan.of_format(each))
    # The manifest says itself which limits hold: whoever loosened them, the report says so.
    notes = loosened_notes(golden.limits, CEILINGS)
    pixels = check_pixels(out, golden.card)
    if pixels["status"] == parity.FAILED:
        notes.append(f"Decode and resize: {pixels['reason']}.")
    decoded = decode_everywhere(out, golden.card, pixels, browser=browser)
    artifacts = []
    for name in sorted(folders, key=_order):
        progress(name)
        changed = [path for path in integrity["changed"] if path.startswith(f"{ARTIFACTS}/{name}/")]
        names = [Path(path).name for path in changed]
        artifacts.append(verify_artifact(out / ARTIFACTS / name, golden, names, plan=plan, decoded=decoded))
    advise_instead(artifacts)
    verdict = judge(artifacts, integrity, pixels, decoded.entries)
    return {
        "integrity": integrity,
        "pixels": pixels,
        "image_files": list(decoded.entries),
        "artifacts": artifacts,
        "not_run": [dict(each) for each in plan.not_run if each["runtime"] in concerned]
        + [each for one in artifacts for each in one.pop("not_run", [])],
        "notes": notes,
        **verdict,
    }


def judge(
    artifacts: list[dict[str, Any]],
    integrity: Mapping[str, Any],
    pixels: Mapping[str, Any] | None = None,
    image_files: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return `verdict` and `exit_code` over all artifacts: 1 where one failed, else 3 where one was not verified.

    Changed files, and golden files that are decoded or resized otherwise, fail the whole folder.
    """
    statuses = [runtime["status"] for artifact in artifacts for runtime in artifact["runtimes"]]
    compared = bool(artifacts) and all(each["runtimes"] for each in artifacts)
    statuses += [artifact["audit"]["status"] for artifact in artifacts if "audit" in artifact]
    statuses += [runtime["files"]["status"] for each in artifacts for runtime in each["runtimes"] if "files" in runtime]
    statuses += [each["status"] for each in image_files]
    if parity.FAILED in (*statuses, integrity["status"], (pixels or {}).get("status")):
        code = 1
    else:
        code = 0 if compared and set(statuses) == {parity.VERIFIED} else 3
    return {"verdict": VERDICTS[code], "exit_code": code}


def advise_instead(artifacts: list[dict[str, Any]]) -> None:
    """Put `instead` into the entry of every quantised artifact whose answers fail: the smallest of its format that is verified.

    `{"name", "size_bytes", "latency_ms"}`, the latency of one picture in the first runtime, None where it was not measured.
    """
    whole = [each for each in artifacts if judge([each], {"status": parity.VERIFIED})["exit_code"] == 0]
    for entry in artifacts:
        # What fails before its answers are compared has another fault than its precision.
        failed = any(each["status"] == parity.FAILED and "check" not in each for each in entry["runtimes"])
        alike = [each for each in whole if each["format"] == entry["format"]]
        if entry["precision"] in QUANTISED and failed and alike:
            least = min(alike, key=lambda each: each["size_bytes"])
            latency = least["runtimes"][0].get("latency_ms", {}).get("median")
            entry["instead"] = {"name": least["name"], "size_bytes": least["size_bytes"], "latency_ms": latency}


def verify_artifact(
    folder: Path,
    golden: GoldenSet,
    changed: Sequence[str] = (),
    *,
    plan: Plan | None = None,
    decoded: Decoded | None = None,
) -> dict[str, Any]:
    """Judge one artifact folder; returns its entry of report.json, and `not_run` of the report beside it.

    Args:
        folder: the artifact's.
        golden: what it is judged by.
        changed: names of its files whose checksums differ. A changed model is not loaded: a runtime may not survive it.
        plan: in which runtimes; None: those of this machine.
        decoded: the golden files as each decoder gives them; None: only arrays are compared.
    """
    name = parse_artifact_name(folder.name)
    files = model_files(folder)
    entry = {
        "name": folder.name,
        "format": name.format,
        "precision": name.precision,
        "size_bytes": sum(path.stat().st_size for path in files),
        "gzip_bytes": sum(len(gzip.compress(path.read_bytes(), 6, mtime=0)) for path in files),
        "sha256": {path.name: sha256_of(path) for path in files},
    }
    if name.precision in golden.ways:
        entry["made"] = copy.deepcopy(golden.ways[name.precision])
    damaged = [path.name for path in files if path.name in changed]
    if damaged:
        return entry | {"runtimes": [_not_loaded(damaged)]}
    try:
        fault = card_fault(folder, name, golden.card)
    except InputError as unreadable:
        fault = unreadable.what
    if fault:
        # Papers that belong to something else leave open what the artifact should be compared with.
        return entry | {"runtimes": [_NO_RUNTIME | {"status": parity.FAILED, "check": "card", "reason": fault}]}
    runtimes = (plan or plan_runtimes(LOCAL)).of_format(name.format)
    audited = audit(folder, name, Card.read(folder / "card.json"), golden.fingerprints.get(name.precision))
    run = [_verify_in_runtime(runtime, folder, name, golden, decoded) for runtime in runtimes]
    if all(runtime.images for runtime in runtimes):
        run = [_only_a_sample(each) for each in run]
    return entry | {
        "audit": audited,
        "runtimes": [each for each in run if "status" in each],
        "not_run": [each for each in run if "status" not in each],
    }


def _not_loaded(damaged: list[str]) -> dict[str, Any]:
    reason = f"{', '.join(damaged)}: changed since the export, as the checksum tells; not loaded"
    return _NO_RUNTIME | {"status": parity.FAILED, "check": "checksum", "reason": reason}


def model_files(folder: Path) -> list[Path]:
    """Return the files of an artifact that a device must fetch: not its card, its labels or its README."""
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return sorted(path for path in found if path.name not in _DOCUMENTS and path.suffix != ".txt")


def _verify_in_runtime(
    runtime: Runtime, folder: Path, name: ArtifactName, golden: GoldenSet, decoded: Decoded | None
) -> dict[str, Any]:
    entry = _NO_RUNTIME | {"runner": runtime.name, "backend": runtime.backend, "of_images": len(golden.images)}
    if not len(golden.images):
        reason = "the golden set holds no images: nothing was compared"
        return entry | {"status": parity.NOT_VERIFIED, "reason": reason}
    place = "chromium" if runtime.browser else "python"
    files, of_files = decoded.of(place) if decoded else ((), golden.inputs[:0])
    try:
        chosen = measures.spread(len(golden.images), runtime.images or len(golden.images))
        answers = run_artifact(runtime, folder, golden.inputs[chosen], of_files, inputs_of_features(golden))
    except MissingKernelError as fault:
        return {"runtime": f"{runtime} for {folder.name}", "reason": fault.what, "mend": fault.mend}
    except NotVerifiedError as fault:
        return entry | {"status": parity.NOT_VERIFIED, "reason": str(fault)}
    except (ParityError, InputError) as fault:
        return entry | {"status": parity.FAILED, "check": "runtime", "reason": fault.what}
    entry |= answers.facts
    limits = golden.limits.get(name.precision)
    judged = judge_answers(golden, _heads(answers.outputs), limits, chosen if runtime.images else None)
    if answers.features is not None and (answers.features or FORMATS[name.format].carries_features):
        judged = _with_features(judged, answers.features, golden, name.precision)
    if files and limits is not None:
        entry["files"] = judge_files(files, _heads(answers.of_files), golden.card, limits, golden.reference)
    return entry | judged


def _with_features(
    judged: dict[str, Any], features: Mapping[str, np.ndarray], golden: GoldenSet, precision: str
) -> dict[str, Any]:
    """Judge every cut's feature map too, by its relative error; they are promised where the card names cuts."""
    found = judge_features(features, golden, precision)
    if found is None:
        return judged
    entry = judged | {"features": found}
    if found["status"] == parity.VERIFIED:
        return entry
    told = "; ".join(each for each in (judged["reason"], found["reason"]) if each)
    return entry | {"status": parity.worst([judged["status"], found["status"]]), "check": "features", "reason": told}


def _only_a_sample(entry: dict[str, Any]) -> dict[str, Any]:
    """What a slow runtime answers checks another one; alone it has not judged the accuracy."""
    if entry.get("status") != parity.VERIFIED:
        return entry
    reason = f"only a sample of {entry['images']} images was answered: ask for a runtime that answers all of them too"
    return entry | {"status": parity.NOT_VERIFIED, "reason": reason}


def _heads(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values for name, values in outputs.items() if not is_features_name(name)}


def judge_answers(
    golden: GoldenSet, answers: Mapping[str, np.ndarray], limits: Limits | None, sample: np.ndarray | None = None
) -> dict[str, Any]:
    """Compare answers with the golden set; returns `status`, `reason` and `outputs` of a runtime's entry.

    Args:
        golden: the images' labels and reference answers.
        answers: name -> float32 (N, ...).
        limits: what they may differ by.
        sample: indices of the golden images that were answered, where a slow runtime got a sample; None: all were.
    """
    if limits is None:
        return {"status": parity.NOT_VERIFIED, "reason": "the manifest has no limits for this precision", "outputs": {}}
    taken = slice(None) if sample is None else sample
    reference = {name: values[taken] for name, values in golden.reference.items()}
    truth = {name: values[taken] for name, values in golden.truth.items()}
    compared = parity.compare(
        reference, answers, golden.card.outputs, limits, truth, sampled=sample is not None, indices=sample
    )
    status = parity.worst([each.status for each in compared.values()])
    reasons = [f"{name}: {each.reason}" for name, each in compared.items() if each.reason]
    outputs = {name: {**each.figures, "status": each.status, "reason": each.reason} for name, each in compared.items()}
    return {"status": status, "reason": "; ".join(reasons), "outputs": outputs}


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
            looser = _under(mine, theirs) if field.name in _LEAST else _over(mine, theirs)
            if looser:
                notes.append(f"The limit {field.name} of {precision} was loosened from {theirs} to {mine}.")
    return notes


def _under(mine: float | None, theirs: float | None) -> bool:
    return theirs is not None and (mine is None or mine < theirs)


def _over(mine: float | None, theirs: float | None) -> bool:
    return theirs is not None and (mine is None or mine > theirs)
