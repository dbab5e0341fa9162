"""What ways of making weights are worth, which one is taken, and how that is kept. Pure numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from exporters import parity
from exporters.contract import CEILINGS, Output
from exporters.ways import WAYS, Choice, Gate, Way, best_of, judged, read_choices, write_choices

LABELS = tuple("abcde")
GATE = Gate((Output("label", "linear", "multiclass", (5,), labels=LABELS),), CEILINGS)


@pytest.fixture
def answers() -> np.ndarray:
    """Sure answers of a model to 200 pictures."""
    logits = np.random.default_rng(0).normal(0, 4, (200, 5))
    powers = np.exp(logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def off_by(answers: np.ndarray, noise: float) -> np.ndarray:
    found = np.maximum(answers + np.random.default_rng(1).normal(0, noise, answers.shape), 0)
    return (found / found.sum(1, keepdims=True)).astype(np.float32)


def test_a_way_is_judged_by_the_gate_of_its_precision(answers: np.ndarray) -> None:
    truth = {"label": answers.argmax(1)}
    gate = Gate(GATE.outputs, GATE.limits, truth)
    near, far = (
        judged(name, {"label": answers}, {"label": off_by(answers, noise)}, "int8", gate)
        for name, noise in (("near", 0.002), ("far", 0.3))
    )
    assert near.error < far.error and near.passes and not far.passes
    assert far.status == parity.FAILED and "agreement" in far.reason
    found = off_by(answers, 0.3).argmax(1) == answers.argmax(1)
    assert far.outputs["label"]["agreement"] == pytest.approx(found.mean())
    assert far.outputs["label"]["accuracy_drop"] == pytest.approx(1 - found.mean())
    assert far.error == pytest.approx(
        np.square(off_by(answers, 0.3) - answers).mean() / answers.var(0).mean(), rel=1e-3
    )


def test_too_few_pictures_do_not_speak_against_a_way(answers: np.ndarray) -> None:
    few = answers[:40]
    gate = Gate(GATE.outputs, GATE.limits, {"label": few.argmax(1)})
    way = judged("few", {"label": few}, {"label": off_by(few, 0.002)}, "int8", gate)
    assert way.status == parity.NOT_ENOUGH_IMAGES and way.passes and not way.reason


def test_without_limits_or_truth_the_error_is_told(answers: np.ndarray) -> None:
    given = {"label": answers}, {"label": off_by(answers, 0.3)}
    way = judged("alone", *given, "int8", Gate())
    assert way.error > 0.01 and way.outputs == {} and way.passes
    assert judged("alone", *given, "int8", Gate(GATE.outputs)).status == parity.NOT_VERIFIED
    # Agreement needs no truth.
    assert not judged("alone", *given, "int8", GATE).passes


def test_of_those_that_pass_the_nearest_is_taken() -> None:
    low, middle, high = Way("low", 0.1), Way("middle", 0.2), Way("high", 0.3)
    fails = Way("fails", 0.05, parity.FAILED)
    assert best_of([high, low, middle]) == 1
    assert best_of([fails, high, middle]) == 2
    assert best_of([Way("worse", 0.07, parity.FAILED), fails]) == 1


def test_choices_are_kept_with_six_digits(tmp_path: Path) -> None:
    ways = (
        Way("corrected", 1 / 3, outputs={"label": {"agreement": 2 / 3}}, features_snr_db={"features": None}),
        Way("equalised", 0.25, worst_layers=(("first", 12.34567891),)),
    )
    made = Choice("equalised", 128, ways).to_json()
    write_choices({"int8": made}, tmp_path)
    assert read_choices(tmp_path) == {"int8": made}
    assert made["ways"][0]["error"] == 0.333333 and made["ways"][0]["outputs"]["label"]["agreement"] == 0.666667
    assert made["ways"][1]["worst_layers"] == [{"name": "first", "snr_db": 12.3457}]
    assert (tmp_path / WAYS).read_bytes().endswith(b"}\n")
    write_choices({}, tmp_path)
    assert not (tmp_path / WAYS).exists() and read_choices(tmp_path) == {}


@pytest.mark.parametrize(
    "damage", [{"schema_version": 2}, {"precisions": None}, {"precisions": {"int8": {"taken": "no", "ways": []}}}]
)
def test_what_is_damaged_is_not_read(tmp_path: Path, damage: dict) -> None:
    write_choices({"int8": Choice("corrected", 1, (Way("corrected", 0.1),)).to_json()}, tmp_path)
    described = json.loads((tmp_path / WAYS).read_text())
    (tmp_path / WAYS).write_text(json.dumps(described | damage))
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        read_choices(tmp_path)
