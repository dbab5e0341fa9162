"""Training pictures changed at random: flipped, turned, cropped, recoloured. A pure function; the model never holds it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from exporters.contract import BOXES, SEGMENTATION
from exporters.errors import InputError, nearest

if TYPE_CHECKING:
    from pipeline.config import AugmentationSection, Config

FLIPS = ("horizontal", "vertical", "both")
GEOMETRY = ("flip", "rotation", "crop")
COLORS = ("brightness", "contrast", "saturation")
_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
# A crop keeps the picture's aspect ratio up to this factor, as Szegedy et al. 2015 (arXiv:1409.4842, section 6) draw it.
LARGEST_STRETCH = 4 / 3


def augments(section: AugmentationSection) -> bool:
    """Tell whether anything is changed."""
    return any(getattr(section, key) for key in (*GEOMETRY, *COLORS))


def settings_of(section: AugmentationSection) -> dict[str, str | float]:
    """Return what a draw depends on besides the seed and the picture: all keys but the number of views."""
    return {key: getattr(section, key) for key in (*GEOMETRY, *COLORS)}


def check_augmentation(config: Config) -> None:
    """Raise InputError for augmentation that cannot be, that nothing would be trained on, or that would spoil a head's truth."""
    from pipeline.heads import task_of

    section = config.augmentation
    if section.flip and section.flip not in FLIPS:
        raise InputError(
            f"There is no flip '{section.flip}'.",
            nearest(section.flip, FLIPS),
            "set augmentation.flip, or leave it out",
        )
    if section.views and not augments(section):
        raise InputError(
            f"augmentation.views asks for {section.views} views of each picture, and nothing changes them.",
            f"at least one of {', '.join((*GEOMETRY, *COLORS))} above 0",
            "add one of them to [augmentation], or take views out",
        )
    if augments(section) and not section.views and config.fine_tuning.layer == "":
        raise InputError(
            "[augmentation] changes pictures, and the heads learn from features of the unchanged ones.",
            "views of each picture whose features are computed too, or fine-tuning, which looks at the pictures",
            "set augmentation.views = 4, or fine_tuning.layer",
        )
    spoilt = [key for key in GEOMETRY if getattr(section, key)]
    for name, head in sorted(config.heads.items()):
        if spoilt and task_of(head) in (BOXES, SEGMENTATION):
            raise InputError(
                f"augmentation.{' and augmentation.'.join(spoilt)} would move what the head '{name}' learns to find: "
                f"its {'boxes' if task_of(head) == BOXES else 'masks'} stay where they are.",
                f"colours alone: {', '.join(COLORS)}",
                f"take {', '.join(spoilt)} out of [augmentation]",
            )


def augment(picture: np.ndarray, section: AugmentationSection, seed: int, draw: str, sha256: str) -> np.ndarray:
    """Change a picture at random; the same arguments give the same pixels, whatever was drawn before.

    Crop, rotation and resizing are one bilinear resampling; where a turned picture leaves corners empty, its edge goes on.

    Args:
        picture: uint8 (height, width, 3).
        section: what may change, and how far.
        seed: of the run.
        draw: what the picture is drawn for, such as `epoch 3` or `view 0`.
        sha256: of the picture's file.

    Returns:
        uint8 (height, width, 3).
    """
    key = hashlib.sha256(f"{seed} {draw} {sha256}".encode()).digest()
    generator = np.random.default_rng(np.frombuffer(key, np.uint32))
    # Each is drawn whether it is used or not, so that one setting does not change what another one draws.
    flips, angle, area, stretch, places, colors, order = (
        generator.random(2) < 0.5,
        generator.uniform(-1, 1),
        generator.random(),
        generator.uniform(-1, 1),
        generator.random(2),
        generator.uniform(-1, 1, len(COLORS)),
        generator.permutation(len(COLORS)),
    )
    changed = picture
    if section.flip in ("horizontal", "both") and flips[0]:
        changed = changed[:, ::-1]
    if section.flip in ("vertical", "both") and flips[1]:
        changed = changed[::-1]
    if section.rotation or section.crop:
        changed = _resample(changed, angle * section.rotation, 1 - area * section.crop, stretch, places)
    image = Image.fromarray(np.ascontiguousarray(changed))
    for index in order:
        if share := getattr(section, COLORS[index]):
            image = _ENHANCERS[COLORS[index]](image).enhance(1 + colors[index] * share)
    return np.array(image)


def _resample(picture: np.ndarray, degrees: float, area: float, stretch: float, places: np.ndarray) -> np.ndarray:
    """Show a part of a turned picture at the picture's size.

    `area` is the share that stays, 0..1; `stretch` -1..1 how it differs from the picture's aspect ratio; `places` 0..1 where it
    lies, across and down.
    """
    height, width = picture.shape[:2]
    ratio = min(LARGEST_STRETCH, 1 / area) ** stretch
    across, down = np.minimum(1.0, np.sqrt(area) * np.array([np.sqrt(ratio), 1 / np.sqrt(ratio)]))
    center = np.array([across / 2 + places[0] * (1 - across), down / 2 + places[1] * (1 - down)]) * (width, height)
    turn = np.radians(degrees)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ np.diag([across, down])
    # Pillow maps every pixel of the result to where it comes from; both are measured from their corners.
    offset = center - matrix @ (width / 2, height / 2)
    # The part's center lies in the picture, and its corners at most half a diagonal away from it.
    margin = int(np.ceil(np.hypot(width, height) / 2)) + 1 if degrees else 0
    wide = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), "edge") if margin else picture
    (a, b), (d, e), (c, f) = matrix[0], matrix[1], offset + margin
    resampled = Image.fromarray(np.ascontiguousarray(wide)).transform(
        (width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    return np.array(resampled)
