"""The report as one page of HTML that needs no network, no script and no file beside itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from exporters import report_facts as facts
from exporters import report_numbers as numbers
from exporters.report_text import stage_cells, symbol

TEMPLATES = Path(__file__).parent / "templates"
NO_PICTURES = "The pictures are missing: matplotlib is not installed where this report was made."
FIGURES = (
    ("largest difference", "max_abs", numbers.difference),
    ("mean difference", "mean_abs", numbers.difference),
    ("relative error", "relative_error", numbers.difference),
    ("cosine", "cosine", lambda value: "-" if value is None else f"{value:.6f}"),
    ("agreement", "agreement", numbers.share),
    ("near-ties", "near_ties", lambda value: "-" if value is None else f"{value:g}"),
    ("accuracy", "accuracy", numbers.share),
)


def to_html(report: Mapping[str, Any]) -> str:
    """Return the report as a page.

    Args:
        report: in the form of report.json, with the keys of `exporters.report`.

    Returns:
        One HTML document, everything from the report escaped, the pictures inside it.
    """
    report = facts.plain(report)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "size": numbers.size, "share": numbers.share, "difference": numbers.difference, "accuracy": facts.accuracy,
        "milliseconds": numbers.milliseconds, "word": facts.WORDS.__getitem__, "symbol": symbol, "value": _value,
        "group": lambda count: f"{count:,}".replace(",", " ") if isinstance(count, int) else str(count),
    }  # fmt: skip
    pictures, missing = _pictures(report)
    rows = facts.rows(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        name=report.get("name") or "Model",
        verdict=facts.verdict_of(report),
        tally=facts.tally(report),
        rows=rows,
        largest_size=max((row.size_bytes for row in rows if row.size_bytes), default=0),
        details=[detail for row in rows for detail in _details(row)],
        figure_names=[name for name, _, _ in FIGURES],
        reasons=facts.reasons(report),
        pictures=pictures,
        missing_pictures=missing,
        stages=_stages(report.get("stages") or []),
        card=_card(report.get("card") or {}),
        versions=_versions(report),
    )


def _details(row: facts.Row) -> list[dict[str, Any]]:
    return [
        {
            "artifact": row.artifact,
            "runner": row.runner,
            "output": name,
            "figures": [form(output.get(key)) for _, key, form in FIGURES],
            "interval": _interval(output.get("accuracy_interval")),
            "limits": _value(output.get("limits") or {}),
            "smallest": _value(output.get("smallest_passing_limits") or {}),
        }
        for name, output in row.outputs.items()
    ]


def _interval(interval: Any) -> str:
    if not interval or any(end is None for end in interval):
        return "-"
    return " to ".join(numbers.points(end) for end in reversed(interval))


def _pictures(report: Mapping[str, Any]) -> tuple[list[tuple[str, Markup]], str]:
    training, confusion = report.get("training") or {}, (report.get("reference") or {}).get("confusion") or {}
    if not training and not confusion:
        return [], ""
    try:
        from exporters import report_plots
    except ImportError:
        return [], NO_PICTURES
    labels = (report.get("data") or {}).get("labels") or {}
    drawn = [
        (f"{output}: {quantity} while training", report_plots.learning_curve(history or {}, quantity))
        for output, history in training.items()
        for quantity in ("loss", "accuracy")
    ]
    drawn += [
        (f"{output}: which label is taken for which, by the Keras model on test images",
         report_plots.confusion_matrix(counts or [], labels.get(output) or []))
        for output, counts in confusion.items()
    ]  # fmt: skip
    # matplotlib has escaped the labels already.
    return [(title, Markup(svg)) for title, svg in drawn if svg], ""


def _stages(stages: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    longest = max((stage.get("wall_s") or 0 for stage in stages), default=0)
    return [
        {"cells": stage_cells(stage), "part": 100 * (stage.get("wall_s") or 0) / longest if longest else 0}
        for stage in stages
    ]


def _card(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    elsewhere = ("outputs", "versions", "schema_version")
    lines = [(key, _value(value)) for key, value in card.items() if key not in elsewhere]
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
