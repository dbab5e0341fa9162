"""Fingerprints: every layer with weights as an artifact must hold it, kept in the golden set. Light: numpy only.

There is one set for each rounding of the weights. Weights rounded to 8 bits are kept as whole numbers and scales, those
rounded to float16 as float16, so that the fingerprints are about as large as the artifacts that they judge.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.audit.contents import DEPTHWISE
from exporters.contract import SCHEMA_VERSION

WEIGHTS = "weights.npz"
LAYERS = "weights.json"
# Whole numbers and scales give a weight back up to the rounding of float32.
LARGEST_PACKING_ERROR = 1e-6


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """One layer: `kernel` float32 in Keras's layout, `bias` float32 (channels,) or None, `activation` behind it.

    `spans` are the least and the largest value that came out behind the activation on the calibration images; where a layer
    follows that may work in the same memory, as sums do, a second one of both together, which TFLite's calibration then
    measures; where it is a part of a concatenation, whose parts have one scale, a third one of all of them. Empty where
    nothing was measured.
    `input_spans` are the same of what the layer takes.
    `touched` says that a converter may fold constants of a neighbour into the layer, which is then not judged.
    """

    name: str
    kind: str
    kernel: np.ndarray
    bias: np.ndarray | None
    activation: str
    spans: tuple[tuple[float, float], ...] = ()
    touched: bool = False
    input_spans: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """All of one rounding: `layers` in the model's order; `others` name -> float32 of constants beside them.

    Others are what further layers multiply with or add, such as the pixel scaling's `scale` and `offset`. `complete` says
    that `layers` are all layers with weights of the model, and `closed` that no layer brings a constant that is not written
    down here: only then is one that the artifact has besides wrong. `behind_scaling` has the layers
    right behind a pixel scaling, layer -> scaling: TFLite's converter folds it into them where no padding is in the way.
    """

    layers: tuple[Fingerprint, ...]
    others: Mapping[str, np.ndarray]
    complete: bool
    closed: bool
    behind_scaling: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_fingerprints(sets: Mapping[str, WeightSet], precisions: Mapping[str, str], folder: Path) -> None:
    """Write `weights.npz` and `weights.json`.

    Args:
        sets: rounding -> what artifacts of it hold.
        precisions: precision -> its rounding, a key of `sets`.
        folder: of the golden set; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    described = {}
    for rounding, each in sorted(sets.items()):
        described[rounding] = _pack(rounding, each, arrays)
    # Weights hardly shrink, by 7 % of a deep network, and shrinking takes longer than all other writing.
    np.savez(folder / WEIGHTS, **arrays)
    text = {"schema_version": SCHEMA_VERSION, "precisions": dict(sorted(precisions.items())), "sets": described}
    (folder / LAYERS).write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _pack(rounding: str, each: WeightSet, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    layers = []
    for index, layer in enumerate(each.layers):
        kernel = _pack_kernel(layer, f"{rounding}.{index}", arrays)
        if layer.bias is not None:
            arrays[f"{rounding}.{index}.bias"] = layer.bias
        layers.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "activation": layer.activation,
                "kernel": kernel,
                "spans": [list(span) for span in layer.spans],
                "input_spans": [list(span) for span in layer.input_spans],
                "touched": layer.touched,
            }
        )
    for index, values in enumerate(each.others.values()):
        arrays[f"{rounding}.other.{index}"] = np.asarray(values, np.float32)
    return {
        "complete": each.complete,
        "closed": each.closed,
        "layers": layers,
        "others": list(each.others),
        "behind_scaling": dict(each.behind_scaling),
    }


def _pack_kernel(layer: Fingerprint, key: str, arrays: dict[str, np.ndarray]) -> str:
    """Put a kernel into the arrays as narrow as it can be had back, and return how: `int8`, `float16` or `float32`."""
    kernel = np.asarray(layer.kernel, np.float32)
    axes = (0, 1) if layer.kind == DEPTHWISE else tuple(range(kernel.ndim - 1))
    largest = np.abs(kernel).max(axes, keepdims=True, initial=0.0).astype(np.float64)
    scale = np.where(largest > 0, largest, 127.0) / 127
    steps = np.rint(kernel / scale)
    if (np.abs(steps * scale - kernel) <= LARGEST_PACKING_ERROR * largest).all():
        arrays[f"{key}.kernel"], arrays[f"{key}.scale"] = steps.astype(np.int8), scale.astype(np.float32)
        return "int8"
    half = kernel.astype(np.float16)
    arrays[f"{key}.kernel"] = half if (half.astype(np.float32) == kernel).all() else kernel
    return arrays[f"{key}.kernel"].dtype.name


def read_fingerprints(folder: Path) -> dict[str, WeightSet]:
    """Read the fingerprints of a golden set.

    Args:
        folder: of the golden set.

    Returns:
        precision -> what its artifacts must hold; empty for a golden set without fingerprints.

    Raises:
        OSError, ValueError, KeyError, TypeError: a file is damaged.
    """
    if not (folder / LAYERS).is_file() and not (folder / WEIGHTS).is_file():
        return {}
    sets, precisions = read_sets(folder)
    return {precision: sets[rounding] for precision, rounding in precisions.items()}


def read_sets(folder: Path) -> tuple[dict[str, WeightSet], dict[str, str]]:
    """Return what `write_fingerprints` was given; raises as `read_fingerprints` does."""
    described = json.loads((folder / LAYERS).read_text(encoding="utf-8"))
    if described["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"{LAYERS} is not of schema_version {SCHEMA_VERSION}")
    with np.load(folder / WEIGHTS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    sets = {name: _unpack(name, each, arrays) for name, each in described["sets"].items()}
    return sets, dict(described["precisions"])


def _unpack(rounding: str, described: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> WeightSet:
    layers = []
    for index, each in enumerate(described["layers"]):
        key = f"{rounding}.{index}"
        kernel = stored[f"{key}.kernel"].astype(np.float32)
        if each["kernel"] == "int8":
            kernel = kernel * stored[f"{key}.scale"]
        bias = stored.get(f"{key}.bias")
        spans, taken = (tuple((float(low), float(high)) for low, high in each[key]) for key in ("spans", "input_spans"))
        if not np.isfinite(kernel).all() or not all(
            map(math.isfinite, (end for span in spans + taken for end in span))
        ):
            raise ValueError(f"the fingerprint of '{each['name']}' is not finite")
        layers.append(
            Fingerprint(
                each["name"], each["kind"], kernel, bias, each["activation"], spans, bool(each["touched"]), taken
            )
        )
    behind = {str(layer): str(scaling) for layer, scaling in described["behind_scaling"].items()}
    others = {name: stored[f"{rounding}.other.{index}"] for index, name in enumerate(described["others"])}
    return WeightSet(tuple(layers), others, bool(described["complete"]), bool(described["closed"]), behind)
