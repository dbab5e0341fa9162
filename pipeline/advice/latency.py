"""Measured latency of several models on one machine, side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from exporters.runners.tflite import TfliteRunner

FEWEST_ROUNDS, MOST_ROUNDS = 7, 40
# Models that are loaded at the same time: XNNPACK keeps a copy of the weights in an order of its own.
MOST_BYTES_LOADED = 2**29


@dataclasses.dataclass(frozen=True)
class Latencies:
    """Medians of one image in ms, by name; in `rounds` rounds with `threads` threads."""

    median_ms: dict[str, float]
    rounds: int
    threads: int


def measure(models: Mapping[str, bytes], image: np.ndarray, seconds: float = 15.0) -> Latencies:
    """Measure the latency of one image in LiteRT with XNNPACK.

    Every round runs each model once, in another order each time, so that whatever else the machine does meanwhile meets
    them all alike; the median of the rounds counts. Models too large to be loaded at once are measured in several sets.

    Args:
        models: name -> a TFLite model.
        image: (height, width, 3), 0..255.
        seconds: about how long all of it may take; there are never fewer than 7 rounds.
    """
    threads = os.cpu_count() or 1
    median_ms: dict[str, float] = {}
    fewest = MOST_ROUNDS
    sets = _sets(models)
    for names in sets:
        with contextlib.ExitStack() as stack:
            loaded = {name: stack.enter_context(TfliteRunner(models[name], threads=threads)) for name in names}
            first = {name: runner.time_one(image, 1)[0] for name, runner in loaded.items()}
            # Two more runs than are counted: `time_one` warms up.
            rounds = int(seconds / len(sets) / max(3 * sum(first.values()) / 1000, 1e-9))
            rounds = min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS)
            times: dict[str, list[float]] = {name: [] for name in names}
            order = np.random.default_rng(0)
            for _ in range(rounds):
                for index in order.permutation(len(names)):
                    times[names[index]] += loaded[names[index]].time_one(image, 1)
            fewest = min(fewest, rounds)
        median_ms |= {name: float(np.median(each)) for name, each in times.items()}
    return Latencies({name: median_ms[name] for name in models}, fewest, threads)


def _sets(models: Mapping[str, bytes]) -> list[list[str]]:
    """Deal the models into as few sets as may be loaded at once, shallow and deep ones in each."""
    total = sum(len(content) for content in models.values())
    count = max(1, -(-total // MOST_BYTES_LOADED))
    names = list(models)
    return [names[start::count] for start in range(count)]
