"""Makers of faults in how a Keras model computes: each takes the model that would be exported, and returns a damaged one.

They are given the folded model with the weights of the artifact's precision, so that nothing but the fault is different.
"""

from __future__ import annotations

import keras
import numpy as np

from exporters.folding import fold
from tests import small_models
from tests.faults_rebuilding import rebuilt, with_activation, with_outputs, with_relu

RELU_LAYERS = ("first_relu", "deep_relu", "point_relu", "deep_2_relu", "cut_relu")


def swapped_heads(model: keras.Model) -> keras.Model:
    return with_outputs(model, lambda heads: {"apple": heads["zebra"], "zebra": heads["apple"]})


def one_head_twice(model: keras.Model) -> keras.Model:
    return with_outputs(model, lambda heads: {"apple": heads["apple"], "zebra": heads["apple"]})


def missing_scaling(model: keras.Model) -> keras.Model:
    return rebuilt(model, call={"pixel_scaling": lambda layer, values: values})


def doubled_scaling(model: keras.Model) -> keras.Model:
    again = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="again")
    return rebuilt(model, call={"pixel_scaling": lambda layer, values: again(layer(values))})


def scaling_of_another_family(model: keras.Model) -> keras.Model:
    make = {"pixel_scaling": lambda layer: keras.layers.Rescaling(1 / 255, offset=0.0, name=layer.name)}
    return rebuilt(model, replace=make)


def scaling_slightly_off(model: keras.Model) -> keras.Model:
    make = {"pixel_scaling": lambda layer: keras.layers.Rescaling(1 / 127.6, offset=-1.0, name=layer.name)}
    return rebuilt(model, replace=make)


def transposed_image(model: keras.Model) -> keras.Model:
    turn = keras.layers.Permute((2, 1, 3), name="turn")
    return rebuilt(model, call={"pixel_scaling": lambda layer, values: layer(turn(values))})


def padding_off_by_one(model: keras.Model) -> keras.Model:
    """Pads above and on the left where TensorFlow pads below and on the right, as other frameworks do."""
    pad = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name="pad")
    make = {"first": lambda layer: keras.layers.Conv2D.from_config({**layer.get_config(), "padding": "valid"})}
    return rebuilt(model, replace=make, call={"first": lambda layer, values: layer(pad(values))})


def softmax_over_the_batch(model: keras.Model) -> keras.Model:
    linear = rebuilt(model, replace={"zebra": with_activation("linear")})

    def change(heads: dict) -> dict:
        return heads | {"zebra": keras.layers.Softmax(axis=0, name="zebra_softmax")(heads["zebra"])}

    return with_outputs(linear, change)


class PoolingOverTheBatch(keras.layers.Layer):
    """The mean over all positions of all images, for each image."""

    def call(self, values: object) -> object:
        pooled = keras.ops.mean(values, axis=(1, 2))
        return 0.0 * pooled + keras.ops.mean(pooled, axis=0, keepdims=True)


def pooling_over_the_batch(model: keras.Model) -> keras.Model:
    return rebuilt(model, replace={"pooled": lambda layer: PoolingOverTheBatch(name=layer.name)})


def layer_skipped(model: keras.Model) -> keras.Model:
    return rebuilt(model, call={"deep": lambda layer, values: values, "deep_relu": lambda layer, values: values})


def relu6_become_relu(model: keras.Model) -> keras.Model:
    return rebuilt(model, replace=dict.fromkeys(RELU_LAYERS, with_relu(None)))


def relu6_become_relu_unseen(model: keras.Model) -> keras.Model:
    """At the one layer whose values stay below 6 on every picture, so that no answer changes."""
    return rebuilt(model, replace={"first_relu": with_relu(None)})


def relu_left_out(model: keras.Model) -> keras.Model:
    return rebuilt(model, call={"point_relu": lambda layer, values: values})


class OneHot(keras.layers.Layer):
    """1 for the largest value, 0 for the others."""

    def call(self, values: object) -> object:
        return keras.ops.cast(values >= keras.ops.max(values, axis=-1, keepdims=True), "float32")


def one_hot_answers(model: keras.Model) -> keras.Model:
    return with_outputs(model, lambda heads: {name: OneHot(name=f"{name}_hot")(each) for name, each in heads.items()})


def softmax_twice(model: keras.Model) -> keras.Model:
    def change(heads: dict) -> dict:
        return {name: keras.layers.Softmax(name=f"{name}_again")(each) for name, each in heads.items()}

    return with_outputs(model, change)


def logits_in_place_of_probabilities(model: keras.Model) -> keras.Model:
    return rebuilt(model, replace=dict.fromkeys(("zebra", "apple"), with_activation("linear")))


def sigmoid_in_place_of_softmax(model: keras.Model) -> keras.Model:
    return rebuilt(model, replace=dict.fromkeys(("zebra", "apple"), with_activation("sigmoid")))


class LastingDropout(keras.layers.Layer):
    """Dropout that is not switched off: 5 of 100 values are 0, others each time."""

    def call(self, values: object) -> object:
        import tensorflow as tf

        return values * tf.cast(tf.random.uniform(tf.shape(values)) > 0.05, tf.float32) / 0.95


def dropout_left_on(model: keras.Model) -> keras.Model:
    drop = LastingDropout(name="lasting")
    return rebuilt(model, call={"pooled": lambda layer, values: drop(layer(values))})


def another_run(model: keras.Model) -> keras.Model:
    """The same architecture of another seed."""
    return fold(small_models.small(1).model).model


def another_alpha(model: keras.Model) -> keras.Model:
    """A narrower network of the same output shapes: the last 8 of 96 channels are missing."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.name == "point_2":
            settings = {**settings, "filters": 88}
        return type(layer).from_config(settings)

    copy = keras.models.clone_model(model, clone_function=clone)
    for layer in copy.layers:
        arrays = model.get_layer(layer.name).get_weights() if layer.weights else []
        cut = [each[tuple(map(slice, mine.shape))] for each, mine in zip(arrays, layer.get_weights(), strict=True)]
        if cut:
            layer.set_weights(cut)
    return copy


class SpoiltByOneImage(keras.layers.Layer):
    """NaN for every image whose value at one place is above a limit."""

    def __init__(self, place: tuple[int, int, int], limit: float, **options: object) -> None:
        super().__init__(**options)
        self.place, self.limit = place, limit

    def call(self, values: object, image: object) -> object:
        row, column, channel = self.place
        return values + 1e-12 * keras.ops.sqrt(self.limit - image[:, row, column, channel])[:, None]


def nan_for_one_image(model: keras.Model) -> keras.Model:
    place, limit = place_of_one_image()
    spoil = SpoiltByOneImage(place, limit, name="spoil")

    def change(heads: dict, image: keras.KerasTensor) -> dict:
        return heads | {"zebra": spoil(heads["zebra"], image)}

    return with_outputs(model, change, with_image=True)


def place_of_one_image(label: int | None = None) -> tuple[tuple[int, int, int], float]:
    """Return where (row, column, channel) one golden image is brighter than all others, and a limit between both.

    With `label`, the image is one that the model takes for that class of `zebra`.
    """
    one = small_models.small()
    images = one.images.astype(np.int64)
    brightest, ordered = images.argmax(0), np.sort(images, axis=0)
    gap = ordered[-1] - ordered[-2]
    if label is not None:
        gap = np.where(one.reference["zebra"].argmax(-1)[brightest] == label, gap, 0)
    place = np.unravel_index(int(gap.argmax()), gap.shape)
    assert gap[place] >= 2
    return tuple(int(each) for each in place), float(ordered[-2][place] + gap[place] / 2)
