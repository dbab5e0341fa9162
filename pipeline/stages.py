"""Measures the stages of a run: wall time and peak memory of each, and whether the cache answered."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path


@dataclasses.dataclass
class Stage:
    """One stage of report.json: `wall_s` in seconds, `peak_memory_bytes` of this process while it ran.

    `ways_s` is way of making a precision (see `exporters.ways`) -> seconds of `wall_s` that it took, where there are several.
    """

    name: str
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    cached: bool = False
    ways_s: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the stage as report.json holds it."""
        told = dataclasses.asdict(self)
        return told if self.ways_s else {key: value for key, value in told.items() if key != "ways_s"}


class StageLog:
    """The stages of a run in their order; `say` is called with a line when one begins."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.stages: list[Stage] = []
        self._say = say

    @contextlib.contextmanager
    def stage(self, name: str, what: str) -> Iterator[Stage]:
        """Run a block as a stage; set `.cached` on what is yielded where the cache answered."""
        self._say(f"{name}: {what}")
        stage = Stage(name)
        forget_peak()
        start = time.monotonic()
        try:
            yield stage
        finally:
            stage.wall_s = round(time.monotonic() - start, 3)
            stage.peak_memory_bytes = peak_memory_bytes()
            self.stages.append(stage)

    def to_json(self) -> list[dict[str, object]]:
        """Return the stages as report.json holds them."""
        return [stage.to_json() for stage in self.stages]


def forget_peak() -> None:
    """Begin to watch this process's memory anew, where the system can."""
    # Linux resets the high-water mark on request (proc(5), clear_refs 5); elsewhere the peak is the whole process's.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had at once since `forget_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
