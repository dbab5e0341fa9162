"""A TF.js graph model's files: its nodes in order, its weights, and the constants that the graph makes of them.

The form is that of TensorFlow's GraphDef in JSON; weights as in tfjs-core's `io/io_utils.ts` (`decodeWeights`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.audit.contents import Constant
from exporters.audit.reading import floats, in_order, refusal, scaled

MODEL_FILE = "model.json"
FORMAT = "graph-model"
_STORED = {
    "float32": "<f4",
    "float16": "<f2",
    "int32": "<i4",
    "uint8": "u1",
    "uint16": "<u2",
    "bool": "u1",
    "complex64": "<c8",
}
_TYPES = {"DT_FLOAT": "float32", "DT_HALF": "float16", "DT_DOUBLE": "float64"}


@dataclasses.dataclass(frozen=True)
class Node:
    """A node; `inputs` are names of nodes, without the index of the output and without control inputs."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def flag(self, name: str) -> bool:
        """Return an attribute that is true or false; False where there is none."""
        return bool(self.attributes.get(name, {}).get("b", False))

    def text(self, name: str) -> str:
        """Return an attribute that is a text; empty where there is none."""
        return base64.b64decode(self.attributes.get(name, {}).get("s", ""), validate=True).decode()

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts."""
        found = self.attributes.get(name, {}).get("list", {}).get("s", [])
        return [base64.b64decode(each, validate=True).decode() for each in found]

    def dtype(self) -> str:
        """Return the dtype of what the node computes."""
        if self.operator in ("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual") or (
            self.operator.startswith("Logical")
        ):
            return "bool"
        for name in ("DstT", "dtype", "output_type", "out_type", "T"):
            if "type" in self.attributes.get(name, {}):
                return dtype_name(self.attributes[name]["type"])
        return "unknown"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph model; `nodes` in the order in which they run, `inner` those of its functions and of its initializer.

    `reals`: node -> constant, for all nodes that only stored reals reach; `origins`: the same nodes -> the names of the
    weights in them. `stored`: name of a weight -> constant, for weights that are reals. `parameters`: weights that are
    only scales of others. `inputs` and `outputs`: public name -> TensorInfo of the signature.
    """

    nodes: tuple[Node, ...]
    inner: tuple[Node, ...]
    reals: Mapping[str, Constant]
    origins: Mapping[str, tuple[str, ...]]
    stored: Mapping[str, Constant]
    parameters: frozenset[str]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    card: Mapping[str, Any] | None = None


def dtype_name(name: str) -> str:
    """Return a TensorFlow type's name as numpy has it, such as `float32` for `DT_FLOAT`."""
    return _TYPES.get(name, name.removeprefix("DT_").lower())


def node_name(reference: str) -> str:
    """Return the node that a reference such as `name:0` or `^name` means."""
    return reference.removeprefix("^").split(":")[0]


def load(folder: Path) -> Graph:
    """Load `folder/model.json` and its shards.

    Raises:
        ParityError, or any exception of json or numpy: the files are damaged, or hold no graph model.
    """
    model = json.loads((folder / MODEL_FILE).read_bytes())
    if model.get("format") != FORMAT:
        raise refusal(f"{MODEL_FILE} holds a {model.get('format')!r}, not a {FORMAT}")
    topology = model["modelTopology"]
    nodes = _ordered([_node(each) for each in topology["node"]])
    functions = topology.get("library", {}).get("function", [])
    inner = [_node(each, "op") for function in functions for each in function.get("nodeDef", [])]
    inner += [_node(each) for each in (model.get("modelInitializer") or {}).get("node", [])]
    stored, whole = read_weights(folder, model["weightsManifest"])
    reals, origins, parameters = _resolve(nodes, stored, whole)
    signature = model["signature"]
    keys = (model.get("userDefinedMetadata") or {}).get("structuredOutputKeys")
    outputs = signature["outputs"]
    if keys is not None:
        # TF.js names the answers so: the signature's outputs, in their order, by these keys.
        outputs = dict(zip(keys, outputs.values(), strict=True))
    if not nodes or not outputs:
        raise refusal("it computes nothing")
    return Graph(
        nodes,
        tuple(inner),
        reals,
        origins,
        stored,
        parameters,
        signature["inputs"],
        outputs,
        (model.get("userDefinedMetadata") or {}).get("card"),
    )


def _node(found: Mapping[str, Any], kind: str = "op") -> Node:
    inputs = tuple(node_name(each) for each in found.get("input", []) if not each.startswith("^"))
    return Node(str(found["name"]), str(found[kind]), inputs, dict(found.get("attr", {})))


