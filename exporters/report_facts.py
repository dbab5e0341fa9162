"""What every form of the report shares: a strict copy, words, one row per artifact and runtime, and its gates.

Standard library only, so that the terminal table costs nothing to import.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from exporters import report_numbers as numbers

WORDS = {
    "verified": "verified",
    "failed": "failed",
    "not_verified": "not verified",
    "not_enough_images": "not enough images",
    "degenerate": "degenerate",
}
SYMBOLS = {"verified": "✓", "failed": "✗"}
UNDECIDED = "?"
NONE = "-"
# A gate's name, the key of its figure, and the key of its limit.
GATES = {
    "difference": ("max_abs", "max_abs"),
    "difference of logarithms": ("log_max_abs", "log_max_abs"),
    "agreement": ("agreement", "agreement"),
    "cosine": ("least_cosine", "least_cosine"),
    "neighbours": ("neighbours", "neighbours"),
    "overlap": ("iou", "iou"),
    "accuracy": ("accuracy_drop", "accuracy_drop"),
    "overlap with truth": ("truth_iou_drop", "accuracy_drop"),
    "error": ("relative_error", "relative_error"),
    "largest error": ("worst_relative_error", "worst_relative_error"),
}
# Figures that must not be under their limit.
LEAST = frozenset({"agreement", "least_cosine", "neighbours", "iou"})
HERE = "this machine"


@dataclasses.dataclass(frozen=True)
class Row:
    """One artifact in one runtime, with the worst figures of its outputs; None where a figure does not apply.

    `images` of the golden set's `of_images` were answered; `files` is what became of the golden image files.
    """

    artifact: str
    format: str
    precision: str
    size_bytes: float | None
    gzip_bytes: float | None
    runner: str
    version: str
    where: str
    images: float | None
    of_images: float | None
    max_abs: float | None
    log_max_abs: float | None
    kl: float | None
    agreement: float | None
    top5_agreement: float | None
    accuracy: float | None
    accuracy_drop: float | None
    latency_ms: float | None
    status: str
    reason: str
    outputs: Mapping[str, Any]
    files: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Which artifact in which runtime, as in `tflite-int8 in litert`."""
        return self.artifact if self.runner == NONE else f"{self.artifact} in {self.runner}"

    @property
    def is_sample(self) -> bool:
        """Whether the runtime was too slow for all images, and answered the first few."""
        return bool(self.images and self.of_images and self.images < self.of_images)


@dataclasses.dataclass(frozen=True)
class Gate:
    """A figure held against its limit; `status` is one of WORDS."""

    name: str
    figure: float | None
    limit: float
    status: str


