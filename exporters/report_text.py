"""The report in a terminal: a line per artifact, and one per runtime only where a runtime is not verified."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters import report_cells as cells
from exporters import report_checks as checked
from exporters import report_facts as facts
from exporters import report_numbers as numbers
from exporters import report_tasks as tasks

if TYPE_CHECKING:
    from rich.console import Console

# Header, content, whether it is a number, and when it goes as a console gets narrow: the highest first, 0 never.
COLUMNS: tuple[tuple[str, Callable[[facts.Row], str], bool, int], ...] = (
    ("format", lambda row: row.format, False, 0),
    ("precision", lambda row: row.precision, False, 0),
    ("size", lambda row: numbers.size(row.size_bytes) if row.format else "", True, 5),
    ("gzip", lambda row: numbers.size(row.gzip_bytes) if row.format else "", True, 7),
    ("max diff", lambda row: numbers.difference(row.max_abs), True, 2),
    ("agree", lambda row: numbers.share(row.agreement), True, 4),
    ("accuracy", cells.accuracy, True, 3),
    ("ms", lambda row: numbers.milliseconds(row.latency_ms), True, 6),
    ("runtime", lambda row: row.runner, False, 1),
)
GAP = 2
COLORS = {"verified": "green", "failed": "bold red"}


def print_table(report: Mapping[str, Any], console: Console, folder: Path | None) -> None:
    """Print the table of artifacts, the reasons of what is not verified, the notes, the verdict and the place.

    Args:
        report: in the form of report.json, with the keys of `exporters.report`.
        console: where to print; columns that do not fit its width are left out, the least important first.
        folder: where the report lies; None where none was written.
    """
    from rich.table import Table
    from rich.text import Text

    report, unicode = facts.plain(report), "utf" in console.encoding.lower()

    def say(*parts: tuple[str, str]) -> None:
        whole = Text.assemble(*((_encodable(text, console.encoding), style) for text, style in parts))
        console.print(whole, soft_wrap=True, highlight=False)

    found = table_rows(report)
    if found:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        verdicts = [f"{symbol(row.status, unicode)} {facts.WORDS[row.status]}" for row in found]
        shown = _fitting(found, verdicts, console.width)
        for header, _, number, _ in shown:
            table.add_column(header, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
        table.add_column("verdict", no_wrap=True, overflow="fold", min_width=max(map(len, verdicts)))
        for row, verdict in zip(found, verdicts, strict=True):
            line = [Text(_encodable(content(row), console.encoding)) for _, content, _, _ in shown]
            table.add_row(*line, Text(verdict, style=_color(row.status)))
        console.print(table)
        console.print()
    for sentence in tasks.told(facts.rows(report)):
        say((sentence, ""))
    for status, subject, sentence in checked.reasons(report):
        say((f"{symbol(status, unicode)} {facts.WORDS[status]}", _color(status)), (f"  {subject}: {sentence}", ""))
    for runtime, sentence in checked.not_run(report):
        say((f"- {checked.NOT_RUN}", "bold"), (f"  {runtime}: {sentence}", ""))
    for note in checked.notes(report):
        say((f"Note: {note}", ""))
    if keras := keras_accuracy(report):
        say((keras, ""))
    verdict = checked.verdict_of(report)
    headline = f"{symbol(verdict, unicode)} {facts.WORDS[verdict].capitalize()}"
    say((headline, _color(verdict)), (f" ({checked.tally(report)})", ""))
    if folder is not None:
        say((f"Report: {folder / 'report.html'}", ""))


def table_rows(report: Mapping[str, Any]) -> list[facts.Row]:
    """Return a row per artifact; under it, where it has several runtimes, one for each that is not verified.

    Such a row has no format, no precision and no size: they stand above it.
    """
    empty = {"format": "", "precision": "", "size_bytes": None, "gzip_bytes": None}
    found = []
    for summary in checked.summaries(report):
        wrong = [row for row in summary.rows if row.status != "verified"] if len(summary.rows) > 1 else []
        found += [summary.row, *(dataclasses.replace(row, **empty) for row in wrong)]
    return found


def keras_accuracy(report: Mapping[str, Any]) -> str:
    """Return the Keras model's accuracy as a sentence; or nothing where it is not known."""
    reference = report.get("reference") or {}
    figures = [f"{output} {numbers.share(value)}" for output, value in (reference.get("accuracy") or {}).items()]
    images = f" on {reference['images']} test images" if reference.get("images") else ""
    return f"Accuracy in Keras: {', '.join(figures)}{images}." if figures else ""


def symbol(status: str, unicode: bool = True) -> str:
    """Return the sign of a status: a tick, a cross, or a question mark for everything that was not decided."""
    plain = {"verified": "+", "failed": "x"}
    return (facts.SYMBOLS if unicode else plain).get(status, facts.UNDECIDED)


def _color(status: str) -> str:
    return COLORS.get(status, "bold yellow")


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "replace").decode(encoding)


def _fitting(found: list[facts.Row], verdicts: list[str], width: int) -> list[tuple]:
    from rich.cells import cell_len

    shown = list(COLUMNS)

    def needed() -> int:
        columns = [[header, *(content(row) for row in found)] for header, content, _, _ in shown]
        return sum(max(map(cell_len, column)) + GAP for column in columns) + max(map(len, verdicts))

    while needed() > width and any(column[3] for column in shown):
        shown.remove(max(shown, key=lambda column: column[3]))
    return shown
