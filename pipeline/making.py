"""Makes artifacts into the cache: whole groups of them, each of which has what it is made from to itself.

Precisions of one rounding are made from one corrected model and one SavedModel. Groups share nothing but the Keras model and
its pictures, and so can be made in several processes at once, with the same bytes as one after another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from exporters.contract import ArtifactName, Card
from exporters.errors import InputError
from exporters.export import export_artifact, keep_in_cache
from exporters.fingerprints import write_fingerprints
from exporters.inference import InferenceModels, rounding_of
from exporters.memory import give_back
from exporters.opaque import load_model
from pipeline import bundle
from pipeline.advice.blas import one_thread
from pipeline.stages import Stage, forget_peak, peak_memory_bytes

Group = tuple[ArtifactName, ...]


@dataclasses.dataclass(frozen=True)
class Order:
    """What artifacts are made from and where they go, as plain values that other processes can be sent.

    `out` is the result folder, `cache` the cache's folder of artifacts, `key` what tells artifacts of different models apart.
    """

    out: Path
    card: Card
    cache: Path
    key: str
    features_everywhere: bool

    def artifact(self, name: ArtifactName) -> Path:
        """Return where the cache keeps an artifact."""
        return self.cache / f"{self.key}-{name}"

    def weights(self, precision: str) -> Path:
        """Return where the cache keeps what an artifact of a precision must hold."""
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
    # A longer name is one of more steps.
    return [tuple(groups[rounding]) for rounding in sorted(groups, key=len, reverse=True)]


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


class Maker:
    """Makes artifacts of one model.

    Args:
        order: what is made.
        places: where this process works.
        check: whether folding is checked, which one process of several does for all of them.
    """

    def __init__(self, order: Order, places: Places, *, check: bool = True) -> None:
        self._order, self._places = order, places
        self._calibration = bundle.read_calibration(order.out)
        self._models = InferenceModels(
            load_model(order.out / bundle.MODEL),
            order.card.cut,
            self._calibration,
            places.saved,
            features_everywhere=order.features_everywhere,
            selection=bundle.read_selection(order.out),
            check=check,
        )

    @property
    def working_bytes(self) -> int:
        """About how many bytes a correction would take with all of its images; 0 where no precision is corrected."""
        return self._models.working_bytes

    def make(self, group: Group, say: Callable[[str], None]) -> Iterator[Made]:
        """Make a group into the cache, one artifact after another; `say` is given a line when each is begun."""
        for name in group:
            say(f"export {name}: converting")
            forget_peak()
            start, fault = time.monotonic(), None
            try:
                with one_thread():
                    self._make(name)
            except InputError as refusal:
                fault = refusal
            # Ten conversions of a large network would otherwise keep what each of them left behind.
            give_back()
            yield Made(name, Stage(f"export {name}", round(time.monotonic() - start, 3), peak_memory_bytes()), fault)

    def _make(self, name: ArtifactName) -> None:
        order, saved = self._order, self._models.saved_model(name.precision)
        everywhere = order.features_everywhere
        making, calibration = self._places.making, self._calibration
        made = export_artifact(name, saved, order.card, making, calibration, features_everywhere=everywhere)
        self._make_fingerprints(name.precision)
        keep_in_cache(made, order.artifact(name))

    def _make_fingerprints(self, precision: str) -> None:
        cached, rounding = self._order.weights(precision), self._models.rounding(precision)
        if not cached.is_dir():
            made = self._places.making / cached.name
            write_fingerprints({rounding: self._models.weight_set(precision)}, {precision: rounding}, made)
            keep_in_cache(made, cached)
