"""Stores the weights of a TF.js graph model in fewer bits: kernels and biases in float16, or kernels in 8 or 16 bits.

In float16 numbers beside the layers stay as they are: 1 / 6 in a hard sigmoid would be off in the same way everywhere. In
8 and 16 bits there is a scale for each output channel.

TF.js's own `uint8` has one scale for a whole tensor, which a network with depthwise convolutions does not survive. Here
a kernel is stored as whole numbers -127..127 (`uint16`: -32767..32767) and multiplied by its channels' scales in the
graph, before it is used: a few hundred thousand multiplications for an answer, beside some millions of the convolutions.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.columns_graph import fed_by_columns_alone
from exporters.contract import COLUMNS_NAME

SHARD_BYTES = 4 * 2**20
# Operator -> the axes of its kernel over which one scale is shared; the kernel is the second input of each.
_SHARED_AXES = {
    "Conv2D": (0, 1, 2),
    "_FusedConv2D": (0, 1, 2),
    "DepthwiseConv2dNative": (0, 1),
    "FusedDepthwiseConv2dNative": (0, 1),
    "MatMul": (0,),
    "_FusedMatMul": (0,),
}
# Where a bias is added behind an operator instead of in it.
_ADDITIONS = frozenset({"AddV2", "BiasAdd"})


def quantise_kernels(folder: Path, dtype: str) -> None:
    """Rewrite `folder/model.json` and its shards, whose weights are all float32, with kernels in `uint8` or `uint16`.

    Biases and whatever else the graph holds stay float32.
    """
    path = folder / "model.json"
    model = json.loads(path.read_text(encoding="utf-8"))
    weights = read_weights(folder, model)
    nodes = model["modelTopology"]["node"]
    scaled: dict[str, str] = {}
    largest = np.iinfo(dtype).max // 2
    for node in list(nodes):
        if node["op"] not in _SHARED_AXES or node["input"][1] not in weights:
            continue
        kernel = node["input"][1]
        if kernel not in scaled:
            scaled[kernel] = _add_scale(nodes, weights, kernel, _SHARED_AXES[node["op"]], largest)
        node["input"][1] = scaled[kernel]
    # TF.js reads the stored number times `scale` plus `min`: 1..255 become -127..127.
    write_weights(folder, model, weights, set(scaled), {"dtype": dtype, "min": -largest - 1, "scale": 1})
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def store_in_float16(folder: Path, wide: Collection[str] = ()) -> None:
    """Rewrite the shards and `folder/model.json`, whose weights are all float32, with kernels and biases in float16.

    `wide` names outputs whose numbers may be larger than float16 can tell, up to 65,504, or apart: the layers that give
    them stay in float32.
    """
    path = folder / "model.json"
    model = json.loads(path.read_text(encoding="utf-8"))
    nodes = model["modelTopology"]["node"]
    sources = {node["name"]: node["input"][0] for node in nodes if node["op"] == "Identity"}
    found, kept, encoder = set(), _last_layers(model, wide), _of_columns(model)
    for node in nodes:
        if node["name"] in kept or node["name"] in encoder:
            continue
        following = node["input"][1:] if node["op"] in _SHARED_AXES or node["op"] in _ADDITIONS else ()
        for name in following:
            while name in sources:
                name = sources[name]
            found.add(name)
    weights = read_weights(folder, model)
    narrow = {
        name for name in found if name in weights and weights[name].dtype == np.float32 and weights[name].size > 1
    }
    write_weights(folder, model, weights, narrow, {"dtype": "float16"})
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def _of_columns(model: dict[str, Any]) -> set[str]:
    """Return the names of the nodes that encode columns, which stay in float32."""
    inputs = {name: each["name"].split(":")[0] for name, each in model["signature"]["inputs"].items()}
    columns = {node for name, node in inputs.items() if name == COLUMNS_NAME}
    calls = [
        ([each.split(":")[0] for each in node.get("input", ())], [node["name"]])
        for node in model["modelTopology"]["node"]
    ]
    return fed_by_columns_alone(calls, columns, set(inputs.values()) - columns)


def _last_layers(model: dict[str, Any], outputs: Collection[str]) -> set[str]:
    """Return the names of the nodes that are the last linear layer before some outputs: a product, and what is added to it."""
    nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
    found: set[str] = set()
    for output in outputs:
        node = nodes[model["signature"]["outputs"][output]["name"].split(":")[0]]
        while node["op"] == "Identity" or node["op"] in _ADDITIONS:
            found.add(node["name"])
            node = nodes[node["input"][0]]
        if node["op"] in _SHARED_AXES:
            found.add(node["name"])
    return found


def _add_scale(
    nodes: list[dict], weights: dict[str, np.ndarray], kernel: str, axes: tuple[int, ...], largest: int
) -> str:
    """Split a kernel into whole numbers up to `largest` and scales, add what multiplies them, return the product's name."""
    values = weights[kernel].astype(np.float64)
    peak = np.abs(values).max(axes, keepdims=True)
    scale = np.where(peak > 0, peak, largest) / largest
    weights[kernel] = np.rint(values / scale).astype(np.float32)
    weights[f"{kernel}/scale"] = scale.astype(np.float32)
    nodes.append(_constant(f"{kernel}/scale", scale.shape))
    product = f"{kernel}/scaled"
    nodes.append(
        {
            "name": product,
            "op": "Mul",
            "input": [kernel, f"{kernel}/scale"],
            "attr": {"T": {"type": "DT_FLOAT"}},
        }
    )
    return product


def _constant(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    dimensions = {"dim": [{"size": str(size)} for size in shape]}
    tensor = {"dtype": "DT_FLOAT", "tensorShape": dimensions}
    return {"name": name, "op": "Const", "attr": {"dtype": {"type": "DT_FLOAT"}, "value": {"tensor": tensor}}}


def read_weights(folder: Path, model: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return name -> values of the weights of a model.json, none of which is stored in fewer bits."""
    weights = {}
    for group in model["weightsManifest"]:
        data, start = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for entry in group["weights"]:
            dtype = np.dtype("bool" if entry["dtype"] == "bool" else entry["dtype"])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            weights[entry["name"]] = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
            start += count * dtype.itemsize
    return weights


def write_weights(
    folder: Path,
    model: dict[str, Any],
    weights: Mapping[str, np.ndarray],
    narrow: Collection[str] = (),
    quantization: Mapping[str, Any] | None = None,
) -> None:
    """Write the shards in place of the old ones, and the manifest into `model`.

    Args:
        folder: holds the shards.
        model: what model.json says, changed in place.
        weights: name -> values, in the order in which they are stored.
        narrow: names of those that are stored as `quantization` says, in TF.js's words.
    """
    for group in model["weightsManifest"]:
        for name in group["paths"]:
            (folder / name).unlink()
    entries, parts = [], []
    for name, values in weights.items():
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": str(values.dtype)}
        if name in narrow:
            entry["quantization"] = {**(quantization or {}), "original_dtype": "float32"}
            values = (values - entry["quantization"].get("min", 0)).astype(entry["quantization"]["dtype"])
        entries.append(entry)
        parts.append(np.ascontiguousarray(values).tobytes())
    data = b"".join(parts)
    shards = [data[start : start + SHARD_BYTES] for start in range(0, len(data), SHARD_BYTES)]
    names = [f"group1-shard{index}of{len(shards)}.bin" for index in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        (folder / name).write_bytes(shard)
    model["weightsManifest"] = [{"paths": names, "weights": entries}]
