"""MobileNet (Howard et al. 2017, arXiv:1704.04861) and MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

import keras


def build_mobilenet(alpha: float, weights: str | None, height: int, width: int) -> keras.Model:
    """Build keras.applications' MobileNet without its top.

    Args:
        alpha: the width multiplier, above 0.
        weights: `imagenet` (Keras's own download and cache) or None.
        height, width: of the input in px.

    Returns:
        A model from scaled pixels (N, height, width, 3) to its last feature map.
    """
    return keras.applications.MobileNet(input_shape=(height, width, 3), alpha=alpha, include_top=False, weights=weights)


def build_mobilenet_v2(alpha: float, weights: str | None, height: int, width: int) -> keras.Model:
    """Build keras.applications' MobileNetV2 without its top; arguments as for `build_mobilenet`."""
    return keras.applications.MobileNetV2(
        input_shape=(height, width, 3), alpha=alpha, include_top=False, weights=weights
    )
