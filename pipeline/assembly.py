"""Pixel scaling + truncated backbone + heads as one float32 Keras model under the raw-pixel contract."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.cloning import clone
from exporters.columns import Column
from exporters.contract import COLUMNS_NAME, INPUT_NAME
from exporters.errors import CutpointError, InputError
from exporters.opaque import keep_beside
from pipeline.cut import cuts_of
from pipeline.encoding import columns_input, encoded, names_of_layers
from pipeline.heads.segmentation import map_head
from pipeline.heads.trunk import NAME as TRUNK
from pipeline.scaling import scale_pixels

# The run's own name stands in the card: a graph's name may hold few of the characters that a person may use.
MODEL_NAME = "cutpoint"
BOTH, MAPS = "both", "none"


@dataclasses.dataclass(frozen=True)
class Part:
    """One head of a model, or the trunk that heads share: `head` takes what `pooling` makes of the feature maps of `cuts`.

    The features of several cuts stand one behind the other. A head that is `on_trunk` takes the trunk's answer instead.
    One with the pooling MAPS takes the feature maps as they are; only while it is trained, and in `head`, they are flattened.
    `columns` says that the encoded tabular columns stand behind the features.
    """

    pooling: str
    cuts: tuple[str, ...]
    head: keras.Model
    on_trunk: bool = False
    columns: bool = False


def feature_extractor(truncated: keras.Model, pixel_scaling: str, wanted: Sequence[tuple[str, str]]) -> keras.Model:
    """Return a model from raw pixels to what heads take.

    Args:
        truncated: scaled pixels (N, height, width, 3) -> features; see `pipeline.cut.truncate`.
        pixel_scaling: see `scale_pixels`.
        wanted: (cut, pooling) each; the pooling is `average`, `max` (N, c), `both` (N, 2 * c) or `flatten` (N, h * w * c).

    Returns:
        `image` (N, height, width, 3) float32 0..255 -> float32 (N, width), the pooled features of each pair one behind the
        other.
    """
    image = keras.Input(truncated.inputs[0].shape[1:], name=INPUT_NAME)
    maps = _feature_maps(truncated, scale_pixels(image, pixel_scaling))
    pooled = [_pool(maps[cut], pooling) for cut, pooling in wanted]
    joined = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    return keras.Model(image, joined, name="feature_extractor")


def pooled_width(truncated: keras.Model, cut: str, pooling: str) -> int:
    """Return how many features a pooling makes of the feature map at a cut."""
    shape = truncated.get_layer(cut).output.shape[1:]
    if pooling == "flatten":
        return int(np.prod(shape))
    return int(shape[-1]) * (2 if pooling == BOTH else 1)


def assemble(
    truncated: keras.Model,
    pixel_scaling: str,
    heads: Mapping[str, Part],
    trunk: Part | None = None,
    columns: Sequence[Column] = (),
) -> keras.Model:
    """Put the parts together as one flat model of stock layers.

    Args:
        truncated: the frozen, truncated backbone.
        pixel_scaling: see `scale_pixels`.
        heads: name -> the head with what it takes.
        trunk: what the heads share that are `on_trunk`.
        columns: the tabular columns, where a part takes them.

    Returns:
        `image` (N, height, width, 3) float32 0..255 -> a dict, head name -> float32 (N, ...); with columns `[image, columns]`.

    Raises:
        InputError: a head's layer has the name of one of the backbone's.
        CutpointError: the frozen weights are not bit-identical to those loaded.
    """
    parts = {**({TRUNK: trunk} if trunk else {}), **heads}
    _check_names(truncated, parts, names_of_layers(columns) if columns else ())
    image = keras.Input(truncated.inputs[0].shape[1:], name=INPUT_NAME)
    maps = _feature_maps(truncated, scale_pixels(image, pixel_scaling))
    inputs: Any = [image, columns_input(columns)] if columns else image
    beside = encoded(columns, inputs[1]) if columns else None
    shared_value = lay_flat(trunk.head, _taken(TRUNK, trunk, maps, beside)) if trunk else None
    outputs = {
        name: lay_flat(_laid(part), shared_value if part.on_trunk else _taken(name, part, maps, beside))
        for name, part in sorted(heads.items())
    }
    shared = keras.Model(inputs, outputs, name=MODEL_NAME)
    # The layers of `shared` stand in the backbone's graph too; a clone has layers, and a file, of its own.
    model = clone(shared)
    model.trainable = False
    check_frozen(model, truncated)
    return model


def without(model: keras.Model, dropped: Sequence[str]) -> keras.Model:
    """Return the model without some outputs, and without the layers and the input that only they need; the same for none."""
    if not dropped:
        return model
    kept = {name: value for name, value in model.output.items() if name not in dropped}
    inputs = _needed_inputs(model, kept.values())
    return clone(keras.Model(inputs if len(inputs) > 1 else inputs[0], kept, name=MODEL_NAME))


def _needed_inputs(model: keras.Model, outputs: Iterable[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Return the image, and the columns of a model that takes such where one of its tensors depends on them."""
    seen: set[int] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            history = tensor._keras_history
            waiting += history.operation._inbound_nodes[history.node_index].input_tensors
    return [each for place, each in enumerate(model.inputs) if place == 0 or id(each) in seen]


