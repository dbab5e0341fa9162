"""Takes out of a converted ONNX graph what computes nothing, and writes as one operator what is one.

A runtime does some of this when it loads a model, each in its own way; here it is done once, with standard operators alone. What
onnxruntime writes when it optimises a model offline has operators of its own, and is made for the machine it ran on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporters.onnx_windows import pad_inside_windows

STANDARD = ("", "ai.onnx")
# Operators that only call the same numbers, in the same order, by another shape.
_RESHAPES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
# As the end of a slice: whatever is there.
_TO_THE_END = np.iinfo(np.int32).max
# ReLU6(x + 3) / 6, as float32 holds the sixth.
_THREE, _BOUNDS, _SIXTH, _HALF = 3.0, (0.0, 6.0), float(np.float32(1 / 6)), 0.5


@dataclasses.dataclass(frozen=True)
class _Graph:
    """A graph with who makes and who takes each tensor, and what is stored; `outputs` are the names of its answers."""

    graph: onnx.GraphProto
    makers: Mapping[str, onnx.NodeProto]
    takers: Mapping[str, list[onnx.NodeProto]]
    stored: Mapping[str, onnx.TensorProto]
    outputs: Collection[str]

    def number(self, name: str) -> float | None:
        """Return the one stored number of that name; None where it is no such."""
        tensor = self.stored.get(name)
        if tensor is None or np.prod(tensor.dims) != 1:
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))

    def alone(self, name: str, kind: str) -> onnx.NodeProto | None:
        """Return the node of a kind that makes a tensor for one other node only; None where there is none."""
        maker = self.makers.get(name)
        only = maker is not None and len(self.takers.get(name, ())) == 1 and name not in self.outputs
        return maker if only and maker.op_type == kind else None

    def store(self, like: str, values: np.ndarray) -> str:
        """Store numbers under a name made of another one; returns it."""
        taken, name = {each.name for each in self.graph.initializer}, like
        while name in taken:
            name += "_"
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def simplify(model: onnx.ModelProto) -> None:
    """Simplify a graph in place; what nothing takes any more is left in it, for `settle_names` to drop.

    What is transposed, or reshaped, back to what it was goes. A reshape that keeps the batch copies it instead of working it
    out, and a slice does not name the axes that it leaves whole, so that the batch keeps its name through shape inference. A
    hard sigmoid, and a matrix product with its bias, become one operator, and zero padding becomes part of the window behind it.
    """
    for rewrite in (_turn_back, _come_back, _copy_the_batch, _cut_where_it_cuts, _write_hard_sigmoid, _write_gemm):
        rewrite(_read(model), _shapes(model))
    pad_inside_windows(model.graph)


def keep_one_opset(model: onnx.ModelProto) -> None:
    """Drop the operator sets of which no operator is used, which converters and quantisers leave there, in place."""
    used = {node.domain if node.domain not in STANDARD else "" for node in model.graph.node}
    used |= {node.domain for each in model.functions for node in each.node}
    for each in [each for each in model.opset_import if each.domain not in {*used, ""}]:
        model.opset_import.remove(each)


def share_constants(model: onnx.ModelProto) -> None:
    """Store once what is stored several times, such as the zero points of kernels, in place; single numbers stay apart."""
    first: dict[tuple, str] = {}
    instead = {}
    for each in list(model.graph.initializer):
        if np.prod(each.dims) > 1:
            values = numpy_helper.to_array(each)
            kept = first.setdefault((each.data_type, tuple(each.dims), hashlib.sha256(values).digest()), each.name)
            if kept != each.name:
                instead[each.name] = kept
                model.graph.initializer.remove(each)
    for node in model.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]


def _read(model: onnx.ModelProto) -> _Graph:
    graph = model.graph
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output if name}
    stored = {each.name: each for each in graph.initializer}
    return _Graph(graph, makers, takers, stored, {each.name for each in graph.output})


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return tensor -> its shape, as far as it can be inferred; None for an axis that is not fixed."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        each.name: tuple(axis.dim_value or None for axis in each.type.tensor_type.shape.dim)
        for each in (*graph.value_info, *graph.input, *graph.output)
        if each.type.tensor_type.HasField("shape")
    }


def _turn_back(read: _Graph, _: Mapping[str, tuple[int | None, ...]]) -> None:
    """Take what went in, in the place of what is transposed and back: converters leave both where the turned map goes out too."""
    instead = {}
    for node in read.graph.node:
        before = read.makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if before is not None and before.op_type == "Transpose" and node.output[0] not in read.outputs:
            first, second = (next((list(one.ints) for one in each.attribute), []) for each in (before, node))
            if first and [first[axis] for axis in second] == sorted(first):
                instead[node.output[0]] = before.input[0]
    for node in read.graph.node:
        node.input[:] = [_followed(name, instead) for name in node.input]


def _come_back(read: _Graph, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Take, in the place of what is reshaped back and forth, what went in."""
    instead = {}
    for node in read.graph.node:
        if node.op_type in _RESHAPES and node.output[0] not in read.outputs:
            wanted = shapes.get(node.output[0])
            source = next((each for each in _before(node, read) if _is_same(shapes.get(each), wanted)), None)
            if source is not None:
                instead[node.output[0]] = source
    for node in read.graph.node:
        node.input[:] = [_followed(name, instead) for name in node.input]


