"""The part of a run that needs Keras: features, heads, assembly, reference answers. Any Keras backend."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import Backbone as BackboneRecord
from exporters.contract import Card, Output, Resize
from exporters.export import keep_in_cache
from pipeline import bundle
from pipeline.assembly import Part, assemble, save_model
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights, load_backbone
from pipeline.backbones.origin import is_of_table
from pipeline.config import Config, HeadSection
from pipeline.cut import AUTO, resolve_cuts, truncate
from pipeline.extraction import Extracted, cuts_of_head, extract
from pipeline.heads import EMBEDDING, build_head, learns, pooling_of, task_of
from pipeline.reference import Taught, accuracies, indices, write_reference
from pipeline.run import result_name, split, state_of, usual_resize, versions
from pipeline.splitting import Dataset, Example
from pipeline.stages import StageLog
from pipeline.terminal import Terminal
from pipeline.training import TrainingData, check_device, train_head


def teach(
    config: Config, root: Path, examples: tuple[Example, ...], staged: Path, log: StageLog, terminal: Terminal
) -> dict[str, Any]:
    """Write `model.keras`, `card.json`, the golden set and the calibration images into `staged`.

    Returns:
        What the later stages must know; see `pipeline.run.state_of`.
    """
    device = check_device(config.device)
    how = usual_resize(config)
    kind = f" alpha {config.backbone.alpha:g}, {config.backbone.weights}" if is_of_table(config.backbone) else ""
    with log.stage("backbone", f"{config.backbone.name}{kind}"):
        backbone = load_backbone(config.backbone, how)
        for note in backbone.notes:
            terminal.say(f"backbone: {note}")
    cuts, advised = _cuts(config, backbone, root, examples, how, device, log, terminal)
    truncated = truncate(backbone.model, cuts)
    taken = {name: cuts_of_head(name, section, backbone, cuts) for name, section in config.heads.items()}
    with log.stage("features", f"of {len(examples)} pictures at {', '.join(map(repr, cuts))}") as stage:
        found = extract(config, backbone, taken, examples, how, device, terminal)
        stage.cached = found.computed == 0
        kept = len(examples) - found.computed - len(found.bad)
        terminal.say(f"features: {found.computed} computed, {kept} from the cache")
    dataset = split(config, root, examples, dict(found.bad), terminal)
    with log.stage("heads", f"training {', '.join(sorted(config.heads))} on the {device}") as stage:
        taught, stage.cached = _teach_heads(config, dataset, taken, found, device, terminal)
    with log.stage("assembly", "one Keras model, raw pixels in"):
        model = assemble(truncated, backbone.pixel_scaling, {name: each.part for name, each in taught.items()})
        card = _card(config, how, backbone, cuts, model, taught, dataset)
        save_model(model, staged / bundle.MODEL)
        card.write(staged / bundle.CARD)
    with log.stage("reference", "answers of the Keras model on test pictures"):
        write_reference(config, model, card, dataset, taught, staged)
    state = state_of(config, dataset, card, _histories(taught), accuracies(config, dataset, taught))
    return state | advised | {"notes": [*state["notes"], *backbone.notes, *advised.get("notes", ())]}


def _cuts(
    config: Config,
    backbone: LoadedBackbone,
    root: Path,
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    log: StageLog,
    terminal: Terminal,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the layers to cut at, the deepest last, and what is to be told of how they were chosen."""
    if config.backbone.cut != AUTO:
        return resolve_cuts(backbone, config.backbone.cut), {}
    # Measures every candidate; not needed where the cut is named.
    advice = importlib.import_module("pipeline.advice.advise")
    cut, told = advice.choose_cut(config, backbone, root, examples, how, device, log, terminal)
    return resolve_cuts(backbone, cut), told


