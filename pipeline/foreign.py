"""Keras models made elsewhere: exported and verified like our own, or compared with an artifact made elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.cloning import clone
from exporters.contract import INPUT_NAME, Card, Output, Resize
from exporters.contract import Backbone as BackboneRecord
from exporters.errors import InputError, nearest
from exporters.golden import GoldenSet, write_golden
from exporters.golden_files import images_of_files, prepare_files
from exporters.inputs import Inputs
from exporters.pixels import load_images
from exporters.runners.keras import KerasRunner
from pipeline import bundle
from pipeline.assembly import MODEL_NAME, lay_flat, save_model
from pipeline.backbones import PIXEL_SCALINGS
from pipeline.backbones.loading import digest_of_weights
from pipeline.backbones.loading_files import FileModel, load_model_file
from pipeline.backbones.recognition import scaling_in_front
from pipeline.backbones.stock import to_stock_layers
from pipeline.config import Config, is_head_name, limits_of, resize_of
from pipeline.dataset import list_examples
from pipeline.features import find_unreadable
from pipeline.reference import SELECTION_IMAGES
from pipeline.run import choose, data_folder, export, split, state_of, versions
from pipeline.scaling import scale_pixels
from pipeline.scores import ranks
from pipeline.splitting import Dataset, Example
from pipeline.stages import StageLog
from pipeline.terminal import Terminal

USUAL_PX = 224
_TASKS = {"softmax": "multiclass", "sigmoid": "multilabel"}


def export_foreign(path: Path, config: Config, pixel_scaling: str | None, out: Path, terminal: Terminal) -> None:
    """Bring a Keras model under the raw-pixel contract and export it to every format asked for.

    Args:
        path: a `.keras` or `.h5` file; nothing that stands in it runs.
        config: whose data, resize, export and parity sections count.
        pixel_scaling: what the model expects of its pixels; None: only for a model that scales them itself.
        out: the result folder, claimed already.
    """
    log = StageLog(terminal.say)
    with log.stage("model", f"loading {path}"):
        loaded = load_foreign(path, trust=config.backbone.trust)
        how = input_size(loaded.model, config)
        flat = to_stock_layers(loaded.flat(how.height, how.width))
        model = wrap(flat, decided_scaling(flat, pixel_scaling, path))
    with log.stage("data", f"listing {config.data.path or '--data'}"):
        root = data_folder(config, terminal)
        examples = list_examples(root, ("label",), config.data.group)
        dataset = split(config, root, examples, find_unreadable(examples, how, config.data.bad_limit), terminal)
    with log.stage("reference", "answers of the Keras model on test pictures"), bundle.staging(out) as staged:
        state = _stage_reference(model, path, how, pixel_scaling, config, dataset, Path(staged), terminal)
        bundle.write_state(Path(staged), {**state, "stages": log.to_json()})
        bundle.replace_results(out, Path(staged))
    export(out, config.export.formats, terminal)


def load_foreign(path: Path, *, trust: bool = False) -> FileModel:
    """Load a `.keras` or `.h5` model as `load_model_file` does, one of Keras 2 too; raises InputError where it cannot be."""
    return load_model_file(path, trust=trust)


def input_size(model: keras.Model, config: Config) -> Resize:
    """Return the resize to the model's own size; raises InputError where the configuration asks for another."""
    height, width = model.inputs[0].shape[1:3]
    asked = resize_of(config, USUAL_PX)
    given = config.resize.width or config.resize.height
    for mine, theirs, name in ((height, asked.height, "height"), (width, asked.width, "width")):
        if given and mine is not None and mine != theirs:
            raise InputError(f"The model takes a {name} of {mine} px.", f"resize.{name} = {mine}", "leave it out")
    return dataclasses.replace(asked, height=height or asked.height, width=width or asked.width)


def decided_scaling(model: keras.Model, pixel_scaling: str | None, path: Path) -> str:
    """Return the pixel scaling that was named, or `none` for a flat model that scales its pixels itself; never a guess."""
    if pixel_scaling is not None:
        if pixel_scaling not in PIXEL_SCALINGS:
            raise InputError(
                f"There is no pixel scaling '{pixel_scaling}'.", nearest(pixel_scaling, PIXEL_SCALINGS), "correct it"
            )
        return pixel_scaling
    if scaling_in_front(model):
        return "none"
    raise InputError(
        f"How {path.name} wants its pixels cannot be told from the file.",
        f"--pixel-scaling {'|'.join(PIXEL_SCALINGS)}: what was done to raw 0..255 pixels in training",
        "none: nothing; unit: / 255; tf: / 127.5 - 1; torch: ImageNet mean and deviation; caffe: BGR minus ImageNet means",
    )


