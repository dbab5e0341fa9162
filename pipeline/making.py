"""Makes artifacts into the cache: whole groups of them, each of which has what it is made from to itself."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from exporters.contract import ArtifactName
from exporters.errors import InputError
from exporters.export import export_artifact, keep_in_cache
from exporters.fingerprints import write_fingerprints
from exporters.inference import InferenceModels
from exporters.memory import give_back
from exporters.opaque import load_model
from exporters.report_ways import told
from exporters.ways import Gate, read_choices, write_choices
from pipeline import bundle
from pipeline.blas import one_thread
from pipeline.orders import Made, Order, Places, Task
from pipeline.stages import Stage, forget_peak, peak_memory_bytes


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
            gate=Gate(order.card.outputs, order.limits, bundle.read_truth_of_selection(order.out)),
            check=check,
        )

    @property
    def working_bytes(self) -> int:
        """About how many bytes a correction would take with all of its images; 0 where no precision is corrected."""
        return self._models.working_bytes

    def make(
        self, task: Task, say: Callable[[str], None], give: Callable[[Task], None] | None = None
    ) -> Iterator[Made]:
        """Make a task's artifacts into the cache, one after another.

        Args:
            task: what is made, all of it of one rounding.
            say: given a line when an artifact is begun.
            give: given the artifacts behind the first one, each as a task of its own, once there is a SavedModel that any
                process can make them from; None: all of them are made here.
        """
        waiting = collections.deque(task.names)
        while waiting:
            name = waiting.popleft()
            say(f"export {name}: converting")
            forget_peak()
            start, fault = time.monotonic(), None
            try:
                with one_thread():
                    saved = task.saved or self._prepare([name, *waiting] if give else [name])
                    while give and waiting:
                        give(Task((waiting.pop(),), saved))
                    self._make(name, saved)
            except InputError as refusal:
                fault = refusal
            # Ten conversions of a large network would otherwise keep what each of them left behind.
            give_back()
            wall_s, ways_s = round(time.monotonic() - start, 3), self._models.take_seconds(name.precision)
            yield Made(name, Stage(f"export {name}", wall_s, peak_memory_bytes(), ways_s=ways_s), fault)

    def _prepare(self, names: Sequence[ArtifactName]) -> Path:
        """Return the SavedModel that artifacts are made from; what they must hold is in the cache then."""
        saved = self._models.saved_model(names[0].precision)
        for precision in dict.fromkeys(name.precision for name in names):
            self._make_fingerprints(precision)
        return saved

    def _make(self, name: ArtifactName, saved: Path) -> None:
        order, making = self._order, self._places.making
        # Not from the models: another process may have made what this one converts.
        choices = read_choices(order.weights(name.precision))
        made = export_artifact(
            *(name, saved, order.card, making, self._calibration),
            features_everywhere=order.features_everywhere,
            weights="".join(map(told, choices.values())),
        )
        keep_in_cache(made, order.artifact(name))

    def _make_fingerprints(self, precision: str) -> None:
        cached, rounding = self._order.weights(precision), self._models.rounding(precision)
        if not cached.is_dir():
            made = self._places.making / cached.name
            write_fingerprints({rounding: self._models.weight_set(precision)}, {precision: rounding}, made)
            choice = self._models.choice(precision)
            write_choices({precision: choice.to_json()} if choice else {}, made)
            keep_in_cache(made, cached)
