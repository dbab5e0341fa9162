"""The loop over epochs that heads and backbones are trained with: early stopping, checkpoints, curves. Any Keras backend.

An epoch depends on the seed and its own number, and on nothing that ran before it but the weights: that is what lets a run
that was killed end as the unbroken one does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline import batches
from pipeline.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from pipeline.tensorboard import board

Progress = Callable[[int, int, dict[str, float]], None]
# A head's epoch takes some milliseconds: a checkpoint is written when so much time has gone by, and ten times what it takes.
SECONDS_BETWEEN_CHECKPOINTS = 2.0
WRITING_SHARE = 0.1
_SEEDS = "seed_generator_state"


@dataclasses.dataclass(frozen=True)
class Keeping:
    """What goes along with a training.

    `checkpoint` is the file that it goes on from and keeps itself in; `logs` the folder of its TensorBoard logs; `progress`
    is called after each epoch with its number, their sum and the figures; `say` with a sentence.
    """

    progress: Progress = lambda epoch, epochs, figures: None
    checkpoint: Path | None = None
    logs: Path | None = None
    say: Callable[[str], None] = lambda text: None


KEEPING_NOTHING = Keeping()


@dataclasses.dataclass
class Course:
    """How a training went so far: figure -> its value after each epoch, and where the best one was.

    `best_epoch` counts from 0 and is -1 where no epoch was better than what there was before the first.
    """

    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best: float | None = None
    best_epoch: int = -1
    wait: int = 0

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.history.get("loss", ()))


class Shown(keras.utils.PyDataset):
    """Data in an order that depends on the seed and the epoch alone.

    Args:
        count: of the pictures.
        batch_size: of a batch; the last one may be smaller.
        seed: of the order; None: it stays as it is.
        take: indices (n,) and the number of the epoch from 0 -> what `Model.fit` takes of a batch: x, y and perhaps weights.
        in_memory: whether taking costs next to nothing, so that none has to be ready ahead of its step.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None,
        take: Callable[[np.ndarray, int], tuple[Any, ...]],
        *,
        in_memory: bool = False,
    ) -> None:
        super().__init__()
        self.in_memory = in_memory
        self._count, self._batch_size, self._seed, self._take = count, batch_size, seed, take
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Show what belongs to an epoch from now on."""
        self._epoch = epoch
        shuffled = self._seed is not None
        self._order = (
            np.random.default_rng([self._seed, epoch]).permutation(self._count) if shuffled else np.arange(self._count)
        )

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._take(self._order[index * self._batch_size :][: self._batch_size], self._epoch)


def run_epochs(
    model: keras.Model,
    changing: Sequence[keras.Variable],
    shown: Shown,
    validation: Mapping[str, Any],
    epochs: int,
    patience: int,
    keeping: Keeping,
    before: float | None = None,
) -> Course:
    """Train a compiled model with early stopping; it has the best weights afterwards.

    Args:
        model: compiled.
        changing: the variables that training changes, but for the optimizer's.
        shown: the training pictures.
        validation: what `Model.fit` takes of the validation pictures; empty for none.
        epochs: at most so many.
        patience: so many epochs without a better validation loss end it (without validation pictures: without a better loss).
        keeping: checkpoint, logs, progress.
        before: the validation loss before the first epoch, which then has to be better; None: the first is taken.
    """
    course, best = Course(best=before), tuple(map(_values, changing))
    model.optimizer.build(model.trainable_variables)
    best = _go_on(course, model, changing, keeping) or best
    with board(model, course.history, keeping.logs) as log:
        loop = _Loop(course, best, changing, shown, epochs, patience, keeping, log)
        if course.epochs < epochs and course.wait < patience:
            _fit(model, shown, validation, range(course.epochs, epochs), loop)
    _assign(changing, loop.best)
    return course


def _fit(
    model: keras.Model, shown: Shown, validation: Mapping[str, Any], epochs: range, loop: keras.callbacks.Callback
) -> None:
    if shown.in_memory and batches.suits():
        batches.fit(model, lambda: (shown[index] for index in range(len(shown))), validation, epochs, loop)
        return
    span = {"initial_epoch": epochs.start, "epochs": epochs.stop}
    # The order is that of `shown`: Keras would shuffle the batches with the state of Python's generator.
    model.fit(shown, **validation, **span, shuffle=False, callbacks=[loop], verbose=0)


class _Loop(keras.callbacks.Callback):
    """What happens between two epochs; see `run_epochs`."""

    def __init__(
        self,
        course: Course,
        best: tuple[np.ndarray, ...],
        changing: Sequence[keras.Variable],
        shown: Shown,
        epochs: int,
        patience: int,
        keeping: Keeping,
        log: Callable[[int, dict[str, float]], None],
    ) -> None:
        super().__init__()
        self.best = best
        self._course, self._changing, self._shown, self._log = course, changing, shown, log
        self._epochs, self._patience, self._keeping = epochs, patience, keeping
        self._saved, self._cost = time.monotonic(), 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._shown.begin(epoch)
        _seed(self.model, epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        latest = {key: float(value) for key, value in (logs or {}).items()}
        for key, value in latest.items():
            self._course.history.setdefault(key, []).append(value)
        if _is_best(self._course):
            self.best = tuple(map(_values, self._changing))
        self._log(epoch, dict(latest))
        self._keeping.progress(epoch + 1, self._epochs, latest)
        self._keep()
        self.model.stop_training = self._course.wait >= self._patience

    def _keep(self) -> None:
        path, now = self._keeping.checkpoint, time.monotonic()
        if path and now - self._saved >= max(SECONDS_BETWEEN_CHECKPOINTS, self._cost / WRITING_SHARE):
            write_checkpoint(path, _checkpoint(self._course, self.model, self._changing, self.best))
            self._saved = time.monotonic()
            self._cost = self._saved - now


def _is_best(course: Course) -> bool:
    """Note whether the last epoch was the best one so far."""
    watched = course.history.get("val_loss") or course.history["loss"]
    better = course.best is None or watched[-1] < course.best
    if better:
        course.best, course.best_epoch, course.wait = watched[-1], course.epochs - 1, 0
    else:
        course.wait += 1
    return better


def _checkpoint(
    course: Course, model: keras.Model, changing: Sequence[keras.Variable], best: tuple[np.ndarray, ...]
) -> Checkpoint:
    arrays = {
        "weights": tuple(map(_values, changing)),
        "optimizer": tuple(map(_values, model.optimizer.variables)),
        "best": best,
    }
    return Checkpoint(arrays, dataclasses.asdict(course))


def _go_on(
    course: Course, model: keras.Model, changing: Sequence[keras.Variable], keeping: Keeping
) -> tuple[np.ndarray, ...] | None:
    """Put a checkpoint's state in place of the present one, where there is a checkpoint; returns the best weights."""
    if keeping.checkpoint is None:
        return None
    shapes = [tuple(each.shape) for each in changing]
    variables = model.optimizer.variables
    expected = {"weights": shapes, "optimizer": [tuple(each.shape) for each in variables], "best": shapes}
    try:
        found = read_checkpoint(keeping.checkpoint, expected)
        restored = Course(**found.state) if found else None
    except (ValueError, TypeError) as fault:
        keeping.checkpoint.unlink(missing_ok=True)
        keeping.say(f"the checkpoint of an earlier run cannot be used ({fault}): training begins anew")
        return None
    if found is None or restored is None:
        return None
    _assign(changing, found.arrays["weights"])
    _assign(variables, found.arrays["optimizer"])
    vars(course).update(vars(restored))
    keeping.say(f"going on after epoch {course.epochs}, where an earlier run was stopped")
    return found.arrays["best"]


def _seed(model: keras.Model, epoch: int) -> None:
    """Let dropout draw what belongs to an epoch, whatever was drawn before."""
    for variable in model.variables:
        if variable.name == _SEEDS:
            seed = int(_values(variable)[0])
            # The second number counts the draws; no epoch of less than 65,536 steps comes into the next one's.
            variable.assign(np.array([seed, (epoch << 16) % 2**32], np.uint32))


def _values(variable: keras.Variable) -> np.ndarray:
    # A copy: a backend's array may be the variable's own memory.
    return np.array(keras.ops.convert_to_numpy(variable))


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, each in zip(variables, values, strict=True):
        variable.assign(each)
