"""The Keras side of the audit: every layer with weights as an artifact must hold it, written down at the export."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from exporters.audit.contents import CONV, DENSE, DEPTHWISE, LINEAR, RELU, RELU6
from exporters.columns_encoder import ColumnsEncoder
from exporters.compiled import ends_of, in_batches
from exporters.fingerprints import Fingerprint, WeightSet
from exporters.folding import scale_and_shift
from exporters.inputs import Inputs, as_inputs
from exporters.keras_graph import answers_of, walk

# Layers that bring no constants of reals into an artifact, or only ones that are written down here.
_KNOWN = frozenset(
    (
        *("InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "Dense", "BatchNormalization", "ReLU", "Activation"),
        *("Softmax", "ZeroPadding2D", "Add", "Concatenate", "Flatten", "Reshape", "GlobalAveragePooling2D"),
        *("GlobalMaxPooling2D", "MaxPooling2D", "AveragePooling2D", "Dropout", "SpatialDropout2D"),
        *("Multiply", "Cropping2D", "Permute", "Identity", "ColumnsEncoder"),
    )
)
_KINDS = {keras.layers.Conv2D: CONV, keras.layers.DepthwiseConv2D: DEPTHWISE, keras.layers.Dense: DENSE}
# Layers that write what they make into memory and a range of their own; others may share them with their input.
_APART = (
    *(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense, keras.layers.ZeroPadding2D),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.Flatten, keras.layers.Reshape),
)
# Activations whose constants a converter may fold into the layers around them.
_FOLDABLE = frozenset({"hard_sigmoid"})
# Activations that bring no constant but the bounds of ReLU and ReLU6.
_PLAIN = frozenset({LINEAR, RELU, RELU6, "softmax", "sigmoid", "tanh", "silu"})
# Operations outside of layers that only move values about.
_WITHOUT_CONSTANTS = frozenset({"Split", "Concatenate", "Reshape", "Transpose", "Squeeze", "ExpandDims"})


# What these give has the scale of what they take where an artifact computes in whole numbers.
_ONE_SCALE = frozenset(
    {
        "Concatenate",
        "ZeroPadding2D",
        "Cropping2D",
        "MaxPooling2D",
        "AveragePooling2D",
        "Reshape",
        "Flatten",
        "UpSampling2D",
    }
)


@dataclasses.dataclass(frozen=True)
class WeightedLayer:
    """A convolution, depthwise convolution or dense layer of a folded Keras model, with the activation behind it.

    `kernel` float32 in Keras's own layout, `bias` float32 (channels,) or None, `activation` as in `contents.Layer`,
    `input` the symbolic tensor that it takes, `output` the one behind bias and activation.
    """

    name: str
    kind: str
    kernel: np.ndarray
    bias: np.ndarray | None
    activation: str
    input: keras.KerasTensor
    output: keras.KerasTensor


def weight_set(model: keras.Model, images: Inputs | np.ndarray | None) -> WeightSet:
    """Write down what an artifact of a folded model must hold.

    Args:
        model: functional, as `fold` or `correct` gives it.
        images: uint8 (N, height, width, 3), with columns where the model takes them, on which the spans of the activations
            are measured; None: they are not.
    """
    layers = weighted_layers(model)
    inputs = None if images is None else as_inputs(images)
    spans = _spans(model, layers, inputs) if inputs is not None and len(inputs) else [((), ())] * len(layers)
    touched = _touched(model)
    prints = tuple(
        Fingerprint(each.name, each.kind, each.kernel, each.bias, each.activation, given, each.name in touched, taken)
        for each, (given, taken) in zip(layers, spans, strict=True)
    )
    complete = all(_is_complete(operation) for operation in model.operations)
    # A bare operation may bear the name of a layer.
    known = (_is_known(each) for each in model.operations)
    closed = complete and all(known)
    closed = closed and all(_name_of(getattr(each, "activation", None)) in _PLAIN for each in model.operations)
    return WeightSet(prints, _others(model), complete, closed, _behind_scaling(model))


def _behind_scaling(model: keras.Model) -> dict[str, str]:
    consumers = _consumers(model, _calls_inside(model))
    return {
        follower[0].name: layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Rescaling)
        for follower in consumers.get(id(layer.output), [])
        if follower is not None and type(follower[0]) in _KINDS
    }


def _touched(model: keras.Model) -> set[str]:
    """Return the layers with weights that have a neighbour whose constants a converter may fold into them.

    Those are bare operations, such as `x + 3`, and some activations. Neighbours are all operations up to the next layers
    with weights, in both directions.
    """
    inside = _calls_inside(model)
    nodes = [node for operation in model.operations for node in operation._inbound_nodes if id(node) in inside]
    forward: dict[int, list] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            forward.setdefault(id(tensor), []).append(node)
    backward = {id(tensor): node for node in nodes for tensor in node.outputs}
    found: set[str] = set()
    for node in nodes:
        if _is_foldable(node.operation):
            found |= {node.operation.name} if type(node.operation) in _KINDS else set()
            after = _reached(node, lambda each: [n for t in each.outputs for n in forward.get(id(t), [])])
            before = _reached(node, lambda each: [backward[id(t)] for t in each.input_tensors if id(t) in backward])
            found |= after | before
    return found


def _reached(start: object, step: Callable[[object], list]) -> set[str]:
    found, seen, left = set(), set(), step(start)
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if type(node.operation) in _KINDS:
            found.add(node.operation.name)
        else:
            left += step(node)
    return found


def _is_foldable(operation: object) -> bool:
    if not isinstance(operation, keras.layers.Layer):
        return type(operation).__name__ not in _WITHOUT_CONSTANTS
    return _name_of(getattr(operation, "activation", None)) in _FOLDABLE


def _is_known(operation: object) -> bool:
    kind = type(operation).__name__
    return kind in (_KNOWN if isinstance(operation, keras.layers.Layer) else _WITHOUT_CONSTANTS)


def _is_complete(operation: object) -> bool:
    """Tell whether an operation has no weights but those that are written down."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    if isinstance(operation, ColumnsEncoder):
        return True
    if isinstance(operation, keras.Model) or not type(operation).__module__.startswith("keras."):
        return False
    if type(operation) in _KINDS:
        return getattr(operation, "groups", 1) == 1
    return not operation.weights or isinstance(
        operation, keras.layers.BatchNormalization | keras.layers.LayerNormalization
    )