def _feature_maps(truncated: keras.Model, scaled: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
    maps = lay_flat(truncated, scaled)
    return maps if isinstance(maps, Mapping) else dict.fromkeys(cuts_of(truncated), maps)


def _laid(part: Part) -> keras.Model:
    return map_head(part.head) if part.pooling == MAPS else part.head


def _taken(name: str, part: Part, maps: Mapping[str, keras.KerasTensor], beside: keras.KerasTensor | None) -> Any:
    """Return what a head takes: the pooled features of its cuts and the columns, one behind the other, or feature maps."""
    if part.pooling == MAPS:
        return [maps[cut] for cut in part.cuts]
    several = len(part.cuts) > 1
    pooled = [_pool(maps[cut], part.pooling, _pooling_name(name, part, cut)) for cut in part.cuts]
    features = keras.layers.Concatenate(name=f"{name}_concatenate")(pooled) if several else pooled[0]
    return keras.layers.Concatenate(name=f"{name}_with_columns")([features, beside]) if part.columns else features


def _pooling_name(name: str, part: Part, cut: str) -> str:
    return f"{name}_{part.pooling}" + (f"_of_{cut}" if len(part.cuts) > 1 else "")


def _layer_names(name: str, part: Part) -> list[str]:
    """Return the names of the layers between the feature maps and a head."""
    if part.on_trunk or part.pooling == MAPS:
        return []
    joined = [f"{name}_concatenate"] if len(part.cuts) > 1 else []
    pooled = [_pooling_name(name, part, cut) for cut in part.cuts]
    both = [f"{each}_{kind}" for each in pooled for kind in ("average", "max")] if part.pooling == BOTH else []
    return [*pooled, *both, *joined, *([f"{name}_with_columns"] if part.columns else [])]


def lay_flat(model: keras.Model, value: keras.KerasTensor | list[keras.KerasTensor]) -> Any:
    """Apply a model's layers one by one, those of models inside it too, so that they stand in the new graph themselves.

    `model(value)` would nest a model in a model, and `model.call(value)` leaves an operation that is no layer.
    """
    if isinstance(model, keras.Sequential):
        # A Sequential keeps the graph that can be walked inside.
        model = model._functional

    def unfold(operation: Any) -> Any:
        if isinstance(operation, keras.Model) and len(operation.inputs) == 1:
            return lambda inner, **options: lay_flat(operation, inner)
        return operation

    return model._run_through_graph(_as_inputs(model, value), operation_fn=unfold)


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model as `.keras` without the time of day that Keras writes into it: the same model, the same bytes."""
    model.save(path)
    with zipfile.ZipFile(path) as written:
        members = {name: written.read(name) for name in sorted(written.namelist())}
    metadata = json.loads(members["metadata.json"]) | {"date_saved": "1980-01-01@00:00:00"}
    members["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as rewritten:
        for name, data in members.items():
            rewritten.writestr(zipfile.ZipInfo(name), data)
    keep_beside(model, path)


def _check_names(truncated: keras.Model, heads: Mapping[str, Part], columns: Collection[str] = ()) -> None:
    taken = {layer.name for layer in truncated.layers}
    if taken.intersection(columns):
        raise InputError(
            f"The backbone has a layer '{sorted(taken.intersection(columns))[0]}', as the layers of columns are called.",
            f"a backbone without layers that begin with {COLUMNS_NAME}",
            "rename the layer in the backbone's file, or the column",
        )
    taken |= {INPUT_NAME, "pixel_scaling", *columns}
    for head_name, part in sorted(heads.items()):
        mine = {layer.name for layer in _laid(part).layers} | set(_layer_names(head_name, part))
        if taken & mine:
            raise InputError(
                f"The head '{head_name}' has a layer '{sorted(taken & mine)[0]}', and so has another part of the model.",
                "names of heads that are no layer's name",
                f"rename [heads.{head_name}]",
            )
        taken |= mine


def _as_inputs(model: keras.Model, value: keras.KerasTensor | list[keras.KerasTensor]) -> Any:
    return keras.tree.pack_sequence_as(model._inputs_struct, value if isinstance(value, list) else [value])


def _pool(features: keras.KerasTensor, pooling: str, name: str | None = None) -> keras.KerasTensor:
    if pooling == BOTH:
        kinds = [(each, f"{name}_{each}" if name else None) for each in ("average", "max")]
        return keras.layers.Concatenate(name=name)([_pool(features, kind, inner) for kind, inner in kinds])
    layers = {
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
        "flatten": keras.layers.Flatten,
    }
    return layers[pooling](name=name)(features)


def check_frozen(model: keras.Model, truncated: keras.Model, except_for: Collection[str] = ()) -> None:
    """Raise CutpointError where a layer's weights are not, bit for bit, those of the backbone, but for the named layers."""
    for layer in truncated.layers:
        if not layer.weights or layer.name in except_for:
            continue
        for mine, loaded in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            if not np.array_equal(mine, loaded):
                raise CutpointError(
                    f"The frozen weights of '{layer.name}' are not those that were loaded.",
                    "bit-identical weights",
                    "report this as a fault of cutpoint",
                )
