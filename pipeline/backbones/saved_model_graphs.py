"""Reads a SavedModel of any age without running it: which signature takes a picture, and what its graph consists of.

A SavedModel is a program: its graph can read and write files, and code in it runs when it is loaded. So the protocol buffer
is parsed first, and every operation that computing the features or restoring the variables would run must stand in a list.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from exporters.errors import InputError

MODEL_FILE = "saved_model.pb"
_SERVE = "serve"
# Of several signatures and of several outputs the first that is there, in the order in which they are usual: those of
# Keras and TensorFlow 2, of TensorFlow 1's hub modules, and the outputs of the hub's common image signatures.
_SIGNATURES = ("serving_default", "default", "image_feature_vector", "serve", "call")
_OUTPUTS = ("default", "feature_vector", "output_0")
_FLOAT, _UINT8 = 1, 4


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPERATIONS = _words(
    """
    Abs Add AddN AddV2 All Any ArgMax AssignVariableOp AvgPool BatchMatMul BatchMatMulV2
    BatchNormWithGlobalNormalization BatchToSpaceND BiasAdd BroadcastArgs BroadcastTo Cast CheckNumerics
    ClipByValue Concat ConcatV2 Const Conv2D DepthToSpace DepthwiseConv2dNative DisableCopyOnRead Div DivNoNan
    Einsum Elu EnsureShape Enter Equal Erf Exit Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod FusedBatchNorm
    FusedBatchNormV2 FusedBatchNormV3 Gather GatherV2 Greater GreaterEqual Identity IdentityN If Inv LRN LeakyRelu
    Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr LoopCond MatMul Max MaxPool MaxPoolV2 Maximum Mean
    Merge Min Minimum MirrorPad Mul MulNoNan Neg NextIteration NoOp NotEqual OneHot OnesLike Pack Pad PadV2
    PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient Prod Range Rank ReadVariableOp RealDiv
    Reciprocal Relu Relu6 Reshape ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt Select
    SelectV2 Selu Shape ShapeN Sigmoid Sign Size Slice Snapshot Softmax Softplus Softsign SpaceToBatchND
    SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall StatelessIf
    StatelessWhile StopGradient StridedSlice Sub Sum Switch Tanh Tile TopKV2 Transpose TruncateDiv Unpack
    VarHandleOp VarIsInitializedOp Variable VariableV2 Where While Xdivy ZerosLike _FusedConv2D
    """
)
# What restoring the variables runs besides; it must take its file's name from outside.
_RESTORING = frozenset({"RestoreV2", "Assign", "StringJoin", "Pack", "ShardedFilename"})


@dataclasses.dataclass(frozen=True)
class Signature:
    """A way into a SavedModel: names of the input and the output tensor, `height` and `width` in px (None: any).

    `batch` is how many pictures it takes, None for any number; `whole_numbers` says that it takes uint8.
    """

    name: str
    input: str
    output: str
    height: int | None
    width: int | None
    batch: int | None
    rank: int
    whole_numbers: bool


@dataclasses.dataclass(frozen=True)
class SavedGraph:
    """A parsed SavedModel: the meta graph that answers, and the signature in it that takes a picture."""

    folder: Path
    meta: meta_graph_pb2.MetaGraphDef
    signature: Signature


def read_saved_model(folder: Path, shown: str, *, trust: bool = False) -> SavedGraph:
    """Parse a SavedModel, choose its signature and look through its operations.

    Args:
        folder: with `saved_model.pb` in it.
        shown: what messages call it.
        trust: whether operations outside the list may run.

    Raises:
        InputError: it cannot be parsed, no signature takes one picture, or it holds other operations.
    """
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((folder / MODEL_FILE).read_bytes())
    except (OSError, DecodeError) as fault:
        raise InputError(
            f"The SavedModel {shown} cannot be read: {fault}.", f"a whole {MODEL_FILE}", "fetch or export it again"
        ) from fault
    meta = _answering(message, shown)
    graph = SavedGraph(folder, meta, _signature(meta, shown))
    if not trust:
        _screen(graph, shown)
    return graph


def _answering(message: saved_model_pb2.SavedModel, shown: str) -> meta_graph_pb2.MetaGraphDef:
    """Return the meta graph for serving; TensorFlow 1's hub modules have one without tags, and one for training."""
    by_tags = {frozenset(meta.meta_info_def.tags): meta for meta in message.meta_graphs}
    for tags in (frozenset({_SERVE}), frozenset()):
        if tags in by_tags:
            return by_tags[tags]
    found = ", ".join("+".join(sorted(tags)) for tags in by_tags) or "none at all"
    raise InputError(
        f"The SavedModel {shown} has no graph for serving: its tags are {found}.",
        "a graph with the tag 'serve', or without tags as in a hub module",
        "export it with keras.Model.export, or tf.saved_model.save",
    )


