"""The part of a run that needs Keras: features, heads, assembly, reference answers. Any Keras backend."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import Backbone as BackboneRecord
from exporters.contract import Card, Output, Resize
from exporters.errors import CutpointError
from exporters.export import keep_in_cache
from exporters.golden import FEATURES_IMAGES, GoldenSet, write_golden
from exporters.golden_files import images_of_files, prepare_files
from exporters.measures import spread
from exporters.pixels import load_images
from exporters.runners.keras import KerasRunner
from pipeline import bundle
from pipeline.assembly import assemble, feature_extractor, save_model
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights, load_backbone
from pipeline.config import Config, HeadSection, limits_of
from pipeline.cut import resolve_cut, truncate
from pipeline.features import FeatureStore, extract_features, fastest_compute
from pipeline.heads import build_head, pooling_of
from pipeline.run import choose, result_name, split, state_of, usual_resize, versions
from pipeline.splitting import Dataset, Example
from pipeline.stages import StageLog
from pipeline.terminal import Terminal
from pipeline.training import TrainingData, check_device, train_head

# The assembled model and the head on cached features are the same arithmetic, up to the order of additions.
LARGEST_ASSEMBLY_DIFFERENCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Taught:
    """One trained head on its features: `answers` float32 (N, classes) on all test pictures, `history` of training."""

    pooling: str
    head: keras.Model
    history: dict[str, Any]
    answers: np.ndarray


def teach(
    config: Config, root: Path, examples: tuple[Example, ...], staged: Path, log: StageLog, terminal: Terminal
) -> dict[str, Any]:
    """Write `model.keras`, `card.json`, the golden set and the calibration images into `staged`.

    Returns:
        What the later stages must know; see `pipeline.run.state_of`.
    """
    device = check_device(config.device)
    how = usual_resize(config)
    with log.stage("backbone", f"{config.backbone.name} alpha {config.backbone.alpha:g}, {config.backbone.weights}"):
        backbone = load_backbone(config.backbone, how)
        cut = resolve_cut(backbone.model, config.backbone.cut, config.backbone.name)
        truncated = truncate(backbone.model, cut)
    poolings = sorted({pooling_of(section) for section in config.heads.values()})
    with log.stage("features", f"of {len(examples)} pictures at '{cut}'") as stage:
        stores, bad, computed = _extract(config, backbone, truncated, poolings, examples, how, device, terminal)
        stage.cached = computed == 0
        terminal.say(f"features: {computed} computed, {len(examples) - computed - len(bad)} from the cache")
    dataset = split(config, root, examples, bad, terminal)
    with log.stage("heads", f"training {', '.join(sorted(config.heads))} on the {device}") as stage:
        taught, stage.cached = _teach_heads(config, dataset, stores, device, terminal)
    with log.stage("assembly", "one Keras model, raw pixels in"):
        model = assemble(
            truncated,
            backbone.pixel_scaling,
            {name: (each.pooling, each.head) for name, each in taught.items()},
        )
        card = _card(config, how, backbone, cut, model, taught, dataset)
        save_model(model, staged / bundle.MODEL)
        card.write(staged / bundle.CARD)
    with log.stage("reference", "answers of the Keras model on test pictures"):
        _write_reference(config, model, card, dataset, taught, staged)
    return state_of(config, dataset, card, _histories(taught), _reference(config, dataset, taught))


def _extract(
    config: Config,
    backbone: LoadedBackbone,
    truncated: keras.Model,
    poolings: list[str],
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    terminal: Terminal,
) -> tuple[dict[str, FeatureStore], dict[str, str], int]:
    stores, bad, computed = {}, {}, 0
    for pooling in poolings:
        extractor = feature_extractor(truncated, backbone.pixel_scaling, pooling)
        key = {
            "weights": digest_of_weights(truncated),
            # The first is the input, which Keras numbers anew for each network of a process.
            "layers": [layer.name for layer in truncated.layers[1:]],
            "resize": dataclasses.asdict(how),
            "pixel_scaling": backbone.pixel_scaling,
            "pooling": pooling,
            "decoder": 1,
        }
        with (
            FeatureStore(bundle.cache_folder(), key, extractor.output_shape[-1]) as store,
            terminal.progress("features") as progress,
        ):
            found, count = extract_features(
                store,
                examples,
                how,
                lambda extractor=extractor: fastest_compute(extractor, len(examples), device, terminal.say),
                config.data.bad_limit,
                progress,
            )
        stores[pooling], bad, computed = store, bad | found, max(computed, count)
    return stores, bad, computed


def _teach_heads(
    config: Config, dataset: Dataset, stores: Mapping[str, FeatureStore], device: str, terminal: Terminal
) -> tuple[dict[str, Taught], bool]:
    taught, cached = {}, True
    for name, section in sorted(config.heads.items()):
        store = stores[pooling_of(section)]
        labels = dataset.labels[section.target]
        arrays = {
            part: (_features(store, dataset.of_split(part)), _indices(dataset.of_split(part), section.target, labels))
            for part in ("train", "val", "test")
        }
        data = TrainingData(*arrays["train"], *arrays["val"])
        head, history, was_cached = _teach_one(name, section, config, data, len(labels), device, terminal)
        cached = cached and was_cached
        answers = np.asarray(head.predict(arrays["test"][0], batch_size=256, verbose=0), np.float32)
        taught[name] = Taught(pooling_of(section), head, history, answers)
        accuracy = float((answers.argmax(-1) == arrays["test"][1]).mean())
        terminal.say(f"heads: {name}: accuracy {accuracy:.3f} on {len(answers)} test pictures")
    return taught, cached


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


def _features(store: FeatureStore, examples: tuple[Example, ...]) -> np.ndarray:
    return store.gather([example.sha256 for example in examples])


def _indices(examples: tuple[Example, ...], target: str, labels: tuple[str, ...]) -> np.ndarray:
    positions = {label: index for index, label in enumerate(labels)}
    return np.array([positions[example.targets[target]] for example in examples], np.int64)


def _card(
    config: Config,
    how: Resize,
    backbone: LoadedBackbone,
    cut: str,
    model: keras.Model,
    taught: Mapping[str, Taught],
    dataset: Dataset,
) -> Card:
    outputs = tuple(
        Output(
            name=name,
            kind=config.heads[name].kind,
            task=config.heads[name].task,
            shape=(len(dataset.labels[config.heads[name].target]),),
            labels=dataset.labels[config.heads[name].target],
        )
        for name in sorted(taught)
    )
    record = BackboneRecord(
        config.backbone.name, config.backbone.alpha, backbone.weights_sha256, backbone.pixel_scaling
    )
    card = Card(result_name(config), how, outputs, record, (cut,), versions=versions())
    # What the model is, and nothing of when or with which versions it was made.
    identity = {key: value for key, value in card.to_json().items() if key != "versions"}
    text = json.dumps([identity, digest_of_weights(model), dataset.fingerprint], sort_keys=True)
    return dataclasses.replace(card, created_from="sha256:" + hashlib.sha256(text.encode()).hexdigest())


def _write_reference(
    config: Config, model: keras.Model, card: Card, dataset: Dataset, taught: Mapping[str, Taught], staged: Path
) -> None:
    test = dataset.of_split("test")
    chosen = choose(test, config.parity.images, config.seed)
    images = load_images([example.path for example in chosen], card.resize)
    truth = {name: _indices(chosen, config.heads[name].target, card.output(name).labels) for name in sorted(taught)}
    files = prepare_files([example.path for example in chosen], staged)
    with KerasRunner(model) as runner:
        reference = runner.predict(images)
        of_files = runner.predict(images_of_files(files, card))
    chosen_ones = {id(example) for example in chosen}
    positions = [index for index, example in enumerate(test) if id(example) in chosen_ones]
    for name, each in taught.items():
        difference = float(np.abs(reference[name] - each.answers[positions]).max())
        if not difference <= LARGEST_ASSEMBLY_DIFFERENCE:
            raise CutpointError(
                f"The assembled model answers otherwise than the head '{name}' on its features: {difference:.2g} apart.",
                f"at most {LARGEST_ASSEMBLY_DIFFERENCE:g}",
                "clear the cache with `cutpoint cache --clear` and run again; report it if it stays",
            )
    features = _reference_features(model, card, images)
    golden = GoldenSet(images, truth, reference, card, limits_of(config), features=features)
    write_golden(golden, staged, files, of_files)
    calibration = choose(dataset.of_split("train"), config.export.calibration_images, config.seed)
    pixels = load_images([example.path for example in calibration], card.resize)
    np.savez_compressed(staged / bundle.CALIBRATION, images=pixels)


def _reference_features(model: keras.Model, card: Card, images: np.ndarray) -> np.ndarray | None:
    """Return the cut point's output for a few of the golden images, float32 (M, height, width, channels)."""
    if not card.cut or not len(images):
        return None
    extractor = keras.Model(model.inputs, model.get_layer(card.cut[0]).output)
    chosen = images[spread(len(images), FEATURES_IMAGES)].astype(np.float32)
    return np.asarray(keras.ops.convert_to_numpy(extractor(chosen, training=False)), np.float32)


def _histories(taught: Mapping[str, Taught]) -> dict[str, Any]:
    return {name: each.history for name, each in taught.items()}


def _reference(config: Config, dataset: Dataset, taught: Mapping[str, Taught]) -> dict[str, Any]:
    test = dataset.of_split("test")
    accuracy, confusion = {}, {}
    for name, each in taught.items():
        target = config.heads[name].target
        labels = dataset.labels[target]
        truth, answer = _indices(test, target, labels), each.answers.argmax(-1)
        accuracy[name] = float((truth == answer).mean())
        table = np.zeros((len(labels), len(labels)), int)
        np.add.at(table, (truth, answer), 1)
        confusion[name] = table.tolist()
    return {"accuracy": accuracy, "images": len(test), "confusion": confusion}
