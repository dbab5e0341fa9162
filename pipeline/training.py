"""Trains a head on cached features, with any Keras backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from exporters.errors import InputError
from pipeline.config import HeadSection, TrainingSection
from pipeline.heads import build_head


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Pooled features (N, width) float32 and class indices (N,) of the training and the validation pictures."""

    train_features: np.ndarray
    train_labels: np.ndarray
    val_features: np.ndarray
    val_labels: np.ndarray


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
    classes: int,
    seed: int,
    progress: Callable[[int, int, dict[str, float]], None] = lambda epoch, epochs, figures: None,
) -> tuple[keras.Model, dict[str, object]]:
    """Train one head, with early stopping on the validation loss and the best weights kept.

    The features are standardised while training (zero mean over the training pictures, one common deviation), and the
    standardisation is folded into the first dense layer afterwards: gradient descent converges faster on centred
    inputs (LeCun et al. 1998, "Efficient BackProp", section 4.3). Labels are smoothed (Szegedy et al. 2016,
    arXiv:1512.00567, section 7), which keeps the logits small, and with them what rounding does to probabilities.

    Args:
        name: of the head.
        section: what kind of head.
        settings: epochs, batch size, learning rate, patience, class weights, mixed precision.
        data: features and labels.
        classes: how many the head tells apart.
        seed: of weights, dropout and shuffling.
        progress: called after each epoch with its number, their sum and the losses.

    Returns:
        The head (features (N, width) as they are -> probabilities (N, classes)), and its history: `epochs`, `loss`,
        `val_loss`, `accuracy`, `val_accuracy`, `best_epoch`, `parameters`.
    """
    keras.utils.set_random_seed(seed)
    if settings.mixed_precision:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        head = build_head(name, section, data.train_features.shape[1], classes, seed)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    mean, deviation = _moments(data.train_features)
    head.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
        # In TensorFlow, compiling the step with XLA takes longer than a head's epochs do; JAX is slow without it.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    validate = len(data.val_features) > 0
    one_hot = np.eye(classes, dtype=np.float32)
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss" if validate else "loss", patience=settings.patience, restore_best_weights=True
    )
    history = head.fit(
        (data.train_features - mean) / deviation,
        one_hot[data.train_labels],
        validation_data=((data.val_features - mean) / deviation, one_hot[data.val_labels]) if validate else None,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        class_weight=class_weights(data.train_labels, classes) if settings.class_weights else None,
        callbacks=[stopping, _Progress(settings.epochs, progress)],
        verbose=0,
    )
    # Built anew: a head trained in mixed precision is shipped in float32 all the same.
    plain = build_head(name, section, data.train_features.shape[1], classes, seed)
    plain.set_weights(head.get_weights())
    fold_standardisation(plain, mean, deviation)
    return plain, _history(history.history, stopping.best_epoch, head.count_params())


class _Progress(keras.callbacks.Callback):
    def __init__(self, epochs: int, report: Callable[[int, int, dict[str, float]], None]) -> None:
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


def class_weights(labels: np.ndarray, classes: int) -> dict[int, float]:
    """Return class index -> weight such that every class weighs the same in the loss, 1.0 on average over pictures."""
    counts = np.bincount(labels, minlength=classes)
    return {index: float(len(labels) / (classes * count)) if count else 1.0 for index, count in enumerate(counts)}


def _history(history: dict[str, list[float]], best_epoch: int, parameters: int) -> dict[str, object]:
    curves = {key: [float(value) for value in values] for key, values in history.items()}
    epochs = len(curves["loss"])
    return {**curves, "epochs": list(range(1, epochs + 1)), "best_epoch": int(best_epoch) + 1, "parameters": parameters}
