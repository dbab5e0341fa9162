"""The calibration images as every converter gets them: so that all of them, and the audit, see the same ranges."""

from __future__ import annotations

import numpy as np


def with_full_range(images: np.ndarray) -> np.ndarray:
    """Return calibration images of which at least one holds both 0 and 255, so that the input scale is exactly 1.0.

    Args:
        images: uint8 (N, height, width, 3).

    Returns:
        The same array, with two opposite corner pixels of the first image set to 0 and 255 where none holds both.
    """
    if any(image.min() == 0 and image.max() == 255 for image in images):
        return images
    images = images.copy()
    images[0, 0, 0], images[0, -1, -1] = 0, 255
    return images
