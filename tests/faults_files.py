"""Tools to edit artifacts in place, as a faulty exporter would have written them: TFLite, ONNX, TF.js."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

LAYER_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_DTYPES = {
    getattr(schema.TensorType, name.upper()): np.dtype(name)
    for name in ("float32", "float16", "int32", "int64", "int8", "uint8")
}


@contextlib.contextmanager
def tflite_of(folder: Path) -> Iterator[Any]:
    """Give a TFLite file as `schema.ModelT`, and write it back."""
    path = folder / "model.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    yield model
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def operators_called(model: Any, *names: str) -> list[Any]:
    """Return the operators of a TFLite model's first graph that have one of these names."""
    wanted = {getattr(schema.BuiltinOperator, name) for name in names}
    codes = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
    return [each for each in model.subgraphs[0].operators if codes[each.opcodeIndex] in wanted]


def stored_of(model: Any, index: int) -> np.ndarray:
    """Return a copy of what a TFLite model stores for a tensor of its first graph."""
    tensor = model.subgraphs[0].tensors[index]
    data = bytearray(model.buffers[tensor.buffer].data)
    return np.frombuffer(data, _DTYPES[tensor.type]).reshape(tensor.shape).copy()


def store(model: Any, index: int, values: np.ndarray) -> None:
    """Put other values, in the tensor's own dtype and shape, into a TFLite model."""
    tensor = model.subgraphs[0].tensors[index]
    content = np.ascontiguousarray(values, _DTYPES[tensor.type]).tobytes()
    model.buffers[tensor.buffer].data = np.frombuffer(content, np.uint8)


@contextlib.contextmanager
def onnx_of(folder: Path) -> Iterator[onnx.ModelProto]:
    """Give an ONNX model, and write it back."""
    path = folder / "model.onnx"
    model = onnx.load_model_from_string(path.read_bytes())
    yield model
    path.write_bytes(model.SerializeToString(deterministic=True))


def producer_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Return the node of an ONNX model that computes a tensor."""
    (found,) = (node for node in model.graph.node if name in node.output)
    return found


def stored_in_onnx(model: onnx.ModelProto, name: str) -> np.ndarray:
    """Return a copy of a tensor that an ONNX model stores."""
    (found,) = (each for each in model.graph.initializer if each.name == name)
    return numpy_helper.to_array(found).copy()


def store_in_onnx(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Store a tensor in an ONNX model, in place of one of that name where there is one."""
    tensor = numpy_helper.from_array(np.asarray(values), name)
    for each in model.graph.initializer:
        if each.name == name:
            each.CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put every node of an ONNX model behind those that feed it."""
    known = {each.name for each in (*model.graph.input, *model.graph.initializer)}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        ready = [node for node in waiting if all(not name or name in known for name in node.input)]
        assert ready
        ordered += ready
        known.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not any(node is each for each in ready)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


@contextlib.contextmanager
def tfjs_of(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Give a TF.js model's JSON and its weights as they are stored, name -> array, and write both back."""
    path = folder / "model.json"
    model = json.loads(path.read_text(encoding="utf-8"))
    (group,) = model["weightsManifest"]
    data, start = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
    weights: dict[str, np.ndarray] = {}
    for entry in group["weights"]:
        dtype = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        weights[entry["name"]] = np.frombuffer(data, dtype, count, start).reshape(entry["shape"]).copy()
        start += count * dtype.itemsize
    yield model, weights
    for name in group["paths"]:
        (folder / name).unlink()
    for entry in group["weights"]:
        entry["shape"] = list(weights[entry["name"]].shape)
    group["paths"] = ["group1-shard1of1.bin"]
    content = b"".join(weights[entry["name"]].tobytes() for entry in group["weights"])
    (folder / group["paths"][0]).write_bytes(content)
    path.write_text(json.dumps(model), encoding="utf-8")


def node_called(model: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a node of a TF.js model."""
    (found,) = (node for node in model["modelTopology"]["node"] if node["name"] == name)
    return found
