"""Numbers as a reader of the report wants them; `-` stands for what was not measured."""

from __future__ import annotations

import math


def difference(value: float | None) -> str:
    """Return a difference such as `3.1e-06` or `0.31`; or `-`."""
    return "-" if value is None else f"{value:.2g}"


def exact(value: float | None) -> str:
    """Return a number with nine digits that count, as in `0.00390625`; or `-`."""
    return "-" if value is None else f"{value:.9g}"


def share(value: float | None) -> str:
    """Return a share as a percentage, rounded down so that only all of it reads `100.0%`; or `-`."""
    return "-" if value is None else f"{math.floor(round(value * 1000, 6)) / 10:.1f}%"


def points(drop: float | None) -> str:
    """Return the change of accuracy in percentage points with its sign, as in `-0.3`; or nothing."""
    return "" if drop is None else f"{-drop * 100:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")


def size(count: float | None) -> str:
    """Return a number of bytes as `812 B`, `1.2 kB`, `3.4 MB`, `5.6 GB`; or `-`."""
    if count is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor * 0.9995:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def milliseconds(value: float | None) -> str:
    """Return a latency with three digits that count; or `-`."""
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """Return a wall time such as `0.4 s`, `12 s`, `3 min 05 s`; or `-`."""
    if seconds is None:
        return "-"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds + 0.5) // 60} min {int(seconds + 0.5) % 60:02d} s"


def count(value: float | None) -> str:
    """Return a whole number with a thin space between thousands, as in `396 160`; or `-`."""
    return f"{value:,.0f}".replace(",", "\u202f") if isinstance(value, int | float) else "-"
