"""Lopsided closed outlines, after the radial contours of RCDB (Kataoka et al., CVPR 2022), filled or as a line."""

import math

import numpy as np
from PIL import Image, ImageDraw

from pipeline.quickstart.figure import Figure, place


def make_contour(generator: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Radial Fourier contours as in RCDB, every second one with corners instead of curves. Out: angles and radii."""
    while True:
        if number % 2:
            corners = int(generator.integers(5, 10))
            angles = np.sort(generator.uniform(0, 2 * math.pi, corners)) + np.linspace(0, 0.1, corners)
            radii, most = generator.uniform(0.25, 1.1, corners), 0.68
        else:
            angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
            radii, most = _waves(angles, generator), 0.85
        # What fills its convex hull is a circle, a square or a triangle to the eye, and what repeats itself round the
        # middle is a star: those belong to the drawings.
        if 0.35 < _solidity(angles, radii) < most and _repetition(angles, radii) < 0.3:
            return angles, radii


def _waves(angles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Radii that are a sum of 8 waves around the circle, the slow ones stronger."""
    waves = np.arange(1, 9)
    sizes = generator.exponential(1, 8) / waves**0.7
    sizes = sizes / sizes.sum() * generator.uniform(0.55, 1.0)
    phases = generator.uniform(0, 2 * math.pi, 8)
    radii = 0.75 + (sizes[:, None] * np.cos(waves[:, None] * angles + phases[:, None])).sum(0)
    return np.clip(radii, 0.12, 1.4)


def _repetition(angles: np.ndarray, radii: np.ndarray) -> float:
    """The largest share of the radii's variance that repeats 3 to 9 times around the middle."""
    even = np.interp(np.linspace(0, 2 * math.pi, 72, endpoint=False), angles, radii, period=2 * math.pi)
    power = np.abs(np.fft.rfft(even))[1:] ** 2
    return max(float(power[times - 1 :: times].sum() / power.sum()) for times in range(3, 10))


def _solidity(angles: np.ndarray, radii: np.ndarray) -> float:
    """The contour's area over that of its convex hull."""
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    return _area(points) / _area(_hull(points))


def _area(points: np.ndarray) -> float:
    return float(abs(np.sum(points[:, 0] * np.roll(points[:, 1], -1) - points[:, 1] * np.roll(points[:, 0], -1))) / 2)


def _hull(points: np.ndarray) -> np.ndarray:
    """Andrew's monotone chain."""
    ordered = sorted(map(tuple, points.tolist()))
    chains = []
    for sweep in (ordered, ordered[::-1]):
        chain: list = []
        for x, y in sweep:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        chains += chain[:-1]
    return np.array(chains)


def draw_contour(shape: tuple, generator: np.random.Generator, size_px: int) -> Figure:
    """Draw the contour with its radii varied a little, as a line or as a filled shape that may bulge."""
    angles, radii = shape
    radii = radii * (1 + generator.normal(0, 0.03, radii.shape))
    points = place(np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1), generator, size_px, 0.35)
    side = size_px * 2
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    polygon = [tuple(p) for p in (points * 2).tolist()]
    if generator.random() < 0.5:
        width = int(generator.integers(2, 12))
        pen.line([*polygon, polygon[0]], fill=255, width=width, joint="curve")
        return Figure(np.asarray(mask.reduce(2), np.float32) / 255)
    pen.polygon(polygon, fill=255)
    cover = np.asarray(mask.reduce(2), np.float32) / 255
    return Figure(cover, _bulge(mask, generator, size_px))


def _bulge(mask: Image.Image, generator: np.random.Generator, size_px: int) -> np.ndarray | None:
    """Shade a flat shape as if it bulged: light from one side on its blurred outline."""
    if generator.random() < 0.4:
        return None
    coarse = mask.resize((16, 16), Image.Resampling.BOX).resize((size_px, size_px), Image.Resampling.BICUBIC)
    height = np.asarray(coarse, np.float32) / 255
    down, right = np.gradient(height)
    light = generator.normal(0, 4, 2).astype(np.float32)
    return np.clip(0.9 + light[0] * down + light[1] * right, 0.2, 1.6)
