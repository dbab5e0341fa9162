"""`linear`: pooling, dropout, one dense layer."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection
from pipeline.heads.answers import answer

POOLING = "average"


def build(name: str, section: HeadSection, task: str, width: int, units: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); it answers float32 (N, units). See `build_head`."""
    features = keras.Input((width,), name=f"{name}_features")
    dropped = keras.layers.Dropout(section.dropout, seed=seed, name=f"{name}_dropout")(features)
    return keras.Model(features, answer(name, task, units, section.l2, seed, dropped), name=f"{name}_head")
