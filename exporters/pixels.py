"""From an image file to the pixels that a model takes: decode, orientation, RGB, resize.

`web_demo/predict.js` does the same arithmetic in JavaScript; the two are tested equal bit for bit.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from exporters.contract import Resize
from exporters.errors import InputError, nearest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
RESIZE_METHODS = ("bilinear",)
CROPS = ("stretch", "center", "pad")


def decode(data: bytes) -> np.ndarray:
    """Decode one picture to RGB: EXIF orientation applied, transparency laid on white, 16 bits cut to the high 8.

    Args:
        data: the bytes of a JPEG, PNG, BMP, GIF (first frame) or WebP file.

    Returns:
        uint8 (height, width, 3), 0..255.

    Raises:
        ValueError: not a picture, a truncated one, or one without pixels; the message is the reason alone.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of a decompression bomb at 89 megapixels, which a scanned photograph may well have.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
                picture = _turned(opened)
                return _to_rgb(picture)
    except Image.DecompressionBombError as fault:
        raise ValueError(f"too large: {fault}") from fault
    except Image.UnidentifiedImageError as fault:
        raise ValueError("not an image in a format that can be read" if data else "the file is empty") from fault
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, ZeroDivisionError) as fault:
        raise ValueError(f"damaged: {fault}") from fault


def read_picture(path: Path) -> np.ndarray:
    """Read and decode one image file; see `decode`. Raises ValueError with the reason alone."""
    try:
        data = Path(path).read_bytes()
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror or fault}") from fault
    return decode(data)


def _turned(opened: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # Pillow's reader of damaged EXIF blocks raises struct.error, AttributeError and others
        return opened


def _to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.width == 0 or picture.height == 0:
        raise ValueError(f"a picture of {picture.width} x {picture.height} px")
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.uint16)
        grey = (values >> 8).astype(np.uint8)
        # Pillow converts a 16-bit picture with one transparent grey wrongly: that grey is laid on white here.
        grey[values == picture.info.get("transparency", -1)] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode in ("I", "F"):
        # Pillow gives 16-bit PNGs as 32-bit integers in some versions: the values still run to 65535.
        values = np.asarray(picture, dtype=np.float64)
        grey = np.clip(values / 256.0 if values.max() > 255 else values, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _lay_on_white(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))


def _lay_on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[:, :, 3:].astype(np.uint32)
    color = rgba[:, :, :3].astype(np.uint32)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def resize(rgb: np.ndarray, how: Resize) -> np.ndarray:
    """Bring an RGB picture to the model's size by Pillow's fixed-point bilinear filter.

    Args:
        rgb: uint8 (height, width, 3).
        how: `stretch` ignores the aspect ratio; `center` cuts the middle out at the target's aspect ratio first;
            `pad` keeps the whole picture and fills up with black.

    Returns:
        uint8 (how.height, how.width, 3).
    """
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    target = (how.width, how.height)
    if how.crop == "center":
        picture = picture.crop(_center_box(picture.width, picture.height, *target))
    if how.crop == "pad":
        inner = _inner_size(picture.width, picture.height, *target)
        canvas = Image.new("RGB", target)
        canvas.paste(
            picture.resize(inner, Image.Resampling.BILINEAR),
            ((how.width - inner[0]) // 2, (how.height - inner[1]) // 2),
        )
        return np.array(canvas)
    return np.array(picture.resize(target, Image.Resampling.BILINEAR))


def window(width: int, height: int, how: Resize) -> tuple[float, float, float, float]:
    """Return which part of a picture the whole of the resized one stands for: left, top, right, bottom in px of the picture.

    With `pad` it reaches beyond the picture, by what is filled up with black.

    Args:
        width, height: of the picture, in px.
        how: as for `resize`.
    """
    if how.crop == "center":
        left, top, right, bottom = _center_box(width, height, how.width, how.height)
        return float(left), float(top), float(right), float(bottom)
    if how.crop == "pad":
        inner = _inner_size(width, height, how.width, how.height)
        across, down = width / inner[0], height / inner[1]
        left, top = (how.width - inner[0]) // 2, (how.height - inner[1]) // 2
        return -left * across, -top * down, (how.width - left) * across, (how.height - top) * down
    return 0.0, 0.0, float(width), float(height)


def _center_box(width: int, height: int, target_width: int, target_height: int) -> tuple[int, int, int, int]:
    # Integers only, so that JavaScript arrives at the same box.
    cut_width, cut_height = width, height
    if width * target_height > height * target_width:
        cut_width = max(1, height * target_width // target_height)
    else:
        cut_height = max(1, width * target_height // target_width)
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    return left, top, left + cut_width, top + cut_height


def _inner_size(width: int, height: int, target_width: int, target_height: int) -> tuple[int, int]:
    if width * target_height > height * target_width:
        return target_width, max(1, height * target_width // width)
    return max(1, width * target_height // height), target_height


def check_resize(how: Resize) -> None:
    """Raise InputError where a resize asks for something that does not exist."""
    if how.method not in RESIZE_METHODS:
        raise InputError(
            f"There is no resize method '{how.method}'.", nearest(how.method, RESIZE_METHODS), "set resize.method"
        )
    if how.crop not in CROPS:
        raise InputError(f"There is no crop '{how.crop}'.", nearest(how.crop, CROPS), "set resize.crop")
    if min(how.width, how.height) < 1:
        raise InputError(
            f"The input size {how.width} x {how.height} px holds no pixel.",
            "at least 1 x 1",
            "set resize.width and height",
        )


def load_images(paths: list[Path], how: Resize) -> np.ndarray:
    """Decode and resize pictures.

    Returns:
        uint8 (len(paths), how.height, how.width, 3).

    Raises:
        InputError: one of them cannot be read.
    """
    return load_images_and_sizes(paths, how)[0]


def load_images_and_sizes(paths: list[Path], how: Resize) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Decode and resize pictures, as `load_images` does, and return beside them the width and height in px of each before."""
    images = np.empty((len(paths), how.height, how.width, 3), np.uint8)
    sizes = []
    for index, path in enumerate(paths):
        try:
            picture = read_picture(path)
            images[index] = resize(picture, how)
        except ValueError as fault:
            raise InputError(
                f"The picture {path} cannot be used: {fault}.",
                "a JPEG, PNG, BMP, GIF or WebP file",
                "give another picture",
            ) from fault
        sizes.append((picture.shape[1], picture.shape[0]))
    return images, sizes
