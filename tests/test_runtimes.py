"""Which runtimes are asked for, and what becomes of those that are not there: told, or exit code 3, never passed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporters.contract import CEILINGS, every_runtime
from exporters.errors import InputError
from exporters.golden import write_manifest
from exporters.runners.chromium import close_session
from exporters.runtimes import plan_runtimes
from tests import small_models
from tests.commands import cutpoint


def test_groups_and_names() -> None:
    everything, local = plan_runtimes("all").asked, plan_runtimes("local").asked
    assert everything == set(every_runtime()) and plan_runtimes("browser").asked == everything - local
    assert not any(each.browser for each in local) and len({str(each) for each in everything - local}) == 4
    assert {str(each) for each in plan_runtimes(["litert", "tfjs-node/cpu"]).asked} == {
        *("litert/xnnpack", "litert/reference", "tfjs-node/cpu"),
    }
    assert [each.backend for each in plan_runtimes("local").of_format("tflite")] == ["xnnpack", "reference"]


@pytest.mark.parametrize("wanted", ["", "lite", ["local", "tfjs-chromium/webgpu"]])
def test_unknown_names_are_refused(wanted: str | list[str]) -> None:
    with pytest.raises(InputError, match="runtime"):
        plan_runtimes(wanted)


def test_auto_tells_what_it_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTPOINT_NO_BROWSER", "1")
    plan = plan_runtimes("auto")
    assert plan.asked == plan_runtimes("local").asked
    assert {each["runtime"] for each in plan.not_run} == {str(each) for each in plan_runtimes("browser").asked}


def test_a_browser_that_is_asked_for_and_missing_is_exit_code_3(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    whole = small_models.result_folder(tmp_path_factory.getbasetemp())
    shutil.copytree(whole / "artifacts" / "onnx-float32", tmp_path / "artifacts" / "onnx-float32")
    shutil.copytree(whole / "golden", tmp_path / "golden")
    write_manifest(tmp_path, small_models.CARD, CEILINGS)
    close_session()
    missing = {"CUTPOINT_CHROMIUM": "/nowhere/chromium", "CUTPOINT_NO_BROWSER": "0"}
    asked = cutpoint("verify", tmp_path, "--runtimes", "all", environment=missing)
    assert asked.exit_code == 3 and "make setup-browser" in asked.stdout
    told = cutpoint("verify", tmp_path, environment=missing)
    assert told.exit_code == 0 and "not run  onnxruntime-web/wasm" in told.stdout
