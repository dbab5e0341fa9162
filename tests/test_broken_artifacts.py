"""Artifacts as a faulty exporter would make them: caught in every format and precision, and each by the checks that should.

`tests/faults.py` is the table. Card, golden set and checksums are written anew over the damage, so that no checksum can
tell; images, reference answers and fingerprints are the true model's. `python -m tests.tally_of_faults` prints the tally.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporters.contract import parse_formats, usual_formats
from exporters.runners.keras import KerasRunner
from exporters.runners.tflite import TfliteRunner
from exporters.verification import verify_folder
from tests import faults_keras, faults_tflite, faults_weights, small_models
from tests.faults import BY_CHECKSUM, FAULTS, FILES, KERAS, NOT_CAUGHT, UNFOLDED, judge
from tests.faults_rebuilding import Maker, rebuilt
from tests.faults_workshop import ALL, FAST, NAMES, Workshop, checks_of

USUAL = {str(name) for name in parse_formats(list(usual_formats()))}
FORMATS = tuple(dict.fromkeys(each.format for each in NAMES.values()))


def is_slow(kind: str, name: str) -> bool:
    """Tell whether a row waits for `make test-all`: all on request, and all but one of a format, another one for each fault."""
    fault = FAULTS[kind]
    if name not in USUAL:
        return True
    alike = [each for each in fault.caught if NAMES[each].format == NAMES[name].format and each in USUAL]
    return name != alike[list(FAULTS).index(kind) % len(alike)]


ROWS = [
    pytest.param(kind, name, id=f"{kind}-{name}", marks=[pytest.mark.slow] if is_slow(kind, name) else [])
    for kind, fault in FAULTS.items()
    for name in fault.caught
]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("name", ALL)
def test_control_the_undamaged_artifact_is_verified(name: str, workshop: Workshop, tmp_path: Path) -> None:
    """Without this, everything below could pass because nothing ever does."""
    workshop.good(name, tmp_path)
    workshop.golden(tmp_path)
    report = verify_folder(tmp_path, runtimes="local")
    assert (report["verdict"], report["exit_code"], checks_of(report)) == ("verified", 0, set())
    (artifact,) = report["artifacts"]
    assert artifact["audit"]["status"] == "verified" and artifact["audit"]["constants"]["compared"] > 4000
    for runtime in artifact["runtimes"]:
        assert runtime["status"] == runtime["files"]["status"] == "verified"
        assert {each["status"] for each in runtime["outputs"].values()} == {"verified"}
    assert artifact["runtimes"][0]["images"] == small_models.GOLDEN_IMAGES


@pytest.mark.parametrize("name", ALL)
def test_control_an_artifact_that_goes_the_way_of_the_broken_ones_is_verified(
    name: str, workshop: Workshop, tmp_path: Path
) -> None:
    """A copy of the Keras model with nothing changed is exported anew: it is the damage that is found below."""
    workshop.export(name, workshop.damaged_folded(rebuilt, name), tmp_path)
    workshop.golden(tmp_path)
    report = verify_folder(tmp_path, runtimes=FAST)
    assert (report["exit_code"], checks_of(report)) == (0, set())


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_broken_artifacts_are_caught(kind: str, name: str, workshop: Workshop, tmp_path: Path) -> None:
    fault = FAULTS[kind]
    report = judge(fault, workshop, name, tmp_path, FAST if fault.costly else ("local",))
    found = checks_of(report)
    assert set(fault.caught[name]) <= found, f"caught by {sorted(found) or 'nothing'}"
    assert report["exit_code"] == fault.exit_code
    by_checksum = set(fault.caught[name]) == {BY_CHECKSUM}
    assert (report["integrity"]["status"] == "failed") == by_checksum, (
        "only damage behind the checksums is theirs to find"
    )


@pytest.mark.parametrize("kind", NOT_CAUGHT)
def test_what_is_not_caught_hardly_changes_an_answer(kind: str, workshop: Workshop, tmp_path: Path) -> None:
    one, answers = small_models.small(), []
    for damaged in (False, True):
        folder = workshop.good("tflite-int8", tmp_path / str(damaged))
        if damaged:
            getattr(faults_tflite, kind)(folder)
        with TfliteRunner(folder) as runner:
            answers.append(runner.predict(one.images))
    assert max(float(np.abs(answers[0][name] - answers[1][name]).max()) for name in one.reference) < 0.03
    workshop.golden(tmp_path / "True")
    assert checks_of(verify_folder(tmp_path / "True", runtimes=FAST)) == set(), (
        "caught by now: give it a row of its own"
    )


@pytest.mark.parametrize("make", [*KERAS, *UNFOLDED], ids=lambda make: make.__name__)
def test_damaged_models_have_the_shapes_of_the_true_one(make: Maker, workshop: Workshop) -> None:
    """A fault that changed shapes would be too easily found."""
    one = small_models.small()
    model = make(one.model if make in UNFOLDED else workshop.models().model("float32"))
    with KerasRunner(model) as runner:
        answers = runner.predict(one.images[:4])
    assert {name: each.shape for name, each in answers.items()} == dict.fromkeys(one.reference, (4, 5))


def test_faults_that_change_no_label_are_among_them(workshop: Workshop) -> None:
    """The audit is there for what the answers do not show."""
    one, unseen = small_models.small(), []
    for make in (
        faults_weights.one_weight_off_by_a_step,
        faults_keras.relu6_become_relu_unseen,
        faults_weights.one_bias_off,
    ):
        with KerasRunner(make(workshop.models().model("float32"))) as runner:
            answers = runner.predict(one.images)
        unseen.append(max(float(np.abs(answers[name] - one.reference[name]).max()) for name in answers))
    assert unseen[1] < 1e-5 and max(unseen) < 5e-3


def test_kinds_are_many_and_tried_in_every_format() -> None:
    assert len(FAULTS) >= 60
    single = {key for key, expected in FILES.items() if "" not in expected}
    for kind, fault in FAULTS.items():
        tried = {NAMES[name].format for name in fault.caught}
        few = {key.replace("_", " ") for key in single}
        few |= {"whole numbers in float", "calibrated on noise", "calibrated on one picture", "features of another cut"}
        assert tried == set(FORMATS) or kind in few, kind
    for name in ALL:
        assert sum(name in fault.caught for fault in FAULTS.values()) > 45, name
