"""What a report tells of the tabular columns that a model takes beside the picture: kind, range or categories.

Standard library only, as all of the report's words.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from exporters.report_facts import one_line

MOST_SHOWN = 20


def columns_told(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (column, what it takes) of every column that the card of a report lists; none where it lists none."""
    told = []
    for each in (report.get("card") or {}).get("columns") or []:
        try:
            told.append((one_line(each["name"]), one_line(column_told(each))))
        except (KeyError, TypeError, ValueError, AttributeError):
            # A damaged card is told of where it is judged.
            continue
    return told


def column_told(column: Mapping[str, Any]) -> str:
    """Return what a column takes, in words.

    Args:
        column: as `exporters.columns.Column.to_json` gives it.
    """
    if column["kind"] == "category":
        shown = ", ".join(map(str, column["categories"][:MOST_SHOWN]))
        more = len(column["categories"]) - MOST_SHOWN
        return f"a category: {shown}{f' and {more} more' if more > 0 else ''}; anything else is unknown"
    empty = f"an empty cell counts as {column['default']:.4g}"
    if column["kind"] == "bucket":
        return f"a number by its range: {', '.join(ranges_told(column['boundaries']))}; {empty}"
    spread = f"{column['mean']:.4g} on average, with a deviation of {column['standard_deviation']:.4g}"
    return f"a number: {spread} in training, clipped at five deviations; {empty}"


def ranges_told(boundaries: Sequence[float]) -> list[str]:
    """Return the ranges of a bucket in words, the lowest first."""
    bounds = [f"{each:.6g}" for each in boundaries]
    between = [f"{low} to below {high}" for low, high in itertools.pairwise(bounds)]
    return [f"below {bounds[0]}", *between, f"{bounds[-1]} or more"]
