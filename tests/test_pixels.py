"""Decoding and resizing: every kind of file that people have, and every kind of file that is none."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporters.contract import Resize
from exporters.errors import InputError
from exporters.pixels import CROPS, IMAGE_SUFFIXES, check_resize, decode, load_images, read_picture, resize

GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.integers(0, 256, (19, 23, 3), dtype=np.uint8)
# Smooth, so that a lossy file differs little from it, and different in every corner and channel.
ROW, COLUMN = np.mgrid[0:48, 0:64]
SMOOTH = np.stack([ROW * 5, COLUMN * 4, 255 - ROW * 3 - COLUMN], axis=-1).clip(0, 255).astype(np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what Pillow does not write; `rows` each begin with their filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PNG", {"interlace": 1})],
    ids=["png", "bmp", "webp", "png interlaced"],
)
def test_lossless_files_give_their_very_pixels(kind: str, options: dict) -> None:
    found = decode(encoded(Image.fromarray(NOISE), kind, **options))
    assert found.dtype == np.uint8 and found.flags.writeable
    np.testing.assert_array_equal(found, NOISE)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_give_nearly_their_pixels(kind: str) -> None:
    found = decode(encoded(Image.fromarray(SMOOTH), kind, quality=95))
    assert np.abs(found.astype(int) - SMOOTH).mean() < 3


# What has to be done to the stored pixels so that the picture stands upright, by the EXIF standard.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = decode(encoded(Image.fromarray(SMOOTH), kind, exif=exif, **options))
    expected = UPRIGHT[orientation](SMOOTH)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_left_alone(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(NOISE), "PNG", exif=exif)), NOISE)


def test_orientation_is_applied_to_grey_and_transparent_pictures_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = NOISE[:, :, 0]
    found = decode(encoded(Image.fromarray(grey), "PNG", exif=exif))
    np.testing.assert_array_equal(found[:, :, 1], np.rot90(grey, -1))
    rgba = np.dstack([NOISE, np.full(NOISE.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(rgba), "PNG", exif=exif)), np.rot90(NOISE, -1), strict=True
    )


def test_greyscale_becomes_three_equal_channels() -> None:
    found = decode(encoded(Image.fromarray(NOISE[:, :, 0]), "PNG"))
    np.testing.assert_array_equal(found, np.repeat(NOISE[:, :, :1], 3, axis=2))
    bits = Image.fromarray(NOISE[:, :, 0] > 127)
    np.testing.assert_array_equal(np.unique(decode(encoded(bits, "PNG"))), [0, 255])


def on_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The rounded mean of a colour and white, weighted by alpha, in fractions that are exact."""
    exact = color.astype(np.float64) * alpha + 255.0 * (255 - alpha.astype(np.float64))
    return np.floor(exact / 255 + 0.5).astype(np.uint8)


def test_transparency_is_laid_on_white_exactly() -> None:
    color, alpha = (each.astype(np.uint8) for each in np.mgrid[0:256, 0:256])
    rgba = np.dstack([color, color, 255 - color, alpha])
    found = decode(encoded(Image.fromarray(rgba), "PNG"))
    np.testing.assert_array_equal(found[:, :, 0], on_white(color, alpha))
    np.testing.assert_array_equal(found[:, :, 2], on_white(255 - color, alpha))
    assert (found[:, 0] == 255).all(), "wholly transparent is white, whatever colour lies under it"
    np.testing.assert_array_equal(found[:, 255, 0], np.arange(256))


def test_grey_with_alpha_is_laid_on_white() -> None:
    color, alpha = (each.astype(np.uint8) for each in np.mgrid[0:256, 0:256])
    found = decode(encoded(Image.fromarray(np.dstack([color, alpha]), "LA"), "PNG"))
    np.testing.assert_array_equal(found, np.repeat(on_white(color, alpha)[:, :, None], 3, axis=2))


