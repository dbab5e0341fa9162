"""A head that was taught on the page, made a Keras head on the same backbone, with what its export and verification need."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import CEILINGS, INPUT_NAME, MULTICLASS, Card, Limits, Output
from exporters.errors import InputError
from exporters.golden import GoldenSet, write_golden
from exporters.golden_files import images_of_files, prepare_files
from exporters.opaque import load_model
from exporters.runners.keras import KerasRunner
from pipeline import bundle
from pipeline.assembly import Part, assemble, save_model
from pipeline.backbones.loading import digest_of_weights
from pipeline.config import Config, limits_of
from pipeline.evidence import Evidence, gather
from pipeline.heads.answers import answer
from pipeline.reference import reference_features
from pipeline.run import state_of, versions
from pipeline.stages import StageLog
from pipeline.taught_file import PATTERNS, Taught, pattern
from pipeline.terminal import Terminal

HEAD = "label"
# GPUs may compute in 16 bits, whatever an artifact's weights are.
_IN_FULL = frozenset({"wasm", "cpu"})


def import_taught(taught: Taught, source: Path, config: Config, out: Path, terminal: Terminal) -> None:
    """Put a taught head on its backbone and write the result folder that `export` goes on from.

    `out` is claimed when everything was found to be right; nothing is written into it before.

    Args:
        taught: the head, checked to be of `source`'s model.
        source: the result folder whose page it was taught on.
        config: whose data, parity, golden and export sections count; `data.path` may be empty.
        out: the result folder to be.

    Raises:
        InputError: the backbone is not the one that the page had, or there are no pictures to judge with.
    """
    log = StageLog(terminal.say)
    with log.stage("model", f"the head of {taught.path.name} on the backbone of {source}"):
        model = build(taught, source)
        notes = [_told(taught), check_patterns(model, taught)]
    with tempfile.TemporaryDirectory() as work:
        with log.stage("data", "the pictures to calibrate with and to compare on"):
            evidence = gather(taught, source, config, Path(work), terminal)
        bundle.claim(out)
        with (
            log.stage("reference", "answers of the Keras model on these pictures"),
            bundle.staging(out) as staged,
        ):
            state = _stage(model, taught, config, evidence, Path(staged))
            for note in notes:
                terminal.say(f"import: {note}")
            state["notes"] = [*notes, *state["notes"]]
            bundle.write_state(Path(staged), {**state, "stages": log.to_json()})
            bundle.replace_results(out, Path(staged))


def build(taught: Taught, source: Path) -> keras.Model:
    """Return `source`'s model up to the cut with the taught head on it: `image` (N, height, width, 3) -> `{"label"}`.

    Raises:
        InputError: the model cannot be loaded, or has no such cut.
    """
    told = taught.told
    try:
        whole = load_model(source / bundle.MODEL)
        features = whole.get_layer(told.cut).output
    except Exception as fault:  # Keras raises ValueError, TypeError, OSError, KeyError and more by turns
        if isinstance(fault, MemoryError | InputError):
            raise
        raise InputError(
            f"The model of {source} cannot be taken: {str(fault).splitlines()[0] if str(fault) else fault!r}.",
            f"the model.keras that the run wrote, with the layer '{told.cut}'",
            "name the result folder that the page was made from with --from",
        ) from fault
    if len(features.shape) != 4 or features.shape[-1] != told.head.width:
        raise InputError(
            f"The layer '{told.cut}' of {source} gives {tuple(features.shape)}, and the head takes {told.head.width} features.",
            "the model that the head was taught on",
            "name its result folder with --from",
        )
    image = next(each for each in whole.inputs if each.name == INPUT_NAME)
    truncated = keras.Model(image, features, name="truncated_backbone")
    values = keras.Input((told.head.width,), name=f"{HEAD}_features")
    dense = answer(HEAD, MULTICLASS, len(taught.labels), 0.0, 0, values)
    head = keras.Model(values, dense, name=f"{HEAD}_head")
    head.get_layer(HEAD).set_weights([taught.kernel, taught.bias])
    # Pixel scaling is among the layers of the model that is cut.
    return assemble(truncated, "none", {HEAD: Part("average", (told.cut,), head)})


def check_patterns(model: keras.Model, taught: Taught) -> str:
    """Compare what page and Keras make of the patterns.

    Returns:
        What there is to tell of it.

    Raises:
        InputError: the features are not the page's, as nearly as its precision allows.
    """
    told = taught.told
    images = np.stack([pattern(index, told.resize) for index in range(PATTERNS)])
    pooled = model.get_layer(f"{HEAD}_average").output
    with KerasRunner(keras.Model(model.inputs[0], {HEAD: model.output[HEAD], "features": pooled})) as runner:
        found = runner.predict(images)
    mine, theirs = found["features"].astype(np.float64), taught.features.astype(np.float64)
    lengths = np.linalg.norm(mine, axis=-1) * np.linalg.norm(theirs, axis=-1)
    cosines = (mine * theirs).sum(-1) / np.maximum(lengths, 1e-30)
    rounded = told.precision == "float32" and told.backend not in _IN_FULL
    least = CEILINGS["float16" if rounded else told.precision].least_cosine or 0.0
    if not float(cosines.min()) >= least:
        raise InputError(
            f"The backbone gives other features than the page's model {told.artifact} did: of a test pattern, cosine "
            f"{cosines.min():.4f}.",
            f"at least {least:g} for {told.artifact} on {told.backend}",
            "name the result folder that the page was made from, unchanged, with --from",
        )
    apart = float(np.abs(found[HEAD] - taught.probabilities).max())
    return (
        f"On {PATTERNS} test patterns the page's answers ({told.artifact}, {told.backend}) and the Keras model's are at "
        f"most {apart:.1g} apart."
    )


def _stage(model: keras.Model, taught: Taught, config: Config, evidence: Evidence, staged: Path) -> dict[str, Any]:
    card = _card(model, taught, config)
    files = prepare_files(evidence.files, staged)
    with KerasRunner(model) as runner:
        reference = runner.predict(evidence.images)
        of_files = runner.predict(images_of_files(files, card))
    truth = {} if evidence.truth is None else {HEAD: evidence.truth}
    limits: dict[str, Limits] = limits_of(config)
    features = reference_features(model, card, evidence.images)
    write_golden(GoldenSet(evidence.images, truth, reference, card, limits, features=features), staged, files, of_files)
    bundle.write_inputs(staged, bundle.CALIBRATION, evidence.calibration)
    if evidence.selection is not None:
        bundle.write_inputs(staged, bundle.SELECTION, evidence.selection)
    save_model(model, staged / bundle.MODEL)
    card.write(staged / bundle.CARD)
    right = {name: float((reference[name].argmax(-1) == values).mean()) for name, values in truth.items()}
    return state_of(config, evidence.dataset, card, {}, {"accuracy": right, "images": len(evidence.images)})


def _card(model: keras.Model, taught: Taught, config: Config) -> Card:
    told = taught.told
    output = Output(HEAD, "linear", MULTICLASS, (len(taught.labels),), labels=taught.labels)
    card = Card(config.name or told.name, told.resize, (output,), told.backbone, (told.cut,), versions=versions())
    identity = {key: value for key, value in card.to_json().items() if key != "versions"}
    text = json.dumps([identity, digest_of_weights(model)], sort_keys=True)
    return dataclasses.replace(card, created_from="sha256:" + hashlib.sha256(text.encode()).hexdigest())


def _told(taught: Taught) -> str:
    training = taught.told.training
    return (
        f"The head was taught on the page from {sum(training.pictures)} pictures of {len(taught.labels)} classes; there it "
        f"got {training.correct} of {sum(training.held_out)} held-out pictures right."
    )
