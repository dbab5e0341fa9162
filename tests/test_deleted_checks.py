"""Every check is needed: for each there is a broken artifact that passes as soon as that one check is deleted."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporters import gates, papers, parity, verification
from exporters.audit import auditing, rules
from exporters.contract import CEILINGS, Limits
from tests import faults_keras, faults_onnx, faults_onnx_graph, faults_papers, faults_tfjs, faults_tflite
from tests.faults_exports import features_of_another_cut, float_weights
from tests.faults_workshop import FAST, PATTERNS, Workshop, checks_of


@dataclasses.dataclass(frozen=True)
class Isolated:
    """A broken artifact that one check alone sees.

    `make` edits the folder of a good artifact; `golden` damages the golden set before, `later` the folder behind the
    checksums; `limits` are those of the manifest, where only they can keep the other checks quiet.
    """

    name: str
    make: Callable[[Path], object] = lambda folder: None
    golden: Callable[[Path], None] | None = None
    later: Callable[[Path], None] = lambda folder: None
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=lambda: CEILINGS)
    exit_code: int = 1


def off_for_one_image(folder: Path, added: float) -> None:
    place, limit = faults_keras.place_of_one_image(label=0)
    faults_onnx_graph.off_where_brighter(folder, place, limit, added)


def off_for_white(folder: Path) -> None:
    faults_onnx_graph.off_where_brighter(folder, (0, 0, 0), 254.5, 0.2)


ISOLATED: dict[str, Isolated] = {
    "checksum": Isolated("onnx-float32", later=faults_onnx_graph.another_producer),
    "card": Isolated("tflite-float32", faults_papers.card_of_another_run),
    "labels": Isolated("tflite-float32", faults_papers.swapped_labels_in_the_text),
    "file": Isolated("tfjs-float32", faults_tfjs.one_weight_twice),
    "operators": Isolated("onnx-float32", faults_onnx_graph.custom_operator),
    "random operators": Isolated("onnx-float32", faults_onnx_graph.random_operator),
    "opset": Isolated("onnx-float32", faults_onnx_graph.another_opset),
    # Made in the test, as the features below: they must be exported.
    "stored precision": Isolated("tflite-float16"),
    "computed precision": Isolated("onnx-int8", faults_onnx.features_in_float),
    "input": Isolated("onnx-float32", faults_onnx_graph.input_renamed),
    "outputs": Isolated("tflite-int8", faults_tflite.output_scale_off),
    "weights": Isolated("onnx-int8", faults_onnx.weight_scale_off),
    "activations": Isolated("onnx-float32", faults_onnx_graph.relu6_become_relu_unseen),
    "spans": Isolated("tflite-int8", faults_tflite.activation_zero_point_off),
    "constants": Isolated("onnx-float16", faults_onnx_graph.scaling_slightly_off),
    "fingerprints missing": Isolated("onnx-float32", golden=faults_papers.golden_set_without_fingerprints, exit_code=3),
    "pixels": Isolated("onnx-float32", golden=faults_papers.golden_pixels_resized_otherwise),
    "files": Isolated("onnx-float32", off_for_white, golden=faults_papers.a_white_golden_file),
    "runtime": Isolated("onnx-float32", faults_onnx_graph.squeezes_the_wrong_axis),
    "shape": Isolated("onnx-float32", golden=faults_papers.card_that_promises_another_shape),
    "promise": Isolated("onnx-float32", golden=faults_papers.answers_of_a_head_that_no_card_promises),
    "missing output": Isolated(
        "onnx-float32", faults_onnx_graph.missing_output, limits={"float32": Limits(None, 0.95)}
    ),
    "extra output": Isolated("onnx-float32", faults_onnx_graph.extra_output),
    "NaN": Isolated("onnx-float32", functools.partial(off_for_one_image, added=float("nan"))),
    "constant answer": Isolated(
        "onnx-int8",
        faults_onnx_graph.constant_answer,
        golden=faults_papers.nearly_one_label,
        limits={"int8": Limits(None, 0.95)},
    ),
    "difference": Isolated(
        "onnx-float32",
        functools.partial(off_for_one_image, added=0.2),
        limits={"float32": dataclasses.replace(CEILINGS["float32"], agreement=0.9, log_max_abs=None)},
    ),
    "confidence": Isolated("tflite-int8", faults_tflite.softmax_too_steep),
    "features": Isolated("tfjs-float32"),
    "card inside": Isolated("tfjs-float32", faults_tfjs.swapped_labels_inside),
    "labels inside": Isolated("onnx-float32", faults_onnx_graph.swapped_lists_inside),
    "log-probabilities": Isolated("onnx-float16", faults_onnx.answers_through_8_bits),
    "agreement": Isolated("onnx-float32", faults_onnx_graph.classes_rolled, limits={"float32": Limits(None, 0.95)}),
    "accuracy": Isolated("onnx-float32", faults_onnx_graph.classes_rolled, limits={"float32": Limits(None, 0.0, 0.01)}),
}


def _without_refusal(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = parity._refusal

    def refusal(*arguments: Any) -> parity.Comparison | None:
        found = original(*arguments)
        return None if found is not None and re.search(PATTERNS[check], found.reason) else found

    monkeypatch.setattr(parity, "_refusal", refusal)


def _without_comparison(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = parity.compare

    def compare(*arguments: Any, **options: Any) -> dict[str, parity.Comparison]:
        found = original(*arguments, **options)
        return {name: each for name, each in found.items() if not re.search(PATTERNS[check], each.reason)}

    monkeypatch.setattr(parity, "compare", compare)


def _without_reason(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete one of the faults that a comparison of one output names; one that named no other is verified."""
    original = parity.compare_output

    def compare_output(*arguments: Any, **options: Any) -> parity.Comparison:
        found = original(*arguments, **options)
        left = [each for each in found.reason.split("; ") if not re.search(PATTERNS[check], each)]
        same = "; ".join(left) == found.reason
        return found if left or same else dataclasses.replace(found, status=parity.VERIFIED, reason="")

    monkeypatch.setattr(parity, "compare_output", compare_output)


