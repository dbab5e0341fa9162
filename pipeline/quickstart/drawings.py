"""The embedded data set: figures as a person draws them with a mouse on a canvas, made from a seed.

Nothing but NumPy and Pillow is used, so that the set can be made where no training framework is installed.
"""

import hashlib
import math
import os
import pathlib
import shutil
import tempfile

import numpy as np
from PIL import Image, ImageDraw

from pipeline.quickstart.outlines import OUTLINES, Strokes

LABELS = tuple(sorted(OUTLINES))

# Drawn at twice the size and averaged down, lines get the soft edges of a canvas stroke; Pillow's own are hard.
OVERSAMPLING = 2


def make_drawings(folder: pathlib.Path, *, seed: int = 0, per_class: int = 300, size_px: int = 128) -> None:
    """Write a labelled set of drawings as `folder/<label>/<nnnn>.png`.

    In: `folder`, which must not exist or be empty (its parent is made); `seed`; `per_class` images for each label of
    `LABELS`; `size_px`, the side of each image. Out: RGB PNG files, uint8, byte-identical for the same arguments and
    the same Pillow. The set is written into a temporary folder beside it and renamed whole, so an interrupted call
    leaves no half-made set. Raises ValueError for a count or size below 1, FileExistsError when `folder` holds
    anything.
    """
    if per_class < 1 or size_px < 16:
        raise ValueError(
            f"cannot make {per_class} drawings per class of {size_px} px: expected per_class of at least 1 and size_px "
            "of at least 16; raise the one that is too small"
        )
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already and is not an empty folder: choose another one or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for label_index, label in enumerate(LABELS):
            (unfinished / label).mkdir()
            for number in range(per_class):
                generator = np.random.default_rng([seed, label_index, number])
                image = Image.fromarray(draw(label, generator, size_px))
                image.save(unfinished / label / f"{number:04d}.png", compress_level=1)
        # mkdtemp makes a folder that only its owner can read, unlike every other folder the user has.
        unfinished.chmod(0o777 & ~_current_umask())
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def fingerprint() -> str:
    """Return the sha256, in hexadecimal, of the code that draws; the same code draws the same for a seed."""
    here = pathlib.Path(__file__)
    return hashlib.sha256(here.read_bytes() + here.with_name("outlines.py").read_bytes()).hexdigest()


