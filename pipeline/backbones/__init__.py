"""The table of backbones. Light: help texts and error messages list it without loading Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from exporters.contract import Resize
from exporters.errors import InputError, nearest
from pipeline.config import QUICKSTART, BackboneSection

EMBEDDED_WEIGHTS = Path(__file__).parent.parent / "quickstart" / "backbone.weights.h5"
PIXEL_SCALINGS = ("none", "unit", "tf", "torch", "caffe")
# What a weight file of Keras begins with: HDF5's signature, or that of a zip.
_SIGNATURES = (b"\x89HDF", b"PK\x03\x04")


@dataclasses.dataclass(frozen=True)
class BackboneRow:
    """One backbone of the table.

    `builder` is `module:function` with the arguments of keras.applications; `family` says which backbones share an
    architecture; `pixel_scaling` is what its weights were trained with (`none`: it scales raw pixels itself);
    `usual_cuts` are the layers that are usually cut at, the last of them where none is named; `params` counts the
    parameters without the top, at alpha 1 where there is an alpha; `usual_px` is the input size its weights were
    trained at, `smallest_px` the least it takes; `alphas` have ImageNet weights, and are empty where the width is fixed;
    `usual_px_only` says that Keras gives the ImageNet weights for a model of the usual size only.
    """

    builder: str
    family: str
    pixel_scaling: str
    usual_cuts: tuple[str, ...]
    params: int
    usual_px: int = 224
    smallest_px: int = 32
    alphas: tuple[float, ...] = ()
    usual_px_only: bool = False

    @property
    def usual_cut(self) -> str:
        """The layer that is cut at where none is named."""
        return self.usual_cuts[-1]


def _resnet(name: str, blocks: tuple[int, int, int, int], params: int) -> BackboneRow:
    cuts = tuple(f"conv{stage}_block{count}_out" for stage, count in enumerate(blocks, 2))
    return BackboneRow(f"keras.applications:{name}", "resnet", "caffe", cuts, params)


def _resnet_v2(name: str, blocks: tuple[int, int, int], params: int) -> BackboneRow:
    # The last block of a stage halves the map already: the one before it ends the stage's own resolution.
    cuts = tuple(f"conv{stage}_block{count - 1}_out" for stage, count in enumerate(blocks, 2))
    return BackboneRow(f"keras.applications:{name}", "resnet_v2", "tf", (*cuts, "post_relu"), params)


def _vgg(name: str, params: int) -> BackboneRow:
    return BackboneRow(
        f"keras.applications:{name}", "vgg", "caffe", ("block3_pool", "block4_pool", "block5_pool"), params
    )


def _densenet(name: str, params: int) -> BackboneRow:
    cuts = ("pool2_relu", "pool3_relu", "pool4_relu", "relu")
    return BackboneRow(f"keras.applications:{name}", "densenet", "torch", cuts, params)


def _efficientnet(variant: str, usual_px: int, params: int) -> BackboneRow:
    cuts = ("block3a_expand_activation", "block4a_expand_activation", "block6a_expand_activation", "top_activation")
    return BackboneRow(f"keras.applications:EfficientNet{variant}", "efficientnet", "none", cuts, params, usual_px)


def _efficientnet_v2(variant: str, stride_4: str, usual_px: int, params: int) -> BackboneRow:
    cuts = (stride_4, "block4a_expand_activation", "block6a_expand_activation", "top_activation")
    return BackboneRow(f"keras.applications:EfficientNetV2{variant}", "efficientnet_v2", "none", cuts, params, usual_px)


def _nasnet(name: str, cuts: tuple[str, ...], usual_px: int, params: int) -> BackboneRow:
    return BackboneRow(f"keras.applications:{name}", "nasnet", "tf", cuts, params, usual_px, usual_px_only=True)


def _convnext(variant: str, third_stage: int, params: int) -> BackboneRow:
    stages = ((0, 2), (1, 2), (2, third_stage - 1))
    cuts = tuple(f"convnext_{variant.lower()}_stage_{stage}_block_{last}_add" for stage, last in stages)
    return BackboneRow(
        f"keras.applications:ConvNeXt{variant}", "convnext", "none", (*cuts, "layer_normalization"), params
    )


BACKBONES: dict[str, BackboneRow] = {
    "mobilenet": BackboneRow(
        builder="keras.applications:MobileNet",
        family="mobilenet",
        pixel_scaling="tf",
        usual_cuts=("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        params=3_228_864,
        alphas=(0.25, 0.5, 0.75, 1.0),
    ),
    "mobilenet_v2": BackboneRow(
        builder="keras.applications:MobileNetV2",
        family="mobilenet_v2",
        pixel_scaling="tf",
        usual_cuts=("block_6_expand_relu", "block_13_expand_relu", "out_relu"),
        params=2_257_984,
        alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    ),
    "mobilenet_v3_small": BackboneRow(
        builder="keras.applications:MobileNetV3Small",
        family="mobilenet_v3",
        pixel_scaling="none",
        usual_cuts=("activation_1", "activation_11", "activation_17"),
        params=939_120,
        alphas=(0.75, 1.0),
    ),
    "mobilenet_v3_large": BackboneRow(
        builder="keras.applications:MobileNetV3Large",
        family="mobilenet_v3",
        pixel_scaling="none",
        usual_cuts=("activation_1", "activation_13", "activation_19"),
        params=2_996_352,
        alphas=(0.75, 1.0),
    ),
    "resnet50": _resnet("ResNet50", (3, 4, 6, 3), 23_587_712),
    "resnet101": _resnet("ResNet101", (3, 4, 23, 3), 42_658_176),
    "resnet152": _resnet("ResNet152", (3, 8, 36, 3), 58_370_944),
    "resnet50_v2": _resnet_v2("ResNet50V2", (3, 4, 6), 23_564_800),
    "resnet101_v2": _resnet_v2("ResNet101V2", (3, 4, 23), 42_626_560),
    "resnet152_v2": _resnet_v2("ResNet152V2", (3, 8, 36), 58_331_648),
    "vgg16": _vgg("VGG16", 14_714_688),
    "vgg19": _vgg("VGG19", 20_024_384),
    "efficientnet_b0": _efficientnet("B0", 224, 4_049_571),
    "efficientnet_b1": _efficientnet("B1", 240, 6_575_239),
    "efficientnet_b2": _efficientnet("B2", 260, 7_768_569),
    "efficientnet_b3": _efficientnet("B3", 300, 10_783_535),
    "efficientnet_b4": _efficientnet("B4", 380, 17_673_823),
    "efficientnet_b5": _efficientnet("B5", 456, 28_513_527),
    "efficientnet_b6": _efficientnet("B6", 528, 40_960_143),
    "efficientnet_b7": _efficientnet("B7", 600, 64_097_687),
    "efficientnet_v2_b0": _efficientnet_v2("B0", "block2b_add", 224, 5_919_312),
    "efficientnet_v2_b1": _efficientnet_v2("B1", "block2c_add", 240, 6_931_124),
    "efficientnet_v2_b2": _efficientnet_v2("B2", "block2c_add", 260, 8_769_374),
    "efficientnet_v2_b3": _efficientnet_v2("B3", "block2c_add", 300, 12_930_622),
    "efficientnet_v2_s": _efficientnet_v2("S", "block2d_add", 384, 20_331_360),
    "efficientnet_v2_m": _efficientnet_v2("M", "block2e_add", 480, 53_150_388),
    "efficientnet_v2_l": _efficientnet_v2("L", "block2g_add", 480, 117_746_848),
    "densenet121": _densenet("DenseNet121", 7_037_504),
    "densenet169": _densenet("DenseNet169", 12_642_880),
    "densenet201": _densenet("DenseNet201", 18_321_984),
    "inception_v3": BackboneRow(
        builder="keras.applications:InceptionV3",
        family="inception_v3",
        pixel_scaling="tf",
        usual_cuts=("mixed2", "mixed7", "mixed10"),
        params=21_802_784,
        usual_px=299,
        smallest_px=75,
    ),
    "inception_resnet_v2": BackboneRow(
        builder="keras.applications:InceptionResNetV2",
        family="inception_resnet_v2",
        pixel_scaling="tf",
        usual_cuts=("block35_10_ac", "block17_20_ac", "conv_7b_ac"),
        params=54_336_736,
        usual_px=299,
        smallest_px=75,
    ),
    "xception": BackboneRow(
        builder="keras.applications:Xception",
        family="xception",
        pixel_scaling="tf",
        usual_cuts=("block3_sepconv2_bn", "block4_sepconv2_bn", "block13_sepconv2_bn", "block14_sepconv2_act"),
        params=20_861_480,
        usual_px=299,
        smallest_px=71,
    ),
    "nasnet_mobile": _nasnet("NASNetMobile", ("normal_concat_3", "normal_concat_8", "activation_187"), 224, 4_269_716),
    "nasnet_large": _nasnet("NASNetLarge", ("normal_concat_5", "normal_concat_12", "activation_259"), 331, 84_916_818),
    "convnext_tiny": _convnext("Tiny", 9, 27_820_128),
    "convnext_small": _convnext("Small", 27, 49_454_688),
    "convnext_base": _convnext("Base", 27, 87_566_464),
    "convnext_large": _convnext("Large", 27, 196_230_336),
    "convnext_xlarge": _convnext("XLarge", 27, 348_147_968),
}


def table_name(name: str) -> str | None:
    """Return the table's name for what a user wrote: `ResNet50V2`, `resnet-50-v2` and `resnet50_v2` are one; else None."""
    return {_squeezed(each): each for each in BACKBONES}.get(_squeezed(name))


