"""Takes apart what TensorFlow's optimiser fuses into the operators of a TF.js graph model and TF.js cannot run fused.

The optimiser (grappler's remapper, made for TensorFlow's own kernels) takes any addition behind an operator for its bias,
that of a skip connection too, and knows activations that no backend of TF.js has. A bias must be a list of stored numbers
there, one for each channel (`tfjs-core`, `ops/fused/conv2d.ts`).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

MODEL_FILE = "model.json"
_PLAIN = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
# Attributes that only the fused operators have.
_OF_FUSION = ("fused_ops", "num_args", "num_host_args", "TArgs", "epsilon", "leakyrelu_alpha")
_BIAS, _HARD_SWISH = "BiasAdd", "_FusedHardSwish"
# What every backend of TF.js computes within a fused operator (`tfjs-backend-wasm`, `kernels/types.ts`, has the shortest list).
_FUSED_EVERYWHERE = frozenset({"Relu", "Relu6", "Elu", "LeakyRelu", "Sigmoid"})
_FLOAT = {"T": {"type": "DT_FLOAT"}}
# x * relu6(x + 3) / 6, Howard et al. 2019 (arXiv:1905.02244), section 5.2.
_THREE, _SIXTH = "hard_swish/three", "hard_swish/sixth"


def take_apart(folder: Path) -> None:
    """Rewrite `folder/model.json` so that nothing is fused but what TF.js runs so; new constants go into its last shard."""
    path = folder / MODEL_FILE
    model = json.loads(path.read_text(encoding="utf-8"))
    nodes = model["modelTopology"]["node"]
    shapes = {each["name"]: tuple(each["shape"]) for group in model["weightsManifest"] for each in group["weights"]}
    named = {node["name"]: node for node in nodes}
    parts = {node["name"]: _parts(node, named, shapes) for node in nodes if node["op"] in _PLAIN}
    if not any(len(each) > 1 for each in parts.values()):
        return
    taken_apart = [part for node in nodes for part in parts.get(node["name"], [node])]
    if any(_SIXTH in node.get("input", ()) for node in taken_apart):
        taken_apart += [_constant(name) for name in (_THREE, _SIXTH)]
        _store(folder, model, {_THREE: 3.0, _SIXTH: 1 / 6})
    model["modelTopology"]["node"] = taken_apart
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def _parts(node: dict[str, Any], named: dict[str, dict], shapes: dict[str, tuple[int, ...]]) -> list[dict[str, Any]]:
    """Return the nodes that do what a fused one does, the last of its name; the node alone where TF.js can run it."""
    fused = [base64.b64decode(each).decode() for each in node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])]
    known = fused in ([_BIAS], []) or (fused[0] == _BIAS and len(fused) == 2)
    if not known or len(node["input"]) != 2 + len(fused[:1]):
        return [node]
    if fused and len(_shape_of(node["input"][2], named, shapes)) != 1:
        return _apart(node, fused[1:])
    return [node] if set(fused[1:]) <= _FUSED_EVERYWHERE else _without_activation(node, fused[1])


def _shape_of(name: str, named: dict[str, dict], shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of a stored weight; () for what is computed."""
    while named.get(name, {}).get("op") == "Identity":
        name = named[name]["input"][0]
    return shapes.get(name, ())


def _apart(node: dict[str, Any], activations: list[str]) -> list[dict[str, Any]]:
    name, bare = node["name"], f"{node['name']}/bare"
    attributes = {key: value for key, value in node["attr"].items() if key not in _OF_FUSION}
    first = {**node, "name": bare, "op": _PLAIN[node["op"]], "input": node["input"][:2], "attr": attributes}
    if not activations:
        return [first, _node(name, "AddV2", bare, node["input"][2])]
    added = f"{name}/added"
    parts = [first, _node(added, "AddV2", bare, node["input"][2])]
    return parts + _activated(name, added, activations[0])


def _without_activation(node: dict[str, Any], activation: str) -> list[dict[str, Any]]:
    bare = f"{node['name']}/bare"
    bias = {"fused_ops": {"list": {"s": [base64.b64encode(_BIAS.encode()).decode()]}}}
    return [{**node, "name": bare, "attr": {**node["attr"], **bias}}, *_activated(node["name"], bare, activation)]


def _activated(name: str, value: str, activation: str) -> list[dict[str, Any]]:
    return _hard_swish(name, value) if activation == _HARD_SWISH else [_node(name, activation, value)]


def _hard_swish(name: str, value: str) -> list[dict[str, Any]]:
    shifted, clipped, gated = (f"{name}/{part}" for part in ("shifted", "clipped", "gated"))
    return [
        _node(shifted, "AddV2", value, _THREE),
        _node(clipped, "Relu6", shifted),
        _node(gated, "Mul", value, clipped),
        _node(name, "Mul", gated, _SIXTH),
    ]


def _node(name: str, operator: str, *inputs: str) -> dict[str, Any]:
    return {"name": name, "op": operator, "input": list(inputs), "attr": dict(_FLOAT)}


def _constant(name: str) -> dict[str, Any]:
    tensor = {"dtype": "DT_FLOAT", "tensorShape": {}}
    return {"name": name, "op": "Const", "attr": {"dtype": {"type": "DT_FLOAT"}, "value": {"tensor": tensor}}}


def _store(folder: Path, model: dict[str, Any], numbers: dict[str, float]) -> None:
    group = model["weightsManifest"][-1]
    group["weights"] += [{"name": name, "shape": [], "dtype": "float32"} for name in numbers]
    with (folder / group["paths"][-1]).open("ab") as shard:
        shard.write(np.array(list(numbers.values()), "<f4").tobytes())