def test_a_palette_is_looked_up() -> None:
    few = Image.fromarray(NOISE).quantize(16)
    np.testing.assert_array_equal(decode(encoded(few, "PNG")), np.asarray(few.convert("RGB")))
    np.testing.assert_array_equal(decode(encoded(few, "GIF")), np.asarray(few.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_entry_of_a_palette_is_white(kind: str) -> None:
    few = Image.new("P", (3, 1))
    few.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    few.putdata([0, 1, 2])
    found = decode(encoded(few, kind, transparency=1))
    np.testing.assert_array_equal(found[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


def test_half_transparent_entries_of_a_palette_are_mixed() -> None:
    few = Image.new("P", (2, 1))
    few.putpalette([10, 20, 30, 40, 50, 60])
    few.putdata([0, 1])
    found = decode(encoded(few, "PNG", transparency=bytes([255, 128])))
    expected = on_white(np.array([40, 50, 60]), np.array([128]))
    np.testing.assert_array_equal(found[0], [[10, 20, 30], expected])


def test_a_colour_key_in_an_rgb_png_is_white() -> None:
    picture = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    found = decode(encoded(picture, "PNG", transparency=(4, 5, 6)))
    np.testing.assert_array_equal(found[0], [[1, 2, 3], [255, 255, 255]])


def test_sixteen_bits_are_cut_to_the_high_eight() -> None:
    grey = GENERATOR.integers(0, 65536, (9, 11), dtype=np.uint16)
    found = decode(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(found, np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_a_dark_sixteen_bit_picture_is_dark_and_not_read_as_eight_bits() -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert decode(encoded(Image.fromarray(grey), "PNG")).max() == 0


def test_sixteen_bit_colour_and_alpha_keep_the_high_byte() -> None:
    values = GENERATOR.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    np.testing.assert_array_equal(decode(png(7, 5, 16, 2, rows)), (values >> 8).astype(np.uint8))
    opaque = np.dstack([values, np.full((5, 7), 65535, np.uint16)])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in opaque)
    np.testing.assert_array_equal(decode(png(7, 5, 16, 6, rows)), (values >> 8).astype(np.uint8))


def test_sixteen_bit_grey_with_a_colour_key_is_white_there() -> None:
    values = np.array([[0, 300, 40000, 65535]], np.uint16)
    rows = b"\0" + values.astype(">u2").tobytes()
    found = decode(png(4, 1, 16, 0, rows, (b"tRNS", struct.pack(">H", 40000))))
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 255, 255])


def test_a_cmyk_jpeg_has_the_colours_that_pillow_sees() -> None:
    picture = Image.fromarray(SMOOTH).convert("CMYK")
    found = decode(encoded(picture, "JPEG", quality=95))
    assert found.shape == SMOOTH.shape
    assert np.abs(found.astype(int) - SMOOTH).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    first = Image.new("RGB", (8, 6), (255, 0, 0))
    rest = [Image.new("RGB", (8, 6), color) for color in ((0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=rest, duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(decode(data), np.asarray(first))


def test_a_large_picture_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    data = encoded(Image.new("1", (12000, 8000), 1), "PNG")
    assert decode(data).shape == (8000, 12000, 3)
    assert not recwarn.list


TEXT = b"This is no picture at all."
JPEG, PNG = encoded(Image.fromarray(SMOOTH), "JPEG"), encoded(Image.fromarray(NOISE), "PNG")
DAMAGED = {
    "nothing": (b"", "the file is empty"),
    "text": (TEXT, "not an image"),
    "a web page": (b"<!doctype html><html></html>", "not an image"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "damaged: .*(?i:truncated)"),
    "a jpeg without its end": (JPEG[:-60], "damaged: .*truncated"),
    "a jpeg's first bytes": (JPEG[:3], "not an image"),
    "half a png": (PNG[: len(PNG) // 2], "damaged|not an image"),
    "a png without its end": (PNG[:-30], "damaged"),
    "a png with a wrong checksum": (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "damaged"),
    "a png of no width": (png(0, 5, 8, 2, b"\0" * 5), "damaged|0 x 5|not an image"),
    "half a gif": (encoded(Image.fromarray(NOISE), "GIF")[:200], "damaged|not an image"),
    "half a bmp": (encoded(Image.fromarray(NOISE), "BMP")[:300], "damaged"),
    "half a webp": (encoded(Image.fromarray(NOISE), "WEBP")[:100], "damaged|not an image"),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_whole_picture_is_a_value_error_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        decode(data)
    assert str(caught.value).strip() and not isinstance(caught.value, UnicodeError)


def test_every_cut_of_a_file_is_a_value_error() -> None:
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        data = encoded(Image.fromarray(NOISE), kind)
        for end in range(0, len(data) - 60, 29):
            with pytest.raises(ValueError, match=r"\w"):
                decode(data[:end])


def test_noise_in_a_file_is_a_value_error_or_a_picture() -> None:
    generator = np.random.default_rng(5)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        data = encoded(Image.fromarray(NOISE), kind)
        for _ in range(60):
            noisy = bytearray(data)
            for at in generator.integers(0, len(data), 4):
                noisy[at] = generator.integers(0, 256)
            try:
                found = decode(bytes(noisy))
            except ValueError:
                continue
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(ValueError, match="too large"):
        decode(png(30000, 30000, 8, 2, b"\0"))


def test_files_are_read_by_content_and_not_by_suffix(tmp_path: Path) -> None:
    (tmp_path / "picture.PNG").write_bytes(JPEG)
    assert read_picture(tmp_path / "picture.PNG").shape == SMOOTH.shape
    (tmp_path / "text.png").write_bytes(TEXT)
    with pytest.raises(ValueError, match="not an image"):
        read_picture(tmp_path / "text.png")
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_picture(path)
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"} == set(IMAGE_SUFFIXES)


SIZES = [((23, 19), (32, 32)), ((19, 23), (7, 13)), ((640, 480), (224, 224)), ((1, 1), (5, 3)), ((300, 2), (32, 32)),
         ((2, 300), (33, 17)), ((32, 32), (32, 32)), ((97, 31), (1, 1)), ((64, 48), (31, 64))]  # fmt: skip


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_stretch_is_pillow_s_bilinear(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize(target, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(picture, Resize(*target)), expected, strict=True)


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_center_cuts_the_middle_at_the_target_s_shape(size: tuple[int, int], target: tuple[int, int]) -> None:
    (width, height), picture = size, np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    scale = min(width / target[0], height / target[1])
    cut = [max(1, math.floor(side * scale + 1e-9)) for side in target]
    left, top = (width - cut[0]) // 2, (height - cut[1]) // 2
    middle = Image.fromarray(np.ascontiguousarray(picture[top : top + cut[1], left : left + cut[0]]))
    expected = np.asarray(middle.resize(target, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(picture, Resize(*target, crop="center")), expected, strict=True)


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_pad_keeps_the_whole_picture_on_black(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(1, 256, (size[1], size[0], 3), dtype=np.uint8)
    scale = min(target[0] / size[0], target[1] / size[1])
    inner = [max(1, math.floor(side * scale + 1e-9)) for side in size]
    left, top = (target[0] - inner[0]) // 2, (target[1] - inner[1]) // 2
    expected = np.zeros((target[1], target[0], 3), np.uint8)
    resized = np.asarray(Image.fromarray(picture).resize(inner, Image.Resampling.BILINEAR))
    expected[top : top + inner[1], left : left + inner[0]] = resized
    np.testing.assert_array_equal(resize(picture, Resize(*target, crop="pad")), expected, strict=True)


def test_crops_by_hand() -> None:
    picture = np.zeros((2, 6, 3), np.uint8)
    picture[:, 2:4] = 200
    assert (resize(picture, Resize(2, 2, crop="center")) == 200).all()
    padded = resize(picture + 1, Resize(6, 6, crop="pad"))
    assert (padded[[0, 1, 4, 5]] == 0).all() and (padded[2:4] > 0).all()


def test_resize_takes_views_and_leaves_its_input_alone() -> None:
    view = NOISE[::-1, ::2]
    before = view.copy()
    for crop in CROPS:
        found = resize(view, Resize(9, 8, crop=crop))
        np.testing.assert_array_equal(found, resize(view.copy(), Resize(9, 8, crop=crop)))
        assert found.flags.writeable
    np.testing.assert_array_equal(view, before)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Resize(8, 8, method="bilinea"), "bilinear"),
        (Resize(8, 8, crop="centre"), "center"),
        (Resize(0, 8), "at least 1 x 1"),
        (Resize(8, -1), "at least 1 x 1"),
    ],
)
def test_a_resize_that_does_not_exist_is_refused(how: Resize, said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_resize(how)
    assert said in caught.value.expected
    check_resize(Resize(8, 8))


def test_load_images_stacks_pictures_and_names_the_one_that_is_broken(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.gif")]
    for path, data in zip(paths, (PNG, JPEG, b"GIF89a"), strict=True):
        path.write_bytes(data)
    images = load_images(paths[:2], Resize(8, 6))
    assert images.shape == (2, 6, 8, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], resize(NOISE, Resize(8, 6)))
    assert load_images([], Resize(8, 6)).shape == (0, 6, 8, 3)
    with pytest.raises(InputError, match=r"c\.gif"):
        load_images(paths, Resize(8, 6))


def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 8, 3), 90, np.uint8)).save(stream, "JPEG", exif=exif)
    data = bytearray(stream.getvalue())
    start = data.index(b"Exif")
    for position in range(start + 6, start + 30):
        damaged = bytes(data[:position]) + bytes([data[position] ^ 0xFF]) + bytes(data[position + 1 :])
        assert sorted(decode(damaged).shape) == [3, 4, 8]
