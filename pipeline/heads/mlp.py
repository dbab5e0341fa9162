"""`mlp`: pooling or Flatten, hidden dense layers with ReLU and dropout, one dense layer with softmax."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection

POOLING = "average"


def build(name: str, section: HeadSection, width: int, classes: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); it answers (N, classes) in 0..1. See `build_head`."""
    features = keras.Input((width,), name=f"{name}_features")
    value = features
    for index, units in enumerate(section.hidden, 1):
        start = keras.initializers.HeUniform(seed=seed + index)
        value = keras.layers.Dense(units, "relu", kernel_initializer=start, name=f"{name}_hidden_{index}")(value)
        value = keras.layers.Dropout(section.dropout, seed=seed + index, name=f"{name}_dropout_{index}")(value)
    start = keras.initializers.GlorotUniform(seed=seed)
    answer = keras.layers.Dense(classes, "softmax", kernel_initializer=start, name=name, dtype="float32")(value)
    return keras.Model(features, answer, name=f"{name}_head")
