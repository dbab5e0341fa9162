"""Every check shows in verdict, tally, reasons, terminal, Markdown and JUnit: audits, image files, samples, what was not run."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import sample_reports
from rich.console import Console

from exporters import parity, report_checks, report_facts
from exporters import report as reports


@pytest.fixture
def report() -> dict[str, Any]:
    """A verified run with every key of a report but those that make pictures, which take time."""
    whole = sample_reports.whole_report()
    for artifact in whole["artifacts"]:
        artifact["size_bytes"] = None
        artifact.pop("layers")
    return {key: value for key, value in whole.items() if key not in ("training", "reference")}


def cases(report: dict[str, Any]) -> dict[tuple[str, str], ElementTree.Element]:
    root = ElementTree.fromstring(reports.to_junit(report))
    return {(case.get("classname", ""), case.get("name", "")): case for case in root.iter("testcase")}


def printed(report: dict[str, Any], width: int = 100) -> str:
    stream = io.StringIO()
    reports.print_table(report, Console(file=stream, width=width, force_terminal=False), None)
    return stream.getvalue()


def forms(report: dict[str, Any]) -> tuple[str, str, str]:
    return printed(report, 300), reports.to_markdown(report), reports.to_html(report)


def test_severity_is_the_comparators() -> None:
    assert report_checks.SEVERITY == parity.SEVERITY
    assert set(report_facts.WORDS) == set(parity.SEVERITY)


def test_everything_that_was_checked_is_counted(report: dict[str, Any]) -> None:
    # Four runtimes, one of them with image files, two audits, two decoders; what was not run is counted apart.
    assert report_checks.tally(report) == "9 verified, 1 not run"
    assert report_checks.verdict_of(report) == "verified"
    assert report_checks.reasons(report) == []
    root = ElementTree.fromstring(reports.to_junit(report))
    assert {key: root.get(key) for key in ("failures", "errors", "skipped")} == {
        "failures": "0",
        "errors": "0",
        "skipped": "1",
    }
    assert root.get("tests") == str(len(list(root.iter("testcase"))))


PLACES = {
    "audit": (lambda report: report["artifacts"][1]["audit"], ("tflite-int8.audit", "audit of tflite-int8")),
    "files": (
        lambda report: report["artifacts"][0]["runtimes"][0]["files"],
        ("tfjs-float32.files", "tfjs-float32 in tfjs-node, from image files"),
    ),
    "image files": (lambda report: report["image_files"][1], ("image files", "image files in Chromium 143.0")),
    "runtime": (lambda report: report["artifacts"][2]["runtimes"][0], ("onnx-float32.onnxruntime", "verdict")),
}


@pytest.mark.parametrize(
    ("status", "verdict", "tag"),
    [("failed", "failed", "failure"), ("not_verified", "not_verified", "error"), ("degenerate", "not_verified", "error"),
     ("odd", "not_verified", "error"), (None, "not_verified", "error")],
)  # fmt: skip
@pytest.mark.parametrize("kind", PLACES)
def test_whatever_is_not_verified_is_never_passed(
    report: dict[str, Any], kind: str, status: str | None, verdict: str, tag: str
) -> None:
    entry, place = PLACES[kind]
    entry(report).update(status=status, reason="because of <that>")
    assert report_checks.verdict_of(report) == verdict
    word = report_facts.WORDS.get(status, "not verified")
    assert report_checks.tally(report) == f"8 verified, 1 {word}, 1 not run"
    fault = cases(report)[place].find(tag)
    assert fault is not None and fault.get("message") == "because of <that>"
    terminal, markdown, page = forms(report)
    assert f"{word}  " in terminal and "because of <that>" in terminal
    assert "because of &lt;that&gt;" in markdown and "because of &lt;that&gt;" in page


def test_an_audit_that_failed_shows_in_its_artifacts_line(report: dict[str, Any]) -> None:
    report["artifacts"][1]["audit"] |= {"status": "failed", "reason": "float32 weights"}
    line = next(line for line in printed(report).splitlines() if line.startswith("tflite"))
    assert line.rstrip().endswith("✗ failed")
    assert "| tflite | int8 |" in reports.to_markdown(report) and "| litert | ✗ failed |" in reports.to_markdown(report)


def test_older_reports_have_only_pixels(report: dict[str, Any]) -> None:
    del report["image_files"]
    report["pixels"] = {"status": "failed", "files": 24, "reason": "decoded otherwise"}
    assert report_checks.verdict_of(report) == "failed"
    assert cases(report)["image files", "image files in Python"].find("failure") is not None
    assert all("decoded otherwise" in form for form in forms(report))


def test_what_was_not_run_is_said_and_changes_no_verdict(report: dict[str, Any]) -> None:
    case = cases(report)["not run", "tfjs-<webgpu>"]
    assert [child.tag for child in case] == ["skipped"]
    assert case.find("skipped").get("message") == "No adapter. To run it: use a GPU."
    terminal, markdown, page = forms(report)
    assert "- not run  tfjs-<webgpu>: No adapter. To run it: use a GPU." in terminal
    assert "- **tfjs-&lt;webgpu&gt;**: No adapter. To run it: use a GPU." in markdown
    assert '<span class="status not_run">not run</span><b>tfjs-&lt;webgpu&gt;</b>' in page
    assert not re.search(r"(✓|verified)[^\n]*webgpu", terminal + markdown)
    report["artifacts"] = []
    assert report_checks.verdict_of(report) == "not_verified"


def test_a_line_per_artifact_and_rows_of_runtimes_only_where_one_is_not_verified(report: dict[str, Any]) -> None:
    lines = printed(report, 120).splitlines()[1:5]
    assert [line.split()[:2] for line in lines[:3]] == [["tfjs", "float32"], ["tflite", "int8"], ["onnx", "float32"]]
    assert "2 of 2" in lines[0] and lines[3] == ""
    report["artifacts"][0]["runtimes"][1] |= {"status": "failed", "reason": "label: off"}
    lines = printed(report, 120).splitlines()[1:6]
    assert "1 of 2" in lines[0] and lines[0].rstrip().endswith("✗ failed")
    assert lines[1].startswith("     ") and "tfjs-chromium" in lines[1] and lines[1].rstrip().endswith("✗ failed")
    assert "1.1 MB" in lines[0] and "MB" not in lines[1] and lines[4] == ""


def test_a_summary_takes_the_worst_figures_and_the_shortest_latency(report: dict[str, Any]) -> None:
    browser = report["artifacts"][0]["runtimes"][1]
    browser["outputs"]["label"] |= {"max_abs": 9e-5, "agreement": 0.99}
    browser["latency_ms"] = {"median": 0.5}
    row = report_checks.summaries(report)[0].row
    assert (row.max_abs, row.agreement, row.latency_ms, row.accuracy) == (9e-5, 0.99, 0.5, 0.9126)


def test_runtimes_that_end_alike_are_told_together(report: dict[str, Any]) -> None:
    for runtime in report["artifacts"][0]["runtimes"]:
        runtime |= {"status": "failed", "reason": "label: off"}
    assert report_checks.reasons(report) == [("failed", "tfjs-float32 in tfjs-node, tfjs-chromium", "label: off")]
    assert len([place for place in cases(report) if place[1] == "verdict" and place[0].startswith("tfjs")]) == 2


def test_audits_that_end_alike_are_told_together(report: dict[str, Any]) -> None:
    for artifact in report["artifacts"][:2]:
        artifact["audit"] |= {"status": "not_verified", "reason": "no weights"}
    assert report_checks.reasons(report) == [("not_verified", "audit of tfjs-float32, tflite-int8", "no weights")]
    assert len([place for place in cases(report) if place[1].startswith("audit of")]) == 2


def test_the_agreement_of_a_sample_is_judged_by_what_chance_allows(report: dict[str, Any]) -> None:
    label = report["artifacts"][0]["runtimes"][1]["outputs"]["label"]
    label |= {"agreement": 0.9375, "disagreements": 1, "allowed_disagreements": 1}
    label["limits"] = label["limits"] | {"agreement": 0.995}
    place = "tfjs-float32.tfjs-chromium", "label: agreement"
    assert len(cases(report)[place]) == 0
    label["disagreements"] = 2
    assert "2 of a sample disagree, 1 may by chance" in cases(report)[place].find("failure").get("message")
    assert "16 of 309" in reports.to_markdown(report) and "16 of 309" in reports.to_html(report)


def test_the_gate_of_logarithms(report: dict[str, Any]) -> None:
    place = "tfjs-float32.tfjs-node", "label: difference of logarithms"
    assert len(cases(report)[place]) == 0
    report["artifacts"][0]["runtimes"][0]["outputs"]["label"]["log_max_abs"] = 6e-4
    assert "log_max_abs is 0.0006, the limit is 0.0005" in cases(report)[place].find("failure").get("message")
    report["artifacts"][0]["runtimes"][0]["outputs"]["label"]["log_max_abs"] = math.nan
    assert cases(report)[place].find("failure") is not None


def test_a_remark_is_a_note_with_all_its_places_and_no_fault(report: dict[str, Any]) -> None:
    for runtime in report["artifacts"][0]["runtimes"]:
        runtime["outputs"]["label"]["remark"] = parity.REMARK_OF_EQUALITY
    note = report_checks.notes(report)[-1]
    assert note.startswith(
        "tfjs-float32 in tfjs-node (label), tfjs-float32 in tfjs-chromium (label): every answer equals"
    )
    assert report_checks.verdict_of(report) == "verified"
    assert all("to the last bit" in form for form in forms(report))


def test_figures_that_are_not_finite_are_said_wherever_they_stand(report: dict[str, Any]) -> None:
    report["artifacts"][0]["runtimes"][0]["files"]["max_abs"] = math.nan
    report["artifacts"][1]["audit"]["constants"]["largest_steps"] = math.inf
    report["artifacts"][1]["layers"] = {"status": "traced", "rows": [{"name": "a", "snr_db": math.nan}]}
    again = json.loads(reports.to_json(report), parse_constant=lambda word: pytest.fail(word))
    assert "files.max_abs is not a finite number (nan)" in again["artifacts"][0]["runtimes"][0]["reason"]
    assert any("audit.constants.largest_steps is not a finite number (inf)" in note for note in again["notes"])
    assert any("layers.rows.snr_db is not a finite number (nan)" in note for note in again["notes"])
    forms(report)


def test_a_list_of_numbers_stands_on_one_line(report: dict[str, Any]) -> None:
    report["odd"] = {"text": "[\n 1,\n 2\n]", "nested": [[1, -2.5e-7], [None, 3], []], "words": ["1", "2"]}
    text = reports.to_json(report)
    assert json.loads(text) == report
    assert "[59, 2, 0, 0, 0]" in text and "[1, -2.5e-07]" in text


@pytest.mark.parametrize("key", ["audit", "layers", "files", "where", "of_images", "image_files", "not_run", "worst"])
@pytest.mark.parametrize("empty", [None, "absent"])
def test_every_new_key_may_be_absent(key: str, empty: Any) -> None:
    report = sample_reports.whole_report()
    del report["training"]
    holders = [report, *report["artifacts"]]
    holders += [runtime for artifact in report["artifacts"] for runtime in artifact["runtimes"]]
    holders += [runtime["outputs"]["label"] for artifact in report["artifacts"] for runtime in artifact["runtimes"]]
    for holder in holders:
        if key in holder:
            holder[key] = empty
            if empty == "absent":
                del holder[key]
    assert report_checks.verdict_of(report) == "verified"
    forms(report)
    reports.to_junit(report)


def test_runtimes_that_were_not_run_for_one_reason_are_told_in_one_line() -> None:
    missing = {"reason": "there is no Chromium", "mend": "make setup-browser"}
    listed = [{"runtime": name, **missing} for name in ("tfjs-chromium/wasm", "litert-js/wasm")]
    found = report_checks.not_run({"not_run": [*listed, {"runtime": "other"}]})
    assert found == [
        ("tfjs-chromium/wasm, litert-js/wasm", "There is no Chromium. To run it: make setup-browser."),
        ("other", "No reason was given."),
    ]


def test_the_layer_at_which_an_artifact_leaves_keras_is_told() -> None:
    broken = {"status": "traced", "reason": "", "images": 12, "first_off": "block_8_project", "rows": []}
    whole, untold = (
        {**broken, "first_off": None},
        {**broken, "status": "not_traced", "reason": "no Node", "first_off": None},
    )
    artifacts = [{"name": name, "layers": layers} for name, layers in (("a", broken), ("b", whole), ("c", untold))]
    assert report_checks.traces({"artifacts": artifacts}) == [
        "a leaves the Keras model at the layer 'block_8_project'.",
        "c: its layers were not compared: no Node.",
    ]
    assert report_checks.traces({"artifacts": artifacts[1:2]}) == [
        "Layer by layer, none of 1 artifacts leaves the Keras model."
    ]
    assert report_checks.traces({"artifacts": [{"name": "d"}]}) == []
    assert report_checks.notes({"artifacts": artifacts})[0].startswith("a leaves")
