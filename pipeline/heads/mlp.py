"""`mlp`: pooling, hidden dense layers with ReLU, dropout and perhaps BatchNorm, one dense layer."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection
from pipeline.heads.answers import answer
from pipeline.heads.dense import hidden_layers

POOLING = "average"


def build(name: str, section: HeadSection, task: str, width: int, units: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); it answers float32 (N, units). See `build_head`."""
    features = keras.Input((width,), name=f"{name}_features")
    value = hidden_layers(
        name,
        features,
        section.hidden,
        batch_norm=section.batch_norm,
        dropout=section.dropout,
        l2=section.l2,
        seed=seed,
    )
    return keras.Model(features, answer(name, task, units, section.l2, seed, value), name=f"{name}_head")
