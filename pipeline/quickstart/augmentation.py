"""Variation added when a batch is put together, so that each procedural image can be shown several times."""

import numpy as np
from PIL import Image


def augment(images: np.ndarray, size_px: int, generator: np.random.Generator) -> np.ndarray:
    """Crop, mirror and recolour a batch at random.

    In: images (N, S, S, 3) uint8, the side of the images wanted. Out: (N, size_px, size_px, 3) float32, 0..255.
    """
    side = images.shape[1]
    batch = np.empty((len(images), size_px, size_px, 3), np.float32)
    edges = side * generator.uniform(0.72, 1.0, len(images))
    corners = generator.uniform(0, 1, (len(images), 2)) * (side - edges)[:, None]
    for position, (image, edge, (x, y)) in enumerate(zip(images, edges, corners, strict=True)):
        box = (x, y, x + edge, y + edge)
        batch[position] = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)
    mirrored = generator.random(len(images)) < 0.5
    batch[mirrored] = batch[mirrored, :, ::-1]
    return _recolour(batch, generator)


def _recolour(batch: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness and white balance; swap channels, take the colour out or invert now and then."""
    count = len(batch)
    for position in np.flatnonzero(generator.random(count) < 0.25):
        batch[position] = batch[position][..., generator.permutation(3)]
    grey = generator.random(count) < 0.15
    batch[grey] = batch[grey].mean(-1, keepdims=True)
    inverted = generator.random(count) < 0.1
    batch[inverted] = 255 - batch[inverted]
    gain = generator.uniform(0.6, 1.3, (count, 1, 1, 1)) * generator.uniform(0.88, 1.12, (count, 1, 1, 3))
    offset = generator.uniform(-30, 30, (count, 1, 1, 1))
    batch -= 127.5
    batch *= gain.astype(np.float32)
    batch += (127.5 + offset).astype(np.float32)
    return np.clip(batch, 0, 255, out=batch)
