"""Loads a backbone of the table with ImageNet weights, the embedded ones, a file's, or none."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import warnings

import keras
import numpy as np

from exporters.cloning import set_weights
from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones import BackboneRow, backbone_row, check_backbone, weights_path
from pipeline.backbones.origin import is_of_table, loader_of
from pipeline.backbones.stock import settle_names, to_stock_layers
from pipeline.backbones.weight_files import load_weights
from pipeline.config import BackboneSection


@dataclasses.dataclass(frozen=True)
class LoadedBackbone:
    """A frozen backbone: flat, of stock layers, each with a name of its own.

    `pixel_scaling` brings raw pixels to what it takes; `weights_sha256` names its weights; `name` is the table's or the
    file's; `usual_cut` is the layer that is cut at where none is named, one of `usual_cuts`; `notes` are sentences that a
    report carries: what was found out of a model from elsewhere.
    """

    model: keras.Model
    pixel_scaling: str
    weights_sha256: str
    name: str
    usual_cut: str
    usual_cuts: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_backbone(section: BackboneSection, how: Resize) -> LoadedBackbone:
    """Build the backbone and load its weights.

    Raises:
        InputError: an unknown name or scaling, weights that are not there, do not fit or cannot be fetched.
    """
    if not is_of_table(section):
        return loader_of(section)(section, how)
    row = backbone_row(section.name)
    check_backbone(section, how)
    model = _build(section, row, how)
    settle_names(model)
    model = to_stock_layers(model)
    model.trainable = False
    scaling = row.pixel_scaling if section.pixel_scaling == "auto" else section.pixel_scaling
    return LoadedBackbone(model, scaling, digest_of_weights(model), section.name, row.usual_cut, row.usual_cuts)


def build_application(row: BackboneRow, alpha: float, weights: str | None, height: int, width: int) -> keras.Model:
    """Build a row's network with the function of keras.applications that it names, without its top.

    Args:
        row: of the table.
        alpha: the width multiplier, above 0, where the row has one.
        weights: `imagenet` (Keras's own download and cache) or None.
        height, width: of the input in px.

    Returns:
        A model from pixels (N, height, width, 3), scaled as the row says, to its last feature map.
    """
    module, _, attribute = row.builder.partition(":")
    build = getattr(importlib.import_module(module), attribute)
    options = {"alpha": alpha} if row.alphas else {}
    with warnings.catch_warnings():
        # Keras warns that a size other than ImageNet's loads the weights of another size: they do not depend on it.
        warnings.simplefilter("ignore")
        return build(input_shape=(height, width, 3), include_top=False, weights=weights, **options)


def _build(section: BackboneSection, row: BackboneRow, how: Resize) -> keras.Model:
    if section.weights == "imagenet":
        return _build_with_imagenet(section, row, how)
    model = build_application(row, section.alpha, None, how.height, how.width)
    if section.weights != "none":
        _load_weights(model, section)
    return model


def _build_with_imagenet(section: BackboneSection, row: BackboneRow, how: Resize) -> keras.Model:
    height, width = (row.usual_px, row.usual_px) if row.usual_px_only else (how.height, how.width)
    try:
        model = build_application(row, section.alpha, "imagenet", height, width)
    except Exception as fault:  # keras.utils.get_file raises a plain Exception where the network fails
        if isinstance(fault, MemoryError | ImportError | TypeError):
            raise
        raise InputError(
            f"The ImageNet weights of '{section.name}' could not be had: {_first_line(fault)}.",
            "a network, or the weight file in Keras's cache ($KERAS_HOME/models, by default ~/.keras/models)",
            "connect once, put the file there, or set --weights to a file",
        ) from fault
    if (height, width) == (how.height, how.width):
        return model
    resized = build_application(row, section.alpha, None, how.height, how.width)
    set_weights(resized, model.get_weights())
    return resized


def _load_weights(model: keras.Model, section: BackboneSection) -> None:
    path = weights_path(section)
    # The file is of a process of its own: names that Keras counted in this one are not in it.
    settle_names(model)
    try:
        load_weights(model, path, trust=section.trust)
    except InputError:
        raise
    except Exception as fault:  # h5py raises OSError, KeyError, RuntimeError by turns
        raise InputError(
            f"The weights {path} do not fit '{section.name}' with alpha {section.alpha:g}: {_first_line(fault)}.",
            f"weights of {section.name}, alpha {section.alpha:g}, with its top or without",
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
