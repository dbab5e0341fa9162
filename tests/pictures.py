"""Makes small labelled sets of pictures for tests: drawings of the quickstart, and pictures that are broken."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.quickstart.drawings import LABELS, draw

ACTIVE = LABELS[:3]
# The embedded backbone, at the size that it was made for.
SMALL = (
    *("--weights", "quickstart", "--backbone", "mobilenet_v2"),
    *("--set", "backbone.alpha=0.35", "--set", "resize.width=96", "--set", "export.calibration_images=16"),
)


def write_drawings(root: Path, labels: Iterable[str] = ACTIVE, per_class: int = 40, size_px: int = 64) -> Path:
    """Write drawings as `root/<label>/<nnn>.png`, the same each time."""
    for label in labels:
        for number in range(per_class):
            generator = np.random.default_rng([7, LABELS.index(label), number])
            write_picture(root / label / f"{number:03d}.png", draw(label, generator, size_px))
    return root


def write_noise(root: Path, counts: dict[str, int], *, seed: int = 0, suffix: str = ".png") -> Path:
    """Write noise of 8 px as `root/<label>/<n><suffix>`; every picture is another one."""
    generator = np.random.default_rng(seed)
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
            write_picture(root / label / f"{number}{suffix}", pixels)
    return root


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """Write uint8 (height, width, 3) in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_truncated(path: Path) -> Path:
    """Write a JPEG of which the second half is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def write_without_width(path: Path, height: int = 5) -> Path:
    """Write a PNG of 0 x `height` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 0, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * height)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def picture(width: int = 57, height: int = 41, channels: int = 3) -> np.ndarray:
    """A picture of soft random blots, uint8 (height, width, channels)."""
    coarse = np.random.default_rng([width, channels]).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