def _spans(
    model: keras.Model, layers: tuple[WeightedLayer, ...], inputs: Inputs
) -> list[tuple[tuple[tuple[float, float], ...], ...]]:
    """Return for each layer the spans of what it gives and of what it takes, see `Fingerprint`."""
    if not layers:
        return []
    consumers, joined = _consumers(model, _calls_inside(model)), _joined(model)
    wanted = [
        (tensor, [*_beside(consumers.get(id(tensor), [])), *_source_of_split(tensor)], joined.get(id(tensor), []))
        for each in layers
        for tensor in (each.output, each.input)
    ]
    probed = {id(tensor): tensor for alone, *others in wanted for tensor in (alone, *others[0], *others[1])}
    ends = _ends(model, list(probed.values()), inputs)
    spans = []
    for alone, beside, together in wanted:
        found = [ends[id(alone)]]
        if beside or together:
            found.append(_union([found[0], *(ends[id(each)] for each in beside)]))
        if together:
            found.append(_union([found[1], *(ends[id(each)] for each in together)]))
        spans.append(tuple(found))
    return list(zip(spans[::2], spans[1::2], strict=True))


def _joined(model: keras.Model) -> dict[int, list[keras.KerasTensor]]:
    """Return id of a tensor -> the concatenations and the pooled values that share its scale in whole numbers.

    What is concatenated has one scale, and so has what pooling, padding and their like give and take.
    """
    inside = _calls_inside(model)
    leader: dict[int, int] = {}

    def find(key: int) -> int:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    widest = []
    for operation in model.operations:
        if type(operation).__name__ not in _ONE_SCALE:
            continue
        for node in (node for node in operation._inbound_nodes if id(node) in inside):
            for tensor in node.input_tensors:
                leader[find(id(tensor))] = find(id(node.outputs[0]))
            if isinstance(operation, keras.layers.Concatenate):
                widest.append(node.outputs[0])
            elif isinstance(operation, keras.layers.MaxPooling2D | keras.layers.AveragePooling2D):
                widest.append(node.input_tensors[0])
    groups: dict[int, list[keras.KerasTensor]] = {}
    for tensor in widest:
        groups.setdefault(find(id(tensor)), []).append(tensor)
    return {key: groups[find(key)] for key in list(leader) if find(key) in groups}


