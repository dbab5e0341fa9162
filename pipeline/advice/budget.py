"""Budgets as people write them: `500kB`, `1.5 MB`, `64KiB`, `20000`; `5ms`, `0.02s`."""

from __future__ import annotations

import dataclasses
import re

from exporters import report_numbers as numbers
from exporters.errors import InputError, nearest

SMALLEST, MOST_ACCURATE = "smallest_within_a_point", "most_accurate"
CHOICES = (SMALLEST, MOST_ACCURATE)
PRECISIONS = ("int8", "float32")
_SIZES = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_TIMES_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ]*)\s*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What an artifact may cost: `max_bytes` of the TFLite file, `max_ms` for one image; None where nothing is asked."""

    max_bytes: float | None = None
    max_ms: float | None = None

    def __bool__(self) -> bool:
        return self.max_bytes is not None or self.max_ms is not None

    def __str__(self) -> str:
        size = None if self.max_bytes is None else numbers.size(self.max_bytes)
        time = None if self.max_ms is None else f"{numbers.milliseconds(self.max_ms)} ms"
        return " and ".join(each for each in (size, time) if each)


def read_budget(max_size: str | int, max_latency: str) -> Budget:
    """Read both budgets; empty texts and 0 ask for nothing.

    Raises:
        InputError: not a quantity, no known unit, or nothing above 0.
    """
    return Budget(
        _read(str(max_size), _SIZES, "size", "500kB, 1.5MB, 64KiB or a number of bytes") if max_size else None,
        _read(max_latency, _TIMES_MS, "latency", "5ms or 0.02s") if max_latency else None,
    )


def check_choice(choose: str, precision: str) -> None:
    """Raise InputError where `advise.choose` or `advise.precision` is no word that is known."""
    for value, known, key in ((choose, CHOICES, "choose"), (precision, ("", *PRECISIONS), "precision")):
        if value not in known:
            raise InputError(
                f"advise.{key} is '{value}'.", nearest(value, [each for each in known if each]), f"set advise.{key}"
            )


def _read(text: str, units: dict[str, float], what: str, examples: str) -> float:
    found = _QUANTITY.fullmatch(text)
    factor = units.get(found[2].lower()) if found else None
    if not found or factor is None or not float(found[1]) * factor > 0:
        raise InputError(
            f"'{text}' is no {what}.",
            f"a number above 0 with a unit: {examples}",
            f"set --max-{what} or advise.max_{what}",
        )
    return float(found[1]) * factor
