"""TensorBoard's logs of a training, by Keras's own callback: of one that goes on, and of one that is done already."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from exporters.errors import InputError


def check_tensorboard() -> None:
    """Raise InputError where TensorBoard's logs cannot be written."""
    for name in ("tensorboard", "tensorflow"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"training.tensorboard is true, and the package '{name}' is missing.",
                "the packages tensorboard and tensorflow, which write TensorBoard's logs",
                "`pip install 'cutpoint[train,tensorboard]'`, or take training.tensorboard out",
            )


@contextlib.contextmanager
def board(
    model: keras.Model, history: Mapping[str, Sequence[float]], folder: Path | None
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Give what writes an epoch's figures into logs, by its number from 0; those of epochs that are done are written at once.

    Args:
        model: that is trained.
        history: figure -> its value after each epoch that is done.
        folder: of the logs; None: nothing is written.
    """
    if folder is None:
        yield lambda epoch, figures: None
        return
    callback = keras.callbacks.TensorBoard(str(folder), write_graph=False)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(max(map(len, history.values()), default=0)):
        callback.on_epoch_end(epoch, {key: values[epoch] for key, values in history.items() if epoch < len(values)})
    try:
        yield callback.on_epoch_end
    finally:
        callback.on_train_end()


def write_logs(folder: Path, histories: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the curves of a training that is done.

    Args:
        folder: of the logs.
        histories: head -> figure -> its value after each epoch; what is no such list is left out.
    """
    curves = {}
    for name, history in histories.items():
        for key, values in history.items():
            if isinstance(values, list) and key != "epochs":
                split, plain = ("val_", key[4:]) if key.startswith("val_") else ("", key)
                curves[split + (f"{name}_{plain}" if len(histories) > 1 else plain)] = values
    value = keras.Input((1,))
    model = keras.Model(value, value)
    # The callback asks for the learning rate.
    model.optimizer = None
    with board(model, curves, folder):
        pass
