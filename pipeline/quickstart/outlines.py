"""The figures of the embedded data set as clean strokes, before a hand has drawn them.

A stroke is a polyline (N, 2) float64 of about -1..1, x to the right and y down; a figure is a list of strokes.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

Strokes = list[np.ndarray]


def _circle(generator: np.random.Generator) -> Strokes:
    turn = generator.uniform(0.86, 1.1) * 2 * math.pi
    angles = generator.uniform(0, 2 * math.pi) + np.linspace(0, turn, 60) * generator.choice([-1, 1])
    drift = np.linspace(1, generator.uniform(0.85, 1.12), 60)
    return [_polar(drift, angles)]


def _square(generator: np.random.Generator) -> Strokes:
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float) + generator.normal(0, 0.09, (4, 2))
    return _outline(corners, generator)


def _triangle(generator: np.random.Generator) -> Strokes:
    angles = np.array([-90, 30, 150]) * math.pi / 180 + generator.normal(0, 0.17, 3)
    return _outline(_polar(generator.uniform(0.9, 1.15, 3), angles), generator)


def _star(generator: np.random.Generator) -> Strokes:
    points = int(generator.choice([4, 5, 5, 5, 6]))
    if points == 5 and generator.random() < 0.5:
        angles = -math.pi / 2 + np.arange(5) * 4 * math.pi / 5
        return _outline(_polar(np.ones(5), angles + generator.normal(0, 0.08, 5)), generator)
    angles = -math.pi / 2 + np.arange(2 * points) * math.pi / points + generator.normal(0, 0.06, 2 * points)
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, generator.uniform(0.36, 0.58))
    return _outline(_polar(radii * generator.uniform(0.88, 1.12, 2 * points), angles), generator)


def _heart(generator: np.random.Generator) -> Strokes:
    t = np.linspace(0, 2 * math.pi * generator.uniform(0.95, 1.02), 70)
    depth = generator.uniform(3, 6.5)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - depth * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [np.stack([x, y], 1) / 16]


def _spiral(generator: np.random.Generator) -> Strokes:
    turns = generator.uniform(1.5, 3.6)
    t = np.linspace(0, 1, int(40 * turns))
    angles = generator.uniform(0, 2 * math.pi) + generator.choice([-1, 1]) * 2 * math.pi * turns * t
    return [_polar(0.06 + t ** generator.uniform(0.8, 1.2), angles)]


def _cross(generator: np.random.Generator) -> Strokes:
    meeting = generator.uniform(-0.25, 0.25, 2)
    angle = math.pi / 2 + generator.normal(0, 0.16)
    directions = np.array([[1, 0], [math.cos(angle), math.sin(angle)]])
    return [
        _line(meeting - direction * generator.uniform(0.7, 1.1), meeting + direction * generator.uniform(0.7, 1.1))
        for direction in directions
    ]


def _arrow(generator: np.random.Generator) -> Strokes:
    bend = generator.normal(0, 0.22)
    t = np.linspace(-1, 1, 40)
    shaft = np.stack([t, bend * (1 - t**2)], 1)
    tip = shaft[-1]
    barbs = []
    for side in (-1, 1):
        angle = math.pi + bend + side * generator.uniform(0.4, 0.85)
        barbs.append(tip + generator.uniform(0.4, 0.8) * np.array([math.cos(angle), math.sin(angle)]))
    if generator.random() < 0.5:
        return [shaft, _through([barbs[0], tip, barbs[1]])]
    return [shaft, _line(tip, barbs[0]), _line(tip, barbs[1])]


def _zigzag(generator: np.random.Generator) -> Strokes:
    corners = int(generator.integers(4, 8))
    x = np.linspace(-1, 1, corners) + generator.normal(0, 0.07, corners)
    y = generator.uniform(0.3, 0.7, corners) * np.where(np.arange(corners) % 2 == 0, 1, -1)
    return [_through(np.stack([x, y], 1))]


def _crescent(generator: np.random.Generator) -> Strokes:
    opening = generator.uniform(0.6, 1.15)
    outer = _polar(np.ones(50), np.linspace(opening, 2 * math.pi - opening, 50))
    depth = generator.uniform(0.35, 0.75) * (1 + math.cos(opening))
    t = np.linspace(-math.pi / 2, math.pi / 2, 40)
    inner = np.stack([math.cos(opening) - depth * np.cos(t), math.sin(opening) * np.sin(t)], 1)
    strokes = [outer, inner]
    return [np.concatenate(strokes)] if generator.random() < 0.6 else strokes


def _polar(radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return start + (end - start) * np.linspace(0, 1, 30)[:, None]


def _through(corners: list | np.ndarray) -> np.ndarray:
    return np.concatenate([_line(np.asarray(a), np.asarray(b)) for a, b in itertools.pairwise(corners)])


def _outline(corners: np.ndarray, generator: np.random.Generator) -> Strokes:
    """Go round the corners as one stroke that misses its beginning a little, or side by side as single strokes."""
    start = int(generator.integers(len(corners)))
    corners = np.roll(corners, start, axis=0)
    end = corners[0] + generator.normal(0, 0.1, 2)
    closed = np.concatenate([corners, end[None]])
    if generator.random() < 0.75:
        return [_through(closed)]
    return [
        _line(a + generator.normal(0, 0.05, 2), b + generator.normal(0, 0.05, 2)) for a, b in itertools.pairwise(closed)
    ]


OUTLINES: dict[str, Callable[[np.random.Generator], Strokes]] = {
    "arrow": _arrow,
    "circle": _circle,
    "crescent": _crescent,
    "cross": _cross,
    "heart": _heart,
    "spiral": _spiral,
    "square": _square,
    "star": _star,
    "triangle": _triangle,
    "zigzag": _zigzag,
}
