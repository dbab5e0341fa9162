"""The families of formula-made figures from which the pretraining set takes its classes.

Each family has a maker of classes (the parameters, drawn once) and a drawer of figures (those parameters, varied a
little). The figures of `drawings.py` are in none of them: glyphs have at least three random strokes, contours that
look like a circle, a square, a triangle or a star are drawn again, and the other families have no outlines.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from pipeline.quickstart.bodies import draw_body, make_body
from pipeline.quickstart.contours import draw_contour, make_contour
from pipeline.quickstart.figure import Figure
from pipeline.quickstart.fractals import draw_fractal, make_fractal
from pipeline.quickstart.glyphs import draw_glyph, make_glyph
from pipeline.quickstart.textures import draw_texture, make_texture


@dataclasses.dataclass(frozen=True)
class Family:
    """How many classes, which share of the images, and the two functions that make a class and draw a figure of it."""

    classes: int
    share: float
    make_class: Callable[[np.random.Generator, int], object]
    draw: Callable[[object, np.random.Generator, int], Figure]


FAMILIES: dict[str, Family] = {
    "glyph": Family(224, 0.36, make_glyph, draw_glyph),
    "contour": Family(96, 0.16, make_contour, draw_contour),
    "body": Family(192, 0.30, make_body, draw_body),
    "fractal": Family(64, 0.09, make_fractal, draw_fractal),
    "texture": Family(64, 0.09, make_texture, draw_texture),
}
