"""The table of backbones. Light: help texts and error messages list it without loading Keras."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from exporters.contract import Resize
from exporters.errors import InputError, nearest
from pipeline.config import QUICKSTART, BackboneSection

EMBEDDED_WEIGHTS = Path(__file__).parent.parent / "quickstart" / "backbone.weights.h5"
PIXEL_SCALINGS = ("none", "unit", "tf", "torch", "caffe")
SMALLEST_PX = 32
# What a weight file of Keras begins with: HDF5's signature, or that of a zip.
_SIGNATURES = (b"\x89HDF", b"PK\x03\x04")


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
        raise InputError(f"There is no backbone '{name}'.", nearest(name, BACKBONES), "set --backbone or backbone.name")
    return BACKBONES[name]


def check_backbone(section: BackboneSection, how: Resize) -> None:
    """Raise InputError for whatever can be seen to be wrong before a network is built."""
    row = backbone_row(section.name)
    if section.pixel_scaling not in ("auto", *PIXEL_SCALINGS):
        raise InputError(
            f"There is no pixel scaling '{section.pixel_scaling}'.",
            nearest(section.pixel_scaling, ("auto", *PIXEL_SCALINGS)),
            "set backbone.pixel_scaling",
        )
    if min(how.width, how.height) < SMALLEST_PX:
        raise InputError(
            f"The backbone '{section.name}' cannot take {how.width} x {how.height} px.",
            f"at least {SMALLEST_PX} x {SMALLEST_PX} px",
            "raise resize.width and resize.height",
        )
    if section.weights == "imagenet" and section.alpha not in row.alphas:
        raise InputError(
            f"There are no ImageNet weights for '{section.name}' with alpha {section.alpha:g}.",
            f"alpha one of {', '.join(f'{alpha:g}' for alpha in row.alphas)}",
            "set backbone.alpha, or backbone.weights to a file or none",
        )
    if section.weights not in ("imagenet", "none"):
        _check_weight_file(section)


def weights_path(section: BackboneSection) -> Path:
    """Return the weight file that a backbone names: the embedded one, or a file."""
    return EMBEDDED_WEIGHTS if section.weights == QUICKSTART else Path(section.weights).expanduser()


def _check_weight_file(section: BackboneSection) -> None:
    path = weights_path(section)
    if not path.is_file():
        raise InputError(
            f"The weights '{section.weights}' are not there.",
            f"imagenet, none, {QUICKSTART}, or a weight file (.h5, .weights.h5)",
            "set --weights or backbone.weights",
        )
    with path.open("rb") as stream:
        start = stream.read(8)
    if not start.startswith(_SIGNATURES):
        raise InputError(
            f"The weights {path} are no weight file of Keras.",
            "a file that Keras wrote (.h5, .weights.h5)",
            "set --weights to such a file, or fetch it again",
        )
