"""Keras model -> one SavedModel on disk, from which every format is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

from exporters.contract import COLUMNS_ENCODED, COLUMNS_NAME, FEATURES_NAME, INPUT_NAME
from exporters.keras_model import write_keras_model

SERVING = "serving_default"
WITH_FEATURES = "with_features"
# Of a model with columns: what encodes them, and all the rest, which takes them encoded.
ENCODER, BODY = "encoder", "body"


def write_saved_model(
    model: keras.Model, cut: Mapping[str, str] | str | None, folder: Path, *, features_everywhere: bool = False
) -> Path:
    """Trace a Keras model once and write it as a SavedModel.

    Args:
        model: takes `image` (N, height, width, 3) float32 0..255, and `columns` (N, C) float32 where it has such, and gives a
            dict of named outputs.
        cut: name of an output -> name of the layer that it carries, as `contract.features_names` pairs them; a layer's name
            alone is carried as `features`; None or nothing where there is none.
        folder: where the SavedModel goes; must not exist.
        features_everywhere: whether `serving_default` gives the features too.

    Returns:
        `folder`, with the signatures `serving_default` (the heads) and, with a cut, `with_features` (heads and features);
        of a model with columns also `encoder` (`columns` -> `columns_encoded`) and `body` (`image` and `columns_encoded` ->
        what `serving_default` gives). The Keras model lies beside them, see `keras_model.read_keras_model`.
    """
    carried = {FEATURES_NAME: cut} if isinstance(cut, str) else dict(cut or {})
    # First, because a part of a model, such as `body`, can only be made at the cost of the whole's description.
    write_keras_model(model, carried, folder)
    traced = {}
    served = model
    if carried:
        features = {name: model.get_layer(layer).output for name, layer in carried.items()}
        # Named, because Keras would number it by a counter of the process, and the name stands in the graph.
        both = keras.Model(model.inputs, {**named_outputs(model), **features}, name=model.name)
        traced[WITH_FEATURES] = _trace(both)
        served = both if features_everywhere else model
    traced[SERVING] = _trace(served)
    if takes_columns(model):
        encoded = model.get_layer(COLUMNS_ENCODED).output
        encoder = keras.Model(model.inputs[1], {COLUMNS_ENCODED: encoded}, name=f"{model.name}_{ENCODER}")
        body = keras.Model([model.inputs[0], encoded], named_outputs(served), name=f"{model.name}_{BODY}")
        traced[ENCODER] = _trace(encoder, COLUMNS_NAME)
        traced[BODY] = _trace(body, INPUT_NAME, COLUMNS_ENCODED)
    # Not by Keras's `ExportArchive`, which has every signature traced three times.
    module = tf.Module()
    module.held = list({id(each): each for function in traced.values() for each in function.variables}.values())
    tf.saved_model.save(module, str(folder), signatures=traced)
    return folder


def write_with_batch(saved_model_dir: Path, batch: int, folder: Path) -> Path:
    """Write a SavedModel once more, whose signatures take exactly so many pictures at once; returns `folder`."""
    loaded = tf.saved_model.load(str(saved_model_dir))
    fixed = {}
    for name, signature in loaded.signatures.items():
        given = signature.structured_input_signature[1]
        specs = {key: tf.TensorSpec((batch, *each.shape[1:]), each.dtype, name=key) for key, each in given.items()}
        # Bound now: the next turn of the loop has another signature.
        traced = tf.function(lambda signature=signature, **inputs: signature(**inputs))
        fixed[name] = traced.get_concrete_function(**specs)
    tf.saved_model.save(loaded, str(folder), signatures=fixed)
    return folder


def takes_columns(model: keras.Model) -> bool:
    """Tell whether a model takes columns beside the picture."""
    return len(model.inputs) > 1


def _trace(model: keras.Model, *inputs: str) -> tf.types.experimental.ConcreteFunction:
    """Return a model as TensorFlow computes it; `inputs` are the names that its inputs get."""
    names = inputs or (INPUT_NAME, COLUMNS_NAME)[: len(model.inputs)]
    given = [
        tf.TensorSpec((None, *each.shape[1:]), tf.float32, name=called)
        for each, called in zip(model.inputs, names, strict=True)
    ]
    if len(names) == 1:
        function = tf.function(lambda image: _floats(model(image, training=False)), autograph=False)
    else:
        function = tf.function(lambda image, second: _floats(model([image, second], training=False)), autograph=False)
    return function.get_concrete_function(*given)


def named_outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Return a model's outputs by name: the keys of its dict of outputs, else the names that Keras gives them."""
    if isinstance(model._outputs_struct, Mapping):
        return dict(model._outputs_struct)
    return dict(zip(model.output_names, model.outputs, strict=True))


def _floats(outputs: dict) -> dict:
    return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}
