"""The report as one page of HTML that needs no network, no script and no file beside itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from exporters import report_cells as cells
from exporters import report_checks as checked
from exporters import report_columns as columns
from exporters import report_facts as facts
from exporters import report_numbers as numbers
from exporters import report_sections as sections
from exporters import report_tasks as tasks
from exporters import report_ways as ways
from exporters.report_advice_page import section_of
from exporters.report_images import worst_images
from exporters.report_text import symbol

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = Path(__file__).parent / "templates"


def to_html(report: Mapping[str, Any], images: np.ndarray | None = None) -> str:
    """Return the report as a page.

    Args:
        report: in the form of report.json, with the keys of `exporters.report`.
        images: the golden images, uint8 (N, height, width, 3), of which a few are shown; None: none is.

    Returns:
        One HTML document, everything from the report escaped, the pictures inside it.
    """
    report = facts.plain(report)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "size": numbers.size, "share": numbers.share, "difference": numbers.difference, "accuracy": cells.accuracy,
        "milliseconds": numbers.milliseconds, "word": facts.WORDS.__getitem__, "symbol": symbol, "value": _value,
        "group": numbers.count, "images": cells.images, "status_of": facts.status_of,
    }  # fmt: skip
    rows, summaries = facts.rows(report), checked.summaries(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        name=report.get("name") or "Model",
        verdict=checked.verdict_of(report),
        tally=checked.tally(report),
        headlines=tasks.headlines(report),
        rows=rows,
        here=facts.HERE,
        summaries=[summary.row for summary in summaries],
        every_runtime=len(rows) > len(summaries) or any(row.files for row in rows),
        with_files=any(row.files for row in rows),
        largest_size=max((row.size_bytes for row in rows if row.size_bytes), default=0),
        tables=tasks.tables(rows),
        reasons=checked.reasons(report),
        not_run=checked.not_run(report),
        notes=checked.notes(report),
        ways=ways.tables(report),
        way_headers=ways.HEADERS,
        tradeoff=sections.tradeoff(report),
        advice=section_of(report.get("advice")),
        worst=worst_images(report, images),
        confusions=sections.confusions(report),
        depths=sections.depths(report),
        audits=sections.audits(report),
        image_files=checked.image_files(report),
        curves=sections.learning_curves(report),
        stages=_stages(report.get("stages") or []),
        card=_card(report.get("card") or {}),
        versions=_versions(report),
    )


def _stages(stages: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    longest = max((stage.get("wall_s") or 0 for stage in stages), default=0)
    return [
        {"cells": cells.stage_cells(stage), "part": 100 * (stage.get("wall_s") or 0) / longest if longest else 0}
        for stage in stages
    ]


def _card(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    elsewhere = ("columns", "outputs", "versions", "schema_version")
    lines = [(key, _value(value)) for key, value in card.items() if key not in elsewhere]
    lines += [(f"column {name}", text) for name, text in columns.columns_told({"card": card})]
    for output in card.get("outputs") or []:
        known = {key: value for key, value in output.items() if key != "name" and value}
        lines.append((f"output {output.get('name')}", _value(known)))
    return [(key.replace("_", " "), text) for key, text in lines]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items() if each is not None) or "-"
    if isinstance(value, list):
        shown = ", ".join(_value(each) for each in value[:40])
        return (shown + (f" and {len(value) - 40} more" if len(value) > 40 else "")) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) and value else "-" if value in (None, "") else json.dumps(value)


def _versions(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = {"cutpoint": report.get("cutpoint_version")} | dict((report.get("card") or {}).get("versions") or {})
    for artifact in report.get("artifacts") or []:
        runtimes = artifact.get("runtimes") or []
        versions |= {each["runner"]: each.get("version") for each in runtimes if each.get("runner")}
    return [(name, str(version)) for name, version in versions.items() if version]
