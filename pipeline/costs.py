"""What each layer of a backbone costs and sees: parameters, multiply-accumulates, reduction, and how deep it lies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import keras

# One product with a weight for each place of a map, and these alone: additions, activations and poolings count nothing.
_FORWARD = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
WEIGHTED = (*_FORWARD, *_TRANSPOSED)
_GLOBAL = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D, keras.layers.Flatten)
EARLY, MIDDLE, LATE = "early", "middle", "late"


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer of a backbone and what the network costs that ends with it.

    `shape` of its output without the batch axis; `params` and `macs` of it and of everything that it depends on, at the
    model's input size, with what lies on branches that it does not need left out; `reduction` is the nominal stride, the
    product of the strides on the way (padding changes the size of a map, not its stride), None where places are gone;
    `depth` counts the layers with weights on the longest way to it, gates such as squeeze-and-excite left out; `part` is
    `early`, `middle` or `late`: the first, second or last third of that depth, over the deepest feature map's;
    `bottleneck` says that every way from the input to the output goes through it; `inputs` are the layers before it.
    """

    index: int
    name: str
    type: str
    shape: tuple[int | None, ...]
    params: int
    macs: int
    reduction: int | None
    depth: int
    part: str
    bottleneck: bool
    inputs: tuple[str, ...]


@dataclasses.dataclass
class _Seen:
    """What is known of one layer while the graph is walked."""

    ancestors: int
    reduction: float | None
    depth: int


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """Return a row for every layer of a model, in the model's order.

    Multiply-accumulates are those of convolutions (grouped, depthwise, separable and transposed ones too) and dense
    layers for one image, biases not counted; every other layer, attention included, counts 0. Early layers answer to
    edges and textures, middle ones to parts, late ones to whole objects (Zeiler and Fergus 2014, arXiv:1311.2901;
    Olah et al. 2017, doi:10.23915/distill.00007); that thirds of the depth bound them is a rule of thumb of this project.

    Args:
        model: one input (N, height, width, channels) of a fixed size; no models inside it.

    Raises:
        ValueError: the size of the input is open.
    """
    if None in model.inputs[0].shape[1:]:
        raise ValueError(f"the input {tuple(model.inputs[0].shape)} has no fixed size")
    before = _graph(model)
    # Among them are operations such as `x + 3` of Keras's own networks, which are no layers: they have no rows.
    steps = {step.name: step for step in model.operations}
    seen: dict[str, _Seen] = {}
    for index, step in enumerate(steps.values()):
        seen[step.name] = _visit(step, [seen[name] for name in before[step.name]], 1 << index)
    params = [step.count_params() if isinstance(step, keras.layers.Layer) else 0 for step in steps.values()]
    macs = [multiply_accumulates(step) for step in steps.values()]
    bottlenecks = _bottlenecks(before, [tensor._keras_history.operation.name for tensor in model.outputs])
    deepest = max((seen[name].depth for name, step in steps.items() if len(_shape(step)) == 3), default=0)
    rows = []
    for index, layer in enumerate(model.layers):
        mine = seen[layer.name]
        below = tuple(_members(mine.ancestors))
        rows.append(
            LayerCost(
                index=index,
                name=layer.name,
                type=type(layer).__name__,
                shape=_shape(layer),
                params=sum(params[each] for each in below),
                macs=sum(macs[each] for each in below),
                reduction=None if mine.reduction is None else max(1, round(mine.reduction)),
                depth=mine.depth,
                part=_part(mine.depth, deepest),
                bottleneck=layer.name in bottlenecks,
                inputs=tuple(before[layer.name]),
            )
        )
    return rows


def multiply_accumulates(layer: keras.Operation) -> int:
    """Return the multiply-accumulates of one layer for one image; 0 for what is neither convolution nor dense layer."""
    if not isinstance(layer, WEIGHTED):
        return 0
    tensor = layer.input if isinstance(layer, _TRANSPOSED) else layer.output
    # A kernel is laid over every place of the output once; a transposed one over every place of the input.
    places = math.prod(tensor.shape[1:-1])
    kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
    return places * sum(math.prod(kernel.shape) for kernel in kernels)


def _shape(layer: keras.Operation) -> tuple[int | None, ...]:
    return tuple(keras.tree.flatten(layer.output)[0].shape[1:])


def _graph(model: keras.Model) -> dict[str, list[str]]:
    """Return step -> the steps before it, each once, in an order in which inputs come before what takes them."""
    inside = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    before: dict[str, list[str]] = {}
    for layer in model.operations:
        nodes = [node for node in layer._inbound_nodes if id(node) in inside]
        tensors = [tensor for node in nodes for tensor in node.input_tensors]
        found = dict.fromkeys(tensor._keras_history.operation.name for tensor in tensors)
        before[layer.name] = [name for name in found if name != layer.name]
    return before


def _visit(layer: keras.Operation, sources: list[_Seen], bit: int) -> _Seen:
    ancestors = bit
    for each in sources:
        ancestors |= each.ancestors
    strides = [each.reduction for each in sources if each.reduction is not None]
    reduction = max(strides) if strides else (None if sources else 1.0)
    if isinstance(layer, _GLOBAL) or len(_shape(layer)) != 3:
        reduction = None
    if reduction is not None:
        reduction *= _stride(layer)
    # What comes over a gate, or over any other value without places, is no way along which the network grows deeper.
    depth = max((each.depth for each in sources if each.reduction is not None or reduction is None), default=0)
    return _Seen(ancestors, reduction, depth + isinstance(layer, WEIGHTED))


def _stride(layer: keras.Operation) -> float:
    if isinstance(layer, keras.layers.UpSampling2D):
        return 1 / layer.size[0]
    strides = getattr(layer, "strides", None)
    if not strides:
        return 1.0
    first = strides[0] if isinstance(strides, tuple | list) else strides
    return 1 / first if isinstance(layer, _TRANSPOSED) else float(first)


def _part(depth: int, deepest: int) -> str:
    share = depth / deepest if deepest else 0.0
    return EARLY if share <= 1 / 3 else MIDDLE if share <= 2 / 3 else LATE


def _members(ancestors: int) -> Iterator[int]:
    while ancestors:
        lowest = ancestors & -ancestors
        yield lowest.bit_length() - 1
        ancestors ^= lowest


def _bottlenecks(before: Mapping[str, list[str]], outputs: list[str]) -> set[str]:
    """Return the steps on every way from the input to the outputs: as many ways lead through such a one as there are."""
    to: dict[str, int] = {}
    for name, sources in before.items():
        to[name] = sum(to[each] for each in sources) if sources else 1
    onwards = dict.fromkeys(before, 0)
    for name in outputs:
        onwards[name] += 1
    for name in reversed(before):
        for each in before[name]:
            onwards[each] += onwards[name]
    ways = sum(to[name] for name in outputs)
    return {name for name in before if to[name] * onwards[name] == ways}
