"""The calibration images as every converter gets them: so that all of them, and the audit, see the same ranges."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from exporters.inputs import Inputs, join

Given = TypeVar("Given", np.ndarray, Inputs)
# Far beyond where a normalised number is cut off, and still finite when it is multiplied.
FAR = np.float32(1e30)


def with_full_range(images: Given) -> Given:
    """Return calibration images of which at least one holds both 0 and 255, so that the input scale is exactly 1.0.

    Args:
        images: uint8 (N, height, width, 3), or such with columns.

    Returns:
        The same array, with two opposite corner pixels of the first image set to 0 and 255 where none holds both. With
        columns, about as many rows again follow: those that were given, with one of their columns in turn as small or as
        large as can be, so that whole numbers reach as far as numbers may.
    """
    if not len(images):
        return images
    if isinstance(images, Inputs):
        return _with_far_columns(dataclasses.replace(images, images=with_full_range(images.images)))
    if any(image.min() == 0 and image.max() == 255 for image in images):
        return images
    images = images.copy()
    images[0, 0, 0], images[0, -1, -1] = 0, 255
    return images


def _with_far_columns(inputs: Inputs) -> Inputs:
    if inputs.columns is None:
        return inputs
    ends = 2 * inputs.columns.shape[1]
    rows = np.arange(max(ends, len(inputs) // ends * ends))
    far = inputs[rows % len(inputs)]
    columns = np.array(far.columns, np.float32)
    columns[rows, rows % ends // 2] = np.where(rows % 2, FAR, -FAR)
    return join([inputs, Inputs(far.images, columns)])
