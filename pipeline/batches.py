"""Epochs over data in memory, which `Model.fit` takes longer to begin and to end than to train. TensorFlow's Keras only.

A head's epoch is some milliseconds of arithmetic. `fit` starts a thread and two iterators for each, and hands every batch from
one thread to the other; here a batch goes to Keras's own compiled step at once, which is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

Batch = tuple[Any, ...]


def suits() -> bool:
    """Tell whether batches can be handed to the compiled step one by one: in JAX its state would be copied for each."""
    return keras.backend.backend() == "tensorflow"


def fit(
    model: keras.Model,
    shown: Callable[[], Iterable[Batch]],
    validation: Mapping[str, Any],
    epochs: range,
    callback: keras.callbacks.Callback,
) -> None:
    """Do what `Model.fit` does with one callback: train, validate, until the epochs are over or the callback stops it.

    Args:
        model: compiled.
        shown: called at the beginning of an epoch; gives what `Model.fit` takes of each batch: x, y and perhaps weights.
        validation: `validation_data` (x, {head: y}) in arrays and `validation_batch_size`; or nothing.
        epochs: their numbers.
        callback: its `on_epoch_begin` and `on_epoch_end` are called.
    """
    callback.set_model(model)
    callback.set_params({"epochs": epochs.stop, "verbose": 0})
    model.stop_training = False
    for epoch in epochs:
        callback.on_epoch_begin(epoch)
        figures = _figures(model.train_on_batch, lambda: model.train_function, shown())
        if validation:
            held_out = _slices(*validation["validation_data"], validation["validation_batch_size"])
            found = _figures(model.test_on_batch, lambda: model.test_function, held_out)
            figures |= {f"val_{key}": value for key, value in found.items()}
        callback.on_epoch_end(epoch, figures)
        if model.stop_training:
            return


def _figures(first: Callable, others: Callable[[], Callable], batches: Iterable[Batch]) -> dict[str, float]:
    """Return loss and metrics over all batches: `first` sets them to nothing, builds the step and takes it, `others` go on."""
    figures: Mapping[str, Any] = {}
    for number, batch in enumerate(batches):
        x, y, weights = (*batch, None) if len(batch) == 2 else batch
        # Left on the device until the last one, so that no step waits for another's figures.
        figures = others()(iter([(x, y, weights)])) if number else first(x, y, weights, return_dict=True)
    return {key: float(value) for key, value in figures.items()}


def _slices(x: np.ndarray, y: Mapping[str, np.ndarray], size: int) -> Iterable[Batch]:
    for start in range(0, len(x), size):
        yield x[start : start + size], {name: values[start : start + size] for name, values in y.items()}
