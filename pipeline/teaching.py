"""The part of a run that needs Keras: features, heads, assembly, reference answers. Any Keras backend."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.columns import Column
from exporters.contract import BOXES, EMBEDDING, REGRESSION, Card, Output, Resize
from exporters.contract import Backbone as BackboneRecord
from exporters.pixels import load_images
from exporters.runners.keras import KerasRunner
from pipeline import bundle
from pipeline.assembly import Part, assemble, save_model, without
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights, load_backbone
from pipeline.backbones.origin import is_of_table
from pipeline.column_checks import sees_columns
from pipeline.columns import learn_columns, notes_of_columns
from pipeline.config import Config, HeadSection
from pipeline.cut import AUTO, resolve_cuts, truncate
from pipeline.extraction import Extracted, cuts_of_head, extract, extract_views
from pipeline.fine_tuning import NAME as FINE_TUNING
from pipeline.fine_tuning import fine_tune
from pipeline.heads.answers import ACTIVATIONS
from pipeline.heads.sharing import auxiliary_heads, notes_on_boxes
from pipeline.heads.trial import find_own_heads, try_own_heads
from pipeline.learning import TRUNK, Classroom, answers_of, check_names, teach_heads, wanted_features
from pipeline.places import check_places
from pipeline.reference import Taught, accuracies, write_reference
from pipeline.run import result_name, split, state_of, usual_resize, versions
from pipeline.similar import BATCH, write_gallery
from pipeline.splitting import Dataset, Example
from pipeline.stages import StageLog
from pipeline.targets import USUAL_COLUMNS, Target, target_of
from pipeline.terminal import Terminal
from pipeline.training import check_device
from pipeline.tuned_layers import layers_to_tune


def teach(
    config: Config, root: Path, examples: tuple[Example, ...], staged: Path, log: StageLog, terminal: Terminal
) -> dict[str, Any]:
    """Write `model.keras`, `card.json`, the golden set and the calibration images into `staged`.

    Returns:
        What the later stages must know; see `pipeline.run.state_of`.
    """
    check_names(config)
    find_own_heads(config)
    pooled = notes_on_boxes(config)
    for note in pooled:
        terminal.say(f"heads: {note}")
    device = check_device(config.device)
    how = usual_resize(config)
    check_places(config, how, examples)
    kind = f" alpha {config.backbone.alpha:g}, {config.backbone.weights}" if is_of_table(config.backbone) else ""
    with log.stage("backbone", f"{config.backbone.name}{kind}"):
        backbone = load_backbone(config.backbone, how)
        for note in backbone.notes:
            terminal.say(f"backbone: {note}")
    cuts, advised = _cuts(config, backbone, root, examples, how, device, log, terminal)
    truncated = truncate(backbone.model, cuts)
    tuned = layers_to_tune(config, backbone, truncated)
    taken = _taken(config, backbone, cuts)
    try_own_heads(config, truncated, taken, examples)
    with log.stage("features", f"of {len(examples)} pictures at {', '.join(map(repr, cuts))}") as stage:
        found = extract(config, backbone, wanted_features(config, taken), examples, how, device, terminal)
        stage.cached = found.computed == 0
        kept = len(examples) - found.computed - len(found.bad)
        terminal.say(f"features: {found.computed} computed, {kept} from the cache")
    dataset = split(config, root, examples, dict(found.bad), terminal)
    targets = {
        name: target_of(name, section, dataset, how, [truncated.get_layer(cut).output.shape[1:] for cut in taken[name]])
        for name, section in sorted(config.heads.items())
    }
    columns = learn_columns(config.columns, dataset.of_split("train"))
    notes = notes_of_columns(columns, dataset.of_split("train"))
    for note in notes:
        terminal.say(f"columns: {note}")
    views: tuple[Extracted, ...] = ()
    if config.augmentation.views:
        shown = dataset.of_split("train")
        with log.stage(
            "views", f"features of {config.augmentation.views} augmented views of {len(shown)} pictures"
        ) as stage:
            views = extract_views(config, backbone, wanted_features(config, taken), shown, how, device, terminal)
            stage.cached = not any(each.computed for each in views)
    with log.stage("heads", f"training {', '.join(sorted(config.heads))} on the {device}") as stage:
        logs = staged / bundle.TENSORBOARD if config.training.tensorboard else None
        room = Classroom(config, dataset, taken, found, targets, device, terminal, views, logs, columns)
        taught, trunk, stage.cached = teach_heads(room)
    with log.stage("assembly", "one Keras model, raw pixels in"):
        parts = {name: each.part for name, each in taught.items()}
        whole = assemble(truncated, backbone.pixel_scaling, parts, trunk, columns)
    if tuned:
        with log.stage("fine_tuning", f"the backbone from '{tuned[0]}' on, with {', '.join(sorted(taught))}") as stage:
            taught, stage.cached = fine_tune(room, whole, truncated, tuned, how, taught)
    left_out = auxiliary_heads(config)
    with log.stage("reference", "the model's file, and its answers on test pictures"):
        model = without(whole, left_out)
        shipped = {name: each for name, each in taught.items() if name not in left_out}
        # What only an auxiliary head took is not shipped.
        taken_along = columns if any(sees_columns(config, config.heads[name]) for name in shipped) else ()
        card = _card(config, how, backbone, cuts, model, shipped, targets, dataset, taken_along)
        save_model(model, staged / bundle.MODEL)
        card.write(staged / bundle.CARD)
        _write_galleries(room, shipped, trunk, model if tuned else None, how, root, staged)
        write_reference(config, model, card, dataset, shipped, targets, staged)
    state = state_of(config, dataset, card, _histories(taught), accuracies(dataset, taught, targets))
    notes += _notes_of_tuning(tuned, taught)
    notes += [f"The head '{name}' is auxiliary: it was trained, and is not in the exported model." for name in left_out]
    return state | advised | {"notes": [*state["notes"], *pooled, *backbone.notes, *notes, *advised.get("notes", ())]}


def _notes_of_tuning(tuned: tuple[str, ...], taught: Mapping[str, Taught]) -> list[str]:
    if not tuned:
        return []
    better = any(each.history.get(FINE_TUNING, {}).get("best_epoch") for each in taught.values())
    said = (
        "were trained too" if better else "were trained too; that made nothing better, and the model stayed as it was"
    )
    return [f"The backbone's layers from '{tuned[0]}' on {said}."]


def _write_galleries(
    room: Classroom,
    taught: Mapping[str, Taught],
    trunk: Part | None,
    model: keras.Model | None,
    how: Resize,
    root: Path,
    staged: Path,
) -> None:
    """Keep what every embedding says of the pictures that were learned from, in which `cutpoint similar` looks.

    Args:
        room, taught, trunk: heads, and what they were taught with.
        model: the whole model where its features are not the cached ones any more, because it was fine-tuned; else None.
        how: the resize.
        root: the data's path.
        staged: the result folder to be.
    """
    for name, each in taught.items():
        if room.targets[name].task != EMBEDDING:
            continue
        shown = [example for split in ("train", "val") for example in room.dataset.of_split(split)]
        if model is not None:
            vectors = _answers_to_files(room, model, name, shown, how)
        else:
            source, pooling = (TRUNK, trunk.pooling) if each.part.on_trunk else (name, each.part.pooling)
            features = np.concatenate([room.features(source, pooling, split) for split in ("train", "val")])
            vectors = answers_of(each.part.head, answers_of(trunk.head, features) if each.part.on_trunk else features)
        column = next(iter(room.targets[name].columns), "label")
        write_gallery(staged, name, shown, column, vectors, root)


def _answers_to_files(
    room: Classroom, model: keras.Model, name: str, examples: Sequence[Example], how: Resize
) -> np.ndarray:
    parts = []
    with KerasRunner(model) as runner:
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            images = load_images([each.path for each in batch], how)
            parts.append(runner.predict(room.inputs(images, batch) if len(model.inputs) > 1 else images)[name])
    return np.concatenate(parts)


def _taken(config: Config, backbone: LoadedBackbone, cuts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the cuts that reach each head, and the trunk under its name."""
    taken = {name: cuts_of_head(name, section, backbone, cuts) for name, section in config.heads.items()}
    return {**taken, TRUNK: cuts_of_head(TRUNK, config.trunk, backbone, cuts)} if config.trunk.hidden else taken


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


