"""SavedModel -> TF.js graph model, with structured output names and `features` beside the heads."""

from __future__ import annotations

import contextlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras  # noqa: F401  imported first: it probes for jax, which must not find the stand-in
import numpy as np

from exporters.contract import MEASURED, Card
from exporters.inputs import Inputs
from exporters.saved_model import SERVING, WITH_FEATURES
from exporters.tfjs_fusions import take_apart
from exporters.tfjs_spatial import settle_maps
from exporters.tfjs_weights import quantise_kernels, store_in_float16
from exporters.unsupported import unsupported

MODEL_FILE = "model.json"
# tensorflowjs imports these for conversions that are not used here; beside a current TensorFlow they cannot be had.
_UNUSED_IMPORTS = (
    "jax",
    "jax.experimental",
    "jax.experimental.jax2tf",
    "tensorflow_decision_forests",
    "tensorflow_hub",
    "tf_keras",
)


def export(
    saved_model_dir: Path, card: Card, out: Path, *, precision: str, calibration_images: Inputs | np.ndarray
) -> None:
    """Write `out/model.json` and its weight shards.

    Args:
        saved_model_dir: as `write_saved_model` leaves it.
        card: carried in the model's `userDefinedMetadata`; with a cut, `features` is a second output.
        out: the artifact's folder, which exists.
        precision: `float32`; `float16`, `uint8` and `uint16` store weights so (smaller to fetch, computed in float32), see
            `store_in_float16` and `quantise_kernels`.
        calibration_images: not looked at; every exporter takes the same arguments.

    Raises:
        InputError: the model has operators that TF.js lacks.
    """
    converter = _import_converter()
    try:
        converter.convert_tf_saved_model(
            str(saved_model_dir),
            str(out),
            signature_def=WITH_FEATURES if card.cut else SERVING,
            saved_model_tags="serve",
            use_structured_outputs_names=True,
            metadata={"card": card.to_json()},
        )
    except ValueError as fault:
        # The converter raises it for operators that TF.js lacks, and only for them.
        raise unsupported("TF.js", saved_model_dir, fault) from fault
    _settle_output_names(out / MODEL_FILE)
    take_apart(out)
    settle_maps(out, saved_model_dir)
    if precision == "float16":
        store_in_float16(out, [output.name for output in card.outputs if output.task in MEASURED])
    if precision in ("uint8", "uint16"):
        quantise_kernels(out, precision)


def _settle_output_names(path: Path) -> None:
    """Write the signature's outputs in the order of their names, each with the graph node that computes it.

    The converter looks the nodes of the signature up by shape, so that two heads of equal shape may be swapped, and
    writes them in the order of a hash map, while TF.js pairs them by position with `structuredOutputKeys`. The graph
    itself numbers its outputs (`Identity`, `Identity_1`, ...) in the order of the sorted names.
    """
    model = json.loads(path.read_text(encoding="utf-8"))
    nodes = {each["name"]: each for each in model["signature"]["outputs"].values()}
    names = model["userDefinedMetadata"]["structuredOutputKeys"]
    model["signature"]["outputs"] = {
        name: nodes[f"Identity_{index}:0" if index else "Identity:0"] for index, name in enumerate(names)
    }
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def _import_converter() -> Any:
    with _stand_ins(_UNUSED_IMPORTS):
        from tensorflowjs.converters import tf_saved_model_conversion_v2
    return tf_saved_model_conversion_v2


@contextlib.contextmanager
def _stand_ins(names: tuple[str, ...]) -> Iterator[None]:
    added = [name for name in names if name not in sys.modules]
    for name in added:
        sys.modules[name] = types.ModuleType(name)
    try:
        yield
    finally:
        for name in added:
            sys.modules.pop(name, None)
