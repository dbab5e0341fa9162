"""Everything in a report that can end in a status, how it ended, and the verdict over all of it. Standard library only."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from exporters.report_facts import NONE, WORDS, Row, name_of, one_line, rows, status_of

FILE_FAULTS = {
    "changed": "The file is not the one that was exported: its checksum differs.",
    "missing": "The file is listed in the golden set's manifest and is not there.",
    "unexpected": "The file is not listed in the golden set's manifest.",
}
# As in exporters.parity, which needs numpy: the worst status of several is the one that is told.
SEVERITY = ("verified", "not_enough_images", "degenerate", "not_verified", "failed")
NOT_RUN = "not run"
AUDIT_OF = "audit of "


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was checked: `kind` is `runtime`, `files`, `audit` or `image files`; `status` is one of WORDS.

    `artifact` is empty where it is about the folder as a whole; `reason` is empty where it is verified.
    """

    kind: str
    artifact: str
    subject: str
    status: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """One artifact over all its runtimes: the worst of their figures, the shortest of their latencies.

    `row` carries them; its `status` is the worst of all checks of the artifact, its `runner` the runtime where there is
    one, else how many of how many agree. `rows` are the runtimes.
    """

    row: Row
    rows: tuple[Row, ...]


def checks(report: Mapping[str, Any]) -> list[Check]:
    """Return every check of a report in its order: artifacts, then image files; checksums are told by `reasons`."""
    found = [check for artifact in report.get("artifacts") or [] for check in checks_of_artifact(artifact)]
    for entry in image_files(report):
        subject = f"image files in {one_line(entry.get('where') or NONE)}"
        found.append(_check("image files", "", subject, entry))
    return found


def checks_of_artifact(artifact: Mapping[str, Any]) -> list[Check]:
    """Return the checks of one artifact: its runtimes, what they made of the golden image files, its audit."""
    name, found = name_of(artifact), []
    for row in rows({"artifacts": [artifact]}):
        found.append(Check("runtime", name, row.place, row.status, row.reason))
        if row.files:
            found.append(_check("files", name, f"{row.place}, from image files", row.files))
    if artifact.get("audit"):
        found.append(_check("audit", name, f"{AUDIT_OF}{name}", artifact["audit"]))
    return found


def _check(kind: str, artifact: str, subject: str, entry: Mapping[str, Any]) -> Check:
    status = status_of(entry.get("status"))
    reason = "" if status == "verified" else one_line(entry.get("reason") or "No reason was given.")
    return Check(kind, artifact, subject, status, reason)


