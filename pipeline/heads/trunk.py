"""The trunk: dense layers between the pooled features and several heads, which share them."""

from __future__ import annotations

import keras

from pipeline.config import TrunkSection
from pipeline.heads.dense import hidden_layers

NAME = "trunk"


def build_trunk(section: TrunkSection, width: int, seed: int) -> keras.Model:
    """Build the trunk.

    Args:
        section: its configuration, with at least one layer.
        width: of the pooled features.
        seed: of its initial weights and dropout.

    Returns:
        A model from features (N, width) to (N, last of `section.hidden`).
    """
    features = keras.Input((width,), name=f"{NAME}_features")
    value = hidden_layers(
        NAME,
        features,
        section.hidden,
        batch_norm=section.batch_norm,
        dropout=section.dropout,
        l2=section.l2,
        seed=seed,
    )
    return keras.Model(features, value, name=NAME)
