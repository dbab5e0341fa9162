"""Lays a model flat: the layers of models inside it stand in one graph, each with a name of its own and called once.

So every inner layer can be named and cut at. What does nothing outside training (dropout, noise, random augmentation) is
left out, and operations that are no layers (`image / 127.5`, as `preprocess_input` traces them) become layers that are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras
import numpy as np

from exporters.cloning import set_weights
from exporters.errors import InputError
from pipeline.backbones.screening import AUGMENTATION

NAME = "backbone"
_LEFT_OUT = AUGMENTATION | {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "ActivityRegularization", "Identity"}
_ACTIVATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Tanh": "tanh",
    "Elu": "elu",
    "Selu": "selu",
    "Softplus": "softplus",
}
_MERGES = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}
# The least that float32 can be expected to agree to, relative to pixels of 0..255.
_LARGEST_AFFINE_ERROR = 1e-4


def flatten(model: keras.Model, height: int, width: int, flips: Collection[str] = ()) -> keras.Model:
    """Return a float32 model of the same answers in inference, from one picture, without models inside.

    Args:
        model: functional or Sequential, from pictures (N, h, w, 3); not touched.
        height, width: of the new model's input in px.
        flips: names of Identity layers that stand for a turned order of the channels.

    Returns:
        A new functional model. Names stay, but where two layers share one: the later one gets the name of the model it
        stood in before it. A layer that is called several times becomes several, with the same weights.

    Raises:
        InputError: it cannot be called on pictures of that size.
    """
    flat = flatten_with_sources(model, height, width, flips)[0]
    if all(isinstance(operation, keras.layers.Layer) for operation in flat.operations):
        return flat
    plain = _with_plain_front(flat)
    return flatten_with_sources(plain, height, width)[0] if plain is not None else flat


def flatten_with_sources(
    model: keras.Model, height: int, width: int, flips: Collection[str] = ()
) -> tuple[keras.Model, dict[str, keras.layers.Layer]]:
    """Do what `flatten` does; return, beside the new model, name -> the given model's layer for each layer with weights."""
    work = _Flattening(frozenset(flips))
    image = keras.Input((height, width, 3), name=_input_name(model))
    work.taken.add(image._keras_history.operation.name)
    try:
        outputs = work.apply(model, image)
        flat = keras.Model(image, outputs, name=NAME)
        for clone, source in work.weighted:
            set_weights(clone, source.get_weights())
    except InputError:
        raise
    except Exception as fault:  # Keras and its backend raise ValueError, TypeError, InvalidArgumentError by turns
        first = (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
        raise InputError(
            f"The model '{model.name}' cannot be called on pictures of {width} x {height} px: {first}.",
            "a model that takes (N, height, width, 3)",
            "set resize.width and resize.height to what it was trained with",
        ) from fault
    flat.trainable = False
    return flat, {clone.name: source for clone, source in work.weighted}


def _input_name(model: keras.Model) -> str:
    name = model.inputs[0].name
    return name if name and "/" not in name else "input"


def _with_plain_front(flat: keras.Model) -> keras.Model | None:
    """Put one convolution for operations that only change the colours of the pictures; None where there are none of these.

    `preprocess_input` takes the channels apart and puts them together again: none of its steps alone is such a change.
    """
    for operation in reversed(flat.operations):
        value = operation.output
        if not isinstance(value, keras.KerasTensor) or value.shape != flat.inputs[0].shape:
            continue
        front = keras.Model(flat.inputs, value)
        if all(isinstance(each, keras.layers.Layer) for each in front.operations):
            continue
        fitted = fit_colours(lambda pixels, front=front: front(pixels, training=False), tuple(value.shape[1:]))
        if fitted is None:
            continue
        try:
            rest = keras.Model(value, flat.outputs[0] if len(flat.outputs) == 1 else flat._outputs_struct)
        except ValueError:
            # Something further on takes the picture as it was.
            return None
        image = keras.Input(flat.inputs[0].shape[1:], name=flat.inputs[0].name)
        return keras.Model(image, rest(_as_convolution(*fitted, "colours")(image)))
    return None


class _Flattening:
    """What one call of `flatten` gathers: names that are taken, and which layer each new one has its weights from."""

    def __init__(self, flips: frozenset[str]) -> None:
        self.flips = flips
        self.taken: set[str] = set()
        self.weighted: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def apply(self, model: keras.Model, value: Any) -> Any:
        """Call a model's layers one by one on a tensor, or on what the model takes instead of one."""
        graph = model._functional if isinstance(model, keras.Sequential) else model
        if getattr(graph, "_run_through_graph", None) is None:
            raise InputError(
                f"The model '{model.name}' is no graph of layers.",
                "a functional or Sequential model",
                "rebuild it as one where it comes from",
            )
        inputs = keras.tree.pack_sequence_as(graph._inputs_struct, keras.tree.flatten(value))
        return graph._run_through_graph(inputs, operation_fn=lambda operation: self._caller(operation, model.name))

    def _caller(self, operation: Any, parent: str) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            options = {key: each for key, each in options.items() if key not in ("training", "mask")}
            if isinstance(operation, keras.Model):
                return self.apply(operation, arguments[0] if len(arguments) == 1 else arguments)
            if not isinstance(operation, keras.layers.Layer):
                return self._operation(operation, parent, arguments, options)
            return self._layer(operation, parent, arguments, options)

        return call

    def _layer(self, layer: keras.layers.Layer, parent: str, arguments: tuple, options: dict) -> Any:
        kind = type(layer).__name__
        if layer.name in self.flips:
            return _as_convolution(np.eye(3)[::-1], np.zeros(3), self.free_name(layer.name, parent))(arguments[0])
        if kind in _LEFT_OUT:
            return arguments[0]
        if kind == "Lambda":
            return self._unknown(layer, parent, arguments, options)
        settings = {**layer.get_config(), "name": self.free_name(layer.name, parent), "dtype": "float32"}
        clone = type(layer).from_config(settings)
        value = clone(*arguments, **options)
        if layer.weights:
            self.weighted.append((clone, layer))
        return value

    def _operation(self, operation: Any, parent: str, arguments: tuple, options: dict) -> Any:
        kind = type(operation).__name__
        values = [each for each in keras.tree.flatten((arguments, options)) if isinstance(each, keras.KerasTensor)]
        name = self.free_name(operation.name.replace("/", "_"), parent)
        if len(values) == 1 and kind in _ACTIVATIONS and len(arguments) == 1:
            return keras.layers.Activation(_ACTIVATIONS[kind], name=name)(values[0])
        if len(values) == 2 and kind in _MERGES and values[0].shape == values[1].shape:
            return getattr(keras.layers, _MERGES[kind])(name=name)(values)
        if len(values) == 1 and kind in ("Add", "Subtract", "Multiply", "TrueDivide", "Divide"):
            scaling = _as_rescaling(kind, arguments)
            if scaling is not None:
                return keras.layers.Rescaling(*scaling, name=name)(values[0])
        return self._unknown(operation, parent, arguments, options)

    def _unknown(self, operation: Any, parent: str, arguments: tuple, options: dict) -> Any:
        """Call what is no stock layer; where it only changes the colours of pictures, a convolution takes its place."""
        value = arguments[0] if arguments else None
        if not options or set(options) <= {"key", "axis"}:
            fitted = _fit_colours(lambda pixels: operation(pixels, *arguments[1:], **options), value)
            if fitted is not None:
                return _as_convolution(*fitted, self.free_name(operation.name.replace("/", "_"), parent))(value)
        return operation(*arguments, **options)

    def free_name(self, name: str, parent: str) -> str:
        """Return a name that no layer has yet, and note it as taken."""
        found, number = name, 1
        if found in self.taken:
            found = f"{parent}_{name}"
        while found in self.taken:
            found = f"{parent}_{name}_{number}"
            number += 1
        self.taken.add(found)
        return found


def _as_rescaling(kind: str, arguments: tuple) -> tuple[Any, Any] | None:
    """Return scale and offset of an arithmetic operation on one tensor and constants; None where it is none of these."""
    first_is_tensor = isinstance(arguments[0], keras.KerasTensor)
    constant = arguments[1] if first_is_tensor else arguments[0]
    if isinstance(constant, keras.KerasTensor):
        return None
    values = np.asarray(keras.ops.convert_to_numpy(constant), np.float64).squeeze()
    if values.ndim > 1 or (values.ndim == 1 and arguments[0 if first_is_tensor else 1].shape[-1] != len(values)):
        return None
    if kind == "Add":
        return 1.0, values.tolist()
    if kind == "Multiply":
        return values.tolist(), 0.0
    if kind == "Subtract":
        return (1.0, (-values).tolist()) if first_is_tensor else (-1.0, values.tolist())
    return ((1 / values).tolist(), 0.0) if first_is_tensor else None


def _fit_colours(function: Callable, value: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return kernel (3, 3) and bias (3,) where a function of pictures is one affine change of the colours of each pixel."""
    if (
        not isinstance(value, keras.KerasTensor)
        or len(value.shape) != 4
        or value.shape[-1] != 3
        or None in value.shape[1:]
    ):
        return None
    return fit_colours(function, tuple(value.shape[1:]))


def fit_colours(function: Callable, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the affine change of colours that a function of pictures is, by least squares on random pixels.

    Args:
        function: float32 (2, height, width, 3) with values 0..255 -> an array.
        shape: (height, width, 3).

    Returns:
        `kernel` (3, 3) and `bias` (3,) with `pixels @ kernel + bias`; None where it is no such change.
    """
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
    try:
        answers = np.asarray(keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(pixels))), np.float64)
    except Exception:  # whatever a function of a file may raise, it then is no change of colours
        return None
    if answers.shape != pixels.shape or not np.isfinite(answers).all():
        return None
    rows = np.column_stack([pixels.reshape(-1, 3).astype(np.float64), np.ones(pixels.size // 3)])
    found, *_ = np.linalg.lstsq(rows, answers.reshape(-1, 3), rcond=None)
    error = np.abs(rows @ found - answers.reshape(-1, 3)).max()
    if error > _LARGEST_AFFINE_ERROR * max(1.0, np.abs(answers).max()):
        return None
    found[np.abs(found) < 1e-9] = 0
    return found[:3], found[3]


def _as_convolution(kernel: np.ndarray, bias: np.ndarray, name: str) -> keras.layers.Layer:
    layer = keras.layers.Conv2D(3, 1, name=name, trainable=False)
    layer.build((None, None, None, 3))
    layer.set_weights([kernel[None, None].astype(np.float32), bias.astype(np.float32)])
    return layer
