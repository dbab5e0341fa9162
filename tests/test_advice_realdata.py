"""Real weights and real photographs: the cut that is advised, trained for real, lands where it was predicted to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import cutpoint

REALDATA = os.environ.get("CUTPOINT_REALDATA", "")
pytestmark = [pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set"), pytest.mark.slow]

# An early cut too: there a head of fifty epochs is far from what its features would give.
EARLY = {"mobilenet": "conv_pw_7_relu", "mobilenet_v2": "block_6_expand_relu"}
WEIGHTS = {
    "mobilenet": (0.25, "mobilenet_2_5_224_tf_no_top.h5"),
    "mobilenet_v2": (0.35, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"),
}


def flags(backbone: str) -> tuple[object, ...]:
    """The photographs and one weight file."""
    alpha, file = WEIGHTS[backbone]
    data, weights = Path(REALDATA) / "datasets" / "sign_language_digits", Path(REALDATA) / "weights" / file
    return ("--data", data, "--backbone", backbone, "--weights", weights, "--set", f"backbone.alpha={alpha}")


@pytest.mark.parametrize("backbone", WEIGHTS)
def test_trained_heads_land_in_the_predicted_spread(backbone: str, tmp_path: Path) -> None:
    told = cutpoint("advise", *flags(backbone), "--json").json()
    rows = {row["name"]: row for row in told["cuts"]}
    assert rows[told["chosen"]]["part"] == "late"
    assert told["rule"]["amount"] == "little"
    for cut in (told["chosen"], EARLY[backbone]):
        out = tmp_path / cut
        trained = cutpoint("train", *flags(backbone), "--cut", cut, "--out", out, "--json").json()
        predicted = rows[cut]["heads"]["label"]["predicted_test"]
        assert predicted["low"] <= trained["reference"]["accuracy"]["label"] <= predicted["high"]
        # A prediction that spans everything would always hold.
        assert predicted["high"] - predicted["low"] < 0.15


@pytest.mark.parametrize("backbone", ["mobilenet_v2"])
def test_the_chosen_cut_is_exported_and_its_size_is_as_told(backbone: str, tmp_path: Path) -> None:
    formats = "tflite-float32,tflite-int8"
    outcome = cutpoint(
        *("run", *flags(backbone), "--cut", "auto", "--out", tmp_path / "out", "--formats", formats, "--json"),
        *("--runtimes", "local", "--set", "parity.images=310"),
    )
    told = outcome.json()
    row = next(row for row in told["advice"]["cuts"] if row["name"] == told["advice"]["chosen"])
    found = {artifact["precision"]: artifact for artifact in told["artifacts"]}
    assert found["float32"]["runtimes"][0]["status"] == "verified"
    assert row["float32_bytes"] == pytest.approx(found["float32"]["size_bytes"], rel=0.04)
    assert row["int8_bytes"] == pytest.approx(found["int8"]["size_bytes"], rel=0.04)
