"""The pretraining set: images made by formulas, several hundred classes, no natural image among them.

A class is a drawn set of parameters of one of five families (see `families.py`); an image of it varies those
parameters a little, and everything else (place, size, turn, colours, light, background, blur, noise, occlusion) at
random.

Learning features from formulas instead of photographs is published work: Kataoka et al., "Pre-training without
natural images" (FractalDB, ACCV 2020); Kataoka et al., "Replacing labeled real-image datasets with auto-generated
contours" (RCDB, CVPR 2022); Baradad et al., "Learning to see by looking at noise" (NeurIPS 2021). The families, the
shaded bodies and the composition are our own, in their spirit.
"""

import functools

import numpy as np
from PIL import Image

from pipeline.quickstart.families import FAMILIES
from pipeline.quickstart.figure import Figure
from pipeline.quickstart.textures import texture

SIZE_PX = 96
# Fixed apart from a run's seed: the classes stay the same, whichever images of them are drawn.
CLASS_SEED = 20_26
POOL_PX = 160
POOL_COUNT = 96

CLASSES: tuple[str, ...] = tuple(
    f"{name}/{number:03d}" for name, family in FAMILIES.items() for number in range(family.classes)
)
_FIRST_CLASS = dict(
    zip(FAMILIES, np.cumsum([0] + [family.classes for family in FAMILIES.values()])[:-1].tolist(), strict=True)
)


def draw_images(count: int, *, seed: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw images `first` to `first + count - 1` of the endless sequence that belongs to `seed`.

    Out: images (count, 96, 96, 3) uint8 RGB, and their labels (count,) int32, indices into `CLASSES`. Image number n
    depends on nothing but `seed` and n, so several processes may draw parts of the sequence. Raises ValueError for a
    negative count.
    """
    if count < 0:
        raise ValueError(f"cannot draw {count} images: expected a count of 0 or more")
    images = np.empty((count, SIZE_PX, SIZE_PX, 3), np.uint8)
    labels = np.empty(count, np.int32)
    names = list(FAMILIES)
    shares = np.array([FAMILIES[name].share for name in names])
    for position in range(count):
        generator = np.random.default_rng([seed, first + position])
        name = names[generator.choice(len(names), p=shares / shares.sum())]
        number = int(generator.integers(FAMILIES[name].classes))
        images[position] = draw(name, number, generator)
        labels[position] = _FIRST_CLASS[name] + number
    return images, labels


def draw(family: str, number: int, generator: np.random.Generator) -> np.ndarray:
    """Draw one image of a class. Out: (96, 96, 3) uint8 RGB. Raises KeyError for an unknown family."""
    parameters = _class_parameters(family, number)
    figure = FAMILIES[family].draw(parameters, generator, SIZE_PX)
    image = _compose(figure, generator)
    return _photograph(image, generator)


@functools.cache
def _class_parameters(family: str, number: int) -> object:
    generator = np.random.default_rng([CLASS_SEED, list(FAMILIES).index(family), number])
    return FAMILIES[family].make_class(generator, number)


@functools.cache
def _texture_pool() -> np.ndarray:
    """Out: (POOL_COUNT, POOL_PX, POOL_PX) float32, 0..1. To draw a texture anew for each image takes too long."""
    generator = np.random.default_rng([CLASS_SEED, 999])
    return np.stack([texture(None, generator, POOL_PX) for _ in range(POOL_COUNT)]).astype(np.float32)


@functools.cache
def _noise_pool() -> np.ndarray:
    generator = np.random.default_rng([CLASS_SEED, 998])
    return generator.normal(0, 1, (4, 160, 160, 3)).astype(np.float32)


def _patch(generator: np.random.Generator) -> np.ndarray:
    """Out: (96, 96) float32, 0..1, a piece of a texture of the pool."""
    field = _texture_pool()[generator.integers(POOL_COUNT)]
    if generator.random() < 0.5:
        field = field.T
    y, x = generator.integers(0, POOL_PX - SIZE_PX + 1, 2)
    return field[y : y + SIZE_PX, x : x + SIZE_PX]


def _colour(generator: np.random.Generator) -> np.ndarray:
    """Out: (3,) float32 RGB, 0..255, most of them pale or dull, as most things are."""
    lightness = generator.uniform(10, 245)
    spread = generator.choice([8.0, 30.0, 90.0])
    return np.clip(lightness + generator.normal(0, spread, 3), 0, 255).astype(np.float32)


def _two_colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = _colour(generator)
    second = _colour(generator)
    for _ in range(8):
        if np.abs(first - second).mean() > 40:
            break
        second = _colour(generator)
    return first, second


def _slope(generator: np.random.Generator, strength: float) -> np.ndarray:
    """Out: (96, 96) float32 around 0, rising towards one side, now and then falling off from the middle."""
    across = np.linspace(-1, 1, SIZE_PX, dtype=np.float32)
    x, y = generator.normal(0, strength, 2).astype(np.float32)
    slope = x * across[None, :] + y * across[:, None]
    if generator.random() < 0.3:
        slope = slope - np.float32(generator.uniform(0, strength)) * (across[None, :] ** 2 + across[:, None] ** 2)
    return slope


def _background(colour: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Out: (96, 96, 3) float32, plain, sloping, textured, or cluttered with pieces of other colours."""
    kind = generator.random()
    image = np.broadcast_to(colour, (SIZE_PX, SIZE_PX, 3))
    if kind < 0.2:
        return image
    if kind < 0.5:
        return image + 255 * _slope(generator, 0.1)[..., None]
    if kind < 0.75:
        other = colour + generator.normal(0, 35, 3).astype(np.float32)
        return image + (other - colour) * _patch(generator)[..., None]
    for _ in range(int(generator.integers(1, 4))):
        level = generator.uniform(0.35, 0.7)
        piece = (_patch(generator) > level).astype(np.float32) * np.float32(generator.uniform(0.3, 1))
        other = colour + generator.normal(0, 40, 3).astype(np.float32)
        image = image + (other - image) * piece[..., None]
    return image


def _soft(cover: np.ndarray) -> np.ndarray:
    """A cheap strong blur. In and out: (96, 96) float32, 0..1."""
    coarse = Image.fromarray((cover * 255).astype(np.uint8)).resize((12, 12), Image.Resampling.BOX)
    return np.asarray(coarse.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR), np.float32) / 255


