"""Boxes and masks follow their picture: judged on what the resize itself makes of a drawing."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from exporters.contract import UNKNOWN_PIXEL, Resize
from exporters.pixels import CROPS, read_picture, resize
from pipeline.geometry import label_map_shape, picture_size, place_box, place_mask

SIZES = [(200, 120), (120, 200), (97, 61), (40, 40)]


def bright(picture: np.ndarray) -> np.ndarray:
    return picture[:, :, 0] > 127


def box_of(found: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(64, 64), (96, 48), (33, 70)])
def test_a_box_is_where_the_resize_brings_what_is_in_it(
    crop: str, size: tuple[int, int], target: tuple[int, int]
) -> None:
    how = Resize(*target, crop=crop)
    width, height = size
    box = (0.3 * width, 0.25 * height, 0.75 * width, 0.9 * height)
    box = tuple(float(round(each)) for each in box)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = 255
    placed = place_box(box, size, how)
    found = box_of(bright(resize(picture, how))) / (*target, *target)
    # An edge lies within the pixel that it cuts through.
    assert np.abs(np.array(placed) - found).max() <= 0.5 / min(target) + 1e-6


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(64, 64), (96, 48), (34, 70)])
def test_a_mask_is_what_the_resize_makes_of_the_figure(
    crop: str, size: tuple[int, int], target: tuple[int, int]
) -> None:
    how = Resize(*target, crop=crop)
    drawn = Image.new("L", size, 0)
    ImageDraw.Draw(drawn).ellipse((0.2 * size[0], 0.3 * size[1], 0.8 * size[0], 0.95 * size[1]), fill=1)
    mask = np.array(drawn)
    picture = np.repeat(mask[:, :, None] * 255, 3, axis=2)
    placed = place_mask(mask, how, (target[1], target[0]))
    known = placed != UNKNOWN_PIXEL
    seen = bright(resize(picture, how))
    # Nearest and bilinear differ on the edge alone.
    assert (placed[known] == seen[known]).mean() > 0.95
    both, either = ((placed == 1) & seen).sum(), ((placed == 1) | seen).sum()
    assert both / either > 0.9
    assert known.all() == (crop != "pad" or size[0] * target[1] == size[1] * target[0])


def test_bars_beside_a_padded_picture_are_unknown() -> None:
    how = Resize(64, 64, crop="pad")
    placed = place_mask(np.ones((50, 100), np.uint8), how, label_map_shape(how))
    assert placed.shape == (16, 16)
    assert (placed[4:12] == 1).all()
    assert (placed[:4] == UNKNOWN_PIXEL).all() and (placed[12:] == UNKNOWN_PIXEL).all()


def test_label_maps_are_a_quarter_of_the_input_rounded_up() -> None:
    assert label_map_shape(Resize(96, 64)) == (16, 24)
    assert label_map_shape(Resize(97, 66)) == (17, 25)


def test_a_box_is_cut_off_where_the_crop_cuts() -> None:
    how = Resize(32, 32, crop="center")
    # Of 200 x 100 px the middle square is seen: 50 to 150.
    assert place_box((25, 0, 100, 50), (200, 100), how) == (0.0, 0.0, 0.5, 0.5)
    assert place_box((0, 0, 50, 100), (200, 100), how) is None
    assert place_box((0, 0, 200, 100), (200, 100), how) == (0.0, 0.0, 1.0, 1.0)


def turned_png_with_exif_behind_the_pixels(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    whole = stream.getvalue()
    return whole[:-12] + chunk + whole[-12:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_the_size_of_a_turned_picture(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.new("RGB", (30, 20), (9, 9, 9)).save(path, exif=exif)
    height, width = read_picture(path).shape[:2]
    assert picture_size(path) == (width, height)
    assert (width, height) == ((20, 30) if orientation >= 5 else (30, 20))


def test_the_size_of_pictures_of_every_kind(tmp_path: Path) -> None:
    late = tmp_path / "late.png"
    late.write_bytes(turned_png_with_exif_behind_the_pixels(Image.new("RGB", (30, 20))))
    assert picture_size(late) == (20, 30)
    for mode, suffix in (("P", ".gif"), ("RGB", ".bmp"), ("LA", ".png"), ("I;16", ".png")):
        path = tmp_path / f"{mode.replace(';', '')}{suffix}"
        Image.new(mode, (30, 20)).save(path)
        assert picture_size(path) == (30, 20)
    for path in tmp_path.iterdir():
        height, width = read_picture(path).shape[:2]
        assert picture_size(path) == (width, height)


def test_what_is_no_picture_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    for data in (b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40):
        path.write_bytes(data)
        with pytest.raises(ValueError):
            picture_size(path)
    with pytest.raises(ValueError):
        picture_size(tmp_path / "missing.png")


def test_pixels_need_not_be_there_for_the_size(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:500])
    assert picture_size(path) == (400, 300)
    with pytest.raises(ValueError):
        read_picture(path)
