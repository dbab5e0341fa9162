"""How a report tells in which ways weights were made, what each was worth on validation pictures, and which was taken.

Standard library only, as all of the report's words. `made` is as `exporters.ways.Choice.to_json` gives it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from exporters import report_facts as facts
from exporters import report_numbers as numbers

CORRECTED, EQUALISED, LEVELLED, EXACT_INPUTS = "corrected", "equalised", "levelled", "exact_inputs"
# Way -> what is done to the weights.
WORDS = {
    CORRECTED: "corrected",
    EQUALISED: "equalised and corrected",
    LEVELLED: "wholly equalised and corrected",
    EXACT_INPUTS: "corrected, kernels rounded on exact inputs",
}
# Header of a column, and whether it holds numbers.
HEADERS = (
    ("way", False), ("error", True), ("mean difference", True), ("agreement", True), ("accuracy", True),
    ("features", True), ("noisiest layers", False), ("gate", False), ("took", True),
)  # fmt: skip
SHOWN_LAYERS = 3
_PASSES = {"verified": "passes", "not_enough_images": "passes, as far as so few images tell"}
_AGREEMENTS = ("agreement", "neighbours", "iou")


@dataclasses.dataclass(frozen=True)
class Line:
    """One way: the cells under HEADERS, and whether it was taken."""

    cells: tuple[str, ...]
    taken: bool


@dataclasses.dataclass(frozen=True)
class Table:
    """The ways of all artifacts that share a rounding; `images` is how many validation pictures they were measured on."""

    artifacts: tuple[str, ...]
    images: int
    lines: tuple[Line, ...]


def told(made: Mapping[str, Any]) -> str:
    """Return in a few words which way was taken, as in `equalised and corrected (error 0.0058 against 0.0063)`."""
    errors = {way["name"]: way["error"] for way in made["ways"]}
    others = [numbers.difference(error) for name, error in errors.items() if name != made["taken"]]
    against = f" against {', '.join(others)}" if others else ""
    return f"{words_of(made['taken'])} (error {numbers.difference(errors[made['taken']])}{against})"


def words_of(name: str) -> str:
    """Return what is done to the weights in a way; of an unknown one, its name."""
    return WORDS.get(name, facts.one_line(name))


def taken_of(made: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the way that was taken."""
    return next(way for way in made["ways"] if way["name"] == made["taken"])


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return a table for each rounding that had a choice, in the order of the artifacts; none where none had."""
    shared: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for artifact in report.get("artifacts") or []:
        if artifact.get("made"):
            key = json.dumps(artifact["made"], sort_keys=True)
            shared.setdefault(key, (artifact["made"], []))[1].append(facts.name_of(artifact))
    return [
        Table(tuple(names), made.get("images") or 0, tuple(_line(way, made) for way in made.get("ways") or []))
        for made, names in shared.values()
    ]


def _line(way: Mapping[str, Any], made: Mapping[str, Any]) -> Line:
    outputs = [each or {} for each in (way.get("outputs") or {}).values()]
    agreements = [next((each[key] for key in _AGREEMENTS if each.get(key) is not None), None) for each in outputs]
    scored = [each for each in outputs if each.get("accuracy") is not None]
    worst = max(scored, key=lambda each: each.get("accuracy_drop") or 0, default={})
    change = numbers.points(worst.get("accuracy_drop"))
    cells = (
        words_of(way.get("name") or facts.NONE),
        numbers.difference(way.get("error")),
        numbers.difference(max(_known(outputs, "mean_abs"), default=None)),
        numbers.share(min((each for each in agreements if each is not None), default=None)),
        numbers.share(worst.get("accuracy")) + (f" ({change})" if change else ""),
        _decibels(min(_known([way.get("features_snr_db") or {}], *(way.get("features_snr_db") or {})), default=None)),
        ", ".join(
            f"{facts.one_line(each.get('name'))} {_decibels(each.get('snr_db'))}"
            for each in (way.get("worst_layers") or [])[:SHOWN_LAYERS]
        )
        or facts.NONE,
        gate_of(way),
        numbers.duration(way.get("wall_s")),
    )
    return Line(cells, way.get("name") == made.get("taken"))


def gate_of(way: Mapping[str, Any]) -> str:
    """Return how a way's gate ended on the validation pictures: `passes`, or what is wrong."""
    status = facts.status_of(way.get("status"))
    if status in _PASSES:
        return _PASSES[status]
    return f"{facts.WORDS[status]}: {facts.one_line(way.get('reason') or 'not judged')}"


def _known(outputs: list[Mapping[str, Any]], *keys: str) -> list[float]:
    return [each[key] for each in outputs for key in keys if each.get(key) is not None]


def _decibels(ratio: float | None) -> str:
    return facts.NONE if ratio is None else f"{ratio:.1f} dB"
