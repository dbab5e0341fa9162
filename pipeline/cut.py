"""Truncates a backbone at its cut point, and lists the layers at which it can be cut."""

from __future__ import annotations

import dataclasses
import re

import keras

from exporters.errors import InputError, nearest
from pipeline.backbones import backbone_row


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer of `cutpoint layers`.

    `shape` of its output without the batch axis; `reduction` is input height over output height (the stride so far),
    None for a layer without height; `params` up to and including it; `usual` marks the usual cut points.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    reduction: int | None
    params: int
    usual: bool


def resolve_cut(backbone: keras.Model, cut: str | int, backbone_name: str) -> str:
    """Turn what a user names into the name of a layer.

    Args:
        backbone: the whole backbone.
        cut: a layer's name, its index (negative ones count from the end), or empty for the usual cut point.
        backbone_name: for the usual cut point and for messages.

    Raises:
        InputError: there is no such layer; the nearest are named with the command that lists them.
    """
    names = [layer.name for layer in backbone.layers]
    listing = f"`cutpoint layers {backbone_name}` lists them all"
    if isinstance(cut, str) and (cut == "auto" or cut.startswith("stride:")):
        raise InputError(f"The cut '{cut}' is not available in this version.", "a layer's name or index", listing)
    if cut == "":
        return backbone_row(backbone_name).usual_cut
    if isinstance(cut, int) or re.fullmatch(r"-?[0-9]+", cut):
        index = int(cut)
        if not -len(names) <= index < len(names) or names[index] == names[0]:
            raise InputError(
                f"'{backbone_name}' cannot be cut at layer {index}.",
                f"an index from 1 to {len(names) - 1}, or -1 to {1 - len(names)} from the end",
                listing,
            )
        return names[index]
    if cut not in names[1:]:
        raise InputError(f"'{backbone_name}' has no layer '{cut}'.", nearest(cut, names[1:]), listing)
    return cut


def truncate(backbone: keras.Model, cut: str) -> keras.Model:
    """Return the backbone up to and including the layer `cut`: (N, h, w, 3) scaled pixels -> features (N, h', w', c)."""
    features = backbone.get_layer(cut).output
    if len(features.shape) != 4:
        raise InputError(
            f"The layer '{cut}' gives the shape {tuple(features.shape)}.",
            "a layer that gives a feature map (N, height, width, channels)",
            "cut at an earlier layer",
        )
    return keras.Model(backbone.inputs, features, name="truncated_backbone")


def list_layers(backbone: keras.Model, backbone_name: str) -> list[LayerRow]:
    """List every layer of a backbone, in its order."""
    usual = backbone_row(backbone_name).usual_cuts
    input_height = backbone.inputs[0].shape[1]
    rows, params = [], 0
    for index, layer in enumerate(backbone.layers):
        params += layer.count_params()
        shape = tuple(layer.output.shape[1:])
        reduction = round(input_height / shape[0]) if len(shape) == 3 and shape[0] else None
        rows.append(LayerRow(index, layer.name, type(layer).__name__, shape, reduction, params, layer.name in usual))
    return rows
