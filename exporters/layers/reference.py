"""The Keras model's side of a trace: what each of its layers gives, and what it would give on the artifact's own inputs."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters import opaque
from exporters.audit.contents import LINEAR, RELU, RELU6
from exporters.contract import COLUMNS_NAME, INPUT_NAME
from exporters.errors import InputError
from exporters.fingerprinting import WeightedLayer, weighted_layers
from exporters.folding import fold
from exporters.inputs import Inputs
from exporters.layers.rounding import Rounding, step_of
from exporters.layers.tracing import LayerValues, Reference, ReferenceLayer, Tapped

MODEL_FILE = "model.keras"
# In whole numbers every operator rounds what it gives. Those between two layers are not looked at: this many are assumed.
UNSEEN_ROUNDINGS = 4
Pair = tuple[Any, Any]


def load_model(out: Path) -> keras.Model:
    """Load `out/model.keras`.

    Raises:
        InputError: there is no Keras model, or it cannot be loaded.
    """
    path = Path(out) / MODEL_FILE
    try:
        return opaque.load_model(path)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as fault:
        raise InputError(
            f"The Keras model {path} cannot be loaded: {fault}.",
            "the model.keras that the export wrote",
            "export the model again, or leave out --layers",
        ) from fault


def load_reference(out: Path) -> Reference:
    """Load `out/model.keras` as `tracing.trace_artifact` takes it; raises InputError as `load_model` does."""
    return reference_of(load_model(out))


def reference_of(model: keras.Model) -> Reference:
    """Return a functional Keras model, not yet folded, as `tracing.trace_artifact` takes it."""
    folded = fold(model).model
    walk = _Walk.of(folded)
    layers, names = [], set()
    for each in walk.layers:
        # A layer that is called several times stands there as often.
        name = next(name for name in _numbered(each.name) if name not in names)
        names.add(name)
        layers.append(ReferenceLayer(name, each.kind, each.kernel, each.activation))
    return Reference(tuple(layers), walk.values)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({number})" for number in range(2, 1_000_000))


@dataclasses.dataclass(frozen=True)
class _Walk:
    """A folded model, gone through node by node.

    `bare` is tensor id -> index of the layer whose output it is before a separate activation, `whole` the same behind it;
    `fused` holds the activations that layers had inside, which are taken out of them.
    """

    model: keras.Model
    layers: tuple[WeightedLayer, ...]
    bare: Mapping[int, int]
    whole: Mapping[int, int]
    fused: Mapping[int, Callable]

    @staticmethod
    def of(model: keras.Model) -> _Walk:
        layers = weighted_layers(model)
        names = {each.name for each in layers}
        inside = {id(node) for node in _nodes(model)}
        calls = [node for each in model.layers if each.name in names for node in each._inbound_nodes]
        outputs = [node.outputs[0] for node in calls if id(node) in inside]
        bare = {id(tensor): index for index, tensor in enumerate(outputs)}
        whole = {id(each.output): index for index, each in enumerate(layers)}
        fused = {index: model.get_layer(layers[index].name).activation for index in bare.values()}
        for each in layers:
            model.get_layer(each.name).activation = keras.activations.linear
        return _Walk(model, layers, bare, whole, fused)

    def values(self, inputs: Inputs, taps: Mapping[int, Tapped]) -> Iterator[LayerValues]:
        """Give every tapped layer's values, in the order in which they are computed; see `tracing.Reference.values`."""
        known: dict[int, Pair] = {}
        for tensor in self.model.inputs:
            given = keras.ops.convert_to_tensor(_values_of(inputs, tensor.name))
            known[id(tensor)] = (given, given)
        spreads: dict[int, Any] = {}
        exact: set[int] = set()
        remaining = _uses(self.model)
        for node in _nodes(self.model):
            key = id(node.outputs[0])
            pairs = _call(node, known)
            if key in self.bare:
                index = self.bare[key]
                layer, tap = self.layers[index], taps.get(index)
                if tap is not None:
                    source = id(node.input_tensors[0])
                    roundings = 1 if source in exact else UNSEEN_ROUNDINGS
                    spreads[index] = _spread(
                        layer, node.operation, known[source][1], pairs[key][1], tap.rounding, roundings
                    )
                    if tap.before_activation:
                        pairs[key] = yield from _meet(index, pairs[key], tap, spreads[index])
                pairs[key] = tuple(self.fused[index](each) for each in pairs[key])
            if key in self.whole:
                index = self.whole[key]
                tap = taps.get(index)
                if tap is not None and not tap.before_activation:
                    spread = _behind(self.layers[index].activation, pairs[key][1], spreads.pop(index))
                    pairs[key] = yield from _meet(index, pairs[key], tap, spread)
                    exact.add(key)
            known.update(pairs)
            for tensor in node.input_tensors:
                remaining[id(tensor)] -= 1
                if not remaining[id(tensor)]:
                    del known[id(tensor)]


