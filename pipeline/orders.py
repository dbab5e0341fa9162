"""What artifacts are made from and where, in groups that two processes may share out. Loads no framework.

Precisions of one rounding are made from one corrected model and one SavedModel. Groups share nothing but the Keras model and
its pictures, and so can be made in several processes at once, with the same bytes as one after another.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from exporters.contract import ArtifactName, Card, Limits
from exporters.errors import InputError
from exporters.rounding import effort_of, rounding_of
from pipeline import bundle
from pipeline.stages import Stage

Group = tuple[ArtifactName, ...]


@dataclasses.dataclass(frozen=True)
class Order:
    """What artifacts are made from and where they go, as plain values that other processes can be sent.

    `out` is the result folder, `cache` the cache's folder of artifacts, `key` what tells artifacts of different models apart;
    `limits` precision -> limits, by which ways of making it are judged on the validation pictures.
    """

    out: Path
    card: Card
    cache: Path
    key: str
    features_everywhere: bool
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)

    def artifact(self, name: ArtifactName) -> Path:
        """Return where the cache keeps an artifact."""
        return self.cache / f"{self.key}-{name}"

    def weights(self, precision: str) -> Path:
        """Return where the cache keeps what an artifact of a precision must hold, and how that was chosen."""
        return self.cache / f"{self.key}-weights-{precision}"

    def is_made(self, name: ArtifactName) -> bool:
        """Tell whether the cache holds an artifact."""
        return self.artifact(name).is_dir() and self.weights(name.precision).is_dir()


@dataclasses.dataclass(frozen=True)
class Made:
    """How the making of one artifact went: its stage, and the error that tells why it cannot be made."""

    name: ArtifactName
    stage: Stage
    fault: InputError | None = None


def groups_of(names: Iterable[ArtifactName]) -> list[Group]:
    """Return the artifacts in groups that share a rounding, those that take longest first."""
    groups: dict[str, list[ArtifactName]] = {}
    for name in names:
        groups.setdefault(rounding_of(name.precision), []).append(name)
    return [tuple(groups[rounding]) for rounding in sorted(groups, key=effort_of, reverse=True)]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process makes: some of a group, with the SavedModel that they are all made from where it is there already."""

    names: Group
    saved: Path | None = None


class Tasks:
    """Tasks that are left, taken and given by any thread."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._left = collections.deque(tasks)
        self._changed = threading.Condition()
        self._closed = False

    def take(self, *, wait: bool = False) -> Task | None:
        """Take the next task; None where there is none, and, with `wait`, none will come."""
        with self._changed:
            while wait and not self._left and not self._closed:
                self._changed.wait()
            return self._left.popleft() if self._left else None

    def give(self, task: Task) -> None:
        """Put a task before all others."""
        with self._changed:
            self._left.appendleft(task)
            self._changed.notify()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclasses.dataclass(frozen=True)
class Places:
    """Where one process works: `saved` holds its SavedModels, `making`, on the cache's file system, what will be moved there."""

    saved: Path
    making: Path


@contextlib.contextmanager
def places_for(order: Order) -> Iterator[Places]:
    """Make the places of one process, and remove them with all that is left in them."""
    order.cache.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="saved-model-", dir=order.out / bundle.MARK) as saved,
        tempfile.TemporaryDirectory(prefix=".making-", dir=order.cache) as making,
    ):
        yield Places(Path(saved), Path(making))
