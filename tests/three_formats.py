"""A result folder of the small model in TF.js, TFLite and ONNX, for the tests of a page that shows them side by side."""

from __future__ import annotations

import functools
from pathlib import Path

from exporters.contract import ArtifactName
from exporters.export import export_artifact
from tests import small_models

ARTIFACTS = ("tfjs-float32", "tflite-float32", "tflite-int8", "onnx-float32")


@functools.cache
def result_folder(session_folder: Path) -> Path:
    """One result for all tests of a session, which leave it as it is; its golden set publishes three pictures."""
    out, one = session_folder / "three_formats", small_models.small()
    saved = small_models.saved_model(session_folder)
    for name in ARTIFACTS:
        artifact = ArtifactName(*name.split("-"))
        export_artifact(artifact, saved, one.card, out / "artifacts", one.calibration_images)
    small_models.write_golden_of(out, one)
    return out