def _compose(figure: Figure, generator: np.random.Generator) -> np.ndarray:
    """Lay the figure on a background. Out: (96, 96, 3) float32, about 0..255."""
    ground, ink = _two_colours(generator)
    if figure.fills:
        return ground + (ink - ground) * figure.cover[..., None]
    image = _background(ground, generator)
    if generator.random() < 0.3:
        shift = tuple(generator.integers(-6, 7, 2))
        shadow = np.roll(_soft(figure.cover), shift, (0, 1))
        image = image * (1 - generator.uniform(0.1, 0.5) * shadow)[..., None]
    body = np.broadcast_to(ink, image.shape)
    if generator.random() < 0.3:
        other = ink + generator.normal(0, 45, 3).astype(np.float32)
        body = ink + (other - ink) * _patch(generator)[..., None]
    if figure.shade is not None:
        body = body * figure.shade[..., None]
    return image + (body - image) * figure.cover[..., None]


def _photograph(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Light, occlusion, blur and noise. In: (96, 96, 3) float32. Out: the same shape, uint8."""
    if generator.random() < 0.5:
        image = image * (1 + _slope(generator, 0.15))[..., None]
    if generator.random() < 0.12:
        y, x = generator.integers(0, SIZE_PX, 2)
        height, width = generator.integers(6, 28, 2)
        image = np.array(image)
        image[y : y + height, x : x + width] = _colour(generator)
    if generator.random() < 0.5:
        y, x = generator.integers(0, 160 - SIZE_PX, 2)
        noise = _noise_pool()[generator.integers(4), y : y + SIZE_PX, x : x + SIZE_PX]
        noise = noise if generator.random() < 0.5 else noise[..., :1]
        image = image + np.float32(generator.uniform(1, 14)) * noise
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if generator.random() < 0.25:
        small = int(generator.integers(40, 80))
        shrunk = Image.fromarray(image).resize((small, small), Image.Resampling.BILINEAR)
        image = np.asarray(shrunk.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))
    return image
