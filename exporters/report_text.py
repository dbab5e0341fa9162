"""The report as lines of text: the terminal's table and Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters import report_facts as facts
from exporters import report_numbers as numbers

if TYPE_CHECKING:
    from rich.console import Console

# Header, content, whether it is a number, and when it goes as a console gets narrow: the highest first, 0 never.
COLUMNS: tuple[tuple[str, Callable[[facts.Row], str], bool, int], ...] = (
    ("format", lambda row: row.format, False, 0),
    ("precision", lambda row: row.precision, False, 0),
    ("size", lambda row: numbers.size(row.size_bytes), True, 5),
    ("gzip", lambda row: numbers.size(row.gzip_bytes), True, 7),
    ("max diff", lambda row: numbers.difference(row.max_abs), True, 2),
    ("agree", lambda row: numbers.share(row.agreement), True, 4),
    ("accuracy", facts.accuracy, True, 3),
    ("ms", lambda row: numbers.milliseconds(row.latency_ms), True, 6),
    ("runner", lambda row: row.runner, False, 1),
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

    found = facts.rows(report)
    if found:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        verdicts = [f"{symbol(row.status, unicode)} {facts.WORDS[row.status]}" for row in found]
        shown = _fitting(found, verdicts, console.width)
        for header, _, number, _ in shown:
            table.add_column(header, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
        table.add_column("verdict", no_wrap=True, overflow="fold", min_width=max(map(len, verdicts)))
        for row, verdict in zip(found, verdicts, strict=True):
            cells = [Text(_encodable(content(row), console.encoding)) for _, content, _, _ in shown]
            table.add_row(*cells, Text(verdict, style=_color(row.status)))
        console.print(table)
        console.print()
    for status, subject, sentence in facts.reasons(report):
        say((f"{symbol(status, unicode)} {facts.WORDS[status]}", _color(status)), (f"  {subject}: {sentence}", ""))
    for note in report.get("notes") or []:
        say((f"Note: {facts.one_line(note)}", ""))
    if keras := _keras_accuracy(report):
        say((keras, ""))
    verdict = facts.verdict_of(report)
    headline = f"{symbol(verdict, unicode)} {facts.WORDS[verdict].capitalize()}"
    say((headline, _color(verdict)), (f" ({facts.tally(report)})", ""))
    if folder is not None:
        say((f"Report: {folder / 'report.html'}", ""))


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


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as GitHub's Markdown, for a pull request or a job summary.

    Args:
        report: in the form of report.json, with the keys of `exporters.report`.

    Returns:
        Verdict, table of artifacts, reasons, notes, counts of the data and stages; ends with a newline.
    """
    report = facts.plain(report)
    verdict = facts.verdict_of(report)
    name = escape(report.get("name") or "model")
    parts = [f"## {symbol(verdict)} {name}: {facts.WORDS[verdict]}", facts.tally(report).capitalize() + "."]
    found = facts.rows(report)
    if found:
        headers = [*((header, number) for header, _, number, _ in COLUMNS), ("verdict", False)]
        lines = [[*(content(row) for _, content, _, _ in COLUMNS), _verdict(row)] for row in found]
        parts.append(_table(headers, lines))
    if keras := _keras_accuracy(report):
        parts.append(escape(keras))
    if wrong := facts.reasons(report):
        told = (f"- {symbol(s)} {facts.WORDS[s]}: **{escape(subject)}**: {escape(why)}" for s, subject, why in wrong)
        parts.append("### What is not verified\n\n" + "\n".join(told))
    if notes := report.get("notes"):
        parts.append("### Notes\n\n" + "\n".join(f"- {escape(note)}" for note in notes))
    parts += [part for part in (_data(report.get("data") or {}), _stages(report.get("stages") or [])) if part]
    return "\n\n".join(parts) + "\n"


def _keras_accuracy(report: Mapping[str, Any]) -> str:
    reference = report.get("reference") or {}
    figures = [f"{output} {numbers.share(value)}" for output, value in (reference.get("accuracy") or {}).items()]
    images = f" on {reference['images']} test images" if reference.get("images") else ""
    return f"Accuracy in Keras: {', '.join(figures)}{images}." if figures else ""


def escape(value: Any) -> str:
    """Return any text as one line that Markdown shows letter for letter, also inside a table."""
    text = facts.one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _verdict(row: facts.Row) -> str:
    return f"{symbol(row.status)} {facts.WORDS[row.status]}"


def _table(headers: list[tuple[str, bool]], lines: list[list[str]]) -> str:
    head = "| " + " | ".join(header for header, _ in headers) + " |"
    rule = "| " + " | ".join("---:" if number else "---" for _, number in headers) + " |"
    return "\n".join([head, rule, *("| " + " | ".join(escape(cell) for cell in line) + " |" for line in lines)])


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    counts = ", ".join(f"{data[split]} {split}" for split in ("train", "val", "test") if data.get(split) is not None)
    labels = ", ".join(f"{escape(name)}: {len(each or [])} labels" for name, each in (data.get("labels") or {}).items())
    skipped = data.get("skipped") or []
    lines = [f"Images: {counts}." if counts else "", f"Outputs: {labels}." if labels else ""]
    lines.append(f"Skipped files: {len(skipped)}." if skipped else "")
    listed = [f"- {escape(each.get('path'))}: {escape(each.get('reason'))}" for each in skipped[:20]]
    listed += [f"- and {len(skipped) - 20} more"] if len(skipped) > 20 else []
    text = " ".join(line for line in lines if line)
    return f"### Data\n\n{text}" + ("\n\n" + "\n".join(listed) if listed else "")


def _stages(stages: list[Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    headers = [("stage", False), ("wall time", True), ("peak memory", True), ("cached", False)]
    return "### Stages\n\n" + _table(headers, [stage_cells(stage) for stage in stages])


def stage_cells(stage: Mapping[str, Any]) -> list[str]:
    """Return name, wall time, peak memory and whether it came from the cache, as words."""
    return [
        str(stage.get("name") or "-"),
        numbers.duration(stage.get("wall_s")),
        numbers.size(stage.get("peak_memory_bytes")),
        "yes" if stage.get("cached") else "no",
    ]
