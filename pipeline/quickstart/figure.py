"""What every family of the pretraining set hands over: a shape, which has no colours and no surroundings yet."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure before it has colours: `cover` (S, S) float32, 0..1; `shade` the same shape, a factor around 1, or None;
    `fills` where the cover is a texture over the whole image instead of a thing on a background."""

    cover: np.ndarray
    shade: np.ndarray | None = None
    fills: bool = False


def place(points: np.ndarray, generator: np.random.Generator, size_px: int, turn: float) -> np.ndarray:
    """Turn, shear, scale and move points (N, 2) of about -1..1 into the image; out: (N, 2) in pixels."""
    angle = generator.normal(0, turn)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.array([[math.exp(generator.normal(0, 0.12)), generator.normal(0, 0.1)], [0, 1]])
    scale = generator.uniform(0.18, 0.46)
    middle = 0.5 + generator.uniform(-1, 1, 2) * (0.5 - scale) * 0.9
    return (points @ matrix.T * scale + middle) * size_px
