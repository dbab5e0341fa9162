"""Where a backbone can be cut: the ways to name cut points, and the network that ends there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import keras

from exporters.errors import InputError, nearest
from pipeline.backbones.loading import LoadedBackbone
from pipeline.costs import WEIGHTED, LayerCost, layer_costs

AUTO = "auto"
STRIDE = "stride:"
Cut = str | int | tuple[str | int, ...]

# Layers that go with the one before them: only what the last of such a row gives is worth cutting at.
_CONTINUING = frozenset(
    {
        *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization"),
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Rescaling", "Identity"),
    }
)
# What these give has the content of what they take.
_EMPTY = frozenset({"InputLayer", "ZeroPadding2D", "Cropping2D", "Dropout", "SpatialDropout2D", "Reshape", "Permute"})
_DEPTHWISE = frozenset({"DepthwiseConv2D"})
# Where no layer carries everything over so much of the work, the ends of its cells are candidates too.
_LARGEST_GAP = 0.5


def candidate_cuts(model: keras.Model) -> tuple[str, ...]:
    """Return where it makes sense to cut a backbone, the shallowest first.

    These are the feature maps through which everything goes: beside them, a value needed further on would be lost. Of
    a convolution, its BatchNorm and its activation only the last counts; the depthwise half of a separable pair,
    padding, cropping and scaling do not. Networks whose cells take the two cells before them (NASNet) have no such maps
    over most of their depth: there the concatenations that end the cells are taken as well.
    """
    rows = layer_costs(model)
    weighted = {layer.name for layer in model.layers if isinstance(layer, WEIGHTED)}
    chain = [row for row in rows if row.bottleneck]
    chosen = {row.name for row in _worth(rows) if row.bottleneck and not _halfway(row, chain, weighted, model)}
    marks = [0, *(row.macs for row in rows if row.name in chosen), max(row.macs for row in rows)]
    if max(later - earlier for earlier, later in itertools.pairwise(marks)) > _LARGEST_GAP * marks[-1]:
        chosen |= {row.name for row in _worth(rows) if row.type == "Concatenate"}
    found, done = [], 0
    for row in rows:
        # A branch that costs less than what came before is no step onwards.
        if row.name in chosen and row.macs >= done:
            found.append(row.name)
            done = row.macs
    return tuple(found)


def _worth(rows: list[LayerCost]) -> list[LayerCost]:
    """Return the feature maps behind which no BatchNorm or activation stands that takes nothing else."""
    consumers: dict[str, list[LayerCost]] = {}
    for row in rows:
        for name in row.inputs:
            consumers.setdefault(name, []).append(row)
    types = {row.name: row.type for row in rows}

    def opens_a_block(row: LayerCost) -> bool:
        # Networks that normalise what a block takes (ConvNeXt) end their blocks with the sum.
        after_sum = row.type == "LayerNormalization" and [types.get(name) for name in row.inputs] == ["Add"]
        return after_sum and row.name in consumers

    found = []
    for row in rows:
        after = consumers.get(row.name, [])
        goes_on = len(after) == 1 and after[0].type in _CONTINUING and after[0].bottleneck >= row.bottleneck
        goes_on = goes_on and not opens_a_block(after[0])
        if _is_map(row) and row.macs and row.type not in _EMPTY and not goes_on and not opens_a_block(row):
            found.append(row)
    return found


def _halfway(row: LayerCost, chain: list[LayerCost], weighted: set[str], model: keras.Model) -> bool:
    """Return whether a bottleneck lies between a depthwise convolution and the 1 x 1 convolution that completes it."""
    before = [each for each in chain if each.index <= row.index and each.name in weighted]
    after = [each for each in chain if each.index > row.index and each.name in weighted]
    return bool(before and after) and before[-1].type in _DEPTHWISE and _is_pointwise(model.get_layer(after[0].name))


def _is_map(row: LayerCost) -> bool:
    return len(row.shape) == 3 and row.reduction is not None


def _is_pointwise(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D) and tuple(layer.kernel_size) == (1, 1)


def named_cuts(cut: Cut) -> tuple[str | int, ...]:
    """Return what a user lists as cuts one by one: a TOML array, or names with commas between them, as on a command line."""
    given = cut if isinstance(cut, tuple) else (cut,)
    parts = [part for each in given for part in (each.split(",") if isinstance(each, str) else [each])]
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return tuple(part for part in stripped if part != "") if len(stripped) > 1 else tuple(stripped)


def resolve_cuts(backbone: LoadedBackbone, cut: Cut) -> tuple[str, ...]:
    """Turn what a user names into names of layers, the deepest last.

    Args:
        backbone: the whole backbone.
        cut: a layer's name; its index (negative ones count from the end); `stride:16`, the deepest candidate of that
            reduction; empty for the usual cut point; or several of these, in any order.

    Raises:
        InputError: there is no such layer (the nearest are named with the command that lists them), it gives no feature
            map, or two of them are the same one.
    """
    named = named_cuts(cut)
    if not named:
        raise InputError(
            "The list of cuts is empty.",
            "at least one cut",
            "name a layer, or leave backbone.cut out for the usual cut",
        )
    found: dict[str, str | int] = {}
    for each in named:
        layer = _resolve(backbone, each)
        _check_map(backbone.model, layer)
        if layer in found:
            raise InputError(
                f"The cuts {found[layer]!r} and {each!r} are the same layer, '{layer}'.",
                "each cut once",
                "take one of them out of backbone.cut",
            )
        found[layer] = each
    return tuple(layer.name for layer in backbone.model.layers if layer.name in found)


def _resolve(backbone: LoadedBackbone, cut: str | int) -> str:
    names = [layer.name for layer in backbone.model.layers]
    listing = f"`cutpoint layers {backbone.name}` lists them all"
    if cut == "":
        return backbone.usual_cut
    if cut == AUTO:
        raise InputError(
            "The cut 'auto' stands where a layer is needed.",
            "'auto' as the only cut of a run; elsewhere a layer's name or index, or stride:N",
            listing,
        )
    if isinstance(cut, str) and cut.startswith(STRIDE):
        return _of_stride(backbone, cut, listing)
    if isinstance(cut, int) or re.fullmatch(r"-?[0-9]+", cut):
        index = int(cut)
        if not -len(names) <= index < len(names) or names[index] == names[0]:
            raise InputError(
                f"'{backbone.name}' cannot be cut at layer {index}.",
                f"an index from 1 to {len(names) - 1}, or -1 to {1 - len(names)} from the end",
                listing,
            )
        return names[index]
    if cut not in names[1:]:
        raise InputError(f"'{backbone.name}' has no layer '{cut}'.", nearest(cut, names[1:]), listing)
    return cut


def _of_stride(backbone: LoadedBackbone, cut: str, listing: str) -> str:
    candidates = set(candidate_cuts(backbone.model))
    # Of one reduction the last is the deepest.
    deepest = {row.reduction: row.name for row in layer_costs(backbone.model) if row.name in candidates}
    wanted = cut.removeprefix(STRIDE)
    if not re.fullmatch(r"[0-9]{1,6}", wanted) or int(wanted) not in deepest:
        shown = ", ".join(f"{STRIDE}{each} ({deepest[each]})" for each in sorted(deepest))
        raise InputError(f"'{backbone.name}' has no cut '{cut}'.", f"one of {shown}", listing)
    return deepest[int(wanted)]


def truncate(model: keras.Model, cuts: tuple[str, ...]) -> keras.Model:
    """Return the backbone up to its cuts; nothing that only deeper layers need is left.

    Args:
        model: the whole backbone, scaled pixels (N, h, w, 3) in.
        cuts: names of layers.

    Returns:
        One cut: a model to features (N, h', w', c). Several: a model to a dict, cut -> features, in their order.
    """
    for cut in cuts:
        _check_map(model, cut)
    maps = {cut: model.get_layer(cut).output for cut in cuts}
    return keras.Model(model.inputs, maps if len(cuts) > 1 else maps[cuts[0]], name="truncated_backbone")


def cuts_of(truncated: keras.Model) -> tuple[str, ...]:
    """Return the cuts of a truncated backbone in their order."""
    if isinstance(truncated._outputs_struct, Mapping):
        return tuple(truncated._outputs_struct)
    return (truncated.outputs[0]._keras_history.operation.name,)


def _check_map(model: keras.Model, cut: str) -> None:
    shape = tuple(model.get_layer(cut).output.shape)
    if len(shape) != 4:
        raise InputError(
            f"The layer '{cut}' gives the shape {shape}.",
            "a layer that gives a feature map (N, height, width, channels)",
            "cut at an earlier layer",
        )
