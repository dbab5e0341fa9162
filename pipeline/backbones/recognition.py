"""Recognises an architecture of the table in a model from elsewhere, and how a model wants its pixels.

Names of layers lead to candidates; whether it is one of them, its graph and the shapes of all its weights decide.
"""

from __future__ import annotations

import collections
import dataclasses
import re

import keras
import numpy as np

from exporters.contract import Resize
from pipeline.backbones import BACKBONES, PIXEL_SCALINGS, BackboneRow
from pipeline.backbones.nested import fit_colours
from pipeline.backbones.stock import settle_names
from pipeline.config import BackboneSection
from pipeline.costs import layer_costs
from pipeline.scaling import scale_pixels

# Layers that a family has and no other, where its usual cuts bear only counted names.
_TELLING = {"mobilenet_v3": "expanded_conv_squeeze_excite_conv", "nasnet": "stem_conv1"}
_COUNTED = re.compile(r"(activation|re_lu|add|multiply)(_[0-9]+)?")
_COLLAPSING = ("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Flatten", "Reshape", "Dense")
_POOLING = ("AveragePooling2D", "MaxPooling2D", "AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D")
_SMALL_PX = 96
_TRIED_ALPHAS = 6
# Parameters of a Normalization: a mean, a variance and a count, which some versions of Keras do not have.
_OF_NORMALIZATION = 16
_COLOUR_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A row of the table that a model was found to be, with its width multiplier and its network with random weights."""

    name: str
    alpha: float
    row: BackboneRow
    network: keras.Model


def recognise(model: keras.Model) -> Recognised | None:
    """Return which backbone of the table a flat model is up to its last feature map; None where it is none.

    Layers that Keras names by counting are renamed to the table's numbers, where the table cuts at such a layer.
    """
    names = {layer.name for layer in model.layers}
    end = last_feature_map(model)
    for name, row in BACKBONES.items():
        if end is None or not _may_be(row, names):
            continue
        cut = row.usual_cut if row.usual_cut in names and not _COUNTED.fullmatch(row.usual_cut) else end
        found = _match(name, row, model, cut)
        if found is not None:
            if _COUNTED.fullmatch(row.usual_cut):
                settle_names(model)
            return found
    return None


def _may_be(row: BackboneRow, names: set[str]) -> bool:
    named = [cut for cut in row.usual_cuts if not _COUNTED.fullmatch(cut)]
    telling = _TELLING.get(row.family)
    return telling in names if telling else bool(named) and set(named) <= names


def _match(name: str, row: BackboneRow, model: keras.Model, cut: str) -> Recognised | None:
    pairs = weighted_layers(model, cut)
    shapes = _shapes(pairs)
    if not row.alphas:
        size = sum(int(np.prod(shape)) for each in shapes for shape in each)
        if abs(size - row.params) > _OF_NORMALIZATION:
            return None
        network = _network(name, 1.0)
        return Recognised(name, 1.0, row, network) if _same(network, shapes) else None
    for alpha in _likely_alphas(name, row, shapes):
        network = _network(name, alpha)
        if _same(network, shapes):
            return Recognised(name, alpha, row, network)
    return None


def _likely_alphas(name: str, row: BackboneRow, shapes: list[tuple]) -> list[float]:
    """Return width multipliers that a model's weights may have, the likeliest first: by how often a ratio of widths occurs."""
    whole = _shapes(weighted_layers(_network(name, 1.0), None))
    if len(whole) != len(shapes):
        return []
    ratios = collections.Counter(
        round(mine[0][-1] / theirs[0][-1], 4)
        for mine, theirs in zip(shapes, whole, strict=True)
        if mine and theirs and theirs[0][-1] > 1
    )
    common = [ratio for ratio, _ in ratios.most_common(_TRIED_ALPHAS) if 0 < ratio <= 4]
    listed = [alpha for alpha in common if alpha in row.alphas]
    return list(dict.fromkeys([*listed, *(alpha for alpha in common if alpha != 1.0), 1.0, *row.alphas]))


