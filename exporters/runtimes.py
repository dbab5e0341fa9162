"""In which runtimes artifacts are judged: those of this machine, those in a browser, or what somebody names."""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import (
    AUTO,
    FORMATS,
    Runtime,
    check_runtimes,
    every_runtime,
    is_features_name,
    runtimes_called,
)
from exporters.errors import NotVerifiedError
from exporters.inputs import Inputs, as_inputs

LATENCY_REPEATS = 20
SAMPLE_REPEATS = 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which runtimes are asked for; `not_run` tells of those that would have been taken and are not there."""

    asked: frozenset[Runtime]
    not_run: tuple[Mapping[str, str], ...] = ()

    def of_format(self, format_name: str) -> tuple[Runtime, ...]:
        """Return the runtimes for a format, in the order of its row."""
        return tuple(each for each in FORMATS[format_name].runtimes if each in self.asked)


def plan_runtimes(wanted: str | Sequence[str] = AUTO) -> Plan:
    """Turn what a user asks for into runtimes.

    Args:
        wanted: `local` (what runs without a browser), `browser`, `all`, names such as `litert` or `litert/reference`, or
            `auto`: all where there is a Chromium, else the local ones, with the others told as not run.

    Raises:
        InputError: an unknown name, or nothing.
    """
    names = check_runtimes([wanted] if isinstance(wanted, str) else wanted)
    asked: set[Runtime] = set()
    not_run: tuple[Mapping[str, str], ...] = ()
    for name in names:
        if name == AUTO:
            found, not_run = _automatic()
            asked |= found
        else:
            asked |= runtimes_called(name)
    return Plan(frozenset(asked), tuple(each for each in not_run if each["runtime"] not in {str(a) for a in asked}))


def _automatic() -> tuple[set[Runtime], tuple[Mapping[str, str], ...]]:
    browsers = [each for each in every_runtime() if each.browser]
    missing = _browser_missing()
    if missing is None:
        return set(every_runtime()), ()
    # A runtime may be that of several formats.
    names = dict.fromkeys(str(each) for each in browsers)
    told = tuple({"runtime": name, "reason": missing.what, "mend": missing.mend} for name in names)
    return {each for each in every_runtime() if not each.browser}, told


def _browser_missing() -> NotVerifiedError | None:
    if os.environ.get("CUTPOINT_NO_BROWSER", "0") not in ("", "0"):
        mend = "unset CUTPOINT_NO_BROWSER, or ask with --runtimes all"
        return NotVerifiedError("CUTPOINT_NO_BROWSER=1 says that there is no browser.", "a Chromium", mend)
    from exporters.runners.chromium import session

    try:
        # Whoever finds it this way uses it: the session is the one in which the artifacts will answer.
        session()
    except NotVerifiedError as fault:
        return fault
    return None


def open_runtime(runtime: Runtime, folder: Path, **options: Any) -> Any:
    """Return the runner of an artifact folder, not yet entered.

    Raises:
        NotVerifiedError: the runtime is not installed.
    """
    module, _, attribute = runtime.runner.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(folder, **{"backend": runtime.backend, **options})
    except ImportError as fault:
        raise NotVerifiedError(
            f"The runtime {runtime} is not installed: {fault}.",
            "the packages that `pip install cutpoint` brings",
            "pip install cutpoint",
        ) from fault


def open_runner(folder: Path, format_name: str, **options: Any) -> Any:
    """Return the runner of the first runtime of a format, not yet entered; raises as `open_runtime` does."""
    return open_runtime(FORMATS[format_name].runtimes[0], folder, **options)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a runtime gave.

    `facts` are keys of its entry of report.json; `outputs` name -> float32 (N, ...) on the golden images, `of_files` on
    the golden files; `features` output name -> the feature maps that the artifact has, None where the runner gives none.
    """

    facts: Mapping[str, Any]
    outputs: Mapping[str, np.ndarray]
    of_files: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray] | None = None


def run_artifact(
    runtime: Runtime,
    folder: Path,
    images: np.ndarray | Inputs,
    files: np.ndarray | Inputs,
    features_of: np.ndarray | Inputs | None = None,
) -> Answers:
    """Let an artifact answer in one runtime.

    Args:
        runtime: where.
        folder: the artifact's.
        images: uint8 or float32 (N, height, width, 3), 0..255; with columns for a model that takes such.
        files: likewise, the golden files as this runtime's own decoder gave them; slow runtimes take the first ones.
        features_of: likewise, those whose features are wanted too.

    Raises:
        NotVerifiedError: the runtime is not there.
        ParityError: it cannot load or run the artifact.
        InputError: columns are missing, or the artifact has no place for them.
    """
    inputs = as_inputs(images)
    of_files = files[: runtime.images] if runtime.images else files
    with open_runtime(runtime, folder) as runner:
        facts = {"version": runner.version, "where": getattr(runner, "where", "this machine")}
        start = time.perf_counter()
        heads = _heads_only(runner)
        outputs = runner.predict(inputs, **heads)
        answers_of_files = runner.predict(of_files, **heads) if len(of_files) else {}
        times = runner.time_one(inputs[:1], SAMPLE_REPEATS if runtime.images else LATENCY_REPEATS)
        features = _features(runner, features_of)
        inference_s = time.perf_counter() - start
    facts |= {
        "images": len(inputs),
        "latency_ms": {"median": float(np.median(times)), "p95": float(np.quantile(times, 0.95))},
        "inference_s": round(inference_s, 3),
    }
    return Answers(facts, outputs, answers_of_files, features)


def _heads_only(runner: Any) -> dict[str, Any]:
    """Return the option that leaves feature maps out, where there are any: those of all images would fill the memory."""
    heads = [name for name in runner.output_names if not is_features_name(name)]
    return {"outputs": heads} if hasattr(runner, "features") and len(heads) < len(runner.output_names) else {}


def _features(runner: Any, given: np.ndarray | Inputs | None) -> Mapping[str, np.ndarray] | None:
    return runner.features(given) if given is not None and hasattr(runner, "features") else None
