"""Trains heads on cached features, alone or on a trunk that they share, with any Keras backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np

from exporters.contract import BINARY, MULTICLASS, ORDINAL, REGRESSION
from exporters.errors import InputError
from pipeline.config import HeadSection, TrainingSection, TrunkSection
from pipeline.heads import build_head, task_of
from pipeline.heads.trunk import build_trunk
from pipeline.losses import learned, loss_of, metrics_of, optimizer_of

Progress = Callable[[int, int, dict[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Pooled features (N, width) float32 and truth (see `exporters.contract.TASKS`) of training and validation pictures."""

    train_features: np.ndarray
    train_labels: np.ndarray
    val_features: np.ndarray
    val_labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What one head is taught: how it is configured, the truth of the pictures, how many numbers its answer has."""

    section: HeadSection
    train: np.ndarray
    val: np.ndarray
    units: int

    @property
    def task(self) -> str:
        """The head's task."""
        return task_of(self.section)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Trained heads, their trunk where they share one, and their histories, each by the head's name."""

    heads: dict[str, keras.Model]
    histories: dict[str, dict[str, object]]
    trunk: keras.Model | None = None


def check_device(device: str) -> str:
    """Return `gpu` or `cpu`, whichever will be trained on; raises InputError for `gpu` where there is none."""
    try:
        found = keras.distribution.list_devices("gpu")
    except Exception:  # each backend raises its own kind where it has no GPU at all
        found = []
    if device == "gpu" and not found:
        raise InputError(
            f"--device gpu: Keras's {keras.backend.backend()} backend sees no GPU.",
            "a GPU with its driver, and the backend's CUDA packages",
            "`make setup GPU=1` or `pip install 'cutpoint[gpu]'`; or leave --device at auto",
        )
    return "gpu" if found and device != "cpu" else "cpu"


def train_head(
    name: str,
    section: HeadSection,
    settings: TrainingSection,
    data: TrainingData,
    units: int,
    seed: int,
    progress: Progress = lambda epoch, epochs, figures: None,
) -> tuple[keras.Model, dict[str, object]]:
    """Train one head by itself; see `train_heads`.

    Returns:
        The head, and its history: `epochs`, `loss`, `val_loss`, the metrics, `best_epoch`, `parameters`.
    """
    lessons = {name: Lesson(section, data.train_labels, data.val_labels, units)}
    trained = train_heads(lessons, settings, (data.train_features, data.val_features), seed, progress=progress)
    return trained.heads[name], trained.histories[name]


def train_heads(
    lessons: Mapping[str, Lesson],
    settings: TrainingSection,
    features: tuple[np.ndarray, np.ndarray],
    seed: int,
    trunk: TrunkSection | None = None,
    progress: Progress = lambda epoch, epochs, figures: None,
) -> Trained:
    """Train heads on the same features, with early stopping on the validation loss and the best weights kept.

    The features are standardised while training (zero mean over the training pictures, one common deviation), and the
    standardisation is folded into the first dense layer afterwards: gradient descent converges faster on centred
    inputs (LeCun et al. 1998, "Efficient BackProp", section 4.3). Labels are smoothed (Szegedy et al. 2016,
    arXiv:1512.00567, section 7), which keeps the logits small, and with them what rounding does to probabilities. Targets of a
    regression are standardised column by column, and the head gets a layer that brings its answers back to their own units.

    Args:
        lessons: head -> what it is taught; several only with a trunk.
        settings: epochs, batch size, learning rate, patience, class weights, mixed precision.
        features: float32 (N, width) of the training and the validation pictures.
        seed: of weights, dropout and shuffling.
        trunk: the dense layers that the heads share; their losses are then added up, each times its weight.
        progress: called after each epoch with its number, their sum and the losses.

    Returns:
        Heads in float32 that take the features as they are, or what the trunk, which takes them, makes of them.
    """
    keras.utils.set_random_seed(seed)
    if settings.mixed_precision:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        shared, heads = _parts(lessons, trunk, features[0].shape[1], seed)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    model = _joined(shared, heads)
    first = next(iter(lessons.values())).section
    own = trunk is None
    model.compile(
        optimizer=optimizer_of(
            (first.optimizer if own else "") or settings.optimizer,
            (first.learning_rate if own else None) or settings.learning_rate,
        ),
        loss={name: loss_of(each.section, settings) for name, each in lessons.items()},
        loss_weights={name: each.section.loss_weight for name, each in lessons.items()} if trunk else None,
        metrics={name: metrics_of(each.section) for name, each in lessons.items()},
        # In TensorFlow, compiling the step with XLA takes longer than a head's epochs do; JAX is slow without it.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    mean, deviation = _moments(features[0])
    ranges = {name: target_range(each) for name, each in lessons.items()}
    truth = [
        {name: _scaled(each, values, ranges[name]) for name, each, values in part}
        for part in (
            [(name, each, each.train) for name, each in lessons.items()],
            [(name, each, each.val) for name, each in lessons.items()],
        )
    ]
    weights = {name: _weights(each, settings) for name, each in lessons.items()}
    validate = len(features[1]) > 0
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss" if validate else "loss", mode="min", patience=settings.patience, restore_best_weights=True
    )
    history = model.fit(
        (features[0] - mean) / deviation,
        truth[0],
        sample_weight=weights if any(np.ptp(each) for each in weights.values()) else None,
        validation_data=((features[1] - mean) / deviation, truth[1]) if validate else None,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        callbacks=[stopping, _Progress(settings.epochs, progress)],
        verbose=0,
    )
    # Built anew: a head trained in mixed precision is shipped in float32 all the same.
    plain_trunk, plain = build_parts(lessons, trunk, features[0].shape[1], seed)
    pairs = [(plain[name], heads[name]) for name in lessons] + ([(plain_trunk, shared)] if shared else [])
    for mine, trained in pairs:
        mine.set_weights(trained.get_weights())
    for each in [plain_trunk] if plain_trunk else plain.values():
        fold_standardisation(each, mean, deviation)
    for name in lessons:
        _take_over(plain[name].get_layer(name), ranges[name])
    histories = {
        name: _history(history.history, name, len(lessons), stopping.best_epoch, heads[name].count_params())
        for name in lessons
    }
    return Trained(plain, histories, plain_trunk)


