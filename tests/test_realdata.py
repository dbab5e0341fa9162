"""Real weights and real photographs, the default split and seed: what Cutpoint promises about them holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, cutpoint

REALDATA = os.environ.get("CUTPOINT_REALDATA", "")
pytestmark = pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set")

WEIGHTS = {
    "mobilenet": (0.25, "mobilenet_2_5_224_tf_no_top.h5"),
    "mobilenet_v2": (0.35, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"),
}
FORMATS = (
    *("tfjs-float32", "tfjs-float16", "tflite-float32", "tflite-float16", "tflite-int8"),
    *("onnx-float32", "onnx-float16"),
)
FLOAT = tuple(name for name in FORMATS if name.partition("-")[2].startswith("float"))


# One of the two in every run of the tests.
@pytest.fixture(scope="module", params=["mobilenet", pytest.param("mobilenet_v2", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, dict[str, Any]]:
    """The run of one weight file over all photographs; what it wrote into report.json."""
    alpha, file = WEIGHTS[request.param]
    out = tmp_path_factory.mktemp("real") / request.param
    outcome = cutpoint(
        *("run", "--data", Path(REALDATA) / "datasets" / "sign_language_digits", "--out", out),
        *(
            "--backbone",
            request.param,
            "--set",
            f"backbone.alpha={alpha}",
            "--weights",
            Path(REALDATA) / "weights" / file,
        ),
        *("--formats", ",".join(FORMATS)),
    )
    assert outcome.exit_code in (0, 1, 3), outcome.stderr
    return outcome, json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_the_split_is_the_default_one(run: tuple[Outcome, dict[str, Any]]) -> None:
    data = run[1]["data"]
    assert data["train"] + data["val"] + data["test"] == 2062
    assert (data["val"], data["test"]) == pytest.approx((309, 309), abs=5)
    assert data["labels"] == {"label": [str(digit) for digit in range(10)]}
    assert data["skipped"] == []
    assert run[1]["seed"] == 0


def test_accuracy(run: tuple[Outcome, dict[str, Any]]) -> None:
    assert run[1]["reference"]["accuracy"]["label"] >= 0.85


@pytest.mark.parametrize("name", FLOAT)
def test_float_artifacts_are_verified(run: tuple[Outcome, dict[str, Any]], name: str) -> None:
    artifact = next(each for each in run[1]["artifacts"] if each["name"] == name)
    assert artifact["audit"]["status"] == "verified", artifact["audit"]["reason"]
    assert all(each["status"] == "verified" for each in artifact["runtimes"]), artifact["runtimes"]
    runtime = artifact["runtimes"][0]
    assert runtime["images"] == 200
    precision = name.partition("-")[2]
    figures = runtime["outputs"]["label"]
    assert figures["max_abs"] <= {"float32": 1e-4, "float16": 5e-3}[precision]
    assert figures["agreement"] >= {"float32": 1.0, "float16": 0.995}[precision]


def test_int8_is_reported_as_it_is(run: tuple[Outcome, dict[str, Any]]) -> None:
    outcome, report = run
    artifact = next(each for each in report["artifacts"] if each["name"] == "tflite-int8")
    assert artifact["audit"]["status"] == "verified", artifact["audit"]["reason"]
    runtime = artifact["runtimes"][0]
    figures = runtime["outputs"]["label"]
    assert runtime["status"] in ("verified", "failed", "not_enough_images")
    if figures["agreement"] < 0.95:
        assert runtime["status"] == "failed"
    if runtime["status"] == "verified":
        assert figures["agreement"] >= 0.95
    else:
        assert runtime["reason"]
    assert figures["limits"]["agreement"] == 0.95
    assert runtime["reason"] in outcome.stdout or runtime["status"] in outcome.stdout


def test_the_exit_code_says_the_worst(run: tuple[Outcome, dict[str, Any]]) -> None:
    outcome, report = run
    statuses = {runtime["status"] for artifact in report["artifacts"] for runtime in artifact["runtimes"]}
    expected = 1 if "failed" in statuses else 0 if statuses == {"verified"} else 3
    assert outcome.exit_code == report["exit_code"] == expected


def test_no_limit_was_loosened(run: tuple[Outcome, dict[str, Any]]) -> None:
    assert not [note for note in run[1].get("notes", []) if "loosened" in note]