def _without_gate(gate: str, kept: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(gates, gate)
    monkeypatch.setattr(gates, gate, lambda *arguments, **options: kept(original(*arguments, **options)))


def _without_status(name: str, monkeypatch: pytest.MonkeyPatch, **only: str) -> None:
    """Let a function of `verification` say `verified`; with `only`, where its entry has these values."""
    original = getattr(verification, name)

    def say(*arguments: Any, **options: Any) -> dict[str, Any]:
        found = original(*arguments, **options)
        changed = all(found.get(key) == value for key, value in only.items())
        return found | {"status": "verified", "reason": ""} if changed else found

    monkeypatch.setattr(verification, name, say)


def delete(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one check, and no other, out of the house."""
    if check in rules.RULES:
        monkeypatch.setitem(rules.RULES, check, lambda subject: [])
    elif check == "checksum":
        whole = {"status": "verified", "changed": [], "missing": [], "unexpected": []}
        monkeypatch.setattr(verification, "check_files", lambda out, manifest: whole)
    elif check == "card":
        labels = papers._labels_fault
        monkeypatch.setattr(verification, "card_fault", lambda folder, name, promised: labels(folder, promised))
    elif check == "labels":
        monkeypatch.setattr(papers, "_labels_fault", lambda folder, promised: "")
    elif check == "file":
        monkeypatch.setattr(auditing, "_refused", lambda name, reason: {"status": "verified", "faults": []})
    elif check in ("NaN", "shape"):
        _without_refusal(check, monkeypatch)
    elif check in ("missing output", "extra output", "promise"):
        _without_comparison(check, monkeypatch)
    elif check in ("difference", "confidence", "log-probabilities"):
        kept = functools.partial(filter, lambda fault: not re.search(PATTERNS[check], fault))
        _without_gate("judge_difference", lambda faults: list(kept(faults)), monkeypatch)
    elif check == "agreement":
        _without_gate("judge_agreement", lambda faults: [], monkeypatch)
    elif check == "accuracy":
        _without_gate("judge_accuracy", lambda found: ([], found[1]), monkeypatch)
    elif check == "features":
        monkeypatch.setattr(verification, "_with_features", lambda judged, *arguments: judged)
    elif check == "constant answer":
        _without_reason(check, monkeypatch)
    else:
        functions = {"fingerprints missing": "audit", "pixels": "check_pixels", "files": "judge_files"}
        only = {"status": "not_verified"} if check == "fingerprints missing" else {}
        only = {"check": "runtime"} if check == "runtime" else only
        _without_status(functions.get(check, "_verify_in_runtime"), monkeypatch, **only)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("check", ISOLATED)
def test_each_check_alone_catches_something(
    check: str, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ISOLATED[check]
    if check == "stored precision":
        float_weights(workshop, row.name, tmp_path)
    elif check == "features":
        features_of_another_cut(workshop, row.name, tmp_path)
    else:
        row.make(workshop.good(row.name, tmp_path))
    workshop.golden(tmp_path, row.golden, row.limits)
    row.later(tmp_path / "artifacts" / row.name)
    report = verification.verify_folder(tmp_path, runtimes=FAST)
    assert (checks_of(report), report["exit_code"]) == ({check}, row.exit_code)
    delete(check, monkeypatch)
    report = verification.verify_folder(tmp_path, runtimes=FAST)
    assert (checks_of(report), report["exit_code"], report["verdict"]) == (set(), 0, "verified")


@pytest.mark.parametrize("check", ISOLATED)
def test_a_deleted_check_rejects_no_good_artifact(
    check: str, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What deletes a check leaves everything else at work, or the test above would prove nothing."""
    workshop.good("onnx-float32", tmp_path)
    workshop.golden(tmp_path)
    delete(check, monkeypatch)
    assert verification.verify_folder(tmp_path, runtimes=FAST)["exit_code"] == 0
    if check not in ("weights", "checksum"):
        faults_onnx_graph.missing_output(tmp_path / "artifacts" / "onnx-float32")
        assert verification.verify_folder(tmp_path, runtimes=FAST)["exit_code"] == 1


def test_every_check_has_its_row() -> None:
    known = {
        "checksum",
        "card",
        "labels",
        "file",
        "fingerprints missing",
        "pixels",
        "files",
        "runtime",
        "features",
        *PATTERNS,
    }
    assert set(ISOLATED) == known | set(rules.RULES)
