"""Makers of artifacts that are sound in themselves, and not what their names and papers promise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests import faults_keras, small_models
from tests.faults_workshop import NAMES, Workshop


def float_weights(workshop: Workshop, name: str, out: Path) -> None:
    """Nothing was quantised, whatever the name says."""
    workshop.export(name, workshop.models().saved_model(NAMES[name].precision), out, precision="float32")


def weights_in_float16(workshop: Workshop, name: str, out: Path) -> None:
    workshop.export(name, workshop.models().saved_model("float32"), out, precision="float16")


def whole_numbers_in_float(workshop: Workshop, name: str, out: Path) -> None:
    """Kernels in 8 bits, everything else in float."""
    workshop.export(name, workshop.models().saved_model("int8"), out, precision="dynamic_int8")


def calibrated_on_noise(workshop: Workshop, name: str, out: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, small_models.small().calibration_images.shape, dtype=np.uint8)
    workshop.export(name, workshop.models().saved_model("int8"), out, images=noise)


def calibrated_on_one_picture(workshop: Workshop, name: str, out: Path) -> None:
    images = small_models.small().calibration_images[:1]
    workshop.export(name, workshop.models().saved_model("int8"), out, images=images)


def uncorrected_weights(workshop: Workshop, name: str, out: Path) -> None:
    """Rounded by the converter alone, not by this house."""
    workshop.export(name, workshop.models().saved_model("float32"), out)


def features_of_another_cut(workshop: Workshop, name: str, out: Path) -> None:
    """The heads are right; `features` is the output of another layer."""
    workshop.export(name, workshop.of_another_cut(name), out)


def stale(workshop: Workshop, name: str, folder: Path) -> None:
    """An artifact of an earlier run takes the place of one; its papers and checksums stay as they are."""
    older = workshop.session / "older"
    if not (older / "artifacts" / name).is_dir():
        workshop.export(name, workshop.damaged_folded(faults_keras.another_run, name), older)
    for path in (older / "artifacts" / name).iterdir():
        shutil.copy(path, folder / path.name)


# What catches them.
EXPORTS: dict[Callable[[Workshop, str, Path], None], dict[str, str]] = {
    float_weights: {"": "stored precision", "float32": ""},
    weights_in_float16: {"float32": "stored precision"},
    whole_numbers_in_float: {"tflite-int8": "computed precision, input"},
    calibrated_on_noise: {"int8": "spans", "int16x8": "spans"},
    calibrated_on_one_picture: {"int8": "spans", "int16x8": "spans"},
    # The roundings of 16 bits need no correction.
    uncorrected_weights: {"": "weights", "float32": "", "uint16": ""},
    features_of_another_cut: {"tfjs": "features"},
}
