"""The part of a run that needs TensorFlow: one SavedModel, then every artifact that is asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import ArtifactName, Card, Limits
from exporters.errors import InputError
from exporters.export import move_into_place
from exporters.fingerprints import WeightSet, read_sets, write_fingerprints
from exporters.golden import sha256_of
from exporters.inputs import Inputs
from exporters.papers import parse_artifact_name
from exporters.report_ways import taken_of, told
from exporters.statuses import FAILED
from exporters.ways import read_choices, write_choices
from pipeline import bundle
from pipeline.orders import Made, Order
from pipeline.run import versions
from pipeline.side_by_side import make_all
from pipeline.stages import Stage, StageLog
from pipeline.terminal import Terminal


def ship(
    out: Path, names: tuple[ArtifactName, ...], state: dict[str, Any], log: StageLog, terminal: Terminal
) -> list[InputError]:
    """Make `out/artifacts` hold exactly the artifacts asked for, each moved into place whole.

    Args:
        out: a result folder in which training has ended.
        names: the artifacts.
        state: what `train` left.
        log, terminal: where stages and progress go.

    Returns:
        Why some of them cannot be made, in the order of the names; all others are there.
    """
    card = dataclasses.replace(bundle.read_card(out), versions=versions())
    calibration_images = bundle.read_calibration(out)
    selection = bundle.read_selection(out)
    key = _key(out, card, [calibration_images, *([selection] if selection is not None else [])], state)
    cache = bundle.cache_folder() / "cutpoint-artifacts"
    limits = {precision: Limits(**each) for precision, each in state.get("limits", {}).items()}
    order = Order(out, card, cache, key, bool(state.get("features_everywhere")), limits)
    artifacts = out / "artifacts"
    _remove_others(artifacts, names)
    made = {name: Made(name, Stage(f"export {name}", cached=True)) for name in names if order.is_made(name)}
    for name in made:
        terminal.say(f"export {name}: from the cache")
        _copy(order.artifact(name), artifacts / str(name))
        _tell_choice(order, name, terminal)
    missing = [name for name in names if name not in made]
    if missing:
        with contextlib.closing(make_all(order, missing, terminal.say)) as making:
            for each in making:
                made[each.name] = each
                _take(each, order, artifacts / str(each.name), terminal)
    log.stages += [made[name].stage for name in names]
    refused = [made[name].fault for name in names if made[name].fault is not None]
    _write_fingerprints(out, order, [name for name in names if made[name].fault is None])
    return refused


def _take(made: Made, order: Order, target: Path, terminal: Terminal) -> None:
    if made.fault is None:
        _copy(order.artifact(made.name), target)
        _tell_choice(order, made.name, terminal)
        return
    terminal.say(f"export {made.name}: cannot be made")
    # One that an earlier export made of another model does not pass for this one's.
    shutil.rmtree(target, ignore_errors=True)


def _tell_choice(order: Order, name: ArtifactName, terminal: Terminal) -> None:
    for made in read_choices(order.weights(name.precision)).values():
        way = taken_of(made)
        failed = f"; on the validation pictures it fails: {way['reason']}" if way["status"] == FAILED else ""
        terminal.say(f"export {name}: {told(made)}{failed}")


def _key(out: Path, card: Card, pictures: list[Inputs], state: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(card.to_json(), sort_keys=True).encode())
    for each in pictures:
        digest.update(np.ascontiguousarray(each.images).tobytes())
        if each.columns is not None:
            digest.update(np.ascontiguousarray(each.columns).tobytes())
    for name, values in sorted(bundle.read_truth_of_selection(out).items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    digest.update(json.dumps(state.get("limits"), sort_keys=True).encode())
    digest.update(sha256_of(out / bundle.MODEL).encode())
    digest.update(str(bool(state.get("features_everywhere"))).encode())
    exporters = Path(__file__).parent.parent / "exporters"
    for source in sorted([*exporters.glob("*.py"), *exporters.glob("contract/*.py")]):
        # An artifact of an older exporter is not that of this one.
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _write_fingerprints(out: Path, order: Order, names: list[ArtifactName]) -> None:
    fingerprints: dict[str, tuple[str, WeightSet]] = {}
    for precision in {name.precision: None for name in names}:
        found, of_precision = read_sets(order.weights(precision))
        fingerprints[precision] = of_precision[precision], found[of_precision[precision]]
    sets: dict[str, WeightSet] = {}
    for rounding, each in fingerprints.values():
        # Precisions of one rounding differ only in whether the spans of the activations were measured.
        if rounding not in sets or any(layer.spans for layer in each.layers):
            sets[rounding] = each
    roundings = {precision: rounding for precision, (rounding, _) in fingerprints.items()}
    write_fingerprints(sets, roundings, out / "golden")
    choices = [read_choices(order.weights(precision)) for precision in fingerprints]
    write_choices({precision: made for each in choices for precision, made in each.items()}, out / "golden")


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
