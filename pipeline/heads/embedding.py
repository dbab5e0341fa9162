"""`embedding`: features brought to unit length, for similarity search by cosine; with a dense layer before, if asked for."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection
from pipeline.heads.answers import regularizer

POOLING = "average"


def build(name: str, section: HeadSection, task: str, width: int, units: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); it answers float32 (N, dimension), each of length 1. See `build_head`.

    The dot product of two answers is the cosine of their images. Where all features are 0 the answer is 0 too. With
    `section.dimension` 0 it is the features themselves, of width `width`: there is nothing to train. `units` changes nothing.
    """
    features = value = keras.Input((width,), name=f"{name}_features")
    if section.dimension:
        value = keras.layers.Dropout(section.dropout, seed=seed, name=f"{name}_dropout")(value)
        value = keras.layers.Dense(
            section.dimension,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            kernel_regularizer=regularizer(section.l2),
            name=f"{name}_dense",
        )(value)
    answered = keras.layers.UnitNormalization(name=name, dtype="float32")(value)
    return keras.Model(features, answered, name=f"{name}_head")
