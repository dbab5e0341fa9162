"""Cells that several forms of the report write alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporters import report_facts as facts
from exporters import report_numbers as numbers


def accuracy(row: facts.Row) -> str:
    """Return the accuracy and its change against Keras, as in `91.3% (-0.3)`; or `-`."""
    change = numbers.points(row.accuracy_drop)
    return numbers.share(row.accuracy) + (f" ({change})" if change and row.accuracy is not None else "")


def images(row: facts.Row) -> str:
    """Return how many images were answered, as in `400` or `16 of 400`; or `-`."""
    if row.images is None:
        return facts.NONE
    return f"{row.images} of {row.of_images}" if row.is_sample else str(row.images)


def counted(amounts: Mapping[str, Any] | None) -> str:
    """Return counts by name, the largest first, as in `35 CONV_2D, 17 DEPTHWISE_CONV_2D`; or `-`."""
    ordered = sorted((amounts or {}).items(), key=lambda each: (-(each[1] or 0), each[0]))
    return ", ".join(f"{numbers.count(amount)} {facts.one_line(name)}" for name, amount in ordered) or facts.NONE


def constants(found: Mapping[str, Any] | None) -> str:
    """Return what an audit's comparison of constants gave, as in `53 layers, 410 368 values, off by at most 0.5 steps`."""
    if not found:
        return facts.NONE
    if not found.get("compared"):
        return "none"
    parts = [f"{numbers.count(found.get('layers'))} layers", f"{numbers.count(found['compared'])} values"]
    if found.get("largest_steps") is not None:
        parts.append(f"off by at most {numbers.difference(found['largest_steps'])} steps")
    if found.get("largest_relative") is not None:
        parts.append(f"off by at most {100 * found['largest_relative']:.2g} %")
    if found.get("uncompared"):
        parts.append(f"{numbers.count(found['uncompared'])} not compared")
    return ", ".join(parts)


def stage_cells(stage: Mapping[str, Any]) -> list[str]:
    """Return a stage's name, wall time, peak memory and whether it came from the cache, as words."""
    return [
        str(stage.get("name") or "-"),
        numbers.duration(stage.get("wall_s")),
        numbers.size(stage.get("peak_memory_bytes")),
        "yes" if stage.get("cached") else "no",
    ]