def _teach_heads(
    config: Config,
    dataset: Dataset,
    taken: Mapping[str, tuple[str, ...]],
    found: Extracted,
    device: str,
    terminal: Terminal,
) -> tuple[dict[str, Taught], bool]:
    taught, cached = {}, True
    for name, section in sorted(config.heads.items()):
        pooling = pooling_of(section)
        features = {
            part: found.of_head(taken[name], pooling, dataset.of_split(part)) for part in ("train", "val", "test")
        }
        if not learns(section):
            width = features["test"].shape[1]
            head = build_head(name, section, width, 0, config.seed)
            taught[name] = Taught(Part(pooling, taken[name], head), {}, _answers(head, features["test"]))
            terminal.say(f"heads: {name}: {width} numbers of unit length; nothing to train")
            continue
        labels = dataset.labels[section.target]
        truth = {part: indices(dataset.of_split(part), section.target, labels) for part in features}
        data = TrainingData(features["train"], truth["train"], features["val"], truth["val"])
        head, history, was_cached = _teach_one(name, section, config, data, len(labels), device, terminal)
        cached = cached and was_cached
        answers = _answers(head, features["test"])
        taught[name] = Taught(Part(pooling, taken[name], head), history, answers)
        accuracy = float((answers.argmax(-1) == truth["test"]).mean())
        terminal.say(f"heads: {name}: accuracy {accuracy:.3f} on {len(answers)} test pictures")
    return taught, cached


def _answers(head: keras.Model, features: np.ndarray) -> np.ndarray:
    return np.asarray(head.predict(features, batch_size=256, verbose=0), np.float32)


def _teach_one(
    name: str,
    section: HeadSection,
    config: Config,
    data: TrainingData,
    classes: int,
    device: str,
    terminal: Terminal,
) -> tuple[keras.Model, dict[str, Any], bool]:
    """Train a head, or take it from the cache where the very same training was done already."""
    key = _training_key(name, section, config, data, classes, device)
    folder = bundle.cache_folder() / "cutpoint-heads" / key
    weights, curves = folder / "head.weights.h5", folder / "history.json"
    if curves.is_file():
        head = build_head(name, section, data.train_features.shape[1], classes, config.seed)
        head.load_weights(weights)
        return head, json.loads(curves.read_text(encoding="utf-8")), True
    with terminal.progress(f"head {name}") as progress:
        head, history = train_head(
            name,
            section,
            config.training,
            data,
            classes,
            config.seed,
            lambda epoch, epochs, figures: progress(epoch, epochs),
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=folder.parent) as work:
        made = Path(work) / key
        made.mkdir()
        head.save_weights(made / weights.name)
        (made / curves.name).write_text(json.dumps(history), encoding="utf-8")
        keep_in_cache(made, folder)
    return head, history, False


def _training_key(
    name: str, section: HeadSection, config: Config, data: TrainingData, classes: int, device: str
) -> str:
    digest = hashlib.sha256()
    facts = (name, repr(section), repr(config.training), classes, config.seed, device, keras.backend.backend())
    digest.update(repr((*facts, keras.__version__)).encode())
    for array in (data.train_features, data.train_labels, data.val_features, data.val_labels):
        digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def _card(
    config: Config,
    how: Resize,
    backbone: LoadedBackbone,
    cuts: tuple[str, ...],
    model: keras.Model,
    taught: Mapping[str, Taught],
    dataset: Dataset,
) -> Card:
    outputs = tuple(_output(name, config.heads[name], each, dataset) for name, each in sorted(taught.items()))
    # Of a backbone from elsewhere the file's name, and no path of this machine.
    alpha = config.backbone.alpha if is_of_table(config.backbone) else None
    record = BackboneRecord(backbone.name, alpha, backbone.weights_sha256, backbone.pixel_scaling)
    card = Card(result_name(config), how, outputs, record, cuts, versions=versions())
    # What the model is, and nothing of when or with which versions it was made.
    identity = {key: value for key, value in card.to_json().items() if key != "versions"}
    text = json.dumps([identity, digest_of_weights(model), dataset.fingerprint], sort_keys=True)
    return dataclasses.replace(card, created_from="sha256:" + hashlib.sha256(text.encode()).hexdigest())


def _output(name: str, section: HeadSection, taught: Taught, dataset: Dataset) -> Output:
    task, shape = task_of(section), taught.answers.shape[1:]
    if task == EMBEDDING:
        return Output(name, section.kind, task, shape, activation="unit_length", unit="unit length")
    return Output(name, section.kind, task, shape, labels=dataset.labels[section.target])


def _histories(taught: Mapping[str, Taught]) -> dict[str, Any]:
    return {name: each.history for name, each in taught.items() if each.history}