def _squeezed(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def backbone_row(name: str) -> BackboneRow:
    """Return the table's row of that name; raises InputError with the nearest names where there is none."""
    found = table_name(name)
    if found is None:
        raise InputError(f"There is no backbone '{name}'.", nearest(name, BACKBONES), "set --backbone or backbone.name")
    return BACKBONES[found]


def smallest_of_families() -> dict[str, str]:
    """Return family -> name of its member with the fewest parameters."""
    names = sorted(BACKBONES, key=lambda name: BACKBONES[name].params, reverse=True)
    found = {BACKBONES[name].family: name for name in names}
    return {row.family: found[row.family] for row in BACKBONES.values()}


def check_backbone(section: BackboneSection, how: Resize) -> None:
    """Raise InputError for whatever can be seen to be wrong before a network is built."""
    row = backbone_row(section.name)
    if section.pixel_scaling not in ("auto", *PIXEL_SCALINGS):
        raise InputError(
            f"There is no pixel scaling '{section.pixel_scaling}'.",
            nearest(section.pixel_scaling, ("auto", *PIXEL_SCALINGS)),
            "set backbone.pixel_scaling",
        )
    if min(how.width, how.height) < row.smallest_px:
        raise InputError(
            f"The backbone '{section.name}' cannot take {how.width} x {how.height} px.",
            f"at least {row.smallest_px} x {row.smallest_px} px",
            "raise resize.width and resize.height",
        )
    _check_alpha(section, row)
    if section.weights not in ("imagenet", "none"):
        _check_weight_file(section)


def _check_alpha(section: BackboneSection, row: BackboneRow) -> None:
    if not row.alphas and section.alpha != 1:
        raise InputError(
            f"The backbone '{section.name}' has no alpha, and it was set to {section.alpha:g}.",
            f"alpha 1, or one of {_listed(name for name, each in BACKBONES.items() if each.alphas)}",
            "take backbone.alpha out",
        )
    if section.weights == "imagenet" and row.alphas and section.alpha not in row.alphas:
        raise InputError(
            f"There are no ImageNet weights for '{section.name}' with alpha {section.alpha:g}.",
            f"alpha one of {_listed(f'{alpha:g}' for alpha in row.alphas)}",
            "set backbone.alpha, or backbone.weights to a file or none",
        )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


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