def _ordered(nodes: list[Node]) -> tuple[Node, ...]:
    positions = {node.name: index for index, node in enumerate(nodes)}
    if len(positions) != len(nodes):
        raise refusal("two of its nodes have one name")
    for node in nodes:
        for name in node.inputs:
            if name not in positions:
                raise refusal(f"{node.name} takes {name}, which is not there")
    return tuple(nodes[index] for index in in_order([[positions[each] for each in node.inputs] for node in nodes]))


def read_weights(folder: Path, manifest: list[Mapping[str, Any]]) -> tuple[dict[str, Constant], set[str]]:
    """Return the stored reals of a weights manifest, name -> constant, and the names of all other weights."""
    reals: dict[str, Constant] = {}
    others: set[str] = set()
    for group in manifest:
        for name in group["paths"]:
            if Path(name).name != name or name in (".", ".."):
                raise refusal(f"the weight file '{name}' lies outside the folder")
        data, start = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for entry in group["weights"]:
            if entry["name"] in reals or entry["name"] in others:
                raise refusal(f"two weights are called {entry['name']}")
            if entry["dtype"] == "string":
                others.add(entry["name"])
                start = _past_texts(data, start, int(np.prod(entry["shape"], dtype=np.int64)))
                continue
            values, start = _values(data, start, entry)
            constant = _real(entry, values)
            if constant is None:
                others.add(entry["name"])
            else:
                reals[entry["name"]] = constant
    return reals, others


def _values(data: bytes, start: int, entry: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    dtype = entry.get("quantization", {}).get("dtype", entry["dtype"])
    if dtype not in _STORED or any(not isinstance(size, int) or size < 0 for size in entry["shape"]):
        raise refusal(f"{entry['name']} is stored as {dtype} of shape {entry['shape']}")
    form = np.dtype(_STORED[dtype])
    count = 1
    for size in entry["shape"]:
        count *= size
    end = start + count * form.itemsize
    if end > len(data):
        raise refusal(f"the weight files end before {entry['name']} does")
    return np.frombuffer(data, form, count, start).reshape(entry["shape"]), end


def _past_texts(data: bytes, start: int, count: int) -> int:
    """Return where a list of texts ends: each has its length, 4 bytes, before it."""
    for _ in range(count):
        start += 4 + int.from_bytes(data[start : start + 4], "little")
        if start > len(data):
            raise refusal("the weight files end within a list of texts")
    return start


def _real(entry: Mapping[str, Any], values: np.ndarray) -> Constant | None:
    """Return a weight as reals; None where it holds whole numbers, truth values or complex ones."""
    if entry["dtype"] != "float32":
        return None
    quantisation = entry.get("quantization", {})
    dtype = quantisation.get("dtype", "float32")
    if dtype in ("float32", "float16"):
        return floats(entry["name"], dtype, values)
    scale, least = float(quantisation["scale"]), float(quantisation["min"])
    with np.errstate(all="ignore"):
        real = (values.astype(np.float64) * scale + least).astype(np.float32)
    return Constant(entry["name"], dtype, real, np.asarray(abs(scale), np.float32))


def _resolve(
    nodes: tuple[Node, ...], stored: Mapping[str, Constant], whole: set[str]
) -> tuple[dict[str, Constant], dict[str, tuple[str, ...]], frozenset[str]]:
    reals: dict[str, Constant] = {}
    origins: dict[str, tuple[str, ...]] = {}
    parameters: set[str] = set()
    for node in nodes:
        if node.operator == "Const":
            if node.name in stored:
                reals[node.name], origins[node.name] = stored[node.name], (node.name,)
            elif node.name not in whole:
                raise refusal(f"the constant {node.name} has no weights")
        elif node.operator == "Identity" and node.inputs[0] in reals:
            reals[node.name], origins[node.name] = reals[node.inputs[0]], origins[node.inputs[0]]
        elif node.operator == "Mul" and all(each in reals for each in node.inputs):
            # The one that is stored in steps, or the larger one, is the weight; the other one is its scale.
            weight, scale = sorted(node.inputs, key=lambda each: (not reals[each].step.any(), -reals[each].values.size))
            if reals[scale].step.any():
                continue
            reals[node.name] = scaled(reals[weight], reals[scale].values)
            origins[node.name] = origins[weight] + origins[scale]
            if reals[weight].step.any():
                parameters.update(origins[scale])
    return reals, origins, frozenset(parameters)
