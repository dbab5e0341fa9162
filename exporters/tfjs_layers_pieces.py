"""Which Keras layers TF.js's own layers compute alike, and with which settings: an allowlist, everything else is refused.

Made from the source of @tensorflow/tfjs-layers 4.22 and held against it by the tests. It knows other layers of the same
names too, and skips settings that it does not know, which would be silently wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from exporters.convolutions import gelu
from exporters.errors import InputError

# What a piece takes: all that its layer takes.
INPUT = -1
# Settings without a meaning for what is computed from given weights.
_WITHOUT_EFFECT = ("initializer", "regularizer", "constraint")
_KEPT_ANYWHERE = frozenset({"name", "trainable", "dtype", "quantization_config", "data_format"})
_ACTIVATIONS: tuple[tuple[Callable, str], ...] = (
    (keras.activations.linear, "linear"),
    (keras.activations.relu, "relu"),
    (keras.activations.relu6, "relu6"),
    (keras.activations.elu, "elu"),
    (keras.activations.selu, "selu"),
    (keras.activations.sigmoid, "sigmoid"),
    (keras.activations.softplus, "softplus"),
    (keras.activations.softsign, "softsign"),
    (keras.activations.tanh, "tanh"),
    (keras.activations.softmax, "softmax"),
    (keras.activations.mish, "mish"),
    (keras.activations.silu, "swish"),
    (keras.activations.gelu, "gelu"),
    (gelu, "gelu"),
)
_HARD = {keras.activations.hard_sigmoid: False, keras.activations.hard_silu: True}
_PADDED = ("padding", "strides", "kernel_size", "use_bias", "activation")
_ONE_BY_ONE = ((1, 1), 1)


@dataclasses.dataclass(frozen=True)
class Piece:
    """One layer of TF.js: its class, its settings, and its weights as (name there, float32), in its own order.

    `takes` are indices of the pieces of the same Keras layer that it takes, or INPUT.
    """

    kind: str
    config: Mapping[str, Any]
    weights: tuple[tuple[str, np.ndarray], ...] = ()
    takes: tuple[int, ...] = (INPUT,)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What is known of a class: settings that are handed on, and those with the only values that TF.js computes.

    `values` setting -> those values; `reason` says what TF.js does otherwise; `weights` Keras's name -> TF.js's.
    """

    kept: tuple[str, ...] = ()
    values: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    reason: str = ""
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)


_BIASED = {"kernel": "kernel", "bias": "bias"}
_SCALED = {"gamma": "gamma", "beta": "beta"}
_MOVING = {**_SCALED, "moving_mean": "moving_mean", "moving_variance": "moving_variance"}
_RULES: dict[str, _Rule] = {
    "Conv2D": _Rule(("filters", "dilation_rate", *_PADDED), {"groups": (1,)}, "TF.js has no groups", _BIASED),
    "DepthwiseConv2D": _Rule(
        ("depth_multiplier", *_PADDED),
        {"dilation_rate": _ONE_BY_ONE},
        "TF.js skips the dilation",
        {"kernel": "depthwise_kernel", "bias": "bias"},
    ),
    "Conv2DTranspose": _Rule(
        ("filters", *_PADDED),
        {"output_padding": (None,), "dilation_rate": _ONE_BY_ONE},
        "TF.js skips it",
        _BIASED,
    ),
    "Dense": _Rule(("units", "use_bias", "activation"), weights=_BIASED),
    "BatchNormalization": _Rule(
        ("momentum", "epsilon", "center", "scale"),
        {"synchronized": (False,), "renorm": (False,), "renorm_clipping": (None,), "renorm_momentum": (0.99,)},
        "TF.js skips it",
        _MOVING,
    ),
    "LayerNormalization": _Rule(("epsilon", "center", "scale"), {"rms_scaling": (False,)}, "TF.js skips it", _SCALED),
    "ReLU": _Rule(("max_value",), {"negative_slope": (0,), "threshold": (0,)}, "TF.js skips it"),
    "LeakyReLU": _Rule(),
    "ELU": _Rule((), {"alpha": (1,)}, "TF.js computes it with 1 alone"),
    "Softmax": _Rule(),
    "Activation": _Rule(("activation",)),
    **dict.fromkeys(("Add", "Multiply", "Average", "Maximum", "Minimum", "Flatten", "Concatenate"), _Rule()),
    "ZeroPadding2D": _Rule(("padding",)),
    "Cropping2D": _Rule(("cropping",)),
    "UpSampling2D": _Rule(
        ("size",), {"interpolation": ("nearest",)}, "TF.js interpolates between other places than Keras"
    ),
    "MaxPooling2D": _Rule(("pool_size", "strides", "padding")),
    "AveragePooling2D": _Rule(("pool_size", "strides", "padding")),
    "GlobalAveragePooling2D": _Rule(),
    "GlobalMaxPooling2D": _Rule(),
    "Reshape": _Rule(),
    "Permute": _Rule(("dims",)),
    "Rescaling": _Rule(("scale", "offset")),
    "Dropout": _Rule(("rate",), {"noise_shape": (None,)}, "TF.js drops otherwise"),
}
# Settings that are looked at one by one, in `_special`.
_HANDLED = frozenset({"axis", "keepdims", "negative_slope", "seed", "target_shape"})
_MERGING = frozenset({"Add", "Multiply", "Average", "Maximum", "Minimum"})
# Classes that TF.js has, or seems to have, and why they are refused.
_REASONS = {
    "Resizing": "TF.js resizes between other places than Keras",
    "Normalization": "TF.js has no such layer",
    "SeparableConv2D": "it is not exported as it is",
}