def _values_of(inputs: Inputs, name: str) -> np.ndarray:
    named = inputs.named()
    if name == COLUMNS_NAME and name not in named:
        raise InputError("The Keras model takes columns beside the picture, and none were given.", "their columns")
    return named[COLUMNS_NAME if name == COLUMNS_NAME else INPUT_NAME]


def _nodes(model: keras.Model) -> list[Any]:
    """Return the nodes that compute, each behind those that it takes from."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]


def _uses(model: keras.Model) -> dict[int, int]:
    uses: dict[int, int] = {}
    for node in _nodes(model):
        for tensor in node.input_tensors:
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    return uses


def _call(node: Any, known: Mapping[int, Pair]) -> dict[int, Pair]:
    """Run one node on both sides; returns tensor id -> (from the image on, from the artifact's values on)."""
    sides = []
    for side in (0, 1):
        arguments, options = node.arguments.fill_in({key: pair[side] for key, pair in known.items()})
        sides.append(keras.tree.flatten(node.operation(*arguments, **options)))
    return {id(tensor): pair for tensor, pair in zip(node.outputs, zip(*sides, strict=True), strict=True)}


def _meet(index: int, pair: Pair, tap: Tapped, spread: Any) -> Iterator[LayerValues]:
    """Give what Keras and the artifact have for one layer; returns the pair with the artifact's values for what follows."""
    truth, alone = (keras.ops.convert_to_numpy(each) for each in pair)
    if tap.values.size != alone.size:
        yield LayerValues(index, truth, alone, None, np.zeros(1), tap.rounding.output_range)
        return pair
    found = tap.values.reshape(alone.shape)
    width = tap.rounding.output_width(alone)
    rounded = width**2 / 12 + (tap.rounding.relative * np.abs(alone)) ** 2
    yield LayerValues(
        index, truth, alone, found, keras.ops.convert_to_numpy(spread) + rounded, tap.rounding.output_range
    )
    return pair[0], keras.ops.convert_to_tensor(found)


def _spread(
    weighted: WeightedLayer, layer: keras.layers.Layer, source: Any, output: Any, rounding: Rounding, roundings: int
) -> Any:
    """Return the variance that roundings of kernel and input give a layer's output, before its activation.

    Every rounding is taken to be off by up to half a step, evenly and independently of the others; `roundings` says how
    many have gone over the input.
    """
    kernel = keras.ops.convert_to_tensor(layer.kernel)
    of_kernel = (rounding.kernel_step**2 / 12 + (rounding.relative * keras.ops.convert_to_numpy(kernel)) ** 2).astype(
        "f4"
    )
    values = keras.ops.convert_to_numpy(source)
    size = float(np.abs(np.nan_to_num(values, posinf=0, neginf=0)).max(initial=0.0))
    roundings = roundings if rounding.output_levels else 1
    of_input = roundings * step_of(values, rounding.input_levels) ** 2 / 12 + (rounding.relative * size) ** 2
    inputs = keras.ops.full_like(source, of_input)
    spread = _linear(layer, keras.ops.square(source), of_kernel) + _linear(layer, inputs, keras.ops.square(kernel))
    if weighted.activation in (LINEAR, RELU, RELU6):
        return spread
    # What is no clipping is computed from values that were rounded themselves.
    return spread + (2 * step_of(keras.ops.convert_to_numpy(output), rounding.output_levels)) ** 2 / 12


def _linear(layer: keras.layers.Layer, source: Any, kernel: Any) -> Any:
    if isinstance(layer, keras.layers.Dense):
        return keras.ops.matmul(source, kernel)
    convolve = keras.ops.depthwise_conv if isinstance(layer, keras.layers.DepthwiseConv2D) else keras.ops.conv
    strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    return convolve(source, kernel, strides, layer.padding, layer.data_format, dilation)


def _behind(activation: str, output: Any, spread: Any) -> Any:
    """Return the variance behind an activation: to first order for softmax and sigmoid; others pass on at most all of it."""
    if activation == "softmax":
        shared = keras.ops.sum(keras.ops.square(output) * spread, axis=-1, keepdims=True)
        return keras.ops.square(output) * ((1 - 2 * output) * spread + shared)
    if activation == "sigmoid":
        return keras.ops.square(output * (1 - output)) * spread
    return spread