def draw(label: str, generator: np.random.Generator, size_px: int = 128) -> np.ndarray:
    """Draw one figure.

    In: a label of `LABELS`, a NumPy generator, the side in pixels. Out: (size_px, size_px, 3) uint8 RGB. Raises
    KeyError for a label that is not in `LABELS`.
    """
    strokes = [_by_hand(stroke, generator) for stroke in OUTLINES[label](generator)]
    strokes = _place(strokes, label, generator)
    strokes = [piece for stroke in strokes for piece in _gaps(stroke, generator)]
    # Decided once for the whole image: a canvas is clean and has one colour; photographed paper is neither.
    on_canvas = generator.random() < 0.4
    paper, ink = _canvas_colours(generator) if on_canvas else _paper_colours(generator)
    width = float(np.exp(generator.uniform(math.log(0.014), math.log(0.062))))
    clutter = [] if on_canvas else _clutter(generator)
    mask = _render(strokes, width, size_px)
    if clutter:
        mask = np.maximum(mask, generator.uniform(0.25, 0.7) * _render(clutter, width * 0.6, size_px))
    background = np.broadcast_to(paper, (size_px, size_px, 3)).astype(np.float32)
    if not on_canvas:
        background = background * _uneven_light(generator, size_px)[..., None]
    image = background + (ink - background) * mask[..., None]
    if not on_canvas and generator.random() < 0.5:
        image = image + generator.normal(0, generator.uniform(2, 12), image.shape[:2])[..., None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _by_hand(stroke: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Give a clean stroke the wobble, the cut corners and the jitter of a hand on a mouse."""
    count = len(stroke)
    wobble = generator.normal(0, 1, (max(count // 8, 4), 2))
    at = np.linspace(0, len(wobble) - 1, count)
    wobble = np.stack([np.interp(at, np.arange(len(wobble)), wobble[:, axis]) for axis in range(2)], 1)
    moved = stroke + wobble * generator.uniform(0.01, 0.07) + generator.normal(0, 0.012, (count, 2))
    reach = int(generator.integers(1, 5))
    if reach > 1 and count > 4 * reach:
        padded = np.pad(moved, ((reach, reach), (0, 0)), mode="edge")
        kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
        moved = np.stack([np.convolve(padded[:, axis], kernel, mode="valid") for axis in range(2)], 1)
    if generator.random() < 0.25:
        # The button is let go too late, and the stroke runs on.
        beyond = moved[-1:] + (moved[-1:] - moved[-4:-3]) * generator.uniform(0.5, 2.5)
        moved = np.concatenate([moved, beyond])
    return moved


def _place(strokes: Strokes, label: str, generator: np.random.Generator) -> Strokes:
    """Turn, stretch, scale and move the strokes into the unit square."""
    free = label in ("circle", "spiral", "crescent", "arrow", "zigzag") or generator.random() < 0.15
    angle = generator.uniform(-math.pi, math.pi) if free else generator.normal(0, 0.22)
    stretch = math.exp(generator.normal(0, 0.14))
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.diag([stretch, 1 / stretch]) @ matrix
    strokes = [stroke @ matrix.T for stroke in strokes]
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    size = generator.uniform(0.3, 0.9)
    scale = size / (high - low).max()
    room = (1 - (high - low) * scale) / 2
    middle = 0.5 + generator.uniform(-1, 1, 2) * np.clip(room - 0.03, 0, None)
    return [(stroke - (low + high) / 2) * scale + middle for stroke in strokes]


def _gaps(stroke: np.ndarray, generator: np.random.Generator) -> Strokes:
    """Cut a short piece out of about every third stroke, as where the mouse button slipped."""
    if generator.random() > 0.3:
        return [stroke]
    length = max(int(len(stroke) * generator.uniform(0.04, 0.12)), 2)
    start = int(generator.integers(2, max(len(stroke) - length - 2, 3)))
    return [piece for piece in (stroke[:start], stroke[start + length :]) if len(piece) > 1]


def _clutter(generator: np.random.Generator) -> Strokes:
    """What else may be on a sheet: ruled lines, a stray mark, or (mostly) nothing."""
    kind = generator.random()
    if kind < 0.15:
        heights = np.arange(generator.uniform(0, 0.2), 1, generator.uniform(0.12, 0.25))
        tilt = generator.normal(0, 0.02)
        return [np.array([[-0.1, height - tilt], [1.1, height + tilt]]) for height in heights]
    if kind < 0.4:
        start = generator.uniform(0, 1, 2)
        return [start + np.cumsum(generator.normal(0, 0.05, (int(generator.integers(2, 7)), 2)), 0)]
    return []


def _render(strokes: Strokes, width: float, size_px: int) -> np.ndarray:
    """In: strokes in the unit square, width as a share of the side. Out: (size_px, size_px) float32 coverage, 0..1."""
    side = size_px * OVERSAMPLING
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    width_px = max(round(width * side), 1)
    for stroke in strokes:
        points = [(float(x), float(y)) for x, y in stroke * side]
        pen.line(points, fill=255, width=width_px, joint="curve" if width_px > 3 else None)
        if width_px > 3:
            for x, y in (points[0], points[-1]):
                pen.ellipse((x - width_px / 2, y - width_px / 2, x + width_px / 2, y + width_px / 2), fill=255)
    return np.asarray(mask.reduce(OVERSAMPLING), dtype=np.float32) / 255


def _canvas_colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paper and ink of a drawing canvas: white, and mostly black."""
    ink = generator.uniform(0, 60, 3) if generator.random() < 0.7 else generator.uniform(0, 170, 3)
    return np.full(3, 255.0, np.float32), ink.astype(np.float32)


def _paper_colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paper (light, or dark for every fourth) and ink, (3,) float32 each, far enough apart to be seen."""
    paper = generator.uniform(170, 255) + generator.uniform(-30, 10, 3)
    ink = generator.uniform(0, 150, 3)
    if generator.random() < 0.25:
        paper, ink = generator.uniform(0, 80, 3), generator.uniform(130, 255, 3)
    return np.clip(paper, 0, 255).astype(np.float32), ink.astype(np.float32)


def _uneven_light(generator: np.random.Generator, size_px: int) -> np.ndarray:
    """Out: (size_px, size_px) float32 factors around 1, brighter towards one side."""
    across = np.linspace(-1, 1, size_px, dtype=np.float32)
    slope = generator.normal(0, 0.1, 2).astype(np.float32)
    return 1 + slope[0] * across[None, :] + slope[1] * across[:, None]


def _current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