def plain(report: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a report into what strict JSON can hold.

    Returns:
        The same tree of dicts, lists, strings, finite numbers, booleans and None. Numbers that are not finite are
        None, and said: in the `reason` of the runtime they belong to, else in `notes`.
    """
    lost: list[tuple[tuple[str, ...], float]] = []
    copy = _plain(report, (), lost)
    for path, sentence in dict.fromkeys((path, _lost_sentence(path, value)) for path, value in lost):
        if path[:1] == ("artifacts",) and path[2:3] == ("runtimes",) and len(path) > 4:
            runtime = copy["artifacts"][int(path[1])]["runtimes"][int(path[3])]
            before = str(runtime.get("reason") or "")
            if sentence not in before:
                runtime["reason"] = f"{before} {sentence}".strip()
        else:
            copy["notes"] = [*(copy.get("notes") or []), sentence]
    if "notes" in copy:
        copy["notes"] = list(dict.fromkeys(copy["notes"] or []))
    return copy


def _plain(value: Any, path: tuple[str, ...], lost: list[tuple[tuple[str, ...], float]]) -> Any:
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, without importing numpy for them
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        lost.append((path, value))
        return None
    if isinstance(value, Mapping):
        return {_text(key): _plain(each, (*path, _text(key)), lost) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, (*path, str(index)), lost) for index, each in enumerate(value)]
    return _text(value)


def _text(value: Any) -> str:
    # A file name that is not UTF-8 reaches Python as lone surrogates, which no UTF-8 file can hold.
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _lost_sentence(path: tuple[str, ...], value: float) -> str:
    inside = path[4:] if path[:1] == ("artifacts",) and path[2:3] == ("runtimes",) else path
    name = ".".join(part for part in inside if not part.isdigit()).removeprefix("outputs.")
    return f"{name} is not a finite number ({value})."


def one_line(value: Any) -> str:
    """Return any text as one line without control characters, so that no name can break a table or a terminal."""
    return " ".join("".join(each if each.isprintable() else " " for each in str(value)).split())


def status_of(value: Any) -> str:
    """Return a status word of WORDS; whatever is not one of them was not verified."""
    return value if value in WORDS else "not_verified"


def rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per artifact and runtime, in the report's order; an artifact without a runtime has one too."""
    return [
        _row(artifact, runtime)
        for artifact in report.get("artifacts") or []
        for runtime in artifact.get("runtimes")
        or [{"reason": artifact.get("reason") or "It was not read back in any runtime.", "status": "not_verified"}]
    ]


def _row(artifact: Mapping[str, Any], runtime: Mapping[str, Any]) -> Row:
    outputs = {name: output or {} for name, output in (runtime.get("outputs") or {}).items()}
    scored = [output for output in outputs.values() if output.get("accuracy") is not None]
    worst = max(scored, key=lambda output: output.get("accuracy_drop") or 0, default={})
    status = status_of(runtime.get("status"))
    return Row(
        artifact=name_of(artifact),
        format=one_line(artifact.get("format") or "-"),
        precision=_precision(artifact),
        size_bytes=artifact.get("size_bytes"),
        gzip_bytes=artifact.get("gzip_bytes"),
        runner=_runner(artifact, runtime),
        version=one_line(runtime.get("version") or ""),
        where=one_line(runtime.get("where") or HERE),
        images=runtime.get("images"),
        of_images=runtime.get("of_images"),
        max_abs=max(_figures(_without_units(outputs), "max_abs"), default=None),
        **{key: max(_figures(outputs, key), default=None) for key in ("log_max_abs", "kl")},
        agreement=min(_agreements(outputs), default=None),
        top5_agreement=min(_figures(outputs, "top5_agreement"), default=None),
        accuracy=worst.get("accuracy"),
        accuracy_drop=worst.get("accuracy_drop"),
        latency_ms=(runtime.get("latency_ms") or {}).get("median"),
        status=status,
        reason=_reason(artifact, runtime, status),
        outputs=outputs,
        files=runtime.get("files") or {},
    )


def _reason(artifact: Mapping[str, Any], runtime: Mapping[str, Any], status: str) -> str:
    """Return why a runtime is not verified; where its answers fail, also which artifact would do."""
    reason = one_line(runtime.get("reason") or ("" if status == "verified" else "No reason was given."))
    instead = artifact.get("instead")
    if status != "failed" or not instead or "check" in runtime:
        return reason
    latency = f", {numbers.milliseconds(instead['latency_ms'])} ms" if instead.get("latency_ms") is not None else ""
    return f"{reason}; {one_line(instead['name'])} is verified: {numbers.size(instead.get('size_bytes'))}{latency}"


def _precision(artifact: Mapping[str, Any]) -> str:
    """Return an artifact's precision, with its variant where it is one."""
    precision, form = artifact.get("precision") or "-", f"{artifact.get('format')}-"
    name = str(artifact.get("name") or "")
    return one_line(name.removeprefix(form) if name.startswith(f"{form}{precision}-") else precision)


def name_of(artifact: Mapping[str, Any]) -> str:
    """Return an artifact's name, made of its format and precision where it has none."""
    return one_line(artifact.get("name") or f"{artifact.get('format')}-{artifact.get('precision')}")


def _runner(artifact: Mapping[str, Any], runtime: Mapping[str, Any]) -> str:
    runner = runtime.get("runner") or "-"
    same = [each for each in artifact.get("runtimes") or [] if (each.get("runner") or "-") == runner]
    return one_line(f"{runner}/{runtime['backend']}" if len(same) > 1 and runtime.get("backend") else runner)


def _figures(outputs: Mapping[str, Any], key: str) -> list[float]:
    return [output[key] for output in outputs.values() if output.get(key) is not None]


def _without_units(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out regressions, whose differences are in units of their own; where there is nothing else, they stay."""
    return {name: each for name, each in outputs.items() if each.get("task") != "regression"} or outputs


def _agreements(outputs: Mapping[str, Any]) -> list[float]:
    """Of an embedding, images agree whose nearest neighbour stays the same; of a box, what it has in common with Keras's."""
    first = [next((each[key] for key in ("agreement", "neighbours", "iou") if each.get(key) is not None), None)
             for each in outputs.values()]  # fmt: skip
    return [share for share in first if share is not None]


def gates(output: Mapping[str, Any]) -> list[Gate]:
    """Hold the figures of one output against its limits.

    Returns:
        The gates that apply: those with a limit and a figure. A figure that is not a finite number fails. The accuracy
        gates fail only where the paired interval, if there is one, excludes 0; the agreement of a sample only where more
        images disagree than chance allows, or all images could not have as much as is asked for. An output with a relative error
        is judged by that and not by its largest difference, which is in the target's unit; a box, in shares of the picture, by
        both.
    """
    limits, status = output.get("limits") or {}, status_of(output.get("status") or "verified")
    found = []
    for name, (key, limited_by) in GATES.items():
        figure, limit = output.get(key), limits.get(limited_by)
        in_its_unit = output.get("relative_error") is not None and output.get("task") != "boxes"
        if figure is None or limit is None or (key == "max_abs" and in_its_unit):
            continue
        undecided = status in ("not_verified", "degenerate") or (
            status == "not_enough_images" and limited_by == "accuracy_drop"
        )
        passed = _passes(output, key, figure, limit)
        found.append(Gate(name, figure, limit, "failed" if not passed else status if undecided else "verified"))
    return found


def _passes(output: Mapping[str, Any], key: str, figure: float, limit: float) -> bool:
    passed = figure >= limit if key in LEAST else figure <= limit
    if not math.isfinite(figure):
        return passed
    if key in ("agreement", "neighbours") and output.get("allowed_disagreements") is not None:
        return (output.get("disagreements") or 0) <= output["allowed_disagreements"]
    if output.get(f"{key}_at_most") is not None:
        return output[f"{key}_at_most"] >= limit
    interval = output.get(f"{key.removesuffix('_drop')}_interval") if key.endswith("_drop") else None
    return passed or bool(interval and interval[0] is not None and interval[0] <= 0)
