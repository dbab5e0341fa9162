"""The columns beside the picture in an inference model: one layer of plain arithmetic for Keras's preprocessing layers.

Keras's lookup of ranges and its one-hot have no operator in some formats. Comparing, adding and cutting off have one in all
of them, and give the same numbers in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from exporters.columns import BUCKET, CATEGORY, NUMBER
from exporters.contract import COLUMNS_ENCODED, COLUMNS_NAME
from exporters.errors import CutpointError
from exporters.keras_graph import calls_of


@keras.saving.register_keras_serializable(package="cutpoint")
class ColumnsEncoder(keras.layers.Layer):
    """Raw columns (N, C) float32 -> what the heads take of them, (N, W) float32.

    Args:
        columns: a dict for each column, in the order of the input: `kind`; of a number `mean`, `factor` (one over its
            standard deviation), `least` and `largest` (what it is then cut off at); of a bucket `boundaries`; of a category
            `count`, how many its vocabulary has.
        scale, shift: W numbers each, by which each value is multiplied and what is added then; None for 1 and 0.
    """

    def __init__(
        self,
        columns: Sequence[dict[str, Any]],
        scale: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **settings})
        self.columns = [dict(each) for each in columns]
        self.scale, self.shift = scale, shift

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {**super().get_config(), "columns": self.columns, "scale": self.scale, "shift": self.shift}

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """Return (N, W)."""
        return input_shape[0], sum(width_of(each) for each in self.columns)

    def call(self, values: Any) -> Any:
        """Encode every column by itself and put them behind each other."""
        parts = []
        for index, column in enumerate(self.columns):
            value = values[:, index : index + 1] if len(self.columns) > 1 else values
            parts.append(_ENCODINGS[column["kind"]](value, column))
        encoded = keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        if self.scale is None:
            return encoded
        return encoded * np.asarray(self.scale, np.float32) + np.asarray(self.shift, np.float32)

    def constants(self) -> dict[str, np.ndarray]:
        """Return name -> float32, flat: all that an artifact stores of this layer."""
        found: dict[str, np.ndarray] = {}
        for index, column in enumerate(self.columns):
            numbers = {key: value for key, value in column.items() if key not in ("kind", "count")}
            if column["kind"] != NUMBER:
                numbers |= {"indices": _indices(column), "one": 1.0}
            found |= {f"{index}/{key}": np.ravel(np.float32(value)) for key, value in numbers.items()}
        if self.scale is not None:
            found |= {"scale": np.float32(self.scale), "shift": np.float32(self.shift)}
        return {f"{self.name}/{key}": values for key, values in found.items()}

    def span(self) -> np.ndarray:
        """Return the least and the largest value that each encoded one may have before `scale` and `shift`: float64 (2, W)."""
        parts = [
            np.tile(
                [[column["least"]], [column["largest"]]] if column["kind"] == NUMBER else [[0.0], [1.0]],
                width_of(column),
            )
            for column in self.columns
        ]
        return np.concatenate(parts, axis=1)


def width_of(column: dict[str, Any]) -> int:
    """Return how many values a column of a ColumnsEncoder becomes."""
    return 1 if column["kind"] == NUMBER else len(_indices(column))


def _indices(column: dict[str, Any]) -> np.ndarray:
    """Return what stands for each range, from 0, or each category, from 1."""
    if column["kind"] == BUCKET:
        return np.arange(len(column["boundaries"]) + 1, dtype=np.float32)
    return np.arange(1, column["count"] + 1, dtype=np.float32)


def _number(value: Any, column: dict[str, Any]) -> Any:
    # The mean is taken away first: years multiplied first would lose what tells them apart.
    normalised = (value - np.float32(column["mean"])) * np.float32(column["factor"])
    return keras.ops.clip(normalised, np.float32(column["least"]), np.float32(column["largest"]))


def _bucket(value: Any, column: dict[str, Any]) -> Any:
    reached = keras.ops.cast(value >= np.asarray(column["boundaries"], np.float32), "float32")
    return _one_hot(keras.ops.sum(reached, axis=-1, keepdims=True), column)


def _one_hot(value: Any, column: dict[str, Any]) -> Any:
    return keras.ops.relu(np.float32(1.0) - keras.ops.abs(value - _indices(column)))


_ENCODINGS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {NUMBER: _number, BUCKET: _bucket, CATEGORY: _one_hot}


@dataclasses.dataclass(frozen=True)
class FoundEncoder:
    """What stands between the columns and the heads in a Keras model.

    `operations` are the ids of all of it but of the last operation, whose id is `last`; `columns` as ColumnsEncoder takes
    them.
    """

    operations: frozenset[int]
    last: int
    columns: tuple[dict[str, Any], ...]


def encoder_of(model: keras.Model) -> ColumnsEncoder | None:
    """Return the layer that encodes the columns of a model that `rewrite` gave; None where it has no columns."""
    return next((each for each in model.layers if isinstance(each, ColumnsEncoder)), None)


def find_encoder(model: keras.Model) -> FoundEncoder | None:
    """Find what encodes the columns in a model as it was trained.

    Args:
        model: functional; the second input of one with columns is called `columns`, and the layer `columns_encoded` gives
            all of them encoded.

    Returns:
        What was found; None where the model takes no columns, or has them in a ColumnsEncoder already.

    Raises:
        CutpointError: it takes columns, and encodes them otherwise than by Keras's preprocessing layers as cutpoint lays
            them.
    """
    inputs = [each for each in model.inputs if each._keras_history.operation.name == COLUMNS_NAME]
    if not inputs or encoder_of(model) is not None:
        return None
    producers = {id(tensor): node for node in calls_of(model) for tensor in node.outputs}
    last = next((node for node in producers.values() if node.operation.name == COLUMNS_ENCODED), None)
    if last is None:
        raise _unknown(f"no layer is called '{COLUMNS_ENCODED}'")
    chains = [_chain(tensor, producers) for tensor in last.input_tensors]
    columns = tuple(_described(chain, index, inputs[0].shape[-1]) for index, chain in enumerate(chains))
    if len(columns) != inputs[0].shape[-1]:
        raise _unknown(f"{len(columns)} of {inputs[0].shape[-1]} columns are encoded")
    return FoundEncoder(
        frozenset(id(node.operation) for chain in chains for node in chain), id(last.operation), columns
    )


def _chain(tensor: Any, producers: dict[int, Any]) -> list[Any]:
    """Return the calls from the input to a tensor, the first one first."""
    chain: list[Any] = []
    while id(tensor) in producers:
        chain.append(producers[id(tensor)])
        if len(chain[-1].input_tensors) != 1:
            raise _unknown(f"'{chain[-1].operation.name}' takes several values")
        tensor = chain[-1].input_tensors[0]
    return chain[::-1]


def _described(chain: list[Any], index: int, count: int) -> dict[str, Any]:
    """Return a column as ColumnsEncoder takes it."""
    nodes = list(chain)
    kinds = [type(node.operation).__name__ for node in nodes]
    if kinds and kinds[0] == "GetItem":
        if _slice_of(nodes.pop(0)) != (index, index + 1):
            raise _unknown(f"the column {index} of the input is not the one at {index} of '{COLUMNS_ENCODED}'")
    elif count > 1:
        raise _unknown(f"'{nodes[0].operation.name}' takes all columns at once")
    operations = [node.operation for node in nodes]
    match [type(each).__name__ for each in operations]:
        case ["Normalization", "Clip"] if not operations[0].invert:
            return _described_number(*operations)
        case ["Discretization", "CategoryEncoding"]:
            boundaries = [float(each) for each in operations[0].bin_boundaries]
            if operations[0].output_mode == "int" and _is_one_hot(operations[1], len(boundaries) + 1):
                return {"kind": BUCKET, "boundaries": boundaries}
        case ["CategoryEncoding", "GetItem"]:
            tokens = operations[0].num_tokens
            if _is_one_hot(operations[0], tokens) and _slice_of(nodes[1]) in ((1, None), (1, tokens)):
                return {"kind": CATEGORY, "count": tokens - 1}
    raise _unknown(f"the column {index} goes through {', '.join(kinds)}")


def _described_number(layer: keras.layers.Normalization, clip: Any) -> dict[str, Any]:
    mean, variance = (np.ravel(keras.ops.convert_to_numpy(each)) for each in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance.astype(np.float64)), keras.config.epsilon())
    bounds = {"least": float(clip.x_min), "largest": float(clip.x_max)}
    return {"kind": NUMBER, "mean": float(mean[0]), "factor": float(1 / deviation[0]), **bounds}


def _is_one_hot(layer: keras.layers.CategoryEncoding, tokens: int) -> bool:
    return layer.output_mode == "one_hot" and layer.num_tokens == tokens and not layer.sparse


def _slice_of(node: Any) -> tuple[int, int | None] | None:
    """Return from where to where along the second axis a GetItem goes; None where it does anything else."""
    key = node.arguments.args[1] if len(node.arguments.args) > 1 else node.arguments.kwargs.get("key")
    if not isinstance(key, list | tuple) or len(key) != 2 or key[0] != slice(None):
        return None
    return (key[1].start or 0, key[1].stop) if isinstance(key[1], slice) and key[1].step in (None, 1) else None


def _unknown(reason: str) -> CutpointError:
    return CutpointError(
        f"The model encodes its columns in a way that cannot be exported: {reason}.",
        f"Keras's preprocessing layers, joined by the layer '{COLUMNS_ENCODED}', as cutpoint lays them",
        "train the model with cutpoint's [columns]",
    )