def _card(
    config: Config,
    how: Resize,
    backbone: LoadedBackbone,
    cuts: tuple[str, ...],
    model: keras.Model,
    taught: Mapping[str, Taught],
    targets: Mapping[str, Target],
    dataset: Dataset,
    columns: tuple[Column, ...],
) -> Card:
    outputs = tuple(_output(name, config.heads[name], each, targets[name]) for name, each in sorted(taught.items()))
    # Of a backbone from elsewhere the file's name, and no path of this machine.
    alpha = config.backbone.alpha if is_of_table(config.backbone) else None
    record = BackboneRecord(backbone.name, alpha, backbone.weights_sha256, backbone.pixel_scaling)
    card = Card(result_name(config), how, outputs, record, cuts, versions=versions(), columns=columns)
    # What the model is, and nothing of when or with which versions it was made.
    identity = {key: value for key, value in card.to_json().items() if key != "versions"}
    text = json.dumps([identity, digest_of_weights(model), dataset.fingerprint], sort_keys=True)
    return dataclasses.replace(card, created_from="sha256:" + hashlib.sha256(text.encode()).hexdigest())


def _output(name: str, section: HeadSection, taught: Taught, target: Target) -> Output:
    task, shape = target.task, tuple(taught.answers.shape[1:])
    if task == EMBEDDING:
        return Output(name, section.kind, task, shape, activation="unit_length", unit="unit length")
    columns = target.columns if task == REGRESSION else USUAL_COLUMNS[BOXES] if task == BOXES else ()
    activation = ACTIVATIONS[task]
    return Output(name, section.kind, task, shape, "float32", activation, target.labels, target.unit, columns)


def _histories(taught: Mapping[str, Taught]) -> dict[str, Any]:
    return {name: each.history for name, each in taught.items() if each.history}
