"""Rewrites steps over height and width in a TF.js graph model into what the kernels of TF.js do without copying whole maps.

A padding with zeros becomes a part of the convolution behind it: TF.js's WebAssembly backend copies the map otherwise,
and the library beneath it (XNNPACK) pads for nothing. A mean over a small map becomes an average pooling: for a mean that
backend transposes the map first (`kernels/Mean.ts`, `permuteAxesAndTranspose`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2

from exporters.tfjs_weights import read_weights, write_weights

MODEL_FILE = "model.json"
_CONVOLUTIONS = frozenset({"Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"})
_NHWC, _VALID, _EXPLICIT = "NHWC", "VALID", "EXPLICIT"
_HEIGHT_AND_WIDTH = (1, 2)
# On graphics cards one thread adds up a whole window of a pooling; a mean is shared by many.
MOST_PIXELS = 256
# What a graph puts before the names that the functions of its SavedModel have.
_CALLS = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")
Node = dict[str, Any]


def settle_maps(folder: Path, saved_model_dir: Path) -> None:
    """Rewrite `folder/model.json` and its shards, whose weights are as the converter left them; nothing where nothing gains.

    Args:
        folder: holds a graph model.
        saved_model_dir: the SavedModel that it was made of, which knows how large the maps are.
    """
    path = folder / MODEL_FILE
    model = json.loads(path.read_text(encoding="utf-8"))
    weights = read_weights(folder, model)
    nodes = model["modelTopology"]["node"]
    kept = {_name(each["name"]) for each in model["signature"]["outputs"].values()}
    without = _merge_paddings(nodes, weights, kept)
    changed = _pool_means(without, weights, _map_sizes(saved_model_dir))
    if changed == nodes:
        return
    used = {_name(each) for node in changed for each in node.get("input", ())}
    idle = {node["name"] for node in changed if node["op"] == "Const"} - used - kept
    model["modelTopology"]["node"] = [node for node in changed if node["name"] not in idle]
    write_weights(folder, model, {name: each for name, each in weights.items() if name not in idle})
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def _merge_paddings(nodes: Sequence[Node], weights: Mapping[str, np.ndarray], kept: set[str]) -> list[Node]:
    """Return the nodes with each padding that only convolutions take in these, the others as they are."""
    takers: dict[str, list[Node]] = {}
    for node in nodes:
        for reference in node.get("input", ()):
            takers.setdefault(_name(reference), []).append(node)
    sides: dict[str, list[int]] = {}
    for node in nodes:
        if node["op"] == "Pad" and node["name"] not in kept and _pads_maps(weights.get(node["input"][1])):
            following = takers.get(node["name"], ())
            if following and all(_can_pad(each, node["name"]) for each in following):
                sides[node["name"]] = weights[node["input"][1]].ravel().tolist()
    sources = {node["name"]: node["input"][0] for node in nodes if node["name"] in sides}
    return [
        _padding(node, sources, sides) if set(node.get("input", ())) & set(sides) else node
        for node in nodes
        if node["name"] not in sides
    ]


def _pads_maps(paddings: np.ndarray | None) -> bool:
    """Tell whether stored paddings are those of height and width alone."""
    return (
        paddings is not None and paddings.shape == (4, 2) and not paddings[[0, 3]].any() and bool((paddings >= 0).all())
    )


def _can_pad(node: Node, padded: str) -> bool:
    """Tell whether a node is a convolution of what was padded, and pads nothing so far."""
    return (
        node["op"] in _CONVOLUTIONS
        and [index for index, each in enumerate(node["input"]) if _name(each) == padded] == [0]
        and node["input"][0] == padded
        and _text(node, "padding") == _VALID
        and _text(node, "data_format") in ("", _NHWC)
    )


def _padding(node: Node, sources: Mapping[str, str], sides: Mapping[str, list[int]]) -> Node:
    pad, *others = node["input"]
    attributes = {"padding": {"s": _encoded(_EXPLICIT)}, "explicit_paddings": _integers(sides[pad])}
    return {**node, "input": [sources[pad], *others], "attr": {**node["attr"], **attributes}}


def _pool_means(
    nodes: Sequence[Node], weights: Mapping[str, np.ndarray], sizes: Mapping[str, tuple[int, int]]
) -> list[Node]:
    """Return the nodes with each mean over a small map as an average pooling, which the last of them bears the name of."""
    changed = []
    for node in nodes:
        size = sizes.get(_CALLS.sub("", node["name"])) if _is_mean_of_maps(node, weights) else None
        changed += [node] if size is None or size[0] * size[1] > MOST_PIXELS else _pooled(node, size)
    return changed


def _is_mean_of_maps(node: Node, weights: Mapping[str, np.ndarray]) -> bool:
    if node["op"] != "Mean" or node["input"][1] not in weights or node["attr"]["T"]["type"] != "DT_FLOAT":
        return False
    return tuple(sorted(int(axis) % 4 for axis in weights[node["input"][1]].ravel())) == _HEIGHT_AND_WIDTH


def _pooled(node: Node, size: tuple[int, int]) -> list[Node]:
    name, kind = node["name"], {"T": node["attr"]["T"]}
    keeps = node["attr"].get("keep_dims", {}).get("b", False)
    window = _integers([1, *size, 1])
    settings = {
        "ksize": window,
        "strides": window,
        "padding": {"s": _encoded(_VALID)},
        "data_format": {"s": _encoded(_NHWC)},
    }
    pooling = {"name": name if keeps else f"{name}/window", "op": "AvgPool", "input": node["input"][:1]}
    pooling["attr"] = {**kind, **settings}
    if keeps:
        return [pooling]
    axes = {"squeeze_dims": _integers(_HEIGHT_AND_WIDTH)}
    return [pooling, {"name": name, "op": "Squeeze", "input": [pooling["name"]], "attr": {**kind, **axes}}]


def _map_sizes(saved_model_dir: Path) -> dict[str, tuple[int, int]]:
    """Return name of a mean -> height and width of the maps that it takes, px, for all that are sure of them."""
    read = saved_model_pb2.SavedModel()
    read.ParseFromString((saved_model_dir / "saved_model.pb").read_bytes())
    found: dict[str, set[tuple[int, ...]]] = {}
    for function in (each for graph in read.meta_graphs for each in graph.graph_def.library.function):
        shapes = {node.name: node.attr["_output_shapes"].list.shape for node in function.node_def}
        for node in function.node_def:
            if node.op == "Mean":
                given = shapes.get(node.input[0].split(":")[0], [])
                found.setdefault(node.name, set()).add(tuple(each.size for each in given[0].dim) if given else ())
    single = {name: next(iter(shapes)) for name, shapes in found.items() if len(shapes) == 1}
    return {name: shape[1:3] for name, shape in single.items() if len(shape) == 4 and min(shape[1:3]) > 0}


def _name(reference: str) -> str:
    return reference.removeprefix("^").split(":")[0]


def _text(node: Node, attribute: str) -> str:
    return base64.b64decode(node["attr"].get(attribute, {}).get("s", "")).decode()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _integers(numbers: Sequence[int]) -> dict[str, Any]:
    return {"list": {"i": [str(each) for each in numbers]}}
