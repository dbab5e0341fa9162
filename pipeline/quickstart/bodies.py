"""Articulated bodies: a lump with jointed limbs, rendered as smooth shaded solids.

A class is one pose of one body. Poses of the same body differ only in which limbs are stretched, bent or folded over
the lump, so that telling them apart takes the arrangement of parts and not the outline's size or colour alone. Method
ours: a height map, the upper envelope of capsules, lit by Lambert's law.

Some of these bodies look like hands. A score on photographs of hands therefore says less about other photographs.
"""

import dataclasses
import math

import numpy as np

from pipeline.quickstart.figure import Figure

POSES_PER_BODY = 16
BODY_SEED = 77
STRETCHED, BENT, FOLDED = range(3)


@dataclasses.dataclass(frozen=True)
class Body:
    """A body and one pose of it; lengths are in units of about the lump's radius, angles in radians.

    Arrays have one entry per limb: `roots` where on the lump, `lengths`, `widths`, `states` (stretched, bent, folded)
    and `leans` off the radius; `lump` is (2,), its half width and height; `stalk` is the stalk's radius, 0 for none.
    """

    roots: np.ndarray
    lengths: np.ndarray
    widths: np.ndarray
    states: np.ndarray
    leans: np.ndarray
    lump: np.ndarray
    stalk: float


def make_body(generator: np.random.Generator, number: int) -> Body:
    """Make class `number`: body `number // 16`, in a pose of its own."""
    shared = np.random.default_rng([BODY_SEED, number // POSES_PER_BODY])
    limbs = int(shared.integers(3, 7))
    spread = shared.uniform(1.2, 2.6)
    roots = np.linspace(-spread / 2, spread / 2, limbs) + shared.normal(0, 0.08, limbs)
    lengths = shared.uniform(1.0, 1.9) * shared.uniform(0.7, 1.15, limbs)
    widths = shared.uniform(0.17, 0.3) * shared.uniform(0.8, 1.2, limbs)
    lump = shared.uniform(0.6, 1.0, 2)
    stalk = float(shared.choice([0.0, 1.0, 1.0]) * shared.uniform(0.4, 0.75))
    states = generator.choice([STRETCHED, STRETCHED, BENT, FOLDED, FOLDED], limbs)
    return Body(roots, lengths, widths, states, generator.normal(0, 0.22, limbs), lump, stalk)


def draw_body(body: Body, generator: np.random.Generator, size_px: int) -> Figure:
    """Draw the body with its joints moved a little, shaded."""
    starts, ends, radii = _capsules(body, generator)
    angle = generator.normal(0, 0.3)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.diag([generator.choice([-1.0, 1.0]) * math.exp(generator.normal(0, 0.08)), 1.0])
    scale = generator.uniform(0.12, 0.24) * size_px
    middle = np.array([0.5, 0.58]) * size_px + generator.uniform(-0.14, 0.14, 2) * size_px
    for points in (starts, ends):
        points[:, :2] = points[:, :2] @ matrix.T * scale + middle
        points[:, 2] *= scale
    height, cover = _height_map(
        starts.astype(np.float32), ends.astype(np.float32), (radii * scale).astype(np.float32), size_px
    )
    return Figure(cover, _shade(height, generator))


def _capsules(body: Body, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Out: starts and ends (C, 3) with z towards the eye, radii (C,)."""
    capsules = []
    wide, high = body.lump * np.exp(generator.normal(0, 0.06, 2))
    for side in (-0.5, 0.0, 0.5):
        x = side * wide
        capsules.append(((x, -0.35 * high, 0), (x * 0.8, 0.45 * high, 0), 0.52 * wide))
    if body.stalk:
        tilt = generator.normal(0, 0.2)
        capsules.append(((0, 0.3, -0.1), (tilt * 2, 4.0, -0.1), body.stalk))
    stature = math.exp(generator.normal(0, 0.08))
    for root, length, width, state, lean in zip(
        body.roots, body.lengths, body.widths, body.states, body.leans, strict=True
    ):
        outward = root + generator.normal(0, 0.04)
        direction = outward + lean + generator.normal(0, 0.1)
        length = length * stature * math.exp(generator.normal(0, 0.07))
        start = np.array([math.sin(outward) * wide, -math.cos(outward) * high * 0.9, 0.05])
        capsules.extend(_limb(start, direction, length, width * math.exp(generator.normal(0, 0.06)), state, generator))
    starts, ends, radii = zip(*capsules, strict=True)
    return np.array(starts, float), np.array(ends, float), np.array(radii, float)


def _limb(
    start: np.ndarray, direction: float, length: float, width: float, state: int, generator: np.random.Generator
) -> list[tuple]:
    """Two segments: straight on; sharply off to a side; or short and back over the lump, nearer to the eye."""
    first_share, bend, rise = {
        STRETCHED: (0.5, generator.normal(0, 0.12), 0.0),
        BENT: (0.5, generator.normal(1.3, 0.2) * (1 if direction < 0 else -1), 0.1),
        FOLDED: (0.3, math.pi + generator.normal(0, 0.15), 0.35),
    }[int(state)]
    step = np.array([math.sin(direction), -math.cos(direction), 0.0])
    knee = start + step * length * first_share + [0, 0, rise * 0.7]
    onward = direction + bend
    reach = length * (0.5 if state != FOLDED else 0.42)
    tip = knee + np.array([math.sin(onward), -math.cos(onward), 0.0]) * reach + [0, 0, rise * 0.3]
    return [(start, knee, width), (knee, tip, width * 0.88)]


def _height_map(starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The upper envelope of all capsules. Out: height (S, S) and cover (S, S), float32."""
    across = np.arange(size_px, dtype=np.float32) + 0.5
    height = np.full((size_px, size_px), -radii.max(), np.float32)
    cover = np.zeros((size_px, size_px), np.float32)
    for start, end, radius in zip(starts, ends, radii, strict=True):
        low = np.clip(np.floor(np.minimum(start, end)[:2] - radius - 1), 0, size_px).astype(int)
        high = np.clip(np.ceil(np.maximum(start, end)[:2] + radius + 1), 0, size_px).astype(int)
        if (high <= low).any():
            continue
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        x, y = across[None, window[1]] - start[0], across[window[0], None] - start[1]
        along = end - start
        share = np.clip((x * along[0] + y * along[1]) / max(float(along[:2] @ along[:2]), 1e-6), 0, 1)
        squared = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2
        solid = start[2] + share * along[2] + np.sqrt(np.maximum(radius**2 - squared, 0))
        inside = squared < radius**2
        height[window] = np.where(inside, np.maximum(height[window], solid), height[window])
        cover[window] = np.maximum(cover[window], np.clip(radius - np.sqrt(squared) + 0.5, 0, 1))
    return height, cover


def _shade(height: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lambert's law with some ambient light. Out: (S, S) float32, 0.1..1.5."""
    down, right = np.gradient(height)
    steepness = np.float32(generator.uniform(0.3, 1.0))
    light = np.append(generator.normal(0, 0.6, 2), 1.0).astype(np.float32)
    light /= np.linalg.norm(light)
    ambient = np.float32(generator.uniform(0.2, 0.8))
    lit = (light[2] - steepness * (light[0] * right + light[1] * down)) / np.sqrt(
        1 + steepness**2 * (right**2 + down**2)
    )
    return ambient + (np.float32(1.15) - ambient) * np.maximum(lit, 0)
