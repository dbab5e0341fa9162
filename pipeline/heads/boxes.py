"""`boxes`: the bounding box of one object, from flattened features, as where things are matters."""

from __future__ import annotations

import keras

from pipeline.config import HeadSection
from pipeline.heads.answers import regularizer
from pipeline.heads.dense import hidden_layers

POOLING = "flatten"
# The box of an untrained head, as inputs of its sigmoids: the middle half of the picture. A point would overlap with nothing.
_MIDDLE = (-1.0986, -1.0986, 1.0986, 1.0986)


def build(name: str, section: HeadSection, task: str, width: int, units: int, seed: int) -> keras.Model:
    """Build the head on pooled features (N, width); see `build_head`.

    It answers float32 (N, 4): x_min, y_min, x_max, y_max in shares 0..1 of the model's input. `units` is 4.
    """
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
    sides = keras.layers.Dense(
        units,
        "sigmoid",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=seed),
        kernel_regularizer=regularizer(section.l2),
        name=name,
        dtype="float32",
    )
    head = keras.Model(features, sides(value), name=f"{name}_head")
    sides.bias.assign(_MIDDLE)
    return head
