"""Textures over a whole image: gratings, noise with a given spectrum (after Baradad et al., 2021), cells and rings."""

import math

import numpy as np

from pipeline.quickstart.figure import Figure


def make_texture(generator: np.random.Generator, number: int) -> dict:
    """Make a class: a kind of texture by `number`, and its frequencies, directions and contrast at random."""
    return {
        "kind": number % 4,
        "angles": generator.uniform(0, math.pi, 3),
        "frequencies": np.exp(generator.uniform(math.log(2), math.log(16), 3)),
        "slope": generator.uniform(0.6, 2.4),
        "stretch": math.exp(generator.normal(0, 0.8)),
        "points": int(generator.integers(8, 40)),
        "sharp": generator.uniform(0.5, 6),
        "edges": generator.random() < 0.5,
    }


def texture(parameters: dict | None, generator: np.random.Generator, size_px: int) -> np.ndarray:
    """Draw a texture over a whole image; `parameters` None makes a new one. Out: (size_px, size_px) float32, 0..1."""
    p = parameters or make_texture(generator, int(generator.integers(4)))
    across = np.linspace(0, 1, size_px, dtype=np.float32)
    x, y = np.meshgrid(across, across)
    zoom, turn = math.exp(generator.normal(0, 0.12)), generator.normal(0, 0.12)
    if p["kind"] == 0:
        waves = [
            np.sin(
                2 * math.pi * f * zoom * (x * math.cos(a + turn) + y * math.sin(a + turn)) + generator.uniform(0, 6.3)
            )
            for f, a in zip(p["frequencies"], p["angles"], strict=True)
        ]
        field = sum(waves) if p["edges"] else waves[0] * waves[1] + 0.3 * waves[2]
    elif p["kind"] == 1:
        field = _spectrum(p, generator, size_px, turn)
    elif p["kind"] == 2:
        field = _cells(p, generator, x, y)
    else:
        waves = [generator.uniform(-0.2, 1.2, 2) for _ in range(3)]
        field = sum(
            np.sin(2 * math.pi * f * zoom * np.hypot(x - c[0], (y - c[1]) * p["stretch"]))
            for f, c in zip(p["frequencies"], waves, strict=True)
        )
    field = (field - field.mean()) / (field.std() + 1e-6)
    return (1 / (1 + np.exp(-p["sharp"] * field))).astype(np.float32)


def _spectrum(p: dict, generator: np.random.Generator, size_px: int, turn: float) -> np.ndarray:
    """Noise whose spectrum falls off as a power of the frequency, stretched along one direction (Baradad et al.)."""
    frequencies = np.fft.fftfreq(size_px)
    u, v = np.meshgrid(frequencies[: size_px // 2 + 1], frequencies)
    a = p["angles"][0] + turn
    along, over = u * math.cos(a) + v * math.sin(a), (v * math.cos(a) - u * math.sin(a)) * p["stretch"]
    size = (np.hypot(along, over) + 1 / size_px) ** -p["slope"]
    noise = np.fft.rfft2(generator.normal(0, 1, (size_px, size_px)))
    return np.fft.irfft2(noise * size, (size_px, size_px))


def _cells(p: dict, generator: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Voronoi cells: their edges, or a grey for each."""
    centres = generator.uniform(-0.1, 1.1, (p["points"], 2)).astype(np.float32)
    stretch = np.float32(p["stretch"])
    distances = (x[..., None] - centres[:, 0]) ** 2 + stretch * (y[..., None] - centres[:, 1]) ** 2
    if p["edges"]:
        nearest = np.sqrt(np.partition(distances, 1, axis=-1)[..., :2])
        return np.minimum(nearest[..., 1] - nearest[..., 0], 0.05) * 20
    return generator.uniform(-1, 1, p["points"])[distances.argmin(-1)]


def draw_texture(p: dict, generator: np.random.Generator, size_px: int) -> Figure:
    """Draw the texture as a figure that fills the image."""
    return Figure(texture(p, generator, size_px), fills=True)
