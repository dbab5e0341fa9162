"""Draws the pictures that the examples learn from: `python examples/make_figures.py` writes examples/figures/figures.csv.

One figure in each picture, and a line of the CSV that tells everything about it:

    path          the picture, 96 to 160 px wide and high
    label         disc, bar or wedge
    large         yes or no
    traits        any of crossed, framed, large, with | between them; none of them is an empty cell
    level         1 to 3, how large
    share         how much of the picture the figure's box covers, in per cent
    width         how much of the picture's width the figure takes, 0 to 1
    x_min, y_min, x_max, y_max   the figure's box in px
    mask          an indexed PNG: 0 the ground, 1 the figure
    material      wood, brass or steel, which no picture shows; a few cells are empty, as are some of the next two columns
    weight        in grams, 5 to 200
    age           in days, 0 to 99
    bin           burn, melt or store: what figure and columns decide together, see `bin_of`
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("bar", "disc", "wedge")
COLUMNS = (
    *("path", "label", "large", "traits", "level", "share", "width"),
    *("x_min", "y_min", "x_max", "y_max", "mask"),
    *("material", "weight", "age", "bin"),
)
MATERIALS = ("wood", "brass", "steel")
# The share of cells that nobody filled in.
EMPTY = 0.03
# How much of the picture's sides a figure of each level takes, from and to.
LEVELS = ((0.22, 0.30), (0.40, 0.48), (0.58, 0.66))


def draw(label: str, size: tuple[int, int], box: tuple[int, int, int, int], traits: dict[str, bool], seed: int):
    """Return a picture of a figure in a box (x_min, y_min, x_max, y_max in px) on an uneven ground, and its mask."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 70, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)
    mask = Image.new("P", size, 0)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    colour = tuple(int(each) for each in generator.integers(120, 256, 3))
    x_min, y_min, x_max, y_max = box[0], box[1], box[2] - 1, box[3] - 1
    for canvas, fill in ((picture, colour), (mask, 1)):
        pen = ImageDraw.Draw(canvas)
        if label == "disc":
            pen.ellipse((x_min, y_min, x_max, y_max), fill=fill)
        elif label == "bar":
            pen.rectangle((x_min, y_min, x_max, y_max), fill=fill)
        else:
            pen.polygon([(x_min, y_max), (x_max, y_max), ((x_min + x_max) // 2, y_min)], fill=fill)
    pen = ImageDraw.Draw(picture)
    if traits["crossed"]:
        pen.line((0, 0, *size), fill=(255, 255, 255), width=3)
        pen.line((0, size[1], size[0], 0), fill=(255, 255, 255), width=3)
    if traits["framed"]:
        pen.rectangle((2, 2, size[0] - 3, size[1] - 3), outline=(255, 255, 255), width=4)
    return picture, mask


def bin_of(label: str, material: str, weight: float, age: int) -> str:
    """Return where a figure goes: neither its picture nor its columns tell it by themselves."""
    if material == "wood" and label != "disc":
        return "burn"
    melts = {"bar": weight >= 100, "disc": age >= 50, "wedge": material == "brass"}
    return "melt" if melts[label] else "store"


def columns_of(label: str, generator: np.random.Generator) -> tuple[str, str, str, str]:
    """Return material, weight, age and bin of a figure."""
    material = MATERIALS[generator.integers(len(MATERIALS))]
    weight, age = round(float(generator.uniform(5, 200)), 1), int(generator.integers(0, 100))
    cells = (material, f"{weight:.1f}", f"{age}")
    return *("" if generator.random() < EMPTY else cell for cell in cells), bin_of(label, material, weight, age)


def make_figures(folder: Path, count: int = 900, seed: int = 0) -> Path:
    """Write `count` pictures, their masks and `figures.csv` into a folder; returns the CSV's path."""
    # The pictures stay the same whatever stands beside them.
    generator, beside = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        width, height = (int(each) for each in generator.integers(96, 161, 2))
        level = 1 + int(generator.integers(len(LEVELS)))
        across, down = (int(side * generator.uniform(*LEVELS[level - 1])) for side in (width, height))
        left, top = int(generator.integers(0, width - across + 1)), int(generator.integers(0, height - down + 1))
        box, label = (left, top, left + across, top + down), LABELS[number % len(LABELS)]
        share = 100 * across * down / (width * height)
        traits = {"crossed": generator.random() < 0.3, "framed": generator.random() < 0.4, "large": level == 3}
        name, mask_name = f"{number:04}.png", f"{number:04}-mask.png"
        picture, mask = draw(label, (width, height), box, traits, seed=1_000_003 * seed + number)
        picture.save(folder / name)
        mask.save(folder / mask_name)
        large = "yes" if level == 3 else "no"
        held = "|".join(trait for trait, holds in traits.items() if holds)
        rows.append((name, label, large, held, level, f"{share:.2f}", f"{across / width:.3f}", *box, mask_name))
        rows[-1] += columns_of(label, beside)
    with (folder / "figures.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return folder / "figures.csv"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pictures that the examples learn from.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "figures")
    parser.add_argument("--count", type=int, default=900)
    given = parser.parse_args()
    print(make_figures(given.folder, given.count))
