"""Loads a backbone of the table with ImageNet weights, the embedded ones, a file's, or none."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import warnings
from pathlib import Path

import keras
import numpy as np

from exporters.contract import Resize
from exporters.errors import InputError, nearest
from pipeline.backbones import backbone_row
from pipeline.config import QUICKSTART, BackboneSection

EMBEDDED_WEIGHTS = Path(__file__).parent.parent / "quickstart" / "backbone.weights.h5"
PIXEL_SCALINGS = ("none", "unit", "tf", "torch", "caffe")
SMALLEST_PX = 32


@dataclasses.dataclass(frozen=True)
class LoadedBackbone:
    """A frozen backbone; `pixel_scaling` brings raw pixels to what it takes; `weights_sha256` names its weights."""

    model: keras.Model
    pixel_scaling: str
    weights_sha256: str


def load_backbone(section: BackboneSection, how: Resize) -> LoadedBackbone:
    """Build the backbone and load its weights.

    Raises:
        InputError: an unknown name or scaling, weights that are not there, do not fit or cannot be fetched.
    """
    row = backbone_row(section.name)
    scaling = row.pixel_scaling if section.pixel_scaling == "auto" else section.pixel_scaling
    if scaling not in PIXEL_SCALINGS:
        raise InputError(
            f"There is no pixel scaling '{scaling}'.", nearest(scaling, PIXEL_SCALINGS), "set backbone.pixel_scaling"
        )
    if min(how.width, how.height) < SMALLEST_PX:
        raise InputError(
            f"The backbone '{section.name}' cannot take {how.width} x {how.height} px.",
            f"at least {SMALLEST_PX} x {SMALLEST_PX} px",
            "raise resize.width and resize.height",
        )
    model = _build(section, how)
    model.trainable = False
    return LoadedBackbone(model, scaling, digest_of_weights(model))


def _build(section: BackboneSection, how: Resize) -> keras.Model:
    module, _, attribute = backbone_row(section.name).builder.partition(":")
    build = getattr(importlib.import_module(module), attribute)
    if section.weights == "imagenet":
        return _build_with_imagenet(build, section, how)
    with warnings.catch_warnings():
        # Keras warns that a size other than ImageNet's loads the weights of another size: nothing is loaded here.
        warnings.simplefilter("ignore")
        model = build(section.alpha, None, how.height, how.width)
    if section.weights != "none":
        _load_weights(model, section)
    return model


def _build_with_imagenet(build: object, section: BackboneSection, how: Resize) -> keras.Model:
    alphas = backbone_row(section.name).alphas
    if section.alpha not in alphas:
        raise InputError(
            f"There are no ImageNet weights for '{section.name}' with alpha {section.alpha:g}.",
            f"alpha one of {', '.join(f'{alpha:g}' for alpha in alphas)}",
            "set backbone.alpha, or backbone.weights to a file or none",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build(section.alpha, "imagenet", how.height, how.width)
    except Exception as fault:  # keras.utils.get_file raises a plain Exception where the network fails
        if isinstance(fault, MemoryError | ImportError | TypeError):
            raise
        raise InputError(
            f"The ImageNet weights of '{section.name}' could not be had: {_first_line(fault)}.",
            "a network, or the weight file in Keras's cache ($KERAS_HOME/models, by default ~/.keras/models)",
            "connect once, put the file there, or set --weights to a file",
        ) from fault


def _load_weights(model: keras.Model, section: BackboneSection) -> None:
    path = EMBEDDED_WEIGHTS if section.weights == QUICKSTART else Path(section.weights).expanduser()
    if not path.is_file():
        raise InputError(
            f"The weights '{section.weights}' are not there.",
            f"imagenet, none, {QUICKSTART}, or a weight file (.h5, .weights.h5)",
            "set --weights or backbone.weights",
        )
    try:
        model.load_weights(path)
    except Exception as fault:  # Keras and h5py raise ValueError, OSError, KeyError, RuntimeError by turns
        raise InputError(
            f"The weights {path} do not fit '{section.name}' with alpha {section.alpha:g}: {_first_line(fault)}.",
            f"weights of {section.name}, alpha {section.alpha:g}, without its top",
            "set backbone.name and backbone.alpha to those of the file",
        ) from fault


def digest_of_weights(model: keras.Model) -> str:
    """Return the sha256 over all weights of a model: shapes, dtypes and values in the model's order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{values.shape} {values.dtype}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