def pieces_of(operation: Any, ranks: tuple[int, ...], shape: tuple[int | None, ...]) -> tuple[Piece, ...]:
    """Return the layers of TF.js that together compute what one call of a Keras layer does; the last one gives it.

    Args:
        operation: the layer.
        ranks: how many axes each of its inputs has, that of the batch included.
        shape: what comes out, with the axis of the batch; None where it is open.

    Raises:
        InputError: TF.js has no such layer, or computes it otherwise; it names the layer and the reason.
    """
    kind = type(operation).__name__
    stock = isinstance(operation, keras.layers.Layer) and type(operation).__module__.startswith("keras.")
    rule = _RULES.get(kind) if stock else None
    if rule is None:
        nothing = "TF.js has no layer that is known to answer the same"
        outside = "it is an operation outside of layers, and TF.js builds models of layers alone"
        found = isinstance(operation, keras.layers.Layer)
        raise refusal(operation, _REASONS.get(kind, nothing) if found else outside)
    config = operation.get_config()
    for name, value in config.items():
        _check_setting(operation, rule, name, value)
    weights = tuple((rule.weights[each.name], np.asarray(each, np.float32)) for each in operation.weights)
    shared = {"trainable": bool(operation.trainable)}
    shared |= {"data_format": "channels_last"} if "data_format" in config else {}
    if kind == "Activation" and operation.activation in _HARD:
        return _hard(shared, multiplied=_HARD[operation.activation])
    plain = {name: config[name] for name in rule.kept if name != "activation"}
    if "activation" in rule.kept:
        plain["activation"] = _activation(operation)
    special = _special(operation, kind, config, ranks, shape)
    first = Piece(kind, {**shared, **plain, **special}, weights)
    if config.get("keepdims"):
        return first, Piece("Reshape", {"target_shape": shape[1:]}, takes=(0,))
    return (first,)


def refusal(operation: Any, reason: str) -> InputError:
    """Return the error for a layer that is not exported."""
    return InputError(
        f"TF.js cannot hold the layer '{operation.name}' ({type(operation).__name__}) in a layers model: {reason}.",
        "layers and settings that TF.js computes as Keras does",
        "leave tfjs_layers out of --formats: the graph model of the format tfjs holds more",
    )


def _check_setting(operation: Any, rule: _Rule, name: str, value: Any) -> None:
    if name == "data_format" and value != "channels_last":
        raise refusal(operation, f"its {name} is {value!r}, and only 'channels_last' runs everywhere")
    if name in _KEPT_ANYWHERE or name in rule.kept or (name in _HANDLED and name not in rule.values):
        return
    if name in rule.values:
        if value not in rule.values[name]:
            raise refusal(operation, f"its {name} is {value!r}: {rule.reason}")
    elif not name.endswith(_WITHOUT_EFFECT):
        raise refusal(operation, f"TF.js does not know its setting {name} = {value!r}")
    elif name == "activity_regularizer" and value is not None:
        raise refusal(operation, f"its {name} would be lost")


def _activation(operation: Any) -> str:
    for function, name in _ACTIVATIONS:
        if operation.activation is function:
            return name
    if operation.activation is None:
        return "linear"
    name = getattr(operation.activation, "__name__", str(operation.activation))
    other = " (its own is that of Keras 2)" if name == "hard_sigmoid" else ""
    raise refusal(operation, f"TF.js has no activation that answers as '{name}' does{other}")


def _special(
    operation: Any, kind: str, config: Mapping[str, Any], ranks: tuple[int, ...], shape: tuple[int | None, ...]
) -> dict[str, Any]:
    """Return the settings that are called or counted otherwise in TF.js."""
    if kind in _MERGING and len(set(ranks)) > 1:
        raise refusal(operation, "what it joins has different numbers of axes")
    if kind == "LeakyReLU":
        return {"alpha": float(config["negative_slope"])}
    if kind == "Reshape":
        # An open size would stay open in TF.js, and a layer behind it would not know what it takes.
        return {"target_shape": shape[1:]}
    if "axis" not in config:
        return {}
    axis = config["axis"]
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    if len(axes) != 1:
        raise refusal(operation, f"its axis is {axis!r}, and only a single one is exported")
    # TF.js takes every negative axis for the last one where it concatenates.
    place = axes[0] % ranks[0]
    if kind != "Concatenate" and place != ranks[0] - 1:
        raise refusal(operation, f"its axis is {axis!r}, and TF.js computes along the last one alone")
    return {"axis": place}


def _hard(shared: Mapping[str, Any], *, multiplied: bool) -> tuple[Piece, ...]:
    """Return ReLU6(x + 3) / 6, multiplied with x for hard SiLU: TF.js lacks both, its hard sigmoid is another one."""
    parts = (
        Piece("Rescaling", {**shared, "scale": 1.0, "offset": 3.0}),
        Piece("ReLU", {**shared, "max_value": 6.0}, takes=(0,)),
        Piece("Rescaling", {**shared, "scale": 1.0 / 6.0, "offset": 0.0}, takes=(1,)),
    )
    return (*parts, Piece("Multiply", dict(shared), takes=(INPUT, 2))) if multiplied else parts
