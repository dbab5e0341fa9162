"""The advice as a page of its own, and what the report's page shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from exporters import report_numbers as numbers
from exporters.report_advice_text import columns_of, legend, sentences_of, title_of

TEMPLATES = Path(__file__).parent / "templates"
NO_PICTURES = "The pictures are missing: matplotlib is not installed where this page was made."


def section_of(advice: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what `report_advice.html.j2` shows: title, sentences, legend, table, pictures and the table of the heads.

    Args:
        advice: in the form of advice.json; None or empty: there is none.
    """
    if not advice:
        return None
    columns = columns_of(advice)
    return {
        "title": title_of(advice),
        "sentences": sentences_of(advice),
        "legend": legend(advice),
        "headers": [(header, number) for header, number, _, _ in columns],
        "rows": [
            {
                "chosen": row["name"] == advice["chosen"],
                "cells": [(content(row), number) for _, number, content, _ in columns],
            }
            for row in advice["cuts"]
        ],
        "heads": list(advice["heads"]) if len(advice["heads"]) > 1 else [],
        "per_head": [
            (row["name"], [numbers.share(head["accuracy"]) for head in row["heads"].values()]) for row in advice["cuts"]
        ],
        **_pictures(advice),
    }


def _pictures(advice: Mapping[str, Any]) -> dict[str, Any]:
    try:
        from exporters import report_advice as charts
    except ImportError:
        return {"pictures": [], "missing": NO_PICTURES}
    over = "latency" if advice["latency"]["measured"] else "multiply-accumulates"
    drawn = [
        (f"Accuracy over {over}, with the front of what no other cut beats", charts.accuracy_over_speed(advice)),
        ("Accuracy over depth", charts.accuracy_over_depth(advice)),
    ]
    return {"pictures": [(title, Markup(picture)) for title, picture in drawn], "missing": ""}


def to_html(advice: Mapping[str, Any]) -> str:
    """Return the advice as one page of HTML that needs no network, no script and no file beside itself."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report_advice_page.html.j2").render(advice=section_of(advice))
