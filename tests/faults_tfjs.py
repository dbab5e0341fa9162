"""Makers of faults in a TF.js graph model: each edits `model.json` and the weights of an artifact folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.faults_files import node_called, tfjs_of

PREFIX = "StatefulPartitionedCall/small_1/"


def _kernel(weights: dict[str, np.ndarray], layer: str) -> str:
    (name,) = (
        each
        for each in weights
        if f"/{layer}_1/" in each and each.endswith("ReadVariableOp") and weights[each].ndim > 1
    )
    return name


def weight_scale_off(folder: Path) -> None:
    """One channel's scale is off by one of 127."""
    with tfjs_of(folder) as (_, weights):
        weights[f"{_kernel(weights, 'point_2')}/scale"][..., 3] *= 128 / 127


def scales_permuted(folder: Path) -> None:
    with tfjs_of(folder) as (_, weights):
        name = f"{_kernel(weights, 'point_2')}/scale"
        weights[name] = np.roll(weights[name], 1, axis=-1)


def weight_zero_point_off(folder: Path) -> None:
    """The stored bytes of one kernel count from -127, not from -128."""
    with tfjs_of(folder) as (model, weights):
        name = _kernel(weights, "point_2")
        (entry,) = (each for each in model["weightsManifest"][0]["weights"] if each["name"] == name)
        entry["quantization"]["min"] += 1


def dangling_node(folder: Path, operator: str, attributes: dict[str, Any] | None = None) -> None:
    """Add a node whose result nobody takes."""
    with tfjs_of(folder) as (model, _):
        node = {"name": "dangling", "op": operator, "input": ["image"], "attr": attributes or {}}
        model["modelTopology"]["node"].append(node)


def custom_operator(folder: Path) -> None:
    """An operator for which TF.js has no kernel; nothing needs its result."""
    dangling_node(folder, "MatrixDeterminant", {"T": {"type": "DT_FLOAT"}})


def random_operator(folder: Path) -> None:
    """Random numbers that nothing needs yet."""
    dangling_node(folder, "RandomUniform", {"T": {"type": "DT_INT32"}, "dtype": {"type": "DT_FLOAT"}})


def input_renamed(folder: Path) -> None:
    with tfjs_of(folder) as (model, _):
        for node in model["modelTopology"]["node"]:
            if node["op"] == "Placeholder":
                node["name"] = "pixels"
            node["input"] = ["pixels" if each == "image" else each for each in node.get("input", [])]
        found = model["signature"]["inputs"].pop("image")
        model["signature"]["inputs"] = {"pixels": found | {"name": "pixels:0"}}


def swapped_outputs(folder: Path) -> None:
    """The public names stand in another order than the nodes."""
    with tfjs_of(folder) as (model, _):
        keys = model["userDefinedMetadata"]["structuredOutputKeys"]
        keys[0], keys[2] = keys[2], keys[0]


def extra_output(folder: Path) -> None:
    with tfjs_of(folder) as (model, _):
        logits = node_called(model, f"{PREFIX}apple_1/BiasAdd")["name"]
        found = model["signature"]["outputs"]["apple"]
        model["signature"]["outputs"]["logits"] = found | {"name": f"{logits}:0"}
        model["userDefinedMetadata"]["structuredOutputKeys"].append("logits")


def missing_output(folder: Path) -> None:
    with tfjs_of(folder) as (model, _):
        del model["signature"]["outputs"]["apple"]
        model["userDefinedMetadata"]["structuredOutputKeys"].remove("apple")


def softmax_too_steep(folder: Path) -> None:
    """The logits are added to themselves before the softmax: no constant is needed for it."""
    with tfjs_of(folder) as (model, _):
        for head in ("apple", "zebra"):
            softmax = node_called(model, f"{PREFIX}{head}_1/Softmax")
            doubled = {
                "name": f"{head}/doubled",
                "op": "AddV2",
                "input": [softmax["input"][0]] * 2,
                "attr": {"T": {"type": "DT_FLOAT"}},
            }
            model["modelTopology"]["node"].append(doubled)
            softmax["input"] = [doubled["name"]]


def one_weight_twice(folder: Path) -> None:
    """A weight is stored a second time under its name: which one counts is for each reader to say."""
    with tfjs_of(folder) as (model, _):
        entries = model["weightsManifest"][0]["weights"]
        entries.append(dict(entries[-1]))


def fixed_batch(folder: Path) -> None:
    """Takes one image at a time, where any number is promised."""
    with tfjs_of(folder) as (model, _):
        model["signature"]["inputs"]["image"]["tensorShape"]["dim"][0]["size"] = "1"
        for node in model["modelTopology"]["node"]:
            if node["op"] == "Placeholder":
                node["attr"]["shape"]["shape"]["dim"][0]["size"] = "1"


def swapped_labels_inside(folder: Path) -> None:
    """The card inside `model.json` lists the labels in another order."""
    with tfjs_of(folder) as (model, _):
        for output in model["userDefinedMetadata"]["card"]["outputs"]:
            output["labels"] = output["labels"][::-1]
