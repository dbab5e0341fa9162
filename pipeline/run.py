"""The stages, top to bottom: data, features, heads, assembly, export, verify. Read this first.

`train` needs Keras with any backend; `export` needs TensorFlow; `verify` needs neither.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import random
from pathlib import Path
from typing import Any

import msgspec

from exporters.contract import SCHEMA_VERSION, Card, Limits, parse_formats
from exporters.errors import InputError, NotVerifiedError
from exporters.golden import golden_images, write_manifest
from exporters.report import write_reports
from exporters.verification import read_report, verify_folder
from pipeline import bundle
from pipeline.augmentation import check_augmentation
from pipeline.backbones import backbone_row, check_backbone
from pipeline.backbones.origin import check_foreign, is_of_table, size_of_foreign
from pipeline.column_checks import check_columns
from pipeline.columns import check_data
from pipeline.config import QUICKSTART, Config, limits_of, resize_of
from pipeline.dataset import list_examples
from pipeline.heads import check_head
from pipeline.heads.sharing import check_sharing
from pipeline.splitting import Dataset, Example, split_dataset
from pipeline.stages import StageLog
from pipeline.targets import check_labels, readings_of
from pipeline.terminal import Terminal

# The size of pictures where neither the configuration nor the backbone names one.
USUAL_PX = 224
VERSIONS_OF = (
    "keras",
    "tensorflow",
    "tensorflowjs",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "numpy",
    "pillow",
)


def run(config: Config, out: Path, terminal: Terminal) -> dict[str, Any]:
    """Train, export and verify; returns report.json's content.

    Args:
        config: the checked configuration.
        out: the result folder, claimed already.
        terminal: where progress goes.

    Raises:
        InputError: something that the user gave is wrong.
    """
    choose_tensorflow()
    train(config, out, terminal)
    export(out, config.export.formats, terminal)
    return verify(out, terminal, runtimes=config.parity.runtimes)


def train(config: Config, out: Path, terminal: Terminal) -> None:
    """From pictures to `model.keras`, its card, the golden images and what `export` needs; all moved in at once."""
    check(config)
    log = StageLog(terminal.say)
    with log.stage("data", f"listing {config.data.path}"):
        root = data_folder(config, terminal)
        examples = list_examples(root, readings_of(config), config.data.group, config.columns)
        check_labels(config, examples)
        terminal.say(f"data: {len(examples)} pictures")
    prepare_keras(config.device)
    training = importlib.import_module("pipeline.teaching")
    with bundle.staging(out) as staged:
        state = training.teach(config, root, examples, Path(staged), log, terminal)
        bundle.write_state(Path(staged), {**state, "stages": log.to_json()})
        bundle.replace_results(out, Path(staged))


def choose_tensorflow() -> None:
    """Make TensorFlow Keras's backend, which exporting needs; raises InputError where another one is asked for."""
    # The variable goes before a backend that is named in keras.json.
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise InputError(
            f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']}.",
            "tensorflow: the converters trace the model with it",
            "unset KERAS_BACKEND, or use `cutpoint train` with it and `cutpoint export` without",
        )


def check(config: Config) -> None:
    """Raise InputError for whatever can be seen to be wrong at once: before a folder is made or Keras is loaded."""
    if not config.heads:
        raise InputError("The configuration has no head.", "at least one table [heads.NAME]", "add [heads.label]")
    for section in config.heads.values():
        check_head(section)
    check_sharing(config)
    check_columns(config)
    check_augmentation(config)
    if is_of_table(config.backbone):
        check_backbone(config.backbone, usual_resize(config))
    else:
        check_foreign(config.backbone)
    if not config.data.path:
        raise InputError("No data are named.", "a folder per class, or a CSV", "set --data or data.path")
    if config.data.path != QUICKSTART and not Path(config.data.path).expanduser().exists():
        raise InputError(
            f"The data {config.data.path} is not there.", "a folder per class, or a CSV", "set --data or data.path"
        )
    if config.data.path != QUICKSTART:
        check_data(Path(config.data.path).expanduser(), config.columns)
    bundle.cache_folder()


