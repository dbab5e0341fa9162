"""`embedding`: pooled features brought to unit length, for similarity search by cosine. Nothing is trained."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection

POOLING = "average"


def build(name: str, section: HeadSection, width: int, classes: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); it answers float32 (N, width), each of length 1. See `build_head`.

    The dot product of two answers is the cosine of their images. Where all features are 0 the answer is 0 too. `classes`
    and `seed` change nothing: there are no labels and no weights.
    """
    features = keras.Input((width,), name=f"{name}_features")
    answer = keras.layers.UnitNormalization(name=name, dtype="float32")(features)
    return keras.Model(features, answer, name=f"{name}_head")
