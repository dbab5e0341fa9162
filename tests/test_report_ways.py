"""How weights were made stands in every form of the report: all ways that were tried, and the one that was taken."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import sample_reports

from exporters import report as reports
from exporters import report_ways


@pytest.fixture
def report() -> dict[str, Any]:
    """A verified run whose tflite-int8 was made in the better of two ways."""
    return sample_reports.whole_report()


@pytest.fixture
def made(report: dict[str, Any]) -> dict[str, Any]:
    return next(each["made"] for each in report["artifacts"] if "made" in each)


def test_told_in_a_few_words(made: dict[str, Any]) -> None:
    assert report_ways.told(made) == "equalised and corrected (error 0.0058 against 0.0063)"
    alone = made | {"taken": "corrected", "ways": made["ways"][:1]}
    assert report_ways.told(alone) == "corrected (error 0.0063)"
    assert report_ways.taken_of(made)["name"] == "equalised"


def test_a_table_for_each_rounding(report: dict[str, Any], made: dict[str, Any]) -> None:
    # Of another format, but from the same weights.
    report["artifacts"][2]["made"] = copy.deepcopy(made)
    (table,) = report_ways.tables(report)
    assert table.artifacts == ("tflite-int8", "onnx-float32") and table.images == 128
    first, second = table.lines
    assert not first.taken and second.taken
    assert first.cells == (
        "corrected", "0.0063", "0.0063", "94.5%", "90.6% (-1.6)", "21.3 dB", "<block_3> 14.2 dB, block_1 17.0 dB",
        "failed: label: top-1 agreement 94.5% is under 95.0%", "8.4 s",
    )  # fmt: skip
    assert second.cells[-2:] == ("passes, as far as so few images tell", "9.6 s")
    assert len(first.cells) == len(report_ways.HEADERS)
    other = copy.deepcopy(made)
    other["ways"][0]["error"] = 1.0
    report["artifacts"][2]["made"] = other
    assert [each.artifacts for each in report_ways.tables(report)] == [("tflite-int8",), ("onnx-float32",)]


def test_figures_that_are_not_known_are_a_dash(made: dict[str, Any]) -> None:
    # As another version may have written it: nothing in a report may break the report.
    bare = {"taken": "new", "images": 3, "ways": [{"name": "new", "error": 0.5, "features_snr_db": {"features": None}}]}
    (table,) = report_ways.tables({"artifacts": [{"format": "onnx", "precision": "int8", "made": bare}]})
    assert table.artifacts == ("onnx-int8",)
    assert table.lines[0].cells == ("new", "0.5", "-", "-", "-", "-", "-", "not verified: not judged", "-")


def test_every_form_says_it(report: dict[str, Any]) -> None:
    text = reports.to_markdown(report)
    assert "Weights of tflite-int8: ways measured on 128 validation images" in text
    assert "| equalised and corrected, taken | 0.0058 |" in text and "&lt;block_3&gt; 14.2 dB" in text
    page = reports.to_html(report)
    assert "How the weights were made" in page and "&lt;block_3&gt; 14.2 dB" in page
    assert page.count('<tr class="chosen">') == 1
    assert json.loads(reports.to_json(report))["artifacts"][1]["made"]["taken"] == "equalised"
    for artifact in report["artifacts"]:
        artifact.pop("made", None)
    assert "How the weights" not in reports.to_html(report) and "Weights of" not in reports.to_markdown(report)


def test_what_would_do_instead_stands_with_the_reason(report: dict[str, Any]) -> None:
    artifact = report["artifacts"][1]
    artifact["instead"] = {"name": "tflite-float16", "size_bytes": 861_000, "latency_ms": 3.123}
    assert "tflite-float16 is verified" not in reports.to_markdown(report)
    runtime = artifact["runtimes"][0]
    runtime |= {"status": "failed", "reason": "label: top-1 agreement 90.1% is under 95.0%"}
    sentence = "90.1% is under 95.0%; tflite-float16 is verified: 861.0 kB, 3.12 ms"
    assert sentence in reports.to_markdown(report) and sentence in reports.to_junit(report)
    assert sentence in reports.to_html(report)
    # What fails before its answers are compared has another fault than its precision.
    runtime["check"] = "card"
    assert "tflite-float16 is verified" not in reports.to_markdown(report)
