"""`linear`: pooling, dropout, one dense layer with softmax."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection

POOLING = "average"


def build(name: str, section: HeadSection, width: int, classes: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); it answers (N, classes) in 0..1. See `build_head`."""
    features = keras.Input((width,), name=f"{name}_features")
    dropped = keras.layers.Dropout(section.dropout, seed=seed, name=f"{name}_dropout")(features)
    start = keras.initializers.GlorotUniform(seed=seed)
    answer = keras.layers.Dense(classes, "softmax", kernel_initializer=start, name=name, dtype="float32")(dropped)
    return keras.Model(features, answer, name=f"{name}_head")
