"""The report: every form says the same, shows what was not verified, and holds against hostile names."""

from __future__ import annotations

import copy
import io
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_reports
from rich.console import Console

from exporters import report as reports
from exporters import report_checks, report_facts, report_numbers, report_sections


@pytest.fixture
def report() -> dict[str, Any]:
    """A run with one artifact verified, one failed and one not verified."""
    return sample_reports.plain_report()


def printed(report: dict[str, Any], width: int, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    reports.print_table(report, Console(file=stream, width=width, force_terminal=False), Path("runs/signs"))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def cases(report: dict[str, Any]) -> dict[tuple[str, str], ElementTree.Element]:
    root = ElementTree.fromstring(reports.to_junit(report))
    return {(case.get("classname", ""), case.get("name", "")): case for case in root.iter("testcase")}


class Page(HTMLParser):
    """Collects the tags and the addresses that a page asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "data", "action", "srcset")]


def test_importing_the_report_loads_no_library():
    heavy = "jinja2", "rich", "matplotlib", "numpy", "tensorflow"
    code = f"import sys, exporters.report; print([name for name in {heavy} if name in sys.modules])"
    root = Path(reports.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_four_files_are_written_and_nothing_else(report, tmp_path):
    written = reports.write_reports(report, tmp_path / "new")
    assert [path.name for path in written] == ["report.json", "report.md", "report.html", "report.xml"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in written)
    assert all(path.stat().st_size > 500 for path in written)


def test_a_failed_write_leaves_the_old_report_and_no_remains(report, tmp_path, monkeypatch):
    reports.write_reports(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        reports.write_reports(report | {"name": "other"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_json_round_trips_in_order(report):
    again = json.loads(reports.to_json(report))
    assert again == report
    assert list(again) == list(report)


def test_numbers_that_are_not_finite_become_null_and_are_said(report):
    report["artifacts"][1]["runtimes"][0]["outputs"]["label"]["max_abs"] = float("nan")
    report["training"]["label"]["loss"][2:] = [math.inf, math.inf]
    before = copy.deepcopy(report)
    text = reports.to_json(report)
    again = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    runtime = again["artifacts"][1]["runtimes"][0]
    assert runtime["outputs"]["label"]["max_abs"] is None
    assert runtime["reason"].endswith("label.max_abs is not a finite number (nan).")
    assert again["training"]["label"]["loss"] == [1.9, 1.1, None, None]
    assert [note for note in again["notes"] if "training.label.loss is not a finite number (inf)" in note]
    assert repr(report) == repr(before)
    assert reports.to_json(json.loads(text)) == text


def test_a_gate_whose_figure_is_nan_fails(report):
    report["artifacts"][0]["runtimes"][0]["outputs"]["label"]["max_abs"] = float("nan")
    assert cases(report)["tfjs-float32.tfjs-node", "label: difference"].find("failure") is not None


def test_numpy_and_names_that_are_not_utf8_can_be_written(report, tmp_path):
    report["reference"]["accuracy"]["label"] = np.float32(0.5)
    report["reference"]["confusion"]["label"] = np.eye(5, dtype=np.int64)
    report["data"]["skipped"][0]["path"] = "photos/\udcff\x1b[31m.jpg"
    reports.write_reports(report, tmp_path)
    again = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert again["reference"]["accuracy"]["label"] == 0.5
    assert again["reference"]["confusion"]["label"][1] == [0, 1, 0, 0, 0]
    assert "\\udcff" in again["data"]["skipped"][0]["path"]


def test_junit_counts_and_places_every_gate(report):
    root = ElementTree.fromstring(reports.to_junit(report))
    assert [suite.get("name") for suite in root] == ["tfjs-float32", "tflite-int8", "onnx-float16"]
    assert [(suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in root] == [
        ("3", "0", "0"), ("3", "3", "0"), ("1", "0", "1"),
    ]  # fmt: skip
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("7", "3", "1")
    assert root.find(".//skipped") is None
    found = cases(report)
    assert found["tflite-int8.litert", "verdict"].find("failure").get("message") == (
        "label: top-1 agreement 90.1% is under 95.0%"
    )
    assert "0.9012 would pass" in found["tflite-int8.litert", "label: agreement"].find("failure").text
    assert len(found["tfjs-float32.tfjs-node", "label: difference"]) == 0
    assert ("tfjs-float32.tfjs-node", "label: accuracy") not in found
    assert ("tflite-int8.litert", "label: difference") not in found


@pytest.mark.parametrize("status", ["not_verified", "not_enough_images", "degenerate", "unheard_of"])
def test_undecided_is_an_error_in_junit_and_said_everywhere(report, status):
    report["artifacts"][1]["runtimes"][0] |= {"status": status, "outputs": {}}
    case = cases(report)["tflite-int8.litert", "verdict"]
    assert [child.tag for child in case] == ["error"]
    words = report_facts.WORDS.get(status, "not verified")
    row = next(line for line in printed(report, 120).splitlines() if line.startswith("tflite"))
    assert row.rstrip().endswith(f"? {words}")
    assert f"? {words} |" in reports.to_markdown(report)
    assert f"? {words}</span>" in reports.to_html(report)


def test_accuracy_gate_needs_an_interval_without_zero(report):
    label = report["artifacts"][1]["runtimes"][0]["outputs"]["label"]
    label |= {"accuracy_interval": [-0.001, 0.04], "status": "not_enough_images", "agreement": 0.99}
    found = cases(report)
    assert [child.tag for child in found["tflite-int8.litert", "label: accuracy"]] == ["error"]
    assert len(found["tflite-int8.litert", "label: agreement"]) == 0


def test_outputs_refused_or_without_limits_never_pass(report):
    outputs = report["artifacts"][0]["runtimes"][0]["outputs"]
    outputs["label"] = {"status": "failed", "reason": "the answer holds NaN"}
    outputs["other"] = {"max_abs": 0.0, "limits": {}}
    found = cases(report)
    assert found["tfjs-float32.tfjs-node", "label: verdict"].find("failure").get("message") == "the answer holds NaN"
    assert found["tfjs-float32.tfjs-node", "other: gates"].find("error") is not None


def test_a_regression_is_judged_by_its_relative_error(report):
    limits = {"max_abs": 1e-4, "agreement": 1.0, "relative_error": 0.01}
    figures = {"max_abs": 3.0, "relative_error": 0.004, "limits": limits}
    report["artifacts"][0]["runtimes"][0]["outputs"] = {"age": figures | {"status": "verified"}}
    found = {name: case for (place, name), case in cases(report).items() if place == "tfjs-float32.tfjs-node"}
    assert {name: len(case) for name, case in found.items()} == {"verdict": 0, "age: error": 0}


def test_changed_files_are_failures_of_their_own(report):
    report["artifacts"] = report["artifacts"][:1]
    report |= {"verdict": "failed", "integrity": {"status": "failed", "changed": ["artifacts/tfjs-float32/model.json"]}}
    found = cases(report)
    assert found["checksums", "verdict"].find("failure") is not None
    assert found["checksums", "changed: artifacts/tfjs-float32/model.json"].find("failure") is not None
    for text in (printed(report, 80), reports.to_markdown(report), reports.to_html(report)):
        assert "artifacts/tfjs-float32/model.json" in text
        assert "its checksum differs" in text


def test_junit_holds_no_character_that_xml_forbids(report):
    report["artifacts"][1]["runtimes"][0]["reason"] = "bad \x00\x1b[31m ]]> & <fault> \ufffe"
    message = cases(report)["tflite-int8.litert", "verdict"].find("failure").get("message")
    assert "]]> & <fault>" in message
    assert not re.search("[\x00\x1b\ufffe]", message)


def test_markdown_escapes_what_would_break_its_table(report):
    report["artifacts"][0]["runtimes"][0]["runner"] = "a|b\n<i>`"
    text = reports.to_markdown(report)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = lines[0].count("|")
    assert r"a\|b &lt;i&gt;\`" in lines[2]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == heads for line in lines[:5])
    assert text.startswith("## ✗ signs &lt;b&gt;: failed")
    assert "label: top-1 agreement 90.1% is under 95.0%" in text
    assert "| features | 1 min 13 s | 812.0 MB | no |" in text


def test_page_is_escaped_and_asks_for_nothing(report):
    text = reports.to_html(report)
    page = Page(text)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "signs &lt;b&gt;" in text
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert [each for each in page.addresses if not each.startswith(("#", "data:"))] == []
    assert not re.search(r"https?://|@import|url\((?!#)", text)


def test_page_holds_learning_curves_and_confusion_matrix(report):
    text = reports.to_html(report)
    assert re.findall(r'<svg role="img" aria-label="([^"]*)"', text) == [
        "Accuracy over size of every artifact, the area of a marker being its latency",
        "Learning curve: loss over epochs", "Learning curve: accuracy over epochs",
        "Confusion matrix: rows are the truth, columns the answer",
    ]  # fmt: skip
    assert ">58</text>" in text
    assert "var(--blue)" in text
    assert "#0102" not in text
    assert "wall time" in text.lower()
    assert "812.0 MB" in text


@pytest.mark.parametrize("kept", [0, 2])
def test_fine_tuning_goes_on_where_the_head_ended(report, kept):
    """One picture of each quantity: the second phase behind a line, and the epoch whose weights were kept in either."""
    from exporters import report_plots

    history = report["training"]["label"]
    second = {"epochs": [1, 2, 3], "loss": [0.4, 0.3, 0.2], "val_loss": [0.6, 0.5, 0.55], "best_epoch": kept}
    text = reports.to_html(report | {"training": {"label": history | {"fine_tuning": second}}})
    assert text.count('aria-label="Learning curve') == 2
    assert text.count(">fine-tuning</text>") == 2
    assert report_plots._points(second, "val_loss", 4) == [(5, 0.6), (6, 0.5), (7, 0.55)]
    drawn = report_plots.learning_curve(history | {"fine_tuning": second}, "loss")
    alone = report_plots.learning_curve(history, "loss")
    # Both phases have a line of training and one of validation, and the words stand in the legend once.
    assert drawn.count("stroke: var(--blue)") == alone.count("stroke: var(--blue)") + 1
    assert drawn.count(">validation</text>") == drawn.count(">training</text>") == 1
    assert (
        len(
            {
                _kept_at(drawn),
                _kept_at(report_plots.learning_curve(history | {"fine_tuning": second | {"best_epoch": 1}}, "loss")),
            }
        )
        == 2
    )
    assert "fine-tuning" not in alone


def _kept_at(drawn):
    """Where the dotted line of the weights that were kept stands, as the picture says it."""
    return re.search(r'<path d="M ([\d.]+) [^"]*"[^>]*stroke-dasharray: 1[^>]*>', drawn)[1]


def test_page_says_that_matplotlib_is_not_there(report, monkeypatch):
    for name in ("report_plots", "report_charts"):
        monkeypatch.setitem(sys.modules, f"exporters.{name}", None)
        monkeypatch.delattr(f"exporters.{name}", raising=False)
    text = reports.to_html(report)
    assert report_sections.NO_PICTURES in text
    assert "<svg" not in text


def test_many_labels_and_odd_histories_are_drawn(report):
    many = [[1 if row == column else 0 for column in range(60)] for row in range(60)]
    report["reference"]["confusion"] = {"label": many, "ragged": [[1, 2], [3]], "empty": []}
    report["training"] = {"label": {"loss": [None, 0.3, None], "epochs": [1, 2, 3]}, "other": {"accuracy": [0.5]}}
    report["training"]["nothing"] = None
    text = reports.to_html(report)
    assert text.count("<svg ") == 4
    assert "data:image/png;base64," in text
    assert len(text) < 400_000


@pytest.mark.parametrize("verdict", ["verified", "not_verified", None])
def test_a_report_without_artifacts_is_shown_and_not_verified(verdict, tmp_path):
    empty = {"verdict": verdict}
    reports.write_reports(empty, tmp_path)
    root = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    for text in (printed(empty, 80), (tmp_path / "report.md").read_text(encoding="utf-8")):
        assert "not verified" in text.lower()
        assert "✓" not in text
    assert 'class="status verified"' not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_null_keys_are_as_good_as_absent_ones(report):
    bare = dict.fromkeys((*report, "integrity")) | {"verdict": "not_verified"}
    bare["artifacts"] = [{"name": "tflite-int8", "runtimes": []}]
    bare["artifacts"].append({"name": "x", "runtimes": [{"outputs": {"label": None}}]})
    for text in (reports.to_markdown(bare), printed(bare, 80), reports.to_html(bare), reports.to_junit(bare)):
        assert "not read back in any runtime" in text


def test_no_verdict_is_better_than_its_runtimes(report):
    report["verdict"] = "verified"
    assert report_checks.verdict_of(report) == "failed"
    report["artifacts"] = [report["artifacts"][0], report["artifacts"][2]]
    assert report_checks.verdict_of(report) == "not_verified"
    report["artifacts"].pop()
    assert report_checks.verdict_of(report) == "verified"
    assert "failure" not in (text := reports.to_junit(report)).replace('failures="0"', "")
    assert "<error" not in text


@pytest.mark.parametrize("width", [60, 80, 160])
def test_table_shows_each_verdict_at_any_width(report, width):
    lines = printed(report, width).splitlines()
    table = [line for line in lines if re.match(r"(tfjs|tflite|onnx) ", line)]
    assert [line.split()[:2] for line in table] == [["tfjs", "float32"], ["tflite", "int8"], ["onnx", "float16"]]
    verdicts = [re.sub(r".* (?=[✓✗?] )", "", line).strip() for line in table]
    assert verdicts == ["✓ verified", "✗ failed", "? not verified"]
    assert max(map(len, table)) <= width
    assert "✗ failed  tflite-int8 in litert: label: top-1 agreement 90.1% is under 95.0%" in lines
    assert "? not verified  onnx-float16 in onnxruntime: The runtime is not installed." in lines
    assert any(line.startswith("✗ Failed (1 verified, 1 failed, 1 not verified)") for line in lines)
    assert lines[-1] == f"Report: {Path('runs/signs/report.html')}"


def test_wide_table_has_every_figure(report):
    text = printed(report, 160)
    figures = ("1.2 MB", "1.1 MB", "3.1e-06", "0.31", "100.0%", "90.1%", "91.2% (0.0)", "88.1% (-3.1)", "1.84")
    assert [figure for figure in figures if figure not in text] == []
    assert "Accuracy in Keras: label 91.2% on 309 test images." in text


def test_table_on_a_console_that_is_not_utf8(report):
    text = printed(report, 100, "ascii")
    verdicts = [line.rstrip().rsplit("  ", 1)[-1] for line in text.splitlines()[1:4]]
    assert verdicts == ["+ verified", "x failed", "? not verified"]


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "100.0%"), (0.99999, "99.9%"), (0.29, "29.0%"), (0.9126, "91.2%"), (None, "-")]
)
def test_only_all_reads_hundred_percent(value, text):
    assert report_numbers.share(value) == text