def data_folder(config: Config, terminal: Terminal) -> Path:
    """Return the data's path; for `quickstart` the drawings are made first, where they are not in the cache yet."""
    if config.data.path != QUICKSTART:
        return Path(config.data.path).expanduser()
    drawings = importlib.import_module("pipeline.quickstart.drawings")
    # Named after the code that draws them, so that other drawings never pass for these.
    folder = bundle.cache_folder() / "cutpoint-drawings" / drawings.fingerprint()[:24]
    if not folder.is_dir():
        terminal.say("data: drawing the quickstart's pictures")
        try:
            drawings.make_drawings(folder)
        except OSError:
            # Another run may have drawn the same pictures meanwhile.
            if not folder.is_dir():
                raise
    return folder


def prepare_keras(device: str) -> None:
    """Choose the device before any backend is loaded; Keras's own KERAS_BACKEND rules the backend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"


def split(
    config: Config, root: Path, examples: tuple[Example, ...], bad: dict[str, str], terminal: Terminal
) -> Dataset:
    """Split the readable pictures and say what was left out."""
    dataset = split_dataset(examples, bad, config.data.split, config.seed, root, readings_of(config))
    tell_split(dataset, terminal)
    return dataset


def tell_split(dataset: Dataset, terminal: Terminal) -> None:
    """Say how many pictures each split has, what was left out, and why."""
    counts = ", ".join(f"{len(dataset.of_split(name))} {name}" for name in ("train", "val", "test"))
    terminal.say(f"data: {counts}; {len(dataset.skipped)} skipped")
    for path, reason in dataset.skipped:
        terminal.say(f"data: skipped {path}: {reason}")
    for note in dataset.notes:
        terminal.say(f"data: {note}")


def choose(examples: tuple[Example, ...], count: int, seed: int) -> tuple[Example, ...]:
    """Choose at most `count` examples, seeded, in a fixed order."""
    if len(examples) <= count:
        return examples
    chosen = set(random.Random(seed).sample(range(len(examples)), count))
    return tuple(example for index, example in enumerate(examples) if index in chosen)


def versions() -> dict[str, str]:
    """Return package -> version of what makes and runs the artifacts, where it is installed."""
    found = {}
    for package in ("cutpoint", *VERSIONS_OF):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def export(out: Path, formats: tuple[str, ...], terminal: Terminal) -> None:
    """Export a trained model to every format asked for, and write the golden set's manifest over all of it.

    Raises:
        InputError: an artifact cannot be made of this model; the others are there, and can be verified.
    """
    names = parse_formats(formats)
    state = bundle.read_state(out)
    choose_tensorflow()
    prepare_keras("auto")
    log = StageLog(terminal.say)
    shipping = importlib.import_module("pipeline.shipping")
    limits = {precision: Limits(**each) for precision, each in state["limits"].items()}
    # Without the manifest nothing passes for verified: it goes first and comes back last.
    (out / "golden" / "manifest.json").unlink(missing_ok=True)
    refused = shipping.ship(out, names, state, log, terminal)
    # The first is raised, and said by whoever catches it; precisions of one format are refused in the same words.
    for what in dict.fromkeys(each.what for each in refused if each.what != refused[0].what):
        terminal.say(f"export: {what}")
    if len(refused) == len(names):
        raise refused[0]
    write_manifest(out, bundle.read_card(out), limits, publish=state.get("publish", "samples"))
    kept = [stage for stage in state["stages"] if not stage["name"].startswith("export")]
    bundle.write_state(out / bundle.MARK, {**state, "stages": kept + log.to_json()})
    if refused:
        raise refused[0]


def verify(
    out: Path, terminal: Terminal, *, runtimes: tuple[str, ...] = ("auto",), layers: bool = False
) -> dict[str, Any]:
    """Judge every artifact of a result folder in its runtimes and write the reports.

    `runtimes` are as in the configuration; `layers` compares layer by layer too, which needs Keras.

    Works on a folder that was carried here without its `.cutpoint`, and without TensorFlow or Keras.
    """
    log = StageLog(terminal.say)
    with log.stage("verify", f"the artifacts of {out}"):
        judged = verify_folder(out, lambda name: terminal.say(f"verify: {name}"), runtimes=runtimes)
    if layers:
        with log.stage("layers", "where the artifacts leave the Keras model"):
            tracing = importlib.import_module("exporters.layers.folder")
            try:
                tracing.trace_folder(out, judged["artifacts"], lambda name: terminal.say(f"layers: {name}"))
            except NotVerifiedError as fault:
                # What was found out without Keras is not lost for that.
                judged["notes"].append(f"{fault.what} {fault.mend}.")
                terminal.say(f"layers: {fault}")
                if judged["exit_code"] == 0:
                    judged |= {"verdict": "not_verified", "exit_code": fault.exit_code}
    trained = _report_of_training(out)
    notes = dict.fromkeys([*trained.get("notes", []), *judged["notes"]])
    report = {**trained, **judged, "notes": list(notes)}
    stages = [stage for stage in report["stages"] if stage["name"] not in ("verify", "layers")]
    report["stages"] = stages + log.to_json()
    _add_seconds(report["artifacts"], stages)
    try:
        write_reports(report, out, images=golden_images(out))
    except OSError as fault:
        terminal.say(f"verify: the reports in {out} are left as they were: {fault.strerror or fault}")
    return report


def _add_seconds(artifacts: list[dict[str, Any]], stages: list[dict[str, Any]]) -> None:
    """Put the seconds that each way of making a precision took beside its figures, where they were made by this folder's run."""
    of_artifact = {stage["name"].removeprefix("export "): stage["ways_s"] for stage in stages if stage.get("ways_s")}
    of_precision = {each["precision"]: of_artifact[each["name"]] for each in artifacts if each["name"] in of_artifact}
    for each in artifacts:
        for way in each.get("made", {}).get("ways", []):
            seconds = of_precision.get(each["precision"], {}).get(way["name"])
            if seconds is not None:
                way["wall_s"] = seconds