def wrap(model: keras.Model, pixel_scaling: str) -> keras.Model:
    """Return a flat model from raw pixels `image` to a dict of named outputs; `model` is flat and of the size wanted."""
    image = keras.Input(model.inputs[0].shape[1:], name=INPUT_NAME)
    shared = keras.Model(image, _named(model, lay_flat(model, scale_pixels(image, pixel_scaling))), name=MODEL_NAME)
    return clone(shared)


def _named(model: keras.Model, outputs: Any) -> dict[str, keras.KerasTensor]:
    if isinstance(outputs, dict):
        listed = list(outputs.items())
    else:
        values = outputs if isinstance(outputs, list | tuple) else [outputs]
        listed = list(zip(model.output_names, values, strict=True))
    named = {_output_name(name): value for name, value in listed}
    if len(named) != len(listed):
        raise InputError(
            f"The outputs {[name for name, _ in listed]} cannot be told apart.",
            "different names",
            "rename its last layers",
        )
    return named


def _output_name(name: str) -> str:
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    usable = is_head_name(plain)
    return plain if usable else f"output_{plain}"


def _stage_reference(
    model: keras.Model,
    path: Path,
    how: Resize,
    pixel_scaling: str | None,
    config: Config,
    dataset: Dataset,
    staged: Path,
    terminal: Terminal,
) -> dict[str, Any]:
    test = choose(dataset.of_split("test"), config.parity.images, config.seed)
    images = load_images([example.path for example in test], how)
    with KerasRunner(model) as runner:
        reference = runner.predict(images)
        labels = dataset.labels["label"]
        outputs = tuple(describe(model, name, reference[name], labels) for name in sorted(reference))
        card = _card(config, path, how, pixel_scaling, model, outputs)
        files = prepare_files([example.path for example in test], staged)
        of_files = runner.predict(images_of_files(files, card))
    truth = {output.name: indices(test, labels) for output in outputs if output.labels}
    if not truth:
        terminal.say(f"data: no output of the model has the {len(labels)} classes of the data: accuracy is not judged")
    write_golden(GoldenSet(images, truth, reference, card, limits_of(config)), staged, files, of_files)
    calibration = choose(dataset.of_split("train"), config.export.calibration_images, config.seed)
    selection = choose(dataset.of_split("val"), SELECTION_IMAGES, config.seed)
    of_selection = {name: indices(selection, labels) for name in truth}
    for kept, examples, known in (
        (bundle.CALIBRATION, calibration, {}),
        (bundle.SELECTION, selection, of_selection),
    ):
        inputs = Inputs(load_images([example.path for example in examples], how))
        bundle.write_inputs(staged, kept, inputs, known)
    save_model(model, staged / bundle.MODEL)
    card.write(staged / bundle.CARD)
    tasks = {output.name: output.task for output in outputs}
    accuracy = {name: float((ranks(tasks[name], reference[name]) == truth[name]).mean()) for name in truth}
    return state_of(config, dataset, card, {}, {"accuracy": accuracy, "images": len(test)})


def describe(model: keras.Model, name: str, answers: np.ndarray, labels: tuple[str, ...]) -> Output:
    """Tell what an output is from its layer's activation and its answers (N, ...) to real pictures.

    It carries the labels where it classifies and has as many classes as the data.
    """
    tensors = (
        model.output if isinstance(model.output, dict) else dict(zip(model.output_names, model.outputs, strict=True))
    )
    layer = tensors[name]._keras_history.operation
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    task = _TASKS.get(activation, "regression")
    if task == "multilabel" and answers.shape[1:] == (1,):
        task = "binary"
    if task == "multiclass" and answers.ndim == 4:
        task = "segmentation"
    sums_to_one = answers.ndim == 2 and answers.shape[-1] > 1 and np.allclose(answers.sum(-1), 1, atol=1e-3)
    if task == "regression" and sums_to_one and answers.min() >= 0:
        task, activation = "multiclass", "softmax"
    classes = {"multiclass": answers.shape[-1], "binary": 2}.get(task)
    named = labels if classes == len(labels) else ()
    return Output(name, "foreign", task, tuple(answers.shape[1:]), "float32", activation, named)


def _card(
    config: Config, path: Path, how: Resize, pixel_scaling: str | None, model: keras.Model, outputs: tuple[Output, ...]
) -> Card:
    weights = digest_of_weights(model)
    record = BackboneRecord(model.name, None, weights, pixel_scaling or "none")
    card = Card(config.name or path.stem, how, outputs, record, (), versions=versions())
    identity = {key: value for key, value in card.to_json().items() if key != "versions"}
    text = json.dumps([identity, weights], sort_keys=True)
    return dataclasses.replace(card, created_from="sha256:" + hashlib.sha256(text.encode()).hexdigest())


def indices(examples: tuple[Example, ...], labels: tuple[str, ...]) -> np.ndarray:
    """Return the class indices of the examples' labels, int64 (N,)."""
    positions = {label: index for index, label in enumerate(labels)}
    return np.array([positions[example.targets["label"]] for example in examples], np.int64)