def build_parts(
    lessons: Mapping[str, Lesson], trunk: TrunkSection | None, width: int, seed: int
) -> tuple[keras.Model | None, dict[str, keras.Model]]:
    """Build trunk and heads as they are shipped: what only training needs, such as penalties on weights, is gone."""
    shared, heads = _parts(lessons, trunk, width, seed)
    for model in [*heads.values(), *([shared] if shared else [])]:
        for layer in model.layers:
            for key in ("kernel_constraint", "bias_constraint", "kernel_regularizer"):
                if getattr(layer, key, None) is not None:
                    setattr(layer, key, None)
    return shared, heads


def _parts(
    lessons: Mapping[str, Lesson], trunk: TrunkSection | None, width: int, seed: int
) -> tuple[keras.Model | None, dict[str, keras.Model]]:
    shared = build_trunk(trunk, width, seed) if trunk else None
    width = int(shared.output.shape[-1]) if shared else width
    return shared, {name: build_head(name, each.section, width, each.units, seed) for name, each in lessons.items()}


def _joined(trunk: keras.Model | None, heads: Mapping[str, keras.Model]) -> keras.Model:
    """Return a model from features to a dict of the heads' answers."""
    first = trunk or next(iter(heads.values()))
    features = keras.Input(first.inputs[0].shape[1:])
    value = trunk(features) if trunk else features
    return keras.Model(features, {name: head(value) for name, head in heads.items()})


class _Progress(keras.callbacks.Callback):
    def __init__(self, epochs: int, report: Progress) -> None:
        super().__init__()
        self._epochs, self._report = epochs, report

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._report(epoch + 1, self._epochs, dict(logs or {}))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    # One deviation for all: dividing a feature that hardly varies by its own would make the head lean on what a
    # quantised backbone gets wrong first.
    shared = max(float(deviation.max()), 1e-6)
    return mean.astype(np.float32), np.full_like(mean, shared, dtype=np.float32)


def target_range(lesson: Lesson) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (deviation, mean) of each column of a regression's training targets, float32 (columns,); None for others."""
    if lesson.task != REGRESSION:
        return None
    deviation, mean = lesson.train.std(0, dtype=np.float64), lesson.train.mean(0, dtype=np.float64)
    return np.where(deviation > 0, deviation, 1.0).astype(np.float32), mean.astype(np.float32)


def _scaled(lesson: Lesson, truth: np.ndarray, range_: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    values = learned(lesson.task, truth, lesson.units)
    return values if range_ is None else (values - range_[1]) / range_[0]


def _take_over(last: keras.layers.Layer, range_: tuple[np.ndarray, np.ndarray] | None) -> None:
    """Make a dense, linear layer answer in the units of the targets, whose range it is, in place."""
    if range_ is None:
        return
    kernel, bias = (np.asarray(values, np.float64) for values in last.get_weights())
    last.set_weights([(kernel * range_[0]).astype(np.float32), (bias * range_[0] + range_[1]).astype(np.float32)])


def fold_standardisation(head: keras.Model, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Make a head that takes (features - mean) / deviation take the features as they are, in place.

    Args:
        head: its first layer with weights is dense.
        mean, deviation: float32 (width,).
    """
    first = next(layer for layer in head.layers if isinstance(layer, keras.layers.Dense))
    kernel, bias = (np.asarray(values, np.float64) for values in first.get_weights())
    folded = kernel / deviation[:, None].astype(np.float64)
    first.set_weights([folded.astype(np.float32), (bias - mean.astype(np.float64) @ folded).astype(np.float32)])


def _weights(lesson: Lesson, settings: TrainingSection) -> np.ndarray:
    """Return how much each training picture weighs in the loss, float32 (N,)."""
    if not settings.class_weights or lesson.task not in (MULTICLASS, BINARY, ORDINAL):
        return np.ones(len(lesson.train), np.float32)
    classes = lesson.units if lesson.task == MULTICLASS else lesson.units + 1
    weights = class_weights(lesson.train, classes)
    return np.array([weights[index] for index in range(classes)], np.float32)[lesson.train]


def class_weights(labels: np.ndarray, classes: int) -> dict[int, float]:
    """Return class index -> weight such that every class weighs the same in the loss, 1.0 on average over pictures."""
    counts = np.bincount(labels, minlength=classes)
    return {index: float(len(labels) / (classes * count)) if count else 1.0 for index, count in enumerate(counts)}


def _history(
    history: Mapping[str, list[float]], name: str, heads: int, best_epoch: int, parameters: int
) -> dict[str, object]:
    """Return the curves of one head, under the names that they would have if it were alone."""
    curves = {}
    for key, values in history.items():
        plain = key.removeprefix("val_").removeprefix(f"{name}_")
        mine = heads == 1 or key.removeprefix("val_").startswith(f"{name}_")
        if mine:
            curves[("val_" if key.startswith("val_") else "") + plain] = [float(value) for value in values]
    epochs = len(history["loss"])
    return {**curves, "epochs": list(range(1, epochs + 1)), "best_epoch": int(best_epoch) + 1, "parameters": parameters}
