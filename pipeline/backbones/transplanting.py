"""Moves the weights of a SavedModel into a network of the table, where the names and shapes of its variables are that one's.

Names are Keras's own (`Conv1/kernel`), or those that TF-Slim gave to MobileNet V1 and V2, from which most of the hub's
modules were made. Names and shapes only propose: what settles it is that both give the same answers to the same pictures.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np

from exporters.cloning import set_weights
from exporters.contract import Resize
from pipeline.backbones import BACKBONES, PIXEL_SCALINGS, BackboneRow
from pipeline.config import BackboneSection
from pipeline.scaling import scale_pixels

CHECKED_PICTURES = 4
_LARGEST_DIFFERENCE = 1e-3
_ROUNDING = 1e-6
_OF_NORMALIZATION = 16
_SLIM_WEIGHTS = {
    "weights": "kernel",
    "depthwise_weights": "kernel",
    "biases": "bias",
    "BatchNorm/gamma": "gamma",
    "BatchNorm/beta": "beta",
    "BatchNorm/moving_mean": "moving_mean",
    "BatchNorm/moving_variance": "moving_variance",
}
# A layer that has one width at any alpha's share, by which the alpha shows: layer -> its channels at alpha 1.
_WIDTHS = {"mobilenet": ("conv_pw_13", 1024), "mobilenet_v2": ("block_16_project", 320)}
# Names in Keras that stand for the same weight.
_SAME_WEIGHT = {"depthwise_kernel": "kernel"}
Layers = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Transplanted:
    """A network of the table with weights from elsewhere; `scaling` brings raw pixels to what it takes."""

    model: keras.Model
    row: BackboneRow
    scaling: str


def transplant(
    values: Mapping[str, np.ndarray], answer: Callable[[np.ndarray], np.ndarray], scaling: str, how: Resize
) -> tuple[Transplanted | None, list[str]]:
    """Find the network that variables belong to, and give it their values.

    Args:
        values: variable -> value.
        answer: what they belonged to: its own scaled pixels (N, height, width, 3) -> features (N, c) or (N, h, w, c).
        scaling: what it wants of raw pixels; `auto`: not known.
        how: the input size.

    Returns:
        The network, None where there is none that answers alike; and sentences on what was found.
    """
    layers = by_layer(values)
    for name, alpha in _candidates(layers):
        network = _network(name, alpha, how)
        if network is None or not _fill(network, layers):
            continue
        found = _compared(network, BACKBONES[name], answer, scaling, how)
        kind = f"{name}{f' alpha {alpha:g}' if BACKBONES[name].alphas else ''}"
        if found is None:
            return None, [f"Its variables are named as those of {kind}, but it answers otherwise."]
        return Transplanted(network, BACKBONES[name], found), [
            f"The weights of the SavedModel were moved into {kind}, which answers as it does; "
            f"its pixel scaling is {found}."
        ]
    return None, []


def by_layer(values: Mapping[str, np.ndarray]) -> Layers:
    """Return layer -> weight -> value under the names of Keras, for names of Keras and of TF-Slim."""
    found: Layers = collections.defaultdict(dict)
    for name, value in values.items():
        plain = name.split(":")[0]
        layer, weight = _of_slim(plain) or _of_keras(plain)
        if layer:
            found[layer][_SAME_WEIGHT.get(weight, weight)] = value
    return dict(found)


def _of_keras(name: str) -> tuple[str, str]:
    # A number at the end tells apart what TensorFlow saved several times.
    parts = re.sub(r"_[0-9]+$", "", name).split("/")
    return (parts[-2], parts[-1]) if len(parts) > 1 else ("", "")


def _of_slim(name: str) -> tuple[str, str] | None:
    matched = re.search(r"(?:^|/)Mobilenet(V[12])/(?:MobilenetV[12]/)?(.+?)/((?:BatchNorm/)?[a-z_]+)$", name)
    weight = _SLIM_WEIGHTS.get(matched[3]) if matched else None
    if weight is None:
        return None
    convolution = _of_slim_v1(matched[2]) if matched[1] == "V1" else _of_slim_v2(matched[2])
    if convolution is None:
        return None
    normalized = matched[3].startswith("BatchNorm")
    return (_normalization_of(convolution, matched[1]) if normalized else convolution), weight


def _of_slim_v1(scope: str) -> str | None:
    if scope == "Conv2d_0":
        return "conv1"
    matched = re.fullmatch(r"Conv2d_([0-9]+)_(depthwise|pointwise)", scope)
    return f"conv_{'dw' if matched[2] == 'depthwise' else 'pw'}_{matched[1]}" if matched else None


def _of_slim_v2(scope: str) -> str | None:
    if scope in ("Conv", "Conv_1"):
        return {"Conv": "Conv1", "Conv_1": "Conv_1"}[scope]
    matched = re.fullmatch(r"expanded_conv(?:_([0-9]+))?/(expand|depthwise|project)", scope)
    if not matched:
        return None
    return f"{f'block_{matched[1]}' if matched[1] else 'expanded_conv'}_{matched[2]}"


def _normalization_of(convolution: str, version: str) -> str:
    if convolution == "Conv1":
        return "bn_Conv1"
    if convolution == "Conv_1":
        return "Conv_1_bn"
    return f"{convolution}_bn" if version == "V1" else f"{convolution}_BN"


def _candidates(layers: Layers) -> Iterator[tuple[str, float]]:
    for name, (layer, channels) in _WIDTHS.items():
        if "kernel" in layers.get(layer, {}):
            ratio = layers[layer]["kernel"].shape[-1] / channels
            alphas = sorted(BACKBONES[name].alphas, key=lambda alpha, ratio=ratio: abs(alpha - ratio))
            yield from ((name, alpha) for alpha in dict.fromkeys([*alphas[:1], ratio, *alphas[1:3]]))
    # Without what a top may add: dense layers.
    size = sum(int(each.size) for weights in layers.values() if not _is_dense(weights) for each in weights.values())
    for name, row in BACKBONES.items():
        if not row.alphas and abs(size - row.params) <= _OF_NORMALIZATION:
            yield name, 1.0


def _is_dense(weights: Mapping[str, np.ndarray]) -> bool:
    return "kernel" in weights and weights["kernel"].ndim == 2


def _network(name: str, alpha: float, how: Resize) -> keras.Model | None:
    from pipeline.backbones.loading import load_backbone

    if min(how.width, how.height) < BACKBONES[name].smallest_px:
        return None
    return load_backbone(BackboneSection(name=name, alpha=alpha, weights="none"), how).model


def _fill(network: keras.Model, layers: Layers) -> bool:
    """Give every layer of a network its weights; False, and nothing is given, where one is missing or of another shape."""
    wanted = []
    for layer in network.layers:
        if not layer.weights:
            continue
        given = layers.get(layer.name, {})
        names = [_SAME_WEIGHT.get(weight.name, weight.name) for weight in layer.weights]
        if any(
            name not in given or given[name].shape != tuple(weight.shape)
            for name, weight in zip(names, layer.weights, strict=True)
        ):
            return False
        wanted.append((layer, [given[name] for name in names]))
    for layer, weights in wanted:
        set_weights(layer, weights)
    return True


def _compared(network: keras.Model, row: BackboneRow, answer: Callable, scaling: str, how: Resize) -> str | None:
    """Return the pixel scaling with which a network answers as what its weights came from; None where there is none."""
    images = np.random.default_rng(0).uniform(0, 255, (CHECKED_PICTURES, how.height // 8, how.width // 8, 3))
    # Coarse patches beside fine grain: what a network sees in pictures, and what only grain would show.
    images = np.asarray(keras.ops.image.resize(images.astype(np.float32), (how.height, how.width), "bilinear"))
    images = np.clip(images + np.random.default_rng(1).normal(0, 8, images.shape), 0, 255).astype(np.float32)
    given = [scaling] if scaling != "auto" else [row.pixel_scaling, *PIXEL_SCALINGS]
    for theirs in dict.fromkeys(given):
        expected = answer(_scaled(images, theirs))
        for mine in dict.fromkeys([row.pixel_scaling, theirs]):
            if _alike(np.asarray(network(_scaled(images, mine), training=False)), expected):
                return mine
    return None


def _scaled(images: np.ndarray, scaling: str) -> np.ndarray:
    image = keras.Input(images.shape[1:])
    return np.asarray(keras.Model(image, scale_pixels(image, scaling))(images)) if scaling != "none" else images


def _alike(features: np.ndarray, expected: np.ndarray) -> bool:
    if expected.ndim == 2:
        features = features.mean((1, 2))
    if features.shape != expected.shape:
        return False
    # Against how much the answers differ from picture to picture; what rounding alone does to them is let pass.
    spread = float(np.ptp(expected, axis=0).max(initial=0))
    allowed = _LARGEST_DIFFERENCE * spread + _ROUNDING * float(np.abs(expected).max())
    return float(np.abs(features - expected).max()) <= allowed