def image_files(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return how the golden image files were decoded and resized, and where.

    `pixels`, the one entry of older reports, is among them where it says more: where it stands alone, or did not pass.
    """
    found, pixels = list(report.get("image_files") or []), report.get("pixels") or {}
    alone = pixels and (not found or status_of(pixels.get("status")) != "verified")
    return [*found, {"where": "Python", **pixels}] if alone else found


def worst(statuses: list[str]) -> str:
    """Return the worst of some statuses; `not_verified` where there is none."""
    return max(statuses, key=SEVERITY.index) if statuses else "not_verified"


def summaries(report: Mapping[str, Any]) -> list[Summary]:
    """Return one summary for each artifact, in the report's order."""
    return [_summary(artifact) for artifact in report.get("artifacts") or []]


def _summary(artifact: Mapping[str, Any]) -> Summary:
    found = tuple(rows({"artifacts": [artifact]}))
    first, agreed = found[0], sum(row.status == "verified" for row in found)
    # A sample's accuracy is told in its own row; the artifact's is that on all images.
    most = max((row.images or 0 for row in found), default=0)
    scored = [row for row in found if row.accuracy is not None and (row.images or 0) == most]
    lowest = max(scored, key=lambda row: row.accuracy_drop or 0, default=first)
    row = dataclasses.replace(
        first,
        runner=first.runner if len(found) == 1 else f"{agreed} of {len(found)}",
        **{key: max(_known(found, key), default=None) for key in ("max_abs", "log_max_abs", "kl")},
        **{key: min(_known(found, key), default=None) for key in ("agreement", "top5_agreement", "latency_ms")},
        accuracy=lowest.accuracy,
        accuracy_drop=lowest.accuracy_drop,
        status=worst([check.status for check in checks_of_artifact(artifact)]),
    )
    return Summary(row, found)


def _known(found: tuple[Row, ...], key: str) -> list[float]:
    return [getattr(row, key) for row in found if getattr(row, key) is not None]


def verdict_of(report: Mapping[str, Any]) -> str:
    """Return the verdict that may be shown: never better than what stands in any check and in the checksums.

    A report without a single comparison is not verified, whatever it claims.
    """
    statuses = {check.status for check in checks(report)}
    integrity = status_of((report.get("integrity") or {"status": "verified"}).get("status"))
    if "failed" in statuses | {report.get("verdict"), integrity}:
        return "failed"
    everything = statuses | {status_of(report.get("verdict")), integrity}
    return "verified" if rows(report) and everything == {"verified"} else "not_verified"


def tally(report: Mapping[str, Any]) -> str:
    """Return how many checks ended how, as in `2 verified, 1 failed, 1 not run`."""
    counted = Counter(check.status for check in checks(report))
    parts = [f"{counted[status]} {word}" for status, word in WORDS.items() if counted[status]]
    parts = parts if rows(report) else ["nothing was compared"]
    missing = len(report.get("not_run") or [])
    return ", ".join(parts + ([f"{missing} {NOT_RUN}"] if missing else []))


def reasons(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (status, subject, sentence) of everything that is not verified, changed files first.

    Runtimes of one artifact that end alike for the same reason are told together, and so are audits.
    """
    integrity = report.get("integrity") or {}
    found = [
        ("failed", one_line(path), sentence)
        for key, sentence in FILE_FAULTS.items()
        for path in integrity.get(key) or []
    ]
    status = status_of(integrity.get("status"))
    if integrity and not found and status != "verified":
        found.append((status, "checksums", "The files were not found to be those of the export."))
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for check in checks(report):
        if check.status != "verified":
            start = AUDIT_OF if check.kind == "audit" else f"{check.artifact} in "
            alike.setdefault((check.kind, start, check.status, check.reason), []).append(check.subject)
    for (_, start, status, sentence), subjects in alike.items():
        rest = [subject.removeprefix(start) for subject in subjects[1:]]
        found.append((status, ", ".join([subjects[0], *rest]), sentence))
    if not rows(report):
        found.append(("not_verified", "artifacts", "No artifact was compared."))
    return found


def not_run(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (runtimes, sentence) of the runtimes that nobody asked for and that were not there, alike ones together."""
    alike: dict[str, list[str]] = {}
    for each in report.get("not_run") or []:
        told = [_sentence(each["reason"])] if each.get("reason") else []
        told += [f"To run it: {one_line(each['mend']).rstrip('.')}."] if each.get("mend") else []
        sentence = one_line(" ".join(told) or "No reason was given.")
        alike.setdefault(sentence, []).append(one_line(each.get("runtime") or NONE))
    return [(", ".join(runtimes), sentence) for sentence, runtimes in alike.items()]


def traces(report: Mapping[str, Any]) -> list[str]:
    """Return what comparing layer by layer found, a sentence for each artifact that has something to say."""
    traced = {
        one_line(each.get("name")): each["layers"] for each in report.get("artifacts") or [] if each.get("layers")
    }
    told = []
    for name, layers in traced.items():
        if layers.get("first_off"):
            told.append(f"{name} leaves the Keras model at the layer '{one_line(layers['first_off'])}'.")
        elif layers.get("status") != "traced":
            told.append(
                f"{name}: its layers were not compared: {one_line(layers.get('reason') or 'no reason was given')}."
            )
    if traced and not told:
        told.append(f"Layer by layer, none of {len(traced)} artifacts leaves the Keras model.")
    return told


def _sentence(text: Any) -> str:
    words = one_line(text)
    return words[:1].upper() + words[1:].rstrip(".") + "."


def notes(report: Mapping[str, Any]) -> list[str]:
    """Return the report's notes, what the traces found, and what the comparisons remark on, each once with its places."""
    remarks: dict[str, list[str]] = {}
    for row in rows(report):
        for name, output in row.outputs.items():
            if output.get("remark"):
                remarks.setdefault(one_line(output["remark"]), []).append(f"{row.place} ({name})")
    found = [one_line(note) for note in report.get("notes") or []]
    return found + traces(report) + [f"{', '.join(places)}: {remark}." for remark, places in remarks.items()]