def _beside(followers: list) -> list[keras.KerasTensor]:
    """Return what layers give that may work in the memory of what they take."""
    return [each[1] for each in followers if each is not None and not isinstance(each[0], _APART)]


def _source_of_split(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Return what a tensor is a part of: in whole numbers all parts have the scale of the whole."""
    operation, index = tensor._keras_history.operation, tensor._keras_history.node_index
    return operation._inbound_nodes[index].input_tensors if type(operation).__name__ == "Split" else []


def _union(spans: list[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in spans), max(high for _, high in spans)


def _ends(model: keras.Model, probed: list[keras.KerasTensor], inputs: Inputs) -> dict[int, tuple[float, float]]:
    """Return id of a symbolic tensor -> the least and the largest value that it has."""
    keys = [id(tensor) for tensor in probed]

    def compute(given: list[Any]) -> Any:
        ends: dict[int, Any] = {}

        def look(tensor: keras.KerasTensor, value: Any) -> Any:
            if id(tensor) in keys:
                ends[id(tensor)] = ends_of(value)
            return value

        for tensor, value in zip(model.inputs, given, strict=True):
            look(tensor, value)
        walk(model, given, answers_of, look)
        return keras.ops.stack([ends[key] for key in keys])

    parts = np.stack(list(in_batches(compute, inputs, model)))
    least, largest = parts[..., 0].min(0).tolist(), parts[..., 1].max(0).tolist()
    return dict(zip(keys, zip(least, largest, strict=True), strict=True))


def _others(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the constants of every layer that is no convolution and no dense layer."""
    others = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            others |= {f"{layer.name}/scale": np.asarray(layer.scale), f"{layer.name}/offset": np.asarray(layer.offset)}
        elif isinstance(layer, keras.layers.BatchNormalization):
            scale, shift = scale_and_shift(layer)
            others |= {f"{layer.name}/scale": scale, f"{layer.name}/shift": shift}
        elif isinstance(layer, ColumnsEncoder):
            others |= layer.constants()
        elif type(layer) not in _KINDS:
            others |= {f"{layer.name}/{each.name}": np.asarray(each) for each in layer.weights}
    return {name: np.asarray(values, np.float32) for name, values in others.items()}


def weighted_layers(model: keras.Model) -> tuple[WeightedLayer, ...]:
    """Return the layers with weights of a folded functional model, in the model's own order."""
    inside = _calls_inside(model)
    consumers = _consumers(model, inside)
    found = []
    for layer in model.layers:
        if type(layer) not in _KINDS:
            continue
        # A layer may have been called for other models too: only calls inside this one count.
        calls = [node for node in layer._inbound_nodes if id(node) in inside]
        found += [_weighted(layer, node, consumers) for node in calls]
    return tuple(found)


def _weighted(layer: keras.layers.Layer, node: object, consumers: dict) -> WeightedLayer:
    output = node.outputs[0]
    kernel, *bias = (np.asarray(each, np.float32) for each in layer.get_weights())
    activation = _name_of(layer.activation)
    followers = consumers.get(id(output), [])
    if activation == LINEAR and len(followers) == 1 and followers[0] is not None:
        operation, result = followers[0]
        behind = _activation_of(operation)
        if behind:
            activation, output = behind, result
    return WeightedLayer(
        layer.name, _KINDS[type(layer)], kernel, bias[0] if bias else None, activation, node.input_tensors[0], output
    )


def _calls_inside(model: keras.Model) -> set[int]:
    return {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}


def _consumers(model: keras.Model, inside: set[int]) -> dict[int, list]:
    """Return id of a tensor -> (operation, its output) of everything that takes it; None stands for a model's output."""
    consumers: dict[int, list] = {}
    for operation in model.operations:
        for node in (node for node in operation._inbound_nodes if id(node) in inside):
            for tensor in node.input_tensors:
                consumers.setdefault(id(tensor), []).append((operation, node.outputs[0]))
    for tensor in model.outputs:
        consumers.setdefault(id(tensor), []).append(None)
    return consumers


def _activation_of(operation: object) -> str:
    if isinstance(operation, keras.layers.ReLU):
        if operation.negative_slope or operation.threshold:
            return ""
        return {None: RELU, 6.0: RELU6}.get(operation.max_value, "")
    if isinstance(operation, keras.layers.Activation):
        return _name_of(operation.activation)
    return ""


def _name_of(activation: object) -> str:
    return LINEAR if activation is None else getattr(activation, "__name__", str(activation))
