"""Iterated function systems, as FractalDB has them (Kataoka et al., ACCV 2020)."""

import math

import numpy as np

from pipeline.quickstart.figure import Figure, place


def make_fractal(generator: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An iterated function system as in FractalDB, drawn again until its points spread in both directions."""
    while True:
        count = int(generator.integers(2, 6))
        matrices = generator.uniform(-1, 1, (count, 2, 2))
        norms = np.linalg.norm(matrices, 2, axis=(1, 2))
        matrices *= (generator.uniform(0.35, 0.85, count) / norms)[:, None, None]
        offsets = generator.uniform(-1, 1, (count, 2))
        weights = np.abs(np.linalg.det(matrices)) + 0.05
        system = matrices, offsets, weights / weights.sum()
        points = _iterate(system, generator)
        if np.linalg.svd(points - points.mean(0), compute_uv=False)[1] / math.sqrt(len(points)) > 0.3:
            return system


def _iterate(system: tuple, generator: np.random.Generator, particles: int = 120, steps: int = 26) -> np.ndarray:
    matrices, offsets, weights = system
    points = np.zeros((particles, 2))
    choices = generator.choice(len(weights), (steps, particles), p=weights)
    seen = []
    for step in range(steps):
        points = np.einsum("nij,nj->ni", matrices[choices[step]], points) + offsets[choices[step]]
        if step >= 8:
            seen.append(points)
    return np.concatenate(seen)


def draw_fractal(system: tuple, generator: np.random.Generator, size_px: int) -> Figure:
    """Draw the points that the system visits, its matrices varied a little."""
    matrices, offsets, weights = system
    matrices = matrices * (1 + generator.normal(0, 0.04, matrices.shape))
    points = _iterate((matrices, offsets, weights), generator)
    low, high = np.percentile(points, [2, 98], axis=0)
    points = (points - (low + high) / 2) / max((high - low).max() / 2, 1e-3)
    at = place(points, generator, size_px, 0.35).astype(int)
    inside = ((at >= 0) & (at < size_px - 1)).all(1)
    flat = at[inside, 1] * size_px + at[inside, 0]
    if generator.random() < 0.6:
        flat = np.concatenate([flat, flat + 1, flat + size_px, flat + size_px + 1])
    counts = np.bincount(flat, minlength=size_px * size_px)[: size_px * size_px].reshape(size_px, size_px)
    return Figure(np.clip(counts / generator.uniform(1, 3), 0, 1).astype(np.float32))
