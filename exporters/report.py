"""The report of a run: report.json, report.md, report.html, report.xml (JUnit) and the terminal's table.

A report is a dict in the form of report.json. Beside its fixed keys, it may have these, each of which may be absent:

    name         the model's name
    training     {output: {"epochs", "loss", "val_loss", "accuracy", "val_accuracy": lists of equal length,
                 "best_epoch", "parameters"}}
    reference    {"accuracy": {output: share}, "images": count, "confusion": {output: rows truth, columns answer}}
    card         the content of card.json
    notes        sentences: limits that were loosened, duplicates that were removed
    integrity    {"status", "changed": [path], "missing": [path], "unexpected": [path]}: the checksums of a verify run

and every output of a runtime `status` and `accuracy_interval` ([low, high]: the paired 95 % interval of the drop).
Figures that do not apply are None or absent. Every form shows a verdict that is never better than what stands in the
runtimes: a report that compared nothing is not verified.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.report_facts import plain
from exporters.report_junit import to_junit
from exporters.report_text import print_table, to_markdown

__all__ = ["print_table", "to_html", "to_json", "to_junit", "to_markdown", "write_reports"]


def write_reports(report: Mapping[str, Any], out: Path) -> tuple[Path, ...]:
    """Write report.json, report.md, report.html and report.xml into a folder.

    Args:
        report: in the form of report.json, with the keys above.
        out: the folder; it is made where it is not there.

    Returns:
        The paths written. All four forms are made before the first is written, and each is moved into place whole.

    Raises:
        OSError: the folder cannot be written.
    """
    texts = {
        "report.json": to_json(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
        "report.xml": to_junit(report),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        _write_whole(out / name, text)
    return tuple(out / name for name in texts)


def to_json(report: Mapping[str, Any]) -> str:
    """Return the report as strict JSON, keys in the order given; see `report_facts.plain` for NaN and infinity."""
    return json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_html(report: Mapping[str, Any]) -> str:
    """Return the report as one page that needs nothing beside itself; see `report_html.to_html`."""
    from exporters.report_html import to_html as render

    return render(report)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
