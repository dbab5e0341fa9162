"""Trains heads on cached features, alone or on a trunk that they share, with any Keras backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from exporters.cloning import set_weights
from exporters.errors import InputError
from pipeline.config import HeadSection, TrainingSection, TrunkSection
from pipeline.epochs import KEEPING_NOTHING, Keeping, Progress, Shown, run_epochs
from pipeline.geometry import Grid
from pipeline.heads import build_head, segmentation
from pipeline.heads.trunk import build_trunk
from pipeline.lessons import Lesson, answer_in_own_units, curves_of, picture_weights, target_range, truth_for_loss
from pipeline.losses import loss_of, metrics_of, optimizer_of


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Pooled features (N, width) float32 and truth (see `exporters.contract.TASKS`) of training and validation pictures."""

    train_features: np.ndarray
    train_labels: np.ndarray
    val_features: np.ndarray
    val_labels: np.ndarray


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
    trained = train_heads(lessons, settings, (data.train_features, data.val_features), seed, keeping=Keeping(progress))
    return trained.heads[name], trained.histories[name]


def train_heads(
    lessons: Mapping[str, Lesson],
    settings: TrainingSection,
    features: tuple[np.ndarray, np.ndarray],
    seed: int,
    trunk: TrunkSection | None = None,
    keeping: Keeping = KEEPING_NOTHING,
    beside: int = 0,
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
        keeping: where it is kept, logged and told of.
        beside: how many of the features, the last ones, are encoded tabular columns: these weigh as much as the others do
            together, and what no training picture has of them changes no answer.

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
    # A head that takes maps is taught alone.
    grid = next(iter(lessons.values())).grid
    mean, deviation = segmentation.moments(features[0], grid) if grid else _moments(features[0], beside)
    shown, validation = _shown(lessons, settings, tuple((each - mean) / deviation for each in features), seed)
    course = run_epochs(model, model.weights, shown, validation, settings.epochs, settings.patience, keeping)
    # Built anew: a head trained in mixed precision is shipped in float32 all the same.
    plain_trunk, plain = build_parts(lessons, trunk, features[0].shape[1], seed)
    pairs = [(plain[name], heads[name]) for name in lessons] + ([(plain_trunk, shared)] if shared else [])
    for mine, trained in pairs:
        mine.set_weights(trained.get_weights())
    never_shown = np.flatnonzero(np.ptp(features[0][:, features[0].shape[1] - beside :], axis=0) == 0) - beside
    for each in [plain_trunk] if plain_trunk else plain.values():
        if len(never_shown):
            _forget(each, never_shown)
        fold_standardisation(each, mean, deviation, grid)
    for name, each in lessons.items():
        if (range_ := target_range(each)) is not None:
            answer_in_own_units(plain[name].get_layer(name), range_)
    facts = {"epochs": list(range(1, course.epochs + 1)), "best_epoch": course.best_epoch + 1}
    histories: dict[str, dict[str, Any]] = {
        name: {**curves_of(course.history, name, len(lessons)), **facts, "parameters": heads[name].count_params()}
        for name in lessons
    }
    return Trained(plain, histories, plain_trunk)


def _shown(
    lessons: Mapping[str, Lesson], settings: TrainingSection, features: tuple[np.ndarray, ...], seed: int
) -> tuple[Shown, dict[str, Any]]:
    """Return the training and the validation pictures; see `pipeline.epochs.run_epochs`."""
    truth = {name: truth_for_loss(each, each.train) for name, each in lessons.items()}
    weights = {name: picture_weights(each, settings) for name, each in lessons.items()}
    weighed = any(np.ptp(each) for each in weights.values())

    def take(indices: np.ndarray, epoch: int) -> tuple[Any, ...]:
        batch = features[0][indices], {name: each[indices] for name, each in truth.items()}
        return (*batch, {name: each[indices] for name, each in weights.items()}) if weighed else batch

    val = features[1], {name: truth_for_loss(each, each.val) for name, each in lessons.items()}
    # Whole feature maps are large; of pooled features as many as make the calls no part of the time.
    at_once = settings.batch_size if any(each.grid for each in lessons.values()) else max(settings.batch_size, 512)
    validation = {"validation_data": val, "validation_batch_size": at_once} if len(features[1]) else {}
    return Shown(len(features[0]), settings.batch_size, seed, take, in_memory=True), validation


def build_parts(
    lessons: Mapping[str, Lesson], trunk: TrunkSection | None, width: int, seed: int
) -> tuple[keras.Model | None, dict[str, keras.Model]]:
    """Build trunk and heads as they are shipped: what only training needs, such as penalties on weights, is gone."""
    shared, heads = _parts(lessons, trunk, width, seed)
    for model in [*heads.values(), *([shared] if shared else [])]:
        for layer in model._flatten_layers(include_self=False):
            for key in ("kernel_constraint", "bias_constraint", "kernel_regularizer"):
                if getattr(layer, key, None) is not None:
                    setattr(layer, key, None)
    return shared, heads


def _parts(
    lessons: Mapping[str, Lesson], trunk: TrunkSection | None, width: int, seed: int
) -> tuple[keras.Model | None, dict[str, keras.Model]]:
    shared = build_trunk(trunk, width, seed) if trunk else None
    width = int(shared.output.shape[-1]) if shared else width
    return shared, {
        name: build_head(name, each.section, width, each.units, seed, each.grid) for name, each in lessons.items()
    }


def _joined(trunk: keras.Model | None, heads: Mapping[str, keras.Model]) -> keras.Model:
    """Return a model from features to a dict of the heads' answers."""
    first = trunk or next(iter(heads.values()))
    features = keras.Input(first.inputs[0].shape[1:])
    value = trunk(features) if trunk else features
    return keras.Model(features, {name: head(value) for name, head in heads.items()})


def _moments(features: np.ndarray, beside: int = 0) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    # One deviation for all: dividing a feature that hardly varies by its own would make the head lean on what a
    # quantised backbone gets wrong first.
    width = len(deviation) - beside
    shared = np.full_like(deviation, max(float(deviation[:width].max()), 1e-6))
    if beside:
        # Both blocks vary by the same in all (block scaling, Wold, Kettaneh and Tjessem 1996, J. Chemometrics 10): among a
        # thousand features a few columns would be learned last, if at all.
        ratio = np.linalg.norm(deviation[width:]) / max(float(np.linalg.norm(deviation[:width])), 1e-6)
        shared[width:] = max(float(shared[0] * ratio), 1e-6)
    return mean.astype(np.float32), shared.astype(np.float32)


def _forget(head: keras.Model, rows: np.ndarray) -> None:
    """Make some inputs of a head change nothing, in place: never shown, they would bring random weights into the answer."""
    first = next(layer for layer in head.layers if isinstance(layer, keras.layers.Dense))
    kernel, *others = first.get_weights()
    kernel[rows] = 0
    first.set_weights([kernel, *others])


def fold_standardisation(head: keras.Model, mean: np.ndarray, deviation: np.ndarray, grid: Grid | None = None) -> None:
    """Make a head that takes (features - mean) / deviation take the features as they are, in place.

    Args:
        head: its first layer with weights is dense, or a normalisation that does nothing so far.
        mean, deviation: float32 (width,).
        grid: the shapes of a head that takes feature maps.
    """
    if grid:
        segmentation.fold(head, grid, mean, deviation)
        return
    first = next(layer for layer in head.layers if isinstance(layer, (keras.layers.Dense, keras.layers.Normalization)))
    if isinstance(first, keras.layers.Normalization):
        set_weights(first, [mean, np.square(deviation), np.zeros(())])
        return
    kernel, bias = (np.asarray(values, np.float64) for values in first.get_weights())
    folded = kernel / deviation[:, None].astype(np.float64)
    first.set_weights([folded.astype(np.float32), (bias - mean.astype(np.float64) @ folded).astype(np.float32)])
