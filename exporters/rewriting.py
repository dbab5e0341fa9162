"""Rewrites what some format cannot hold, or what could not be folded, into layers of a few kinds that all of them hold.

The answers stay the same. What is behind a rewritten layer's name stays the same too, so that it can still be cut there:
where one layer becomes several, the last one bears its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from exporters.columns_encoder import ColumnsEncoder, find_encoder
from exporters.convolutions import dense, gelu, grouped, is_exact_gelu, separable, with_weights
from exporters.keras_graph import copy_of, each_once, graph_of, rebuild, run

# Layers that do nothing in inference.
_INERT = (
    *(keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise, keras.layers.GaussianDropout),
    *(keras.layers.ActivityRegularization, keras.layers.Identity),
)
_LINEAR = (None, keras.activations.linear)


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A rewritten model, and where the layers that are gone went: name -> the layer that now gives the same."""

    model: keras.Model
    renamed: dict[str, str]


@keras.saving.register_keras_serializable(package="cutpoint")
def unit_length(values: Any) -> Any:
    """Bring (..., width) to length 1 in the order of steps that TFLite knows as one operator, for whole numbers too.

    In steps of its own, whole numbers round the reciprocal of the length so coarsely that lengths are off by a quarter.
    """
    squares = keras.ops.sum(keras.ops.square(values), axis=-1, keepdims=True)
    return values * keras.ops.rsqrt(keras.ops.maximum(squares, 1e-12))


def rewrite(model: keras.Model) -> Rewritten:
    """Return a fresh model of the same answers, made of fewer kinds of layers.

    - models inside the model are laid flat, and layers without effect in inference left out;
    - SeparableConv2D becomes DepthwiseConv2D and Conv2D; Conv2D with a group for each channel DepthwiseConv2D, with other
      groups one Conv2D for each; Dense on feature maps Conv2D 1 x 1;
    - Normalization, and sums and products with a number, become Rescaling; sums and products of two values Add and Multiply;
    - what several layers activate in the same way is activated once;
    - what encodes the columns beside the picture becomes one layer, see `exporters.columns_encoder`;
    - GELU is computed by the error function, and unit length in the order that TFLite has an operator for.

    Args:
        model: functional; not touched. What cannot be rewritten is left as it is.
    """
    return _Rewriting(model).rewritten()


