"""Copies of Keras models that share nothing with the original and answer as it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from exporters.opaque import is_opaque


def clone(model: keras.Model) -> keras.Model:
    """Return a copy of a functional model: layers of its own, of the same names, with the same weights.

    A layer that is a SavedModel is shared with the original.
    """
    copied = keras.models.clone_model(model, clone_function=_copy)
    set_weights(copied, model.get_weights())
    return copied


def _copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    return layer if is_opaque(layer) else type(layer).from_config(layer.get_config())


def set_weights(target: keras.Model | keras.layers.Layer, values: Sequence[np.ndarray]) -> None:
    """Give a model or a layer its weights, as `get_weights` of its like lists them.

    Keras's own `set_weights` is not enough for Normalization: it computes with constants that it made of its weights
    before, and makes them anew only when it is told to.
    """
    target.set_weights(values)
    for layer in leaves(target):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def leaves(layer: keras.Model | keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Give the layers of a model, those of models inside it too, and none of these models; for a layer the layer itself."""
    if not isinstance(layer, keras.Model):
        yield layer
        return
    for inner in layer.layers:
        yield from leaves(inner)
