"""The advice in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporters import report_numbers as numbers
from exporters.report_advice_text import columns_of, legend, sentences_of
from pipeline.terminal import Terminal

GAP = 2


def print_advice(advice: Mapping[str, Any], terminal: Terminal) -> None:
    """Print the table, the recommendations and the guides' rule; the chosen cut stands out, columns without room are left out."""
    console = terminal.results
    columns = columns_of(advice)
    if console.is_terminal:
        columns = _fitting(columns, advice, console.width)
    else:
        # A pipe has no width: every name is whole in it.
        console = Console(file=console.file, width=300, highlight=False)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for title, number, _, _ in columns:
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for row in advice["cuts"]:
        style = "bold" if row["name"] == advice["chosen"] else ""
        table.add_row(*(Text(content(row)) for _, _, content, _ in columns), style=style)
    console.print(table, soft_wrap=True)
    if len(advice["heads"]) > 1:
        console.print()
        console.print(_heads(advice), soft_wrap=True)
    console.print()
    for line in (legend(advice), *sentences_of(advice)):
        console.print(line, markup=False, soft_wrap=True)


def _fitting(columns: list[Any], advice: Mapping[str, Any], width: int) -> list[Any]:
    def wide(column: Any) -> int:
        return max(len(column[0]), *(len(column[2](row)) for row in advice["cuts"])) + GAP

    shown = list(columns)
    while sum(map(wide, shown)) > width and any(column[3] for column in shown):
        shown.remove(max(shown, key=lambda column: column[3]))
    return shown


def _heads(advice: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("cut", no_wrap=True)
    for name in advice["heads"]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in advice["cuts"]:
        table.add_row(Text(row["name"]), *(numbers.share(head["accuracy"]) for head in row["heads"].values()))
    return table
