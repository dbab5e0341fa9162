"""Which values of a graph come from the columns alone: what encodes them, which stays in float32. Standard library only."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def fed_by_columns_alone(
    calls: Iterable[tuple[Iterable[Name], Iterable[Name]]], columns: Collection[Name], others: Collection[Name]
) -> set[Name]:
    """Return what is computed from the columns and constants, and from nothing else.

    Args:
        calls: what each operator takes and gives, in any order.
        columns: the input that takes columns; empty where there is none.
        others: all other inputs.

    Returns:
        Names, that of the input among them.
    """
    takers: dict[Name, set[Name]] = {}
    for taken, given in calls:
        given = set(given)
        for name in taken:
            takers.setdefault(name, set()).update(given)
    return _reached(columns, takers) - _reached(others, takers)


def _reached(start: Collection[Name], takers: dict[Name, set[Name]]) -> set[Name]:
    found, left = set(start), list(start)
    while left:
        new = takers.get(left.pop(), set()) - found
        found |= new
        left += new
    return found
