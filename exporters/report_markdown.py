"""The report as GitHub's Markdown, for a pull request or a job summary: what matters first, the rest folded away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from exporters import report_cells as cells
from exporters import report_checks as checked
from exporters import report_columns as columns
from exporters import report_facts as facts
from exporters import report_numbers as numbers
from exporters import report_tasks as tasks
from exporters import report_ways as ways
from exporters.report_text import COLUMNS, keras_accuracy, symbol, table_rows


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as GitHub's Markdown.

    Args:
        report: in the form of report.json, with the keys of `exporters.report`.

    Returns:
        Verdict, table of artifacts, reasons, what was not run, notes, counts of the data; folded: every runtime, what is
        inside the artifacts, stages. Ends with a newline.
    """
    report = facts.plain(report)
    verdict = checked.verdict_of(report)
    name = escape(report.get("name") or "model")
    tally = checked.tally(report)
    parts = [f"## {symbol(verdict)} {name}: {facts.WORDS[verdict]}", tally[:1].upper() + tally[1:] + "."]
    found = table_rows(report)
    if found:
        headers = [*((header, number) for header, _, number, _ in COLUMNS), ("verdict", False)]
        lines = [[*(content(row) for _, content, _, _ in COLUMNS), _verdict(row.status)] for row in found]
        parts.append(_table(headers, lines))
    if keras := keras_accuracy(report):
        parts.append(escape(keras))
    if beside := columns.columns_told(report):
        told = "\n".join(f"- **{escape(name)}**: {escape(text)}" for name, text in beside)
        parts.append(f"### Columns beside the picture\n\n{told}")
    if told := tasks.told(facts.rows(report)):
        parts.append("### Outputs\n\n" + "\n".join(f"- {escape(sentence)}" for sentence in told))
    if wrong := checked.reasons(report):
        told = (f"- {symbol(s)} {facts.WORDS[s]}: **{escape(subject)}**: {escape(why)}" for s, subject, why in wrong)
        parts.append("### What is not verified\n\n" + "\n".join(told))
    if missing := checked.not_run(report):
        told = (f"- **{escape(runtime)}**: {escape(sentence)}" for runtime, sentence in missing)
        parts.append("### Not run\n\n" + "\n".join(told))
    if notes := checked.notes(report):
        parts.append("### Notes\n\n" + "\n".join(f"- {escape(note)}" for note in notes))
    if report.get("advice"):
        # Imported here: it takes `escape` from this module.
        from exporters.report_advice_text import to_markdown as advised

        parts.append(advised(report["advice"], level=3))
    parts += _ways(report)
    folded = [_data(report.get("data") or {}), _runtimes(report), _outputs(report)]
    folded += [_image_files(report), _audits(report)]
    parts += [part for part in (*folded, _stages(report.get("stages") or [])) if part]
    return "\n\n".join(parts) + "\n"


def escape(value: Any) -> str:
    """Return any text as one line that Markdown shows letter for letter, also inside a table."""
    text = facts.one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _verdict(status: str) -> str:
    return f"{symbol(status)} {facts.WORDS[status]}"


def _table(headers: list[tuple[str, bool]], lines: list[list[str]]) -> str:
    head = "| " + " | ".join(header for header, _ in headers) + " |"
    rule = "| " + " | ".join("---:" if number else "---" for _, number in headers) + " |"
    return "\n".join([head, rule, *("| " + " | ".join(escape(cell) for cell in line) + " |" for line in lines)])


def _folded(summary: str, content: str) -> str:
    # GitHub reads Markdown inside the element only behind an empty line.
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def _ways(report: Mapping[str, Any]) -> list[str]:
    """Return how weights were made, a folded table for each rounding that had a choice."""
    parts = []
    for table in ways.tables(report):
        lines = [[f"{line.cells[0]}, taken" if line.taken else line.cells[0], *line.cells[1:]] for line in table.lines]
        title = f"Weights of {escape(', '.join(table.artifacts))}: ways measured on {table.images} validation images"
        parts.append(_folded(title, _table(list(ways.HEADERS), lines)))
    return parts


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


def _runtimes(report: Mapping[str, Any]) -> str:
    found = facts.rows(report)
    if len(found) == len(report.get("artifacts") or []) and not any(row.files for row in found):
        return ""
    headers = [
        ("artifact", False), ("runtime", False), ("where", False), ("images", True), ("max diff", True), ("agree", True),
        ("accuracy", True), ("ms", True), ("from image files", False), ("verdict", False),
    ]  # fmt: skip
    lines = [
        [row.artifact, row.runner, row.where, cells.images(row), numbers.difference(row.max_abs),
         numbers.share(row.agreement), cells.accuracy(row), numbers.milliseconds(row.latency_ms), _files(row),
         _verdict(row.status)]
        for row in found
    ]  # fmt: skip
    return _folded(f"Every artifact in every runtime: {len(lines)}", _table(headers, lines))


def _outputs(report: Mapping[str, Any]) -> str:
    """Return a table of each output that is no multiclass one, whose figures stand in the table of artifacts."""
    found = [each for each in tasks.tables(facts.rows(report)) if each.task in tasks.LINES]
    parts = []
    for table in found:
        headers = [("artifact", False), *zip(table.headers, table.numeric, strict=True)]
        lines = [[f"{artifact} in {runner}", *cells] for artifact, runner, cells, _, _ in table.lines]
        parts.append(f"**{escape(table.output)}**, {escape(table.task)}\n\n{_table(headers, lines)}")
    return _folded(f"Figures of every output: {len(found)}", "\n\n".join(parts)) if parts else ""


def _files(row: facts.Row) -> str:
    if not row.files:
        return facts.NONE
    return f"{symbol(facts.status_of(row.files.get('status')))} {numbers.difference(row.files.get('max_abs'))}"


def _image_files(report: Mapping[str, Any]) -> str:
    found = checked.image_files(report)
    headers = [
        ("where", False),
        ("decoder", False),
        ("files", True),
        ("decode diff", True),
        ("resize diff", True),
        ("verdict", False),
    ]
    lines = [
        [each.get("where") or facts.NONE, each.get("decoder") or facts.NONE, numbers.count(each.get("files")),
         numbers.count(each.get("largest_decode_difference")), numbers.count(each.get("largest_resize_difference")),
         _verdict(facts.status_of(each.get("status")))]
        for each in found
    ]  # fmt: skip
    return (
        _folded("Decoding and resizing of image files, in levels of 0 to 255", _table(headers, lines)) if found else ""
    )


def _audits(report: Mapping[str, Any]) -> str:
    found = [(facts.name_of(each), each["audit"]) for each in report.get("artifacts") or [] if each.get("audit")]
    headers = [
        ("artifact", False),
        ("operators", False),
        ("weights", False),
        ("constants compared", False),
        ("verdict", False),
    ]
    lines = [
        [name, cells.counted(audit.get("operators")), cells.counted(audit.get("weights")),
         cells.constants(audit.get("constants")), _verdict(facts.status_of(audit.get("status")))]
        for name, audit in found
    ]  # fmt: skip
    return _folded("What is inside the artifacts", _table(headers, lines)) if found else ""


def _stages(stages: list[Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    headers = [("stage", False), ("wall time", True), ("peak memory", True), ("cached", False)]
    return _folded("Stages", _table(headers, [cells.stage_cells(stage) for stage in stages]))
