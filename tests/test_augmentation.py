"""Augmentation: a pure function of the picture, the settings and the draw; what cannot be is refused with its key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporters.errors import InputError
from pipeline.augmentation import augment, augments, check_augmentation, settings_of
from pipeline.config import AugmentationSection, read_config

SHA = "ab" * 32
ALL = AugmentationSection(flip="both", rotation=30, crop=0.4, brightness=0.3, contrast=0.3, saturation=0.5)


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """A picture that no flip or turn leaves as it is, bright enough to tell it from black."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([60 + 2 * columns, 60 + 3 * rows, 250 - rows - columns], -1).astype(np.uint8)


def draws(section: AugmentationSection, count: int = 40, given: np.ndarray | None = None) -> list[np.ndarray]:
    shown = picture() if given is None else given
    return [augment(shown, section, 0, f"epoch {epoch}", SHA) for epoch in range(count)]


def test_the_same_draw_gives_the_same_pixels_whatever_was_drawn_before() -> None:
    first = augment(picture(), ALL, 7, "epoch 3", SHA)
    np.random.default_rng(0).random(5)
    draws(ALL, 3)
    assert np.array_equal(augment(picture(), ALL, 7, "epoch 3", SHA), first)
    others = [(8, "epoch 3", SHA), (7, "epoch 4", SHA), (7, "view 3", SHA), (7, "epoch 3", "cd" * 32)]
    assert all(not np.array_equal(augment(picture(), ALL, *other), first) for other in others)


def test_the_given_picture_is_left_alone_and_the_shape_stays() -> None:
    given = picture()
    for changed in draws(ALL, 5, given):
        assert changed.shape == given.shape and changed.dtype == np.uint8
    assert np.array_equal(given, picture())


def test_nothing_asked_for_changes_nothing() -> None:
    assert not augments(AugmentationSection())
    assert all(np.array_equal(each, picture()) for each in draws(AugmentationSection(views=3), 5))


@pytest.mark.parametrize(("flip", "kinds"), [("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_flips_are_exact_and_each_comes_up(flip: str, kinds: int) -> None:
    given = picture()
    mirrors = {each.tobytes() for each in (given, given[:, ::-1], given[::-1], given[::-1, ::-1])}
    seen = {each.tobytes() for each in draws(AugmentationSection(flip=flip))}
    assert len(seen) == kinds and seen <= mirrors


def test_a_turn_goes_both_ways_and_leaves_no_black_corner() -> None:
    given = picture(61, 61)
    found = draws(AugmentationSection(rotation=45), given=given)
    # Red grows from left to right: after a turn it grows or falls from top to bottom too.
    slopes = [float(each[40, 30, 0]) - float(each[20, 30, 0]) for each in found]
    assert min(slopes) < -10 and max(slopes) > 10
    assert min(each.min() for each in found) >= given.min()
    assert all(np.abs(each[30, 30].astype(int) - given[30, 30]).max() <= 3 for each in found)


def test_a_crop_keeps_at_least_its_share() -> None:
    rows, columns = np.mgrid[0:100, 0:100]
    given = np.stack([20 + 2 * columns, 20 + 2 * rows, 0 * rows], -1).astype(np.uint8)
    shares = []
    for each in draws(AugmentationSection(crop=0.5), given=given):
        across = (float(each[50, 99, 0]) - float(each[50, 0, 0])) / 2 + 1
        down = (float(each[99, 50, 1]) - float(each[0, 50, 1])) / 2 + 1
        shares.append(across * down / 100**2)
    assert 0.45 <= min(shares) < 0.6 and 0.9 < max(shares) <= 1.06


@pytest.mark.parametrize("key", ["brightness", "contrast", "saturation"])
def test_colours_change_within_their_share(key: str) -> None:
    given = picture()
    grey = AugmentationSection(**{key: 0.2})
    means = [float(each.mean()) for each in draws(grey)]
    spreads = [float(np.ptp(each.astype(int), axis=-1).mean()) for each in draws(grey)]
    if key == "brightness":
        assert given.mean() * 0.79 <= min(means) < given.mean() < max(means) <= given.mean() * 1.21
    if key == "saturation":
        own = float(np.ptp(given.astype(int), axis=-1).mean())
        assert own * 0.75 <= min(spreads) < own < max(spreads) <= own * 1.25
    assert len({each.tobytes() for each in draws(grey)}) > 20


def test_one_setting_does_not_change_what_another_draws() -> None:
    flips = draws(AugmentationSection(flip="horizontal"))
    with_colours = draws(AugmentationSection(flip="horizontal", brightness=0.2))
    mirrored = [bool(each[0, 0, 0] > each[0, -1, 0]) for each in flips]
    assert [bool(each[0, 0, 0] > each[0, -1, 0]) for each in with_colours] == mirrored


def test_views_are_no_part_of_what_a_draw_depends_on() -> None:
    assert settings_of(AugmentationSection(flip="both", views=2)) == settings_of(
        AugmentationSection(flip="both", views=5)
    )


CONFIG = """
[data]
path = "quickstart"
[heads.label]
{head}
[augmentation]
{augmentation}
"""


@pytest.mark.parametrize(
    ("augmentation", "head", "said"),
    [
        ('flip = "horizontl"\nviews = 1', "", "horizontal"),
        ("views = 3", "", "nothing changes them"),
        ("rotation = 5", "", "augmentation.views"),
        ('flip = "both"\ncrop = 0.1\nviews = 2', 'kind = "boxes"', "augmentation.flip and augmentation.crop"),
        ("rotation = 3\nviews = 2", 'kind = "segmentation"', "augmentation.rotation"),
    ],
)
def test_what_cannot_be_is_refused(augmentation: str, head: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(CONFIG.format(augmentation=augmentation, head=head))
    with pytest.raises(InputError) as fault:
        check_augmentation(read_config(tmp_path / "a.toml", {}))
    assert said in str(fault.value)


def test_colours_suit_boxes(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(CONFIG.format(augmentation="brightness = 0.2\nviews = 2", head='kind = "boxes"'))
    check_augmentation(read_config(tmp_path / "a.toml", {}))
