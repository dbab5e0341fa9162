"""No good artifact is rejected: other filters, heads, calibration images and golden images, every precision and runtime.

Seven seeds, 10 s each, in `make test-all` or with `pytest tests/test_false_alarms.py -m "slow or not slow" -s`, which
prints the tally.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from exporters.contract import parse_formats, usual_formats
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.verification import verify_folder
from tests import small_models
from tests.small_models import CUT

# Not those on request: int16x8 was off by 0.058, where 0.05 is allowed, on one of these networks.
EVERY_ARTIFACT = parse_formats(list(usual_formats()))
SEEDS = range(200, 207)
pytestmark = pytest.mark.slow
# How many of the seeds may leave an artifact undecided: their golden images cannot prove anything, or not enough.
LARGEST_SHARE_UNDECIDED = 0.05


class Tally(collections.Counter):
    """How often each part of each artifact got each status: (artifact, part, status) -> seeds.

    `largest`: (precision, figure) -> the largest of all seeds, to be held against the limits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seeds = 0
        self.largest: dict[tuple[str, str], float] = {}

    def add(self, report: dict[str, Any]) -> None:
        """Count the statuses of a report."""
        self.seeds += 1
        for artifact in report["artifacts"]:
            self[artifact["name"], "audit", artifact["audit"]["status"]] += 1
            for runtime in artifact["runtimes"]:
                part = f"{runtime['runner']}/{runtime['backend']}"
                self[artifact["name"], part, runtime["status"]] += 1
                self[artifact["name"], f"{part} files", runtime["files"]["status"]] += 1
                for output in runtime["outputs"].values():
                    self._note(artifact["precision"], output)

    def _note(self, precision: str, figures: dict[str, Any]) -> None:
        for name in ("max_abs", "mean_abs", "kl", "log_max_abs", "accuracy_drop"):
            if figures.get(name) is not None:
                self.largest[precision, name] = max(figures[name], self.largest.get((precision, name), 0.0))

    def undecided(self) -> dict[tuple[str, str], int]:
        """Return (artifact, part) -> how many seeds left it undecided."""
        counts: collections.Counter = collections.Counter()
        for (artifact, part, status), count in self.items():
            if status not in ("verified", "failed"):
                counts[artifact, part] += count
        return dict(counts)

    def __str__(self) -> str:
        of_status = collections.Counter()
        for (_, _, status), count in self.items():
            of_status[status] += count
        lines = [f"{self.seeds} seeds, {self.total()} judgements: {dict(of_status)}"]
        odd = [key for key in sorted(self) if key[2] != "verified"]
        lines += [f"{' '.join(key)}: {self[key]}" for key in odd]
        precisions = dict.fromkeys(precision for precision, _ in self.largest)
        for each in precisions:
            told = [f"{name} {value:.2g}" for (precision, name), value in self.largest.items() if precision == each]
            lines.append(f"largest in {each}: {', '.join(told)}")
        return "\n".join(lines)


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    counted = Tally()
    yield counted
    print(f"\n{counted}")


def good_result(seed: int, work: Path) -> Path:
    """Export a model of another seed in every usual format and precision, with a golden set of other pictures."""
    one, out = small_models.small.__wrapped__(seed), work / "out"
    inference = work / "inference"
    inference.mkdir()
    models = InferenceModels(one.model, CUT, one.calibration_images, inference, features_everywhere=False)
    for name in EVERY_ARTIFACT:
        saved = models.saved_model(name.precision)
        export_artifact(name, saved, one.card, out / "artifacts", one.calibration_images)
    small_models.write_fingerprints_of(models, out)
    small_models.write_golden_of(out, one)
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_no_good_artifact_is_rejected(seed: int, tally: Tally, tmp_path: Path) -> None:
    # Or every model of the process before it would be kept.
    keras.backend.clear_session()
    report = verify_folder(good_result(seed, tmp_path), runtimes="local")
    tally.add(report)
    parts = [(each, each["audit"]) for each in report["artifacts"]]
    for each in report["artifacts"]:
        parts += [(each, runtime) for runtime in each["runtimes"]]
        parts += [(each, runtime["files"]) for runtime in each["runtimes"]]
    failed = [f"{each['name']}: {part['reason']}" for each, part in parts if part["status"] == "failed"]
    assert not failed
    assert report["exit_code"] in (0, 3) and report["integrity"]["status"] == report["pixels"]["status"] == "verified"
    assert len(report["artifacts"]) == len(EVERY_ARTIFACT)


def test_few_seeds_leave_an_artifact_undecided(tally: Tally) -> None:
    assert tally.seeds
    for key, count in tally.undecided().items():
        assert count <= max(1, LARGEST_SHARE_UNDECIDED * tally.seeds), key
