"""Pictures of one figure each, whose label, box and mask are known because the test drew them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("disc", "bar", "wedge")
COLUMNS = ("path", "label", "x_min", "y_min", "x_max", "y_max", "mask")


def draw(
    label: str, size: tuple[int, int], box: tuple[int, int, int, int], seed: int
) -> tuple[Image.Image, Image.Image]:
    """Return a picture and its mask: a bright figure that fills the box, on a dark, uneven ground.

    Args:
        label: one of LABELS.
        size: width and height in px.
        box: x_min, y_min, x_max, y_max in px; the last ones are outside of the figure.
        seed: of colours and ground.

    Returns:
        RGB, and an indexed picture of 0 and 1.
    """
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 90, (6, 8, 3), dtype=np.uint8))
    picture = coarse.resize(size, Image.Resampling.BILINEAR)
    mask = Image.new("P", size, 0)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    x_min, y_min, x_max, y_max = box[0], box[1], box[2] - 1, box[3] - 1
    colour = tuple(int(each) for each in rng.integers(140, 256, 3))
    for canvas, fill in ((picture, colour), (mask, 1)):
        pen = ImageDraw.Draw(canvas)
        if label == "disc":
            pen.ellipse((x_min, y_min, x_max, y_max), fill=fill)
        elif label == "bar":
            pen.rectangle((x_min, y_min, x_max, y_max), fill=fill)
        else:
            pen.polygon([(x_min, y_max), (x_max, y_max), ((x_min + x_max) // 2, y_min)], fill=fill)
    return picture, mask


def write_figures(folder: Path, count: int, seed: int = 0, sizes: tuple[int, int] = (90, 150)) -> Path:
    """Write pictures, masks and `figures.csv` with COLUMNS, and return the CSV's path; `sizes` are the range of sides in px."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        width, height = (int(each) for each in rng.integers(*sizes, 2))
        across, down = (int(side * rng.uniform(0.3, 0.6)) for side in (width, height))
        left, top = int(rng.integers(0, width - across + 1)), int(rng.integers(0, height - down + 1))
        box, label = (left, top, left + across, top + down), LABELS[number % len(LABELS)]
        picture, mask = draw(label, (width, height), box, seed=1000 * seed + number)
        picture.save(folder / f"{number:04}.png")
        mask.save(folder / f"{number:04}_mask.png")
        rows.append((f"{number:04}.png", label, *box, f"{number:04}_mask.png"))
    with (folder / "figures.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return folder / "figures.csv"
