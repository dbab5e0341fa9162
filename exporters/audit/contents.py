"""What the readers find in an artifact's files, in one form for all formats. Standard library and numpy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

CONV, DEPTHWISE, DENSE = "conv", "depthwise", "dense"
LINEAR, RELU, RELU6 = "linear", "relu", "relu6"


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """How whole numbers stand for real ones: real = scale * (stored - zero_point) + offset.

    `scale` and `zero_point` are float64 and int64 (channels,) with one entry where a tensor has one scale for all; `dtype`
    is the one that is stored. `offset`, float64 (channels,), is what float operators behind a regression add.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    dtype: str = ""
    offset: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or an output of the artifact, by its public name; `shape` has None where the file leaves it open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    quantisation: Quantisation | None = None


@dataclasses.dataclass(frozen=True)
class Constant:
    """A stored constant.

    `dtype` is the one that is stored, such as `float16` or `int8`; `values` are the real values, float32, as the
    operator that uses them sees them; `step` is the distance between two neighbouring values that can be stored: 0 where
    floats are stored, else float32, of a shape that broadcasts against `values`.
    """

    name: str
    dtype: str
    values: np.ndarray
    step: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layer:
    """An operator with weights: a convolution, a depthwise convolution or a dense layer, with what follows it at once.

    `kernel.values` has Keras's layout: conv (height, width, in, out), depthwise (height, width, channels, multiplier),
    dense (in, out). `bias.values` is (out,); None where there is none. `activation` is `linear`, `relu`, `relu6` or what
    the format calls another one, in lower case, whether it is fused into the operator or the one operator that follows.
    `input_quantisation` is that of the tensor that it takes, None where that holds floats.
    `output` is the name of the tensor (in TF.js: of the node) that holds what comes out behind bias and activation;
    `output_quantisation` is that tensor's, None where it holds floats. A regression that is counted in shares of its
    columns' ranges, which float operators then bring back, is all one layer: kernel, bias and quantisation are those of the
    numbers that come out. `name` is the operator's own, for messages.
    """

    name: str
    kind: str
    kernel: Constant
    bias: Constant | None
    activation: str
    output: str
    output_quantisation: Quantisation | None = None
    input_quantisation: Quantisation | None = None


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything that an artifact's files say about it.

    `operators` operator -> how often; `custom_operators` those that a plain runtime does not know (Flex or custom ones in
    TFLite, other domains in ONNX); `random_operators` those that answer otherwise each time; `opset` None where the
    format has none; `weights` stored dtype -> how many values, over all constants of more than one value that hold
    reals (shapes and axes are left out); `activations` dtype -> how many tensors are computed in it, and `encoder` the same
    of those that come from the columns alone, which are not counted among them; `layers` in the order in which they run;
    `constants` every other stored constant of reals, scalars included. `card` is what the model itself carries of card.json,
    `labels` what it carries of the text files with labels, by their names; None where it carries none.
    """

    operators: Mapping[str, int]
    custom_operators: tuple[str, ...]
    random_operators: tuple[str, ...]
    opset: int | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: Mapping[str, int]
    activations: Mapping[str, int]
    layers: tuple[Layer, ...]
    constants: tuple[Constant, ...]
    card: Mapping[str, Any] | None = None
    encoder: Mapping[str, int] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] | None = None
