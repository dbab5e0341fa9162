"""The reference: answers of the Keras model itself, against which every artifact is compared."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import keras
import numpy as np

from exporters.contract import COLUMNS_NAME, INPUT_NAME
from exporters.inputs import Inputs, as_inputs, check_columns, input_names
from exporters.opaque import load_model

BATCH = 32


class KerasRunner:
    """Answers of a Keras model.

    Args:
        model: a `keras.Model`, or the path of a `.keras` file, loaded in safe mode.
    """

    name = "keras"
    backend = keras.backend.backend()

    def __init__(self, model: keras.Model | Path) -> None:
        self.version = keras.__version__
        self._source = model

    def __enter__(self) -> KerasRunner:
        is_model = isinstance(self._source, keras.Model)
        self.model = self._source if is_model else load_model(self._source)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.model = None

    def predict(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the answers to raw pixels.

        Args:
            given: pictures (N, height, width, 3), 0..255, with columns for a model that takes such.

        Returns:
            output name -> float32 (N, ...).

        Raises:
            InputError: columns are missing, or there is no place for them.
            ParityError: the model takes something else.
        """
        inputs = as_inputs(given)
        names = [tensor.name for tensor in self.model.inputs]
        image, columns = input_names(names, "The Keras model")
        check_columns(inputs, columns, "The Keras model")
        parts = []
        for start in range(0, len(inputs), BATCH):
            batch = inputs[start : start + BATCH].named()
            fed = [batch[INPUT_NAME if name == image else COLUMNS_NAME] for name in names]
            parts.append(self._named(self.model(fed if columns else fed[0], training=False)))
        if not parts:
            return {}
        return {name: np.concatenate([part[name] for part in parts]) for name in sorted(parts[0])}

    def _named(self, outputs: object) -> dict[str, np.ndarray]:
        if not isinstance(outputs, dict):
            listed = outputs if isinstance(outputs, list | tuple) else [outputs]
            outputs = dict(zip(self.model.output_names, listed, strict=True))
        return {name: np.asarray(keras.ops.convert_to_numpy(value), np.float32) for name, value in outputs.items()}
