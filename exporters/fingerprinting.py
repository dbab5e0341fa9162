"""The Keras side of the audit: every layer with weights as an artifact must hold it, written down at the export."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from exporters.audit.contents import CONV, DENSE, DEPTHWISE, LINEAR, RELU, RELU6
from exporters.fingerprints import Fingerprint, WeightSet
from exporters.folding import scale_and_shift

BATCH = 16
# Layers that bring no constants of reals into an artifact, or only ones that are written down here.
_KNOWN = frozenset(
    (
        *("InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "Dense", "BatchNormalization", "ReLU", "Activation"),
        *("Softmax", "ZeroPadding2D", "Add", "Concatenate", "Flatten", "Reshape", "GlobalAveragePooling2D"),
        *("GlobalMaxPooling2D", "MaxPooling2D", "AveragePooling2D", "Dropout", "SpatialDropout2D"),
    )
)
_KINDS = {keras.layers.Conv2D: CONV, keras.layers.DepthwiseConv2D: DEPTHWISE, keras.layers.Dense: DENSE}
# Layers that write what they make into memory of their own; others may do so where their input lies.
_APART = (
    *(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense, keras.layers.ZeroPadding2D),
    *(keras.layers.MaxPooling2D, keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D),
    *(keras.layers.GlobalMaxPooling2D, keras.layers.Flatten, keras.layers.Reshape),
)
# Activations whose constants a converter may fold into the layers around them.
_FOLDABLE = frozenset({"hard_sigmoid", "hard_silu", "hard_swish"})
# Activations that bring no constant but the bounds of ReLU and ReLU6.
_PLAIN = frozenset({LINEAR, RELU, RELU6, "softmax", "sigmoid", "tanh"})


@dataclasses.dataclass(frozen=True)
class WeightedLayer:
    """A convolution, depthwise convolution or dense layer of a folded Keras model, with the activation behind it.

    `kernel` float32 in Keras's own layout, `bias` float32 (channels,) or None, `activation` as in `contents.Layer`,
    `output` the symbolic tensor behind bias and activation, `beside` those of layers that may work in its memory.
    """

    name: str
    kind: str
    kernel: np.ndarray
    bias: np.ndarray | None
    activation: str
    output: keras.KerasTensor
    beside: tuple[keras.KerasTensor, ...] = ()


def weight_set(model: keras.Model, images: np.ndarray | None) -> WeightSet:
    """Write down what an artifact of a folded model must hold.

    Args:
        model: functional, as `fold` or `correct` gives it.
        images: uint8 (N, height, width, 3), on which the spans of the activations are measured; None: they are not.
    """
    layers = weighted_layers(model)
    spans = _spans(model, layers, images) if images is not None and len(images) else [()] * len(layers)
    prints = tuple(
        Fingerprint(each.name, each.kind, each.kernel, each.bias, each.activation, found)
        for each, found in zip(layers, spans, strict=True)
    )
    complete = all(_is_complete(operation) for operation in model.operations)
    closed = complete and all(type(operation).__name__ in _KNOWN for operation in model.operations)
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


def _is_complete(operation: object) -> bool:
    """Tell whether an operation has no weights but those that are written down, and none that a converter may fold."""
    if not isinstance(operation, keras.layers.Layer) or _name_of(getattr(operation, "activation", None)) in _FOLDABLE:
        return False
    if isinstance(operation, keras.Model) or not type(operation).__module__.startswith("keras."):
        return False
    if type(operation) in _KINDS:
        return getattr(operation, "groups", 1) == 1
    return not operation.weights or isinstance(operation, keras.layers.BatchNormalization)


def _spans(
    model: keras.Model, layers: tuple[WeightedLayer, ...], images: np.ndarray
) -> list[tuple[tuple[float, float], ...]]:
    """Return the spans of each layer, see `Fingerprint`, as the calibration of a converter sees them."""
    if not layers:
        return []
    tensors = [each.output for each in layers] + [tensor for each in layers for tensor in each.beside]
    ends = iter(_ends(keras.Model(model.inputs, tensors), len(tensors), images))
    alone = [next(ends) for _ in layers]
    return [
        (span,) if not each.beside else (span, _union([span, *(next(ends) for _ in each.beside)]))
        for each, span in zip(layers, alone, strict=True)
    ]


def _union(spans: list[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in spans), max(high for _, high in spans)


def _ends(probe: keras.Model, count: int, images: np.ndarray) -> list[tuple[float, float]]:
    least, largest = np.full(count, np.inf), np.full(count, -np.inf)
    for start in range(0, len(images), BATCH):
        values = keras.tree.flatten(probe(images[start : start + BATCH].astype(np.float32), training=False))
        for index, value in enumerate(values):
            found = keras.ops.convert_to_numpy(value)
            least[index], largest[index] = min(least[index], found.min()), max(largest[index], found.max())
    return [(float(low), float(high)) for low, high in zip(least, largest, strict=True)]


def _others(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the constants of every layer that is no convolution and no dense layer."""
    others = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            others |= {f"{layer.name}/scale": np.asarray(layer.scale), f"{layer.name}/offset": np.asarray(layer.offset)}
        elif isinstance(layer, keras.layers.BatchNormalization):
            scale, shift = scale_and_shift(layer)
            others |= {f"{layer.name}/scale": scale, f"{layer.name}/shift": shift}
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
        found += [_weighted(layer, node.outputs[0], consumers) for node in calls]
    return tuple(found)


def _weighted(layer: keras.layers.Layer, output: keras.KerasTensor, consumers: dict) -> WeightedLayer:
    kernel, *bias = (np.asarray(each, np.float32) for each in layer.get_weights())
    activation = _name_of(layer.activation)
    followers = consumers.get(id(output), [])
    if activation == LINEAR and len(followers) == 1 and followers[0] is not None:
        operation, result = followers[0]
        behind = _activation_of(operation)
        if behind:
            activation, output = behind, result
            followers = consumers.get(id(output), [])
    beside = tuple(each[1] for each in followers if each is not None and not isinstance(each[0], _APART))
    return WeightedLayer(layer.name, _KINDS[type(layer)], kernel, bias[0] if bias else None, activation, output, beside)


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
