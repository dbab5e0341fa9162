"""Heads of one's own for own_head.toml: a function of the features, a layer or a model, made of keras.layers and keras.ops."""

import keras


def two_layers(features, units):
    """A function: `units` is how many numbers the answer has."""
    hidden = keras.layers.Dense(64, activation="relu")(features)
    return keras.layers.Dense(units, activation="softmax")(hidden)


class Gated(keras.layers.Layer):
    """A layer with layers inside: features weigh each other before they answer."""

    def __init__(self, units, **settings):
        super().__init__(**settings)
        self.squeeze = keras.layers.Dense(32, activation="relu")
        self.gate = keras.layers.Dense(1280, activation="sigmoid")
        self.answer = keras.layers.Dense(units, activation="softmax")

    def call(self, features):
        """Return the answer, (N, units)."""
        return self.answer(features * self.gate(self.squeeze(features)))
