"""Judges the feature maps that an artifact gives beside its heads: each cut's, by name and by value. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporters import measures, parity
from exporters.contract import features_names
from exporters.golden import GoldenSet
from exporters.inputs import Inputs

# The largest relative error (root mean square) of the cut point's output: another layer's is off by more than 1.
FEATURES_LIMITS = {"float32": 1e-3, "float16": 1e-2, "uint16": 1e-2, "dynamic_int8": 0.15, "int8": 0.35}


def inputs_of_features(golden: GoldenSet) -> Inputs:
    """Return the golden images, with columns, whose feature maps the golden set holds: M of them; one where it holds none."""
    count = min((len(values) for values in golden.features.values()), default=min(1, len(golden.images)))
    return golden.inputs.sample(count)


def judge_features(features: Mapping[str, np.ndarray], golden: GoldenSet, precision: str) -> dict[str, Any] | None:
    """Compare an artifact's feature maps with the Keras model's, by name and by value.

    Args:
        features: name of an output -> float32 (M, height, width, channels) of the artifact.
        golden: what they are compared with; its card says which there must be.
        precision: by whose limit.

    Returns:
        `{"images", "relative", "status", "reason", "outputs": {name: {"cut", "relative", "status", "reason"}}}`, the first
        four over all of them; None where the card names no cut and the artifact gives no features.
    """
    promised = {name: layer for layer, name in features_names(golden.card.cut).items()}
    compared: dict[str, dict[str, Any]] = {}
    for name in sorted({*promised, *features}):
        status, reason, relative = _judge_map(name, name in promised, features, golden.features, precision)
        compared[name] = {"cut": promised.get(name), "relative": relative, "status": status, "reason": reason}
    if not compared:
        return None
    known = [each["relative"] for each in compared.values() if each["relative"] is not None]
    return {
        "images": min((len(values) for values in features.values()), default=0),
        "relative": max(known, default=None),
        "status": parity.worst([each["status"] for each in compared.values()]),
        "reason": "; ".join(f"{name}: {each['reason']}" for name, each in compared.items() if each["reason"]),
        "outputs": compared,
    }


def _judge_map(
    name: str,
    promised: bool,
    features: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    precision: str,
) -> tuple[str, str, float | None]:
    """Return status, reason and relative error of one feature map."""
    if name not in features:
        return parity.FAILED, "the artifact has no such output", None
    if not promised:
        return parity.FAILED, "the card names no cut that it could be of", None
    if name not in reference:
        return parity.NOT_VERIFIED, "the golden set holds no features to compare with", None
    found, expected = features[name], reference[name]
    if found.shape != expected.shape:
        return parity.FAILED, f"they have the shape {found.shape}, not {expected.shape}", None
    relative = measures.relative_error(expected, found)
    allowed = FEATURES_LIMITS.get(precision, FEATURES_LIMITS["dynamic_int8"])
    if not relative <= allowed:
        return parity.FAILED, f"they are off by {relative:.2g} of their size, more than {allowed:.2g}", relative
    # Neighbouring blocks of a residual network give maps that are alike, so that a coarse limit might let them change places.
    others = {each: values for each, values in reference.items() if each != name and values.shape == found.shape}
    errors = {each: measures.relative_error(values, found) for each, values in others.items()}
    nearest = min(errors, key=errors.__getitem__, default=name)
    if errors.get(nearest, relative) < relative:
        return parity.FAILED, f"they are nearer to those of {nearest}", relative
    return parity.VERIFIED, "", relative
