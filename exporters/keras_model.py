"""The Keras model itself, beside its SavedModel, for a format that is made of layers and not of a graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from exporters.cloning import set_weights

# TensorFlow's name for what others keep in a SavedModel.
FOLDER = "assets.extra"
_LAYERS, _WEIGHTS, _FEATURES = "layers.json", "weights.npz", "features.json"


def write_keras_model(model: keras.Model, features: Mapping[str, str], saved_model_dir: Path) -> None:
    """Write a model into its SavedModel's folder; `features` is name of an output -> layer whose feature map it carries."""
    folder = saved_model_dir / FOLDER
    folder.mkdir(parents=True)
    (folder / _LAYERS).write_text(model.to_json(), encoding="utf-8")
    (folder / _FEATURES).write_text(json.dumps(dict(features)), encoding="utf-8")
    np.savez(folder / _WEIGHTS, *model.get_weights())


def read_keras_model(saved_model_dir: Path) -> tuple[keras.Model, dict[str, str]]:
    """Return the model that `write_keras_model` wrote, and its features."""
    folder = saved_model_dir / FOLDER
    model = keras.models.model_from_json((folder / _LAYERS).read_text(encoding="utf-8"))
    with np.load(folder / _WEIGHTS) as weights:
        set_weights(model, [weights[name] for name in weights.files])
    return model, json.loads((folder / _FEATURES).read_text(encoding="utf-8"))
