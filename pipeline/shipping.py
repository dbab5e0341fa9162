"""The part of a run that needs TensorFlow: one SavedModel, then every artifact that is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import ArtifactName, Card
from exporters.export import export_artifact, keep_in_cache, move_into_place
from exporters.fingerprints import WeightSet, read_sets, write_fingerprints
from exporters.golden import sha256_of
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.memory import give_back
from exporters.opaque import load_model
from exporters.papers import parse_artifact_name
from pipeline import bundle
from pipeline.run import versions
from pipeline.stages import StageLog
from pipeline.terminal import Terminal


def ship(out: Path, names: tuple[ArtifactName, ...], state: dict[str, Any], log: StageLog, terminal: Terminal) -> None:
    """Make `out/artifacts` hold exactly the artifacts asked for, each moved into place whole.

    Args:
        out: a result folder in which training has ended.
        names: the artifacts.
        state: what `train` left.
        log, terminal: where stages and progress go.
    """
    card = dataclasses.replace(bundle.read_card(out), versions=versions())
    calibration_images = bundle.read_calibration(out)
    selection = bundle.read_selection(out)
    key = _key(out, card, [calibration_images, *([selection] if selection is not None else [])], state)
    artifacts = out / "artifacts"
    _remove_others(artifacts, names)
    models: InferenceModels | None = None
    fingerprints: dict[str, tuple[str, WeightSet]] = {}
    with tempfile.TemporaryDirectory(prefix="saved-model-", dir=out / bundle.MARK) as work:
        for name in names:
            with log.stage(f"export {name}", "converting") as stage:
                cached = bundle.cache_folder() / "cutpoint-artifacts" / f"{key}-{name}"
                weights = cached.with_name(f"{key}-weights-{name.precision}")
                stage.cached = cached.is_dir() and weights.is_dir()
                if not stage.cached:
                    models = models or _inference_models(out, card, calibration_images, selection, state, Path(work))
                    _make(name, models.saved_model(name.precision), card, cached, calibration_images, state)
                    _make_fingerprints(name.precision, models, weights)
                    # Ten conversions of a large network would otherwise keep what each of them left behind.
                    give_back()
                _copy(cached, artifacts / str(name))
                sets, roundings = read_sets(weights)
                fingerprints[name.precision] = roundings[name.precision], sets[roundings[name.precision]]
    _write_fingerprints(out, fingerprints)


def _key(out: Path, card: Card, pictures: list[Inputs], state: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(card.to_json(), sort_keys=True).encode())
    for each in pictures:
        digest.update(np.ascontiguousarray(each.images).tobytes())
        if each.columns is not None:
            digest.update(np.ascontiguousarray(each.columns).tobytes())
    digest.update(sha256_of(out / bundle.MODEL).encode())
    digest.update(str(bool(state.get("features_everywhere"))).encode())
    for source in sorted((Path(__file__).parent.parent / "exporters").glob("*.py")):
        # An artifact of an older exporter is not that of this one.
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _inference_models(
    out: Path, card: Card, calibration_images: Inputs, selection: Inputs | None, state: dict[str, Any], work: Path
) -> InferenceModels:
    model = load_model(out / bundle.MODEL)
    everywhere = bool(state.get("features_everywhere"))
    return InferenceModels(
        model, card.cut, calibration_images, work, features_everywhere=everywhere, selection=selection
    )


def _make(
    name: ArtifactName, saved: Path, card: Card, cached: Path, calibration_images: Inputs, state: dict[str, Any]
) -> None:
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=cached.parent) as work:
        everywhere = bool(state.get("features_everywhere"))
        made = export_artifact(name, saved, card, Path(work), calibration_images, features_everywhere=everywhere)
        keep_in_cache(made, cached)


def _make_fingerprints(precision: str, models: InferenceModels, cached: Path) -> None:
    if cached.is_dir():
        return
    rounding = models.rounding(precision)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=cached.parent) as work:
        made = Path(work) / cached.name
        write_fingerprints({rounding: models.weight_set(precision)}, {precision: rounding}, made)
        keep_in_cache(made, cached)


def _write_fingerprints(out: Path, fingerprints: dict[str, tuple[str, WeightSet]]) -> None:
    sets: dict[str, WeightSet] = {}
    for rounding, each in fingerprints.values():
        # Precisions of one rounding differ only in whether the spans of the activations were measured.
        if rounding not in sets or any(layer.spans for layer in each.layers):
            sets[rounding] = each
    roundings = {precision: rounding for precision, (rounding, _) in fingerprints.items()}
    write_fingerprints(sets, roundings, out / "golden")


def _copy(cached: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copying-", dir=target.parent) as work:
        copied = shutil.copytree(cached, Path(work) / target.name)
        move_into_place(copied, target)


def _remove_others(artifacts: Path, names: tuple[ArtifactName, ...]) -> None:
    wanted = {str(name) for name in names}
    for folder in artifacts.iterdir() if artifacts.is_dir() else ():
        if folder.name not in wanted:
            if not folder.name.startswith((".copying-", ".making-")):
                # Raises for a folder that is none of ours, which therefore stays; the others a killed run left here.
                parse_artifact_name(folder.name)
            shutil.rmtree(folder)