def _network(name: str, alpha: float) -> keras.Model:
    from pipeline.backbones.loading import load_backbone

    px = max(_SMALL_PX, BACKBONES[name].smallest_px)
    return load_backbone(BackboneSection(name=name, alpha=alpha, weights="none"), Resize(px, px)).model


def _same(network: keras.Model, shapes: list[tuple]) -> bool:
    return _shapes(weighted_layers(network, None)) == shapes


def _shapes(layers: list[keras.layers.Layer]) -> list[tuple[tuple[int, ...], ...]]:
    return [
        tuple(tuple(weight.shape) for weight in layer.weights)
        for layer in layers
        if not isinstance(layer, keras.layers.Normalization)
    ]


def weighted_layers(model: keras.Model, cut: str | None) -> list[keras.layers.Layer]:
    """Return the layers with weights that a layer depends on, itself included, in an order that the graph alone decides.

    Args:
        model: flat, every layer called once.
        cut: the layer's name; None: the layer that gives the model's output.
    """
    output = model.get_layer(cut).output if cut else model.outputs[0]
    found, seen, waiting = [], set(), [output._keras_history.operation]
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if getattr(layer, "weights", None):
            found.append(layer)
        sources = [tensor for node in layer._inbound_nodes[:1] for tensor in node.input_tensors]
        waiting += [tensor._keras_history.operation for tensor in sources]
    return found[::-1]


def last_feature_map(model: keras.Model) -> str | None:
    """Return the last layer before the top that gives a feature map: before global pooling, Flatten and Dense layers."""
    chain = [row for row in layer_costs(model) if row.bottleneck]
    found = None
    for before, row in zip([None, *chain], chain, strict=False):
        shrunk = row.type in _POOLING and row.shape[:2] == (1, 1) and before and before.shape[:2] != (1, 1)
        if row.type in _COLLAPSING or shrunk or (found and len(row.shape) != 3):
            break
        if len(row.shape) == 3 and row.type != "InputLayer":
            found = row.name
    return found


def scaling_in_front(model: keras.Model) -> str | None:
    """Return the last of the layers by which a model scales its pixels before anything else; None where it does not."""
    tensor, found = model.inputs[0], None
    while True:
        consumers = [layer for layer in model.layers if tensor in _sources(layer)]
        if len(consumers) != 1 or not _is_of_colours(consumers[0]):
            return found
        found, tensor = consumers[0].name, consumers[0].output


def _sources(layer: keras.layers.Layer) -> list:
    # Symbolic tensors compare by value otherwise.
    return _Identities(tensor for node in layer._inbound_nodes[:1] for tensor in node.input_tensors)


class _Identities(list):
    def __contains__(self, item: object) -> bool:
        return any(each is item for each in self)


def _is_of_colours(layer: keras.layers.Layer) -> bool:
    mixes = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1) and layer.filters == 3
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return isinstance(layer, _COLOUR_LAYERS) or (mixes and linear and tuple(layer.strides) == (1, 1))


def name_of_scaling(model: keras.Model, last: str) -> str | None:
    """Return which of the known pixel scalings a model's own layers up to `last` are; None where they are another."""
    front = keras.Model(model.inputs, model.get_layer(last).output)
    shape = (*(each or 8 for each in model.inputs[0].shape[1:3]), 3)
    found = fit_colours(lambda pixels: front(pixels, training=False), shape)
    for name in PIXEL_SCALINGS if found else ():
        image = keras.Input((8, 8, 3))
        known = fit_colours(keras.Model(image, scale_pixels(image, name)), (8, 8, 3)) if name != "none" else None
        kernel, bias = known if known else (np.eye(3), np.zeros(3))
        if np.allclose(found[0], kernel, rtol=1e-3, atol=1e-5) and np.allclose(found[1], bias, rtol=1e-3, atol=1e-3):
            return name
    return None