def _before(node: onnx.NodeProto, read: _Graph) -> Iterator[str]:
    """Give what a reshape takes, what the reshape before it takes, and so on."""
    while node is not None and node.op_type in _RESHAPES:
        yield node.input[0]
        node = read.makers.get(node.input[0])


def _is_same(shape: tuple[int | None, ...] | None, wanted: tuple[int | None, ...] | None) -> bool:
    """Tell whether two shapes of the same numbers are one: where all other axes are, the first one is too."""
    known = shape and wanted and len(shape) == len(wanted) and None not in wanted[1:]
    return bool(known) and shape[1:] == wanted[1:]


def _followed(name: str, instead: Mapping[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name


def _copy_the_batch(read: _Graph, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Let a reshape that keeps the first axis say so: 0 in its target stands for the axis as it comes in.

    Otherwise it is -1, for any size, or it is read off some other tensor's shape while the model runs.
    """
    for node in read.graph.node:
        if node.op_type != "Reshape" or any(each.name == "allowzero" and each.i for each in node.attribute):
            continue
        taken, wanted = shapes.get(node.input[0]), shapes.get(node.output[0])
        known = taken and wanted and None not in (*taken[1:], *wanted[1:])
        if known and len(wanted) > 1 and wanted[0] is None and np.prod(taken[1:]) == np.prod(wanted[1:]):
            node.input[1] = read.store(f"{node.output[0]}/shape", np.array([0, *wanted[1:]], np.int64))


def _cut_where_it_cuts(read: _Graph, _: Mapping[str, tuple[int | None, ...]]) -> None:
    """Let a slice without steps name only the axes along which it leaves something out."""
    for node in read.graph.node:
        if node.op_type != "Slice" or len(node.input) != 4 or not all(each in read.stored for each in node.input[1:]):
            continue
        bounds = [numpy_helper.to_array(read.stored[each]) for each in node.input[1:]]
        cut = (bounds[0] != 0) | (bounds[1] < _TO_THE_END)
        if cut.any() and not cut.all():
            for place, values in enumerate(bounds, start=1):
                node.input[place] = read.store(f"{node.input[place]}_cut", values[cut])


def _write_hard_sigmoid(read: _Graph, _: Mapping[str, tuple[int | None, ...]]) -> None:
    """Write ReLU6(x + 3) / 6 as HardSigmoid: what came out last computes it from what went in first."""
    for node in read.graph.node:
        if node.op_type != "Mul" or read.number(node.input[1]) != _SIXTH:
            continue
        clip = read.alone(node.input[0], "Clip")
        bounds = tuple(read.number(each) for each in clip.input[1:]) if clip is not None else ()
        added = read.alone(clip.input[0], "Add") if bounds == _BOUNDS else None
        if added is not None and read.number(added.input[1]) == _THREE:
            node.op_type, node.input[:] = "HardSigmoid", added.input[:1]
            node.attribute.extend([helper.make_attribute("alpha", _SIXTH), helper.make_attribute("beta", _HALF)])


def _write_gemm(read: _Graph, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Write the product of rows and a stored matrix, to which a stored row is added, as Gemm, by the name of the sum."""
    for node in read.graph.node:
        product = read.alone(node.input[0], "MatMul") if node.op_type == "Add" else None
        if product is None or len(shapes.get(product.input[0], ())) != 2:
            continue
        kernel, bias = read.stored.get(product.input[1]), read.stored.get(node.input[1])
        if kernel is not None and bias is not None and list(bias.dims) == list(kernel.dims[1:]):
            node.op_type, node.input[:] = "Gemm", [*product.input, node.input[1]]
