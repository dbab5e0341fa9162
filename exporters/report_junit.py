"""The report as JUnit XML, which CI servers read: what was not verified is an error there, never passed or skipped.

Skipped is only what nobody asked for: a runtime that was not there.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

from exporters import report_checks as checked
from exporters import report_facts as facts

CHECKSUMS = "checksums"
IMAGE_FILES = "image files"


def to_junit(report: Mapping[str, Any]) -> str:
    """Return the report as JUnit XML.

    Args:
        report: in the form of report.json, with the keys of `exporters.report`.

    Returns:
        A testsuite per artifact with a testcase per runtime, one per output and gate, one for the answers to image files
        and one for its audit; suites `checksums`, `image files` and `not run` where the report has such. A failed gate is
        a `failure`; not verified, not enough images and degenerate are `error`. A report without any artifact holds one
        error.
    """
    root = ElementTree.Element("testsuites", name="cutpoint")
    raw = list(report.get("artifacts") or [])
    report = facts.plain(report)
    if report.get("integrity"):
        _checksums(ElementTree.SubElement(root, "testsuite", name=CHECKSUMS), report["integrity"])
    for index, artifact in enumerate(report.get("artifacts") or []):
        _artifact(root, artifact, raw[index])
    _others(root, report)
    verdict = checked.verdict_of(report)
    if verdict != "verified" and root.find(".//failure") is None and root.find(".//error") is None:
        suite = ElementTree.SubElement(root, "testsuite", name="verdict")
        why = "; ".join(f"{subject}: {sentence}" for _, subject, sentence in checked.reasons(report))
        _case(suite, "cutpoint", "verdict", verdict, why or "The run as a whole was not verified.")
    for element in (*root, root):
        _count(element)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _artifact(root: ElementTree.Element, artifact: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
    name = facts.name_of(artifact)
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    for index, row in enumerate(facts.rows({"artifacts": [artifact]})):
        place = f"{name}.{row.runner}"
        _case(suite, place, "verdict", row.status, row.reason)
        # The gates look at the figures as they were measured: as None, NaN would be a gate that does not apply.
        measured = (raw["runtimes"][index].get("outputs") or {}) if raw.get("runtimes") else {}
        for output_name, output in measured.items():
            found = facts.gates(output or {})
            for gate in found:
                _case(suite, place, f"{output_name}: {gate.name}", gate.status, _sentence(gate, output))
            _case_of_output(suite, place, output_name, output or {}, {gate.status for gate in found})

    for check in checked.checks_of_artifact(artifact):
        if check.kind != "runtime":
            _case(suite, f"{name}.{check.kind}", check.subject, check.status, check.reason)


def _others(root: ElementTree.Element, report: Mapping[str, Any]) -> None:
    found = [check for check in checked.checks(report) if check.kind == IMAGE_FILES]
    suite = ElementTree.SubElement(root, "testsuite", name=IMAGE_FILES) if found else None
    for check in found:
        _case(suite, IMAGE_FILES, check.subject, check.status, check.reason)
    missing = checked.not_run(report)
    suite = ElementTree.SubElement(root, "testsuite", name=checked.NOT_RUN) if missing else None
    for runtime, sentence in missing:
        case = ElementTree.SubElement(suite, "testcase", classname=checked.NOT_RUN, name=runtime)
        ElementTree.SubElement(case, "skipped", message=sentence)


def _case_of_output(
    suite: ElementTree.Element, place: str, name: str, output: Mapping[str, Any], told: set[str]
) -> None:
    # An output may be refused before any figure is taken; with no gate at all, nothing would stand for it here.
    status = facts.status_of(output.get("status") or "verified")
    if not told and status == "verified":
        _case(suite, place, f"{name}: gates", "not_verified", "No figure was held against a limit.")
    elif status != "verified" and status not in told:
        _case(suite, place, f"{name}: verdict", status, output.get("reason") or "No reason was given.")


def _sentence(gate: facts.Gate, output: Mapping[str, Any]) -> str:
    key, limited_by = facts.GATES[gate.name]
    smallest = (output.get("smallest_passing_limits") or {}).get(limited_by)
    text = f"{key} is {gate.figure:.6g}, the limit is {gate.limit:.6g}"
    if gate.name in ("agreement", "neighbours") and output.get("allowed_disagreements") is not None:
        text += (
            f" ({output.get('disagreements')} of a sample disagree, {output['allowed_disagreements']} may by chance)"
        )
    elif output.get(f"{key}_at_most") is not None:
        text += f" (of a sample; of all images it may be {output[f'{key}_at_most']:.6g})"
    return text + (f"; {smallest:.6g} would pass" if isinstance(smallest, int | float) else "")


def _checksums(suite: ElementTree.Element, integrity: Mapping[str, Any]) -> None:
    status = facts.status_of(integrity.get("status"))
    _case(suite, CHECKSUMS, "verdict", status, "The files are not those that were exported.")
    for key, sentence in checked.FILE_FAULTS.items():
        for path in integrity.get(key) or []:
            _case(suite, CHECKSUMS, f"{key}: {path}", "failed", sentence)


def _case(suite: ElementTree.Element, place: str, name: str, status: str, why: str) -> None:
    # XML 1.0 cannot hold control characters, even escaped; one_line leaves none.
    case = ElementTree.SubElement(suite, "testcase", classname=facts.one_line(place), name=facts.one_line(name))
    if status != "verified":
        kind = "failure" if status == "failed" else "error"
        fault = ElementTree.SubElement(case, kind, type=status, message=facts.one_line(why))
        fault.text = facts.one_line(f"{facts.WORDS[status]}: {why}")


def _count(element: ElementTree.Element) -> None:
    for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(key, str(len(list(element.iter(tag)))))
