"""Loads a backbone of the table with ImageNet weights, the embedded ones, a file's, or none."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import warnings

import keras
import numpy as np

from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones import backbone_row, check_backbone, weights_path
from pipeline.config import BackboneSection


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
    scaling = backbone_row(section.name).pixel_scaling if section.pixel_scaling == "auto" else section.pixel_scaling
    check_backbone(section, how)
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
    path = weights_path(section)
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that the file lacks, and leaves them as they were initialised.
            warnings.filterwarnings("error", message="(?s).*Skipping|.*retain their|.*could not be loaded")
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