def _signature(meta: meta_graph_pb2.MetaGraphDef, shown: str) -> Signature:
    found = {name: _as_signature(name, each) for name, each in meta.signature_def.items() if not name.startswith("__")}
    usable = {name: each for name, each in found.items() if each}
    for name in _SIGNATURES:
        if name in usable:
            return usable[name]
    if len(usable) == 1:
        return next(iter(usable.values()))
    raise InputError(
        f"The SavedModel {shown} has {'several signatures that take' if usable else 'no signature that takes'} a picture: "
        f"it has {', '.join(sorted(usable or found)) or 'none'}.",
        "one signature, or one called serving_default, from pictures (N, height, width, 3) to features (N, channels) or "
        "(N, height, width, channels)",
        "export it with such a signature: tf.saved_model.save(model, folder, signatures=...)",
    )


def _as_signature(name: str, definition: Any) -> Signature | None:
    pictures = {key: each for key, each in definition.inputs.items() if _is_picture(each)}
    if len(definition.inputs) != 1 or len(pictures) != 1:
        return None
    outputs = {key: each for key, each in definition.outputs.items() if _rank(each) in (2, 4) and each.dtype == _FLOAT}
    chosen = [key for key in _OUTPUTS if key in outputs] or (list(outputs) if len(outputs) == 1 else [])
    if not chosen:
        return None
    picture, output = next(iter(pictures.values())), outputs[chosen[0]]
    batch, height, width = (each.size if each.size > 0 else None for each in picture.tensor_shape.dim[:3])
    whole = picture.dtype == _UINT8
    return Signature(name, picture.name, output.name, height, width, batch, _rank(output), whole)


def _is_picture(tensor: Any) -> bool:
    return tensor.dtype in (_FLOAT, _UINT8) and _rank(tensor) == 4 and tensor.tensor_shape.dim[3].size == 3


def _rank(tensor: Any) -> int:
    return -1 if tensor.tensor_shape.unknown_rank else len(tensor.tensor_shape.dim)


def _screen(graph: SavedGraph, shown: str) -> None:
    definition = graph.meta.graph_def
    answering = set(operations_for(definition, [graph.signature.output]))
    restoring = set(operations_for(definition, [graph.meta.saver_def.restore_op_name or "^"]))
    refused = sorted((answering - _OPERATIONS) | (restoring - _OPERATIONS - _RESTORING))
    if refused:
        raise InputError(
            f"The SavedModel {shown} is not loaded: its graph runs {', '.join(refused[:5])}.",
            "operations that only compute: a SavedModel can read and write files, and run code",
            "export the network without them; or say --trust, if you trust who made it and its operations are TensorFlow's",
        )
    _check_restoring(graph, shown)


def _check_restoring(graph: SavedGraph, shown: str) -> None:
    """Raise InputError where restoring reads another file than the one that it is told to."""
    for node in _reachable(graph.meta.graph_def, [graph.meta.saver_def.restore_op_name or "^"]):
        if node.op == "Const" and node.attr["value"].tensor.string_val:
            for text in node.attr["value"].tensor.string_val:
                if b".." in text or text.startswith((b"/", b"\\")) or b"://" in text:
                    raise InputError(
                        f"The SavedModel {shown} is not loaded: it restores variables from {text[:60]!r}.",
                        "variables from its own folder",
                        "export it again where it comes from",
                    )


def operations_for(definition: Any, tensors: Iterable[str]) -> Iterator[str]:
    """Give the kinds of operation that computing some tensors runs, those inside functions too."""
    return (node.op for node in _reachable(definition, tensors) if not _is_call(node, definition))


def _is_call(node: Any, definition: Any) -> bool:
    return any(function.signature.name == node.op for function in definition.library.function)


def _reachable(definition: Any, tensors: Iterable[str]) -> Iterator[Any]:
    nodes = {node.name: node for node in definition.node}
    functions = {function.signature.name: function for function in definition.library.function}
    waiting, seen, called = [plain_name(each) for each in tensors], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        yield node
        waiting += [plain_name(each) for each in node.input]
        called |= _functions_of(node, functions)
    done: set[str] = set()
    while called - done:
        name = (called - done).pop()
        done.add(name)
        for node in functions[name].node_def:
            yield node
            called |= _functions_of(node, functions)


def _functions_of(node: Any, functions: dict[str, Any]) -> set[str]:
    named = {node.op}
    for value in node.attr.values():
        named |= {value.func.name} | {each.name for each in value.list.func}
    return named & set(functions)


def plain_name(tensor: str) -> str:
    """Return the name of the operation that gives a tensor, or that a control input names."""
    return re.sub(r":[0-9]+$", "", tensor.removeprefix("^"))


def rename_functions(definition: Any, prefix: str) -> None:
    """Give the functions of a graph names that nothing else of the process has: TensorFlow keeps them all in one place."""
    names = {function.signature.name: f"{prefix}_{function.signature.name}" for function in definition.library.function}
    bodies = [function.node_def for function in definition.library.function]
    for node in [*definition.node, *(node for body in bodies for node in body)]:
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            kind = value.WhichOneof("value")
            for called in [value.func] if kind == "func" else value.list.func if kind == "list" else []:
                called.name = names.get(called.name, called.name)
    for function in definition.library.function:
        function.signature.name = names[function.signature.name]
    for gradient in definition.library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
