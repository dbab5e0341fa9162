"""The ways in which a precision's weights can be made, and what each was measured to be worth. Light: numpy only.

Every way is measured on pictures of the validation split, in a simulation of what the device will compute
(`exporters.simulation`), once for all artifacts that share its rounding. What was measured travels in the golden set.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters import parity
from exporters.contract import SCHEMA_VERSION, Limits, Output
from exporters.report_ways import taken_of, told

WAYS = "ways.json"
# What is kept of `exporters.parity`'s figures.
FIGURES = (
    *("mean_abs", "max_abs", "agreement", "accuracy", "accuracy_drop", "confidence_shift", "relative_error"),
    *("worst_relative_error", "iou", "truth_iou_drop", "least_cosine", "neighbours"),
)
MOST_LAYERS = 5


@dataclasses.dataclass(frozen=True)
class Gate:
    """What answers to the validation pictures are judged by: the model's outputs, their limits, and what is true.

    `limits` precision -> limits; `truth` output -> what is true of each picture, see `exporters.truth`, where it is known.
    """

    outputs: tuple[Output, ...] = ()
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    truth: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Way:
    """What one way was measured to be worth.

    `error` is the mean square of the differences of the answers, in shares of the variance of Keras's, the mean of all outputs;
    `status` how `exporters.parity` ends, `reason` why; `outputs` output -> its figures; `features_snr_db` name of an output that
    carries a cut -> the ratio of signal to noise there, in decibels; `worst_layers` (layer, the same ratio), the lowest
    first. A ratio is None where nothing differs.
    """

    name: str
    error: float
    status: str = parity.NOT_VERIFIED
    reason: str = ""
    outputs: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    features_snr_db: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    worst_layers: tuple[tuple[str, float | None], ...] = ()

    @property
    def passes(self) -> bool:
        """Whether nothing speaks against it: too few pictures to be sure of a fall of accuracy do not."""
        return self.status != parity.FAILED

    def to_json(self) -> dict[str, Any]:
        """Return what report.json and the golden set hold, numbers with six digits that count."""
        layers = [{"name": name, "snr_db": ratio} for name, ratio in self.worst_layers]
        return _short({**dataclasses.asdict(self), "worst_layers": layers})


@dataclasses.dataclass(frozen=True)
class Choice:
    """All ways that were tried for a precision, in their order, on so many validation `images`; `taken` is one's name."""

    taken: str
    images: int
    ways: tuple[Way, ...]

    def to_json(self) -> dict[str, Any]:
        """Return `made` of report.json."""
        return {"taken": self.taken, "images": self.images, "ways": [way.to_json() for way in self.ways]}


def judged(
    name: str, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], precision: str, gate: Gate
) -> Way:
    """Return what a way is worth by its answers.

    Args:
        name: the way's.
        expected, found: output -> float32 (N, ...), Keras's answers to the validation pictures and the way's.
        precision: whose limits hold.
        gate: what they are judged by; without outputs or limits the error alone is told.
    """
    error = float(np.mean([_error(expected[each], found[each]) for each in expected]))
    limits = gate.limits.get(precision)
    if limits is None or not gate.outputs:
        return Way(name, error)
    compared = parity.compare(expected, found, gate.outputs, limits, gate.truth)
    # More validation pictures than are kept nobody can give.
    told_of = (each for each in compared.items() if each[1].status != parity.NOT_ENOUGH_IMAGES)
    reasons = [f"{output}: {each.reason}" for output, each in told_of if each.reason]
    figures = {
        output: {key: float(each.figures[key]) for key in FIGURES if isinstance(each.figures.get(key), int | float)}
        for output, each in compared.items()
    }
    return Way(name, error, parity.worst([each.status for each in compared.values()]), "; ".join(reasons), figures)


def best_of(ways: Sequence[Way]) -> int:
    """Return which way to take: of those that pass, or of all where none does, the one with the least error."""
    passing = [index for index, way in enumerate(ways) if way.passes] or range(len(ways))
    return min(passing, key=lambda index: ways[index].error)


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.square(found - expected).mean() / max(float(expected.var(0).mean()), 1e-12))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value


def write_choices(choices: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write `ways.json`, precision -> `made` of report.json; where there are none, no such file is left in the folder."""
    if not choices:
        (folder / WAYS).unlink(missing_ok=True)
        return
    text = {"schema_version": SCHEMA_VERSION, "precisions": dict(sorted(choices.items()))}
    (folder / WAYS).write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def read_choices(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `write_choices` was given, nothing where there is no such file.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is damaged.
    """
    if not (folder / WAYS).is_file():
        return {}
    described = json.loads((folder / WAYS).read_text(encoding="utf-8"))
    if described["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"{WAYS} is not of schema_version {SCHEMA_VERSION}")
    choices = described["precisions"]
    for made in choices.values():
        # Raises for what could not be told.
        told(made), taken_of(made)
    return choices
