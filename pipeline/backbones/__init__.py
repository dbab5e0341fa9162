"""The table of backbones. Light: help texts and error messages list it without loading Keras."""

from __future__ import annotations

import dataclasses

from exporters.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class BackboneRow:
    """One backbone of the table.

    `builder` is `module:function`, called as `build(alpha, weights, height, width)`; `pixel_scaling` is what its
    weights were trained with; `usual_cut` is the layer that is cut at where none is named; `usual_cuts` are those that
    `cutpoint layers` marks; `usual_px` is the input size its weights were trained at; `alphas` have ImageNet weights.
    """

    builder: str
    pixel_scaling: str
    usual_cut: str
    usual_cuts: tuple[str, ...]
    usual_px: int
    alphas: tuple[float, ...]


BACKBONES: dict[str, BackboneRow] = {
    "mobilenet": BackboneRow(
        builder="pipeline.backbones.mobilenet:build_mobilenet",
        pixel_scaling="tf",
        usual_cut="conv_pw_13_relu",
        usual_cuts=("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        usual_px=224,
        alphas=(0.25, 0.5, 0.75, 1.0),
    ),
    "mobilenet_v2": BackboneRow(
        builder="pipeline.backbones.mobilenet:build_mobilenet_v2",
        pixel_scaling="tf",
        usual_cut="out_relu",
        usual_cuts=("block_6_expand_relu", "block_13_expand_relu", "out_relu"),
        usual_px=224,
        alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    ),
}


def backbone_row(name: str) -> BackboneRow:
    """Return the table's row of that name; raises InputError with the nearest names where there is none."""
    if name not in BACKBONES:
        raise InputError(
            f"There is no backbone '{name}'.", nearest(name, BACKBONES), "set --backbone or backbone.name"
        )
    return BACKBONES[name]
