"""Pixel scaling as layers inside the model: raw 0..255 in, what the backbone was trained with out.

The arithmetic is that of `keras.applications.imagenet_utils.preprocess_input`, in stock layers that every format holds.
"""

from __future__ import annotations

import keras
import numpy as np

_TORCH_MEAN = np.array([0.485, 0.456, 0.406])
_TORCH_DEVIATION = np.array([0.229, 0.224, 0.225])
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68])


def scale_pixels(image: keras.KerasTensor, pixel_scaling: str) -> keras.KerasTensor:
    """Apply a pixel scaling.

    Args:
        image: (N, height, width, 3), RGB, 0..255.
        pixel_scaling: `none`; `unit` to 0..1; `tf` to -1..1; `torch` to 0..1, then ImageNet's mean and deviation
            taken out; `caffe` to BGR with ImageNet's means taken out.

    Returns:
        (N, height, width, 3) float32.
    """
    if pixel_scaling == "unit":
        return keras.layers.Rescaling(1 / 255, name="pixel_scaling")(image)
    if pixel_scaling == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="pixel_scaling")(image)
    if pixel_scaling == "torch":
        kernel = np.diag(1 / (255 * _TORCH_DEVIATION))
        return _as_convolution(kernel, -_TORCH_MEAN / _TORCH_DEVIATION)(image)
    if pixel_scaling == "caffe":
        return _as_convolution(np.eye(3)[::-1], -_CAFFE_MEAN_BGR)(image)
    return image


def _as_convolution(kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer:
    # A frozen 1 x 1 convolution mixes channels in every format; a Lambda would not load where Cutpoint is missing.
    layer = keras.layers.Conv2D(3, 1, name="pixel_scaling", trainable=False)
    layer.build((None, None, None, 3))
    layer.set_weights([kernel[None, None].astype(np.float32), bias.astype(np.float32)])
    return layer
