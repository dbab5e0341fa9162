"""Keras model -> one SavedModel on disk, from which every format is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

from exporters.contract import FEATURES_NAME, INPUT_NAME

SERVING = "serving_default"
WITH_FEATURES = "with_features"


def write_saved_model(
    model: keras.Model, cut: Mapping[str, str] | str | None, folder: Path, *, features_everywhere: bool = False
) -> Path:
    """Trace a Keras model once and write it as a SavedModel.

    Args:
        model: takes `image` (N, height, width, 3) float32 0..255, gives a dict of named outputs.
        cut: name of an output -> name of the layer that it carries, as `contract.features_names` pairs them; a layer's name
            alone is carried as `features`; None or nothing where there is none.
        folder: where the SavedModel goes; must not exist.
        features_everywhere: whether `serving_default` gives the features too.

    Returns:
        `folder`, with the signatures `serving_default` (the heads) and, with a cut, `with_features` (heads and features).
    """
    carried = {FEATURES_NAME: cut} if isinstance(cut, str) else dict(cut or {})
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=INPUT_NAME)]
    archive = keras.export.ExportArchive()
    archive.track(model)
    served = model
    if carried:
        features = {name: model.get_layer(layer).output for name, layer in carried.items()}
        # Named, because Keras would number it by a counter of the process, and the name stands in the graph.
        both = keras.Model(model.inputs, {**named_outputs(model), **features}, name=model.name)
        archive.add_endpoint(WITH_FEATURES, lambda image: _floats(both(image, training=False)), signature)
        served = both if features_everywhere else model
    archive.add_endpoint(SERVING, lambda image: _floats(served(image, training=False)), signature)
    archive.write_out(str(folder), verbose=False)
    return folder


def named_outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Return a model's outputs by name: the keys of its dict of outputs, else the names that Keras gives them."""
    if isinstance(model._outputs_struct, Mapping):
        return dict(model._outputs_struct)
    return dict(zip(model.output_names, model.outputs, strict=True))


def _floats(outputs: dict) -> dict:
    return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}