class _Rewriting:
    """One rewriting, which hands out names and keeps what replaces what."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._taken = {operation.name for operation in model.operations}
        # Of operations inside inner models whose names are taken outside.
        self._other_names: dict[int, str] = {}
        self._renamed: dict[str, str] = {}
        # What was activated, and how -> the value that was, which keeps its id from being another's, and what came out.
        self._activated: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._encoder = find_encoder(model)
        self._replace = each_once(self._replacement)

    def rewritten(self) -> Rewritten:
        return Rewritten(rebuild(self._model, self._replace), self._renamed)

    def _replacement(self, operation: Any) -> Callable:
        if self._encoder and id(operation) in self._encoder.operations:
            return lambda value, *arguments, **options: value
        if self._encoder and id(operation) == self._encoder.last:
            encoder = ColumnsEncoder(self._encoder.columns, name=operation.name)
            # Every column has come through as all of them.
            return lambda values, **options: encoder(values[0])
        if not isinstance(operation, keras.layers.Layer):
            return self._bare(operation)
        if isinstance(operation, keras.Model) and hasattr(graph_of(operation), "_run_through_graph"):
            return self._flat(operation)
        if isinstance(operation, _INERT) or _does_nothing(operation):
            return self._gone(operation)
        kind = type(operation)
        if kind is keras.layers.SeparableConv2D:
            return separable(operation, self._name(operation), self._unused)
        if kind is keras.layers.Conv2D and operation.groups > 1:
            return grouped(operation, self._name(operation), self._unused)
        if kind is keras.layers.Dense:
            return dense(operation, self._name(operation))
        if kind is keras.layers.Normalization:
            return self._normalization(operation)
        if kind is keras.layers.UnitNormalization and operation.axis in (-1, len(operation.input.shape) - 1):
            return keras.layers.Activation(unit_length, name=self._name(operation))
        if kind in (keras.layers.Activation, keras.layers.ReLU):
            return self._activation(operation)
        return with_weights(self._copy(operation), operation.get_weights())

    def _name(self, operation: Any) -> str:
        return self._other_names.get(id(operation), operation.name)

    def _unused(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _copy(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = {"name": self._name(layer)}
        activation = getattr(layer, "activation", None)
        return copy_of(layer, **settings, **({"activation": gelu} if is_exact_gelu(activation) else {}))

    def _gone(self, layer: keras.layers.Layer) -> Callable:
        def call(value: Any, *arguments: Any, **options: Any) -> Any:
            self._renamed[layer.name] = value._keras_history.operation.name
            return value

        return call

    def _activation(self, layer: keras.layers.Layer) -> Callable:
        """Return the activation, once for all that do the same to the same value: converters merge them in any case."""
        settings = {key: value for key, value in layer.get_config().items() if key not in ("name", "trainable")}
        activation = self._copy(layer)

        def call(value: Any, **options: Any) -> Any:
            key = id(value), repr((type(layer).__name__, settings))
            if key not in self._activated:
                self._activated[key] = value, activation(value, **options)
            output = self._activated[key][1]
            if output._keras_history.operation is not activation:
                self._renamed[layer.name] = output._keras_history.operation.name
            return output

        return call

    def _flat(self, inner: keras.Model) -> Callable:
        for operation in graph_of(inner).operations:
            if operation.name in self._taken:
                self._other_names[id(operation)] = self._unused(f"{inner.name}_{operation.name}")
            self._taken.add(operation.name)

        def call(*values: Any, **options: Any) -> Any:
            graph = graph_of(inner)
            inputs = keras.tree.pack_sequence_as(graph._inputs_struct, keras.tree.flatten(values))
            found = run(graph, inputs, self._replace)
            self._renamed[inner.name] = keras.tree.flatten(found)[0]._keras_history.operation.name
            return found

        return call

    def _bare(self, operation: Any) -> Callable:
        """Return a layer for a sum or a product outside of layers, such as `x + 3` or `x + y`."""
        kind, name = type(operation).__name__, self._name(operation)
        several = {"Add": keras.layers.Add, "Multiply": keras.layers.Multiply}

        def call(*arguments: Any, **options: Any) -> Any:
            symbolic = [isinstance(each, keras.KerasTensor) for each in arguments]
            if len(arguments) == 2 and kind in several and all(symbolic):
                return several[kind](name=name)(list(arguments))
            if len(arguments) == 2 and sum(symbolic) == 1 and not options:
                value, number = arguments if symbolic[0] else arguments[::-1]
                affine = _as_affine(kind, number, first=symbolic[0])
                if affine is not None and _fits(value, *affine):
                    return rescaling(name, *affine)(value)
            return operation(*arguments, **options)

        return call

    def _normalization(self, layer: keras.layers.Normalization) -> Callable:
        name = self._name(layer)
        mean, variance = (
            np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in (layer.mean, layer.variance)
        )
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)

        def call(value: Any, **options: Any) -> Any:
            if not _fits(value, scale, offset):
                return self._copy(layer)(value)
            return rescaling(name, scale, offset)(value)

        return call


def rescaling(name: str, scale: np.ndarray, offset: np.ndarray) -> keras.layers.Rescaling:
    """Return a Rescaling: values * scale + offset, each float64, one number or one for each channel (any shape of it)."""
    scale, offset = (np.asarray(each, np.float64).ravel() for each in (scale, offset))
    plain = [float(each[0]) if len(each) == 1 else each.tolist() for each in (scale, offset)]
    return keras.layers.Rescaling(plain[0], offset=plain[1], name=name)


def _does_nothing(layer: keras.layers.Layer) -> bool:
    return type(layer) is keras.layers.Activation and layer.activation in _LINEAR


def _as_affine(kind: str, number: Any, *, first: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (scale, offset) of an operation with a constant; `first`: the value stands before it."""
    try:
        constant = np.asarray(keras.ops.convert_to_numpy(number), np.float64)
    except (TypeError, ValueError):
        return None
    one, nothing = np.ones(1), np.zeros(1)
    if kind == "Subtract":
        return (one, -constant) if first else (-one, constant)
    if kind in ("Divide", "TrueDivide") and first and (constant != 0).all():
        return 1 / constant, nothing
    return {"Add": (one, constant), "Multiply": (constant, nothing)}.get(kind)


def _fits(value: keras.KerasTensor, scale: np.ndarray, offset: np.ndarray) -> bool:
    """Tell whether both are one number, or one for each of the last axis."""
    channels = value.shape[-1]
    return all(
        np.size(each) == 1 or (np.size(each) == channels and np.shape(each)[-1] == channels) for each in (scale, offset)
    )
