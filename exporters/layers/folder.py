"""Traces every artifact of a result folder: where does it leave the Keras model? The one part of verifying that needs Keras."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.errors import InputError, NotVerifiedError
from exporters.golden import ARTIFACTS, GoldenSet, read_golden, read_manifest
from exporters.layers.tracing import NOT_TRACED, trace_artifact
from exporters.measures import spread

IMAGES = 12
# The same model on the same images: another machine's arithmetic, at most.
LARGEST_DIFFERENCE = 1e-3


def trace_folder(
    out: Path, artifacts: list[dict[str, Any]], progress: Callable[[str], None] = lambda name: None
) -> None:
    """Put `layers` into the entries of a report's artifacts.

    Args:
        out: the result folder, with `model.keras`.
        artifacts: of the report, as `verify_folder` gives them; those that were not loaded are left alone.
        progress: called with each artifact's name before it is traced.

    Raises:
        NotVerifiedError: Keras is not installed.
        InputError: there is no Keras model, or it is another one than that of the golden set.
    """
    golden = read_golden(out, read_manifest(out))
    chosen = spread(len(golden.images), IMAGES)
    images = golden.inputs[chosen]
    reference = _reference(out, golden, chosen)
    for entry in artifacts:
        progress(entry["name"])
        if "audit" not in entry:
            entry["layers"] = {"status": NOT_TRACED, "reason": "the artifact was not loaded", "images": 0}
            entry["layers"] |= {"first_off": None, "rows": []}
            continue
        entry["layers"] = trace_artifact(out / ARTIFACTS / entry["name"], entry["format"], images, reference)


def _reference(out: Path, golden: GoldenSet, chosen: np.ndarray) -> Any:
    try:
        module = importlib.import_module("exporters.layers.reference")
        runner = importlib.import_module("exporters.runners.keras").KerasRunner
    except ImportError as fault:
        raise NotVerifiedError(
            f"Layers cannot be compared: {fault}.",
            "Keras and a backend for it",
            "pip install 'cutpoint[train]', or leave out --layers",
        ) from fault
    model = module.load_model(out)
    with runner(model) as running:
        answers = running.predict(golden.inputs[chosen])
    for name, expected in golden.reference.items():
        found = answers.get(name)
        if found is None or found.shape != expected[chosen].shape or _apart(found, expected[chosen]):
            raise InputError(
                f"{out / 'model.keras'} does not answer as the golden set says for '{name}'.",
                "the Keras model that the artifacts were made from",
                "export the model again, or leave out --layers",
            )
    return module.reference_of(model)


def _apart(found: np.ndarray, expected: np.ndarray) -> bool:
    return not float(np.abs(found - expected).max(initial=0.0)) <= LARGEST_DIFFERENCE
