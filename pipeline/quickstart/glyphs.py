"""Letters of no alphabet: three or four random strokes, straight or curved."""

import math

import numpy as np
from PIL import Image, ImageDraw

from pipeline.quickstart.figure import Figure, place


def make_glyph(generator: np.random.Generator, number: int) -> list[tuple[np.ndarray, bool]]:
    """Make a class: for each stroke its control points (K, 2) in -1..1, and whether they are joined straight."""
    strokes = []
    for _ in range(int(generator.choice([3, 3, 3, 4]))):
        controls = generator.uniform(-1, 1, (int(generator.integers(3, 6)), 2))
        strokes.append((controls, generator.random() < 0.35))
    return strokes


def draw_glyph(strokes: list, generator: np.random.Generator, size_px: int) -> Figure:
    """Draw the glyph with its control points moved a little, its lines a little shaky."""
    lines = []
    for controls, straight in strokes:
        controls = controls + generator.normal(0, 0.07, controls.shape)
        line = _densify(controls) if straight else _bezier(controls)
        lines.append(line + generator.normal(0, generator.uniform(0, 0.03), line.shape))
    points = place(np.concatenate(lines), generator, size_px, 0.25)
    side = size_px * 2
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    width = max(round(math.exp(generator.uniform(math.log(0.012), math.log(0.09))) * side), 1)
    start = 0
    for line in lines:
        pen.line(
            [tuple(p) for p in (points[start : start + len(line)] * 2).tolist()], fill=255, width=width, joint="curve"
        )
        start += len(line)
    return Figure(np.asarray(mask.reduce(2), np.float32) / 255)


def _bezier(controls: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 20)[:, None, None]
    points = np.broadcast_to(controls, (20, *controls.shape))
    while points.shape[1] > 1:
        points = points[:, :-1] * (1 - t) + points[:, 1:] * t
    return points[:, 0]


def _densify(corners: np.ndarray) -> np.ndarray:
    at = np.linspace(0, len(corners) - 1, 6 * (len(corners) - 1) + 1)
    return np.stack([np.interp(at, np.arange(len(corners)), corners[:, axis]) for axis in range(2)], 1)
