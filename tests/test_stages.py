"""The stages of a run are measured, in their order, also where they fail."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.stages import StageLog


def test_order_time_and_cache() -> None:
    said: list[str] = []
    log = StageLog(said.append)
    with log.stage("features", "of 3 pictures") as stage:
        time.sleep(0.05)
        stage.cached = True
    with log.stage("heads", "training"):
        pass
    first, second = log.to_json()
    assert said == ["features: of 3 pictures", "heads: training"]
    assert set(first) == {"name", "wall_s", "peak_memory_bytes", "cached"}
    assert (first["name"], first["cached"], second["name"], second["cached"]) == ("features", True, "heads", False)
    assert 0.05 <= first["wall_s"] < 5
    assert second["wall_s"] < first["wall_s"]


def test_peak_memory_is_that_of_the_stage() -> None:
    log = StageLog(lambda line: None)
    with log.stage("large", ""):
        np.ones(40_000_000, np.uint8).sum()
    with log.stage("small", ""):
        pass
    large, small = (each["peak_memory_bytes"] for each in log.to_json())
    assert large > 40_000_000
    # What other threads of a process of some gigabytes take and give back meanwhile is not the stage's.
    assert large + 1_000_000 > small > 1_000_000


def test_a_stage_that_fails_is_kept() -> None:
    log = StageLog(lambda line: None)
    with pytest.raises(ValueError, match="no"), log.stage("heads", ""):
        raise ValueError("no")
    assert [each["name"] for each in log.to_json()] == ["heads"]
