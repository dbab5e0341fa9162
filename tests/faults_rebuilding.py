"""Tools to copy a Keras model with something changed, for the makers of faults."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tests import small_models

Maker = Callable[[keras.Model], keras.Model]


def rebuilt(
    model: keras.Model, replace: dict[str, Callable] | None = None, call: dict[str, Callable] | None = None
) -> keras.Model:
    """Copy a model, some layers made by another function of theirs, some called in another way.

    Args:
        model: functional.
        replace: name of a layer -> (layer) -> the layer in its place.
        call: name of a layer -> (the new layer, its input) -> what goes on.
    """
    replace, call = replace or {}, call or {}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return replace.get(layer.name, same)(layer)

    def called(layer: keras.layers.Layer, *arguments: object, **options: object) -> object:
        if layer.name in call:
            return call[layer.name](layer, arguments[0])
        return layer(*arguments, **options)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=called)
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


def edited(model: keras.Model, layer: str, edit: Callable[[np.ndarray], None], *, which: int = 0) -> keras.Model:
    """Copy a model with an edit, in place, of one array of weights of one layer: 0 is the kernel, 1 the bias."""
    copy = rebuilt(model)
    arrays = [each.copy() for each in copy.get_layer(layer).get_weights()]
    edit(arrays[which])
    copy.get_layer(layer).set_weights(arrays)
    return copy


def with_outputs(model: keras.Model, change: Callable[..., dict], *, with_image: bool = False) -> keras.Model:
    """Return the model with its named outputs changed; what gives an output bears its name, as Keras wants it."""
    heads = tuple(small_models.LABELS)
    make = {
        name: lambda layer: type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_inside"})
        for name in heads
    }
    copy = keras.models.clone_model(model, clone_function=lambda layer: make.get(layer.name, same)(layer))
    copy.set_weights(model.get_weights())
    named = {name: copy.get_layer(f"{name}_inside").output for name in heads}
    changed = change(named, copy.inputs[0]) if with_image else change(named)
    named = {name: keras.layers.Activation("linear", name=name)(values) for name, values in changed.items()}
    return keras.Model(copy.inputs, named, name=model.name)


def same(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config(layer.get_config())


def with_relu(highest: float | None) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    return lambda layer: keras.layers.ReLU(highest, name=layer.name)


def with_activation(name: str) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    return lambda layer: type(layer).from_config({**layer.get_config(), "activation": name})