def _report_of_training(out: Path) -> dict[str, Any]:
    """Return the part of the report that verifying does not find anew."""
    try:
        state = bundle.read_state(out)
    except InputError:
        state = read_report(out)
    keys = ("name", "seed", "data", "training", "reference", "notes", "stages", "advice")
    kept = {key: state[key] for key in keys if key in state}
    card = Card.read(out / bundle.CARD).to_json() if (out / bundle.CARD).is_file() else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "",
        "exit_code": 0,
        "cutpoint_version": versions().get("cutpoint", ""),
        "stages": [],
        **kept,
        "card": card,
    }


def formats_of(out: Path) -> tuple[str, ...]:
    """Return the formats that the run's configuration asked for."""
    return tuple(bundle.read_state(out)["formats"])


def state_of(config: Config, dataset: Dataset, card: Card, training: dict, reference: dict) -> dict[str, Any]:
    """Return what `train` leaves for the later stages: the report's parts, the limits, the configuration."""
    counts = {name: len(dataset.of_split(name)) for name in ("train", "val", "test")}
    labels = {output.name: list(output.labels) for output in card.outputs if output.labels}
    skipped = [{"path": path, "reason": reason} for path, reason in dataset.skipped]
    limits = limits_of(config)
    return {
        "name": card.name,
        "seed": config.seed,
        "data": {**counts, "labels": labels, "skipped": skipped, "fingerprint": dataset.fingerprint},
        "training": training,
        "reference": reference,
        "notes": list(dataset.notes),
        "limits": {precision: msgspec.to_builtins(each) for precision, each in limits.items()},
        "features_everywhere": config.export.features,
        "formats": list(config.export.formats),
        "publish": config.golden.publish,
    }


def result_name(config: Config) -> str:
    """Return the run's name: the configuration's, else that of the data's folder or file."""
    return config.name or _name_of_data(config.data.path)


def _name_of_data(path: str) -> str:
    if path == QUICKSTART:
        return QUICKSTART
    resolved = Path(path).resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def usual_resize(config: Config) -> Any:
    """Return the resize, at the backbone's usual size where the configuration names none."""
    if is_of_table(config.backbone):
        return resize_of(config, backbone_row(config.backbone.name).usual_px)
    height, width = size_of_foreign(config.backbone)
    asked = resize_of(config, USUAL_PX)
    given = config.resize.width or config.resize.height
    return asked if given else dataclasses.replace(asked, height=height or asked.height, width=width or asked.width)
