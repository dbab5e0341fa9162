"""Weights for a network of the table out of whatever file holds them: weights alone or a whole model, with a top or without.

Keras itself loads the file of the very same network. What is added here: files with more layers than are wanted, because
the network in them goes on to a classifier, and whole models, whose weights stand behind a description of the network.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import keras
import numpy as np

from exporters.cloning import leaves, set_weights
from pipeline.backbones.loading_files import load_model_file
from pipeline.backbones.model_files import check_h5
from pipeline.backbones.nested import flatten_with_sources
from pipeline.backbones.stock import snake_case

# Layers and their weights: name -> arrays, in the order of the file.
Groups = dict[str, list[np.ndarray]]


def load_weights(model: keras.Model, path: Path, *, trust: bool = False) -> None:
    """Give a network the weights of a file; every layer of the network gets its own, or nothing is loaded.

    Args:
        model: as keras.applications builds it, without its top, layer names settled.
        path: `.h5` or `.weights.h5` with weights alone, or a whole model as `.keras` or `.h5`.
        trust: as for `load_model_file`.

    Raises:
        InputError: the file reaches outside itself, or holds what `load_model_file` refuses.
        ValueError: the weights do not fit; the message says where.
    """
    if _holds_network(path):
        _copy_from_model(model, path, trust)
        return
    check_h5(path)
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that the file lacks, and leaves them as they were initialised.
            warnings.filterwarnings("error", message="(?s).*Skipping|.*retain their|.*could not be loaded")
            model.load_weights(path)
    except Exception as fault:  # Keras and h5py raise ValueError, OSError, KeyError, RuntimeError by turns
        groups = _read_groups(path)
        if not groups or not _fits(model, groups):
            raise ValueError(str(fault)) from fault


def _holds_network(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            return True
    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


def _copy_from_model(model: keras.Model, path: Path, trust: bool) -> None:
    from pipeline.backbones.recognition import last_feature_map, weighted_layers

    height, width = model.inputs[0].shape[1:3]
    loaded = load_model_file(path, trust=trust)
    own = [each or fallback for each, fallback in zip(loaded.model.inputs[0].shape[1:3], (height, width), strict=True)]
    given = loaded.flat(*own)
    wanted, sources = flatten_with_sources(model, height, width)
    names = {layer.name for layer in given.layers}
    end = wanted.outputs[0]._keras_history.operation.name
    theirs = weighted_layers(given, end if end in names else last_feature_map(given))
    mine = weighted_layers(wanted, None)
    # Whether a model scales its pixels itself is no matter of its weights here.
    if _normalizations(theirs) != _normalizations(mine):
        theirs, mine = ([each for each in layers if not _normalizations([each])] for layers in (theirs, mine))
    for target, source in zip(mine, theirs, strict=False):
        if [tuple(weight.shape) for weight in target.weights] != [tuple(weight.shape) for weight in source.weights]:
            raise ValueError(f"its layer '{source.name}' does not fit '{target.name}'")
    if len(mine) != len(theirs):
        raise ValueError(f"it has {len(theirs)} layers with weights up to there, and not {len(mine)}")
    for target, source in zip(mine, theirs, strict=True):
        set_weights(sources[target.name], source.get_weights())


def _normalizations(layers: list[keras.layers.Layer]) -> int:
    return sum(isinstance(layer, keras.layers.Normalization) for layer in layers)


def _read_groups(path: Path) -> Groups:
    """Return the weights of each layer of a file that holds weights alone; empty where it is of no known form."""
    with h5py.File(path, "r") as file:
        if "layer_names" in file.attrs or "layer_names0" in file.attrs:
            return _legacy_groups(file)
        return _groups(file["layers"]) if "layers" in file else {}


def _legacy_groups(file: h5py.File) -> Groups:
    found = {}
    for name in _names(file, "layer_names"):
        values = [file[name][weight][()] for weight in _names(file[name], "weight_names")]
        if values:
            found[name] = values
    return found


def _names(group: h5py.Group, key: str) -> list[str]:
    # Keras spreads long lists over several attributes.
    chunks = [group.attrs[key]] if key in group.attrs else []
    while f"{key}{len(chunks)}" in group.attrs:
        chunks.append(group.attrs[f"{key}{len(chunks)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for chunk in chunks for name in chunk]


def _groups(layers: h5py.Group) -> Groups:
    found = {}
    for name in layers:
        weights = layers[name].get("vars")
        if isinstance(weights, h5py.Group) and len(weights):
            found[str(name)] = [weights[key][()] for key in sorted(weights, key=int)]
        inner = layers[name].get("layers")
        if isinstance(inner, h5py.Group):
            found |= {f"{name}/{key}": values for key, values in _groups(inner).items()}
    return found


def _fits(model: keras.Model, groups: Groups) -> bool:
    """Give a model's layers the weights of the groups of their names, or else of their place; False where they do not fit."""
    weighted = [layer for layer in leaves(model) if layer.weights]
    by_name = [groups.get(layer.name) for layer in weighted]
    by_class = [groups.get(name) for name in _names_by_class(model)]
    for values in (by_name, by_class, list(groups.values())[: len(weighted)]):
        if len(values) == len(weighted) and all(
            each is not None and [array.shape for array in each] == [tuple(weight.shape) for weight in layer.weights]
            for layer, each in zip(weighted, values, strict=True)
        ):
            for layer, each in zip(weighted, values, strict=True):
                set_weights(layer, each)
            return True
    return False


def _names_by_class(model: keras.Model, prefix: str = "") -> list[str]:
    """Return what `.weights.h5` calls the layers with weights: by class, counted in the model that they stand in."""
    counts: dict[str, int] = {}
    found = []
    for layer in model.layers:
        plain = snake_case(type(layer).__name__)
        number = counts.get(plain, 0)
        counts[plain] = number + 1
        name = prefix + (f"{plain}_{number}" if number else plain)
        if isinstance(layer, keras.Model):
            found += _names_by_class(layer, f"{name}/")
        elif layer.weights:
            found.append(name)
    return found
