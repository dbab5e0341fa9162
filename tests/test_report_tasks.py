"""The report of heads of every task: each shows its own figures, in its own words, in every form."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from exporters import parity, report_facts, report_tasks
from exporters import report as reports
from exporters.contract import CEILINGS
from tests import sample_reports, task_answers


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return sample_reports.report_of_every_task()


OWN_WORDS = {
    "healthy": ("binary", "Decisions kept", "Of log-odds", "Accuracy"),
    "tags": ("multilabel", "Decisions kept", "Right decisions", "F1 in Keras"),
    "grade": ("ordinal", "Ranks kept", "Right ranks", "Ranks off, mean"),
    "size": ("regression", "Largest error, of the spread", "Each column"),
    "place": (
        "boxes",
        "Mean IoU with Keras",
        "Least IoU with Keras",
        "Largest error, of the picture",
        "Mean IoU with truth",
    ),
    "regions": ("segmentation", "Pixels kept", "Mean IoU of regions", "Right pixels", "IoU of each class"),
    "near": ("embedding", "Least cosine", "Same neighbour", "Nearest of the same label"),
    "label": ("multiclass", "Agreement", "Accuracy", "Divergence, nats"),
}


def test_the_page_has_a_table_of_each_output_with_its_own_figures(report: dict[str, Any]) -> None:
    text = reports.to_html(report, np.zeros((240, 20, 20, 3), np.uint8))
    parts = re.findall(r"<h3>(\w+) <small>(\w+)</small></h3>(.*?)</table>", text, re.DOTALL)
    assert {name: task for name, task, _ in parts} == {name: words[0] for name, words in OWN_WORDS.items()}
    for name, _, part in parts:
        headers = re.findall(r"<th[^>]*>([^<]*)</th>", part)
        assert set(OWN_WORDS[name][1:]) <= set(headers)
        cells = [len(re.findall(r"<td", line)) for line in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)]
        assert cells == [0, *[len(headers)] * 3], "every line has a cell under each header"
        assert ("Mean IoU with truth" in headers) == (name in ("place", "regions"))
        assert ("F1" in headers, "Near-ties" in headers) == (name == "tags", name not in ("size", "place", "near"))
    assert re.search(r"share: off by \d\.?\d*%.*grams: off by \d\.?\d*%", text)


def test_images_that_differ_most_are_named_with_their_output_and_answer(report: dict[str, Any]) -> None:
    text = reports.to_html(report, np.zeros((240, 20, 20, 3), np.uint8))
    assert re.search(r"<b>0\.\d{3}, 0\.\d{3}, 0\.\d{3}, 0\.\d{3}</b> <small>Keras, image \d+, place</small>", text)
    assert re.search(r"<b>(none|mild|medium|strong|worst) \d\.\d{3}</b> <small>Keras, image \d+, grade</small>", text)


def test_the_page_begins_with_each_heads_own_measure(report: dict[str, Any]) -> None:
    """Of columns each, of many the least; of a head without truth none."""
    columns = {f"<c{index}>": 0.9 - index / 10 for index in range(8)}
    report["reference"] = {
        "images": 240,
        "accuracy": {"label": 0.75},
        "measures": {
            "age": {"mean_absolute_error": 2.5, "r2": 0.8712},
            "size": {"r2": {"width": 0.5, "<height>": None}},
            "many": {"r2": columns},
            "place": {"mean_iou": 0.66},
            "near": {"recall_at_1": 0.9},
            "silent": {},
        },
    }
    tiles = re.findall(
        r"<div><b>([^<]*)</b><span>([^<]*) in Keras, 240 test images</span></div>", reports.to_html(report)
    )
    assert tiles == [
        ("75.0%", "accuracy of label"), ("0.871", "R² of age"), ("0.500", "R² of size, width"),
        ("-", "R² of size, &lt;height&gt;"), ("0.200", "least R² of 8 columns of many"), ("0.660", "mean IoU of place"),
        ("90.0%", "nearest of the same label of near"),
    ]  # fmt: skip


def test_markdown_and_terminal_tell_each_output_in_a_line(report: dict[str, Any]) -> None:
    stream = io.StringIO()
    reports.print_table(report, Console(file=stream, width=300), None)
    for text in (reports.to_markdown(report), stream.getvalue()):
        plain = text.replace("\\", "")
        assert re.search(
            r"tags \(multilabel; farthest of 3, [\w-]+ in \w+\): decisions kept 100.0%, right decisions 9", plain
        )
        assert re.search(r"place \(boxes; farthest of 3, onnx-int8 in onnxruntime\): mean IoU with Keras 0\.3", plain)
        assert re.search(r"grade \(ordinal; .*: ranks kept .*, right ranks .*, 0.058 ranks off on average", plain)
        assert re.search(r"size \(regression; .*: off by \d\.?\d*% of the spread, share: .*R² 0.9", plain)
        assert re.search(r"regions \(segmentation; .*: pixels kept .*, mean IoU of regions .*, right pixels", plain)
        assert "label (multiclass" not in plain
    assert "**regions**, segmentation" in reports.to_markdown(report)


def test_junit_has_every_gate_of_every_task_and_the_failed_ones_only_fail(report: dict[str, Any]) -> None:
    root = ElementTree.fromstring(reports.to_junit(report))
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    good = {name.rpartition(": ")[0:3:2] for place, name in cases if place == "tflite-int8.litert" and ": " in name}
    assert {
        ("healthy", "agreement"), ("healthy", "accuracy"), ("tags", "agreement"), ("tags", "accuracy"), ("grade", "agreement"),
        ("grade", "accuracy"), ("size", "error"), ("size", "largest error"), ("place", "overlap"), ("place", "error"),
        ("place", "largest error"), ("place", "overlap with truth"),
        ("regions", "agreement"), ("regions", "overlap"), ("regions", "accuracy"), ("regions", "overlap with truth"),
        ("near", "cosine"), ("near", "neighbours"), ("label", "agreement"), ("label", "accuracy"),
    } == good  # fmt: skip
    failed = {key for key, case in cases.items() if case.find("failure") is not None}
    assert failed == {
        ("onnx-int8.onnxruntime", name)
        for name in ("verdict", "place: overlap", "place: error", "place: largest error", "place: overlap with truth")
    }
    text = cases["onnx-int8.onnxruntime", "place: overlap with truth"].find("failure").text
    assert re.search(r"truth_iou_drop is 0\.\d+, the limit is 0.01; 0\.\d+ would pass", text)


def test_json_holds_the_figures_of_every_task(report: dict[str, Any]) -> None:
    outputs = json.loads(reports.to_json(report))["artifacts"][1]["runtimes"][0]["outputs"]
    assert {name: each["task"] for name, each in outputs.items()} == {
        name: words[0] for name, words in OWN_WORDS.items()
    }
    assert [each["name"] for each in outputs["size"]["columns"]] == ["share", "grams"]
    assert outputs["place"]["limits"]["iou"] == 0.85


def test_differences_in_units_are_no_differences_of_the_artifact(report: dict[str, Any]) -> None:
    row = report_facts.rows(report)[1]
    assert row.max_abs == row.outputs["grade"]["max_abs"] < 1 < row.outputs["size"]["max_abs"]
    alone = json.loads(json.dumps(report))
    outputs = alone["artifacts"][1]["runtimes"][0]["outputs"]
    alone["artifacts"][1]["runtimes"][0]["outputs"] = {"size": outputs["size"]}
    assert report_facts.rows(alone)[1].max_abs == outputs["size"]["max_abs"]


@pytest.mark.parametrize("task", ["multilabel", "boxes", "segmentation"])
def test_a_sample_passes_the_gates_that_it_passed(task: str) -> None:
    one = task_answers.case(task, 16)
    answer = one.expected.copy()
    answer[3] = one.expected[4] if task != "boxes" else one.expected[3] + [0.04, 0, 0.04, 0]
    limits = dataclasses.replace(CEILINGS["int8"], confidence_shift=None, agreement=0.995, iou=0.995)
    found = parity.compare_output(one.expected, answer, one.output, limits, None, sampled=True)
    key = "iou" if task == "boxes" else "agreement"
    assert found.figures[f"{key}_at_most"] >= 0.995 > found.figures[key]
    gate = {each.name: each for each in report_facts.gates({**found.figures, "status": found.status})}
    assert gate["overlap" if task == "boxes" else "agreement"].status == "verified"


def test_without_any_output_there_is_nothing_to_tell() -> None:
    assert report_tasks.tables([]) == [] and report_tasks.told([]) == []
    rows = report_facts.rows(sample_reports.plain_report())
    assert report_tasks.told(rows) == []
    assert [(each.output, each.task, len(each.lines)) for each in report_tasks.tables(rows)] == [("label", "", 2)]
