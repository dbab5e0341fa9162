"""Compares an artifact made elsewhere with the Keras model that it was made from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters import measures, parity
from exporters.audit.auditing import audit
from exporters.contract import CEILINGS, FORMATS, SCHEMA_VERSION, ArtifactName, Card, Runtime
from exporters.contract import Backbone as BackboneRecord
from exporters.errors import InputError, NotVerifiedError, ParityError, nearest
from exporters.golden import GoldenSet
from exporters.pixels import load_images
from exporters.report import write_reports
from exporters.runners.keras import KerasRunner
from exporters.runtimes import Plan, plan_runtimes, run_artifact
from exporters.verification import judge, judge_answers
from pipeline.config import Config, limits_of
from pipeline.dataset import list_examples
from pipeline.features import find_unreadable
from pipeline.foreign import decided_scaling, describe, indices, input_size, load_foreign
from pipeline.run import choose, data_folder, versions
from pipeline.scaling import scale_pixels
from pipeline.scores import ranks
from pipeline.splitting import relative_path
from pipeline.terminal import Terminal


def verify_foreign(
    reference: Path,
    artifact: Path,
    config: Config,
    pixel_scaling: str,
    precision: str,
    terminal: Terminal,
    out: Path | None = None,
) -> dict[str, Any]:
    """Compare an artifact made elsewhere with its Keras model on pictures.

    Args:
        reference: the Keras model.
        artifact: `model.json`, a `.tflite` or a `.onnx` file.
        config: whose data, resize and parity sections count.
        pixel_scaling: done to the raw pixels before both get them.
        precision: whose limits judge the artifact.
        terminal: where progress goes.
        out: a folder for the reports, made where it is missing; None: none are written.

    Returns:
        report.json's content.
    """
    if precision not in CEILINGS:
        raise InputError(f"There is no precision '{precision}'.", nearest(precision, CEILINGS), "set --precision")
    format_name = _format_of(artifact)
    loaded = load_foreign(reference, trust=config.backbone.trust)
    how = input_size(loaded.model, config)
    # As it was saved, where Keras computes it so: laying it flat is a step that could go wrong.
    model = loaded.flat(how.height, how.width) if loaded.flips else loaded.model
    scaling = decided_scaling(model, pixel_scaling, reference)
    root = data_folder(config, terminal)
    examples = list_examples(root, ("label",), config.data.group)
    bad = find_unreadable(examples, how, config.data.bad_limit)
    chosen = choose(tuple(each for each in examples if each.sha256 not in bad), config.parity.images, config.seed)
    images = _scaled(load_images([example.path for example in chosen], how), scaling)
    labels = tuple(sorted({example.targets["label"] for example in examples}))
    with KerasRunner(model) as runner:
        expected = runner.predict(images)
    outputs = tuple(describe(model, name, expected[name], labels) for name in sorted(expected))
    truth = {output.name: indices(chosen, labels) for output in outputs if output.labels}
    card = Card(reference.stem, how, outputs, BackboneRecord(model.name, None, "", scaling), ())
    golden = GoldenSet(images, truth, expected, card, limits_of(config))
    plan = plan_runtimes(config.parity.runtimes)
    concerned = {str(runtime) for runtime in FORMATS[format_name].runtimes}
    entry = _judge_foreign(artifact, ArtifactName(format_name, precision), golden, plan)
    tasks = {output.name: output.task for output in outputs}
    accuracy = {name: float((ranks(tasks[name], expected[name]) == truth[name]).mean()) for name in truth}
    report = {
        "schema_version": SCHEMA_VERSION,
        "cutpoint_version": versions().get("cutpoint", ""),
        "name": reference.stem,
        "seed": config.seed,
        "data": {
            "test": len(chosen),
            "skipped": [
                {"path": relative_path(each.path, root), "reason": bad[each.sha256]}
                for each in examples
                if each.sha256 in bad
            ],
        },
        "stages": [],
        "reference": {"accuracy": accuracy, "images": len(chosen)},
        "artifacts": [entry],
        "not_run": [dict(each) for each in plan.not_run if each["runtime"] in concerned],
        **judge([entry], {"status": "verified"}),
    }
    if out is not None:
        _write_reports(report, out, images)
    return report


def _write_reports(report: dict[str, Any], out: Path, images: np.ndarray) -> None:
    try:
        write_reports(report, out, images=images if images.dtype == np.uint8 else None)
    except OSError as fault:
        raise InputError(
            f"The reports cannot be written to {out}: {fault.strerror or fault}.",
            "a folder to write to",
            "name another with --out",
        ) from fault


def _format_of(artifact: Path) -> str:
    if not artifact.is_file():
        raise InputError(
            f"The artifact {artifact} is not there.", "model.json, a .tflite or a .onnx file", "check the path"
        )
    for name, row in FORMATS.items():
        if artifact.suffix == Path(row.file).suffix:
            return name
    raise InputError(
        f"{artifact.name} is of no known format.",
        f"a file like {', '.join(row.file for row in FORMATS.values())}",
        "give the artifact's model file",
    )


def _scaled(images: np.ndarray, pixel_scaling: str) -> np.ndarray:
    if pixel_scaling == "none":
        return images
    image = keras.Input(images.shape[1:])
    model = keras.Model(image, scale_pixels(image, pixel_scaling))
    return np.asarray(model.predict(images.astype(np.float32), verbose=0), np.float32)


def _judge_foreign(artifact: Path, name: ArtifactName, golden: GoldenSet, plan: Plan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        target = folder / FORMATS[name.format].file
        target.symlink_to(artifact.resolve())
        # What lies beside it may belong to it, as shards do; but a file of the expected name is another model.
        for each in artifact.parent.iterdir():
            if each.is_file() and each.name != target.name:
                (folder / each.name).symlink_to(each.resolve())
        return {
            "name": artifact.name,
            "format": name.format,
            "precision": name.precision,
            "size_bytes": artifact.stat().st_size,
            "audit": audit(folder, name, None, None),
            "runtimes": [_run_foreign(each, folder, name, golden) for each in plan.of_format(name.format)],
        }


def _run_foreign(runtime: Runtime, folder: Path, name: ArtifactName, golden: GoldenSet) -> dict[str, Any]:
    entry: dict[str, Any] = {"runner": runtime.name, "backend": runtime.backend, "of_images": len(golden.images)}
    entry |= {"version": "", "images": 0, "latency_ms": {}, "outputs": {}}
    try:
        chosen = measures.spread(len(golden.images), runtime.images or len(golden.images))
        answers = run_artifact(runtime, folder, golden.images[chosen], golden.images[:0])
    except NotVerifiedError as fault:
        return entry | {"status": parity.NOT_VERIFIED, "reason": str(fault)}
    except (ParityError, InputError) as fault:
        return entry | {"status": parity.FAILED, "reason": fault.what}
    entry |= answers.facts
    matched = _matched(dict(answers.outputs), golden)
    return entry | judge_answers(golden, matched, golden.limits[name.precision], chosen if runtime.images else None)


def _matched(answers: dict[str, np.ndarray], golden: GoldenSet) -> dict[str, np.ndarray]:
    """Give the artifact's outputs the names of the Keras model's, where there is one way to do so."""
    if set(answers) == set(golden.reference):
        return answers
    # A sample of the images has fewer rows than the reference: outputs are told apart by what comes after.
    if len(answers) == len(golden.reference) == 1:
        return {next(iter(golden.reference)): next(iter(answers.values()))}
    by_shape: dict[tuple, list[str]] = {}
    for name, values in answers.items():
        by_shape.setdefault(values.shape[1:], []).append(name)
    wanted = {name: by_shape.get(values.shape[1:], []) for name, values in golden.reference.items()}
    if all(len(each) == 1 for each in wanted.values()):
        return {name: answers[each[0]] for name, each in wanted.items()}
    return answers
