"""Keras model -> TF.js layers model: layers by name, which `tf.loadLayersModel` loads and the browser can train further.

It is the folded inference model: a BatchNorm that were left in it would take the batch's own statistics in TF.js's `fit`,
frozen or not, and a head would be trained on other features than it later gets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import Card, features_names
from exporters.errors import InputError
from exporters.inputs import Inputs
from exporters.keras_graph import calls_of, graph_of
from exporters.keras_model import read_keras_model
from exporters.saved_model import named_outputs
from exporters.tfjs_layers_pieces import INPUT, pieces_of, refusal

MODEL_FILE = "model.json"
FORMAT = "layers-model"
# As TF.js's own converter cuts them: browsers fetch and cache files of this size well.
SHARD_BYTES = 4 * 1024 * 1024
# Of layers with weights TF.js takes no other names.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._/]*")
# A call of a layer of TF.js, as its JSON counts them: name of the layer, number of the call.
Call = tuple[str, int]


def export(
    saved_model_dir: Path, card: Card, out: Path, *, precision: str, calibration_images: Inputs | np.ndarray
) -> None:
    """Write `out/model.json` and its weight shards.

    Args:
        saved_model_dir: as `write_saved_model` leaves it, with the Keras model beside.
        card: carried in the model's `userDefinedMetadata`; each cut is found by `model.getLayer(<its name>)`.
        out: the artifact's folder, which exists.
        precision: `float32`.
        calibration_images: not looked at; every exporter takes the same arguments.

    Raises:
        InputError: a layer that TF.js lacks, or would compute otherwise; the error names it.
    """
    model, features = read_keras_model(saved_model_dir)
    heads = named_outputs(model)
    layers = _Layers(graph_of(model), _wanted_names(model, card, features), {*heads, *card.cut})
    outputs = {name: layers.place_of(value) for name, value in sorted(heads.items())}
    outputs = {name: call if call[0] == name else layers.alias(name, call) for name, call in outputs.items()}
    _check_order(layers.entries)
    maps = {name: model.get_layer(layer).output for name, layer in features.items()}
    described = {
        "format": FORMAT,
        "generatedBy": f"keras v{keras.__version__}",
        "convertedBy": "cutpoint",
        "modelTopology": _topology(model, layers, list(outputs.values())),
        "weightsManifest": _write_weights(layers, out),
        # What a graph model has too: public name -> the layer behind it, so that readers find the features.
        "signature": {
            "inputs": {name: _tensor(name, each.shape) for each in model.inputs for name, _ in [layers.place_of(each)]},
            "outputs": {
                **{name: _tensor(outputs[name][0], heads[name].shape) for name in outputs},
                **{name: _tensor(layers.place_of(each)[0], each.shape) for name, each in maps.items()},
            },
        },
        "userDefinedMetadata": {"card": card.to_json()},
    }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_as_list)
    (out / MODEL_FILE).write_text(text, encoding="utf-8")


def _as_list(value: Any) -> Any:
    """Return a number or an array of numpy, as settings may hold, in JSON's own types."""
    return np.asarray(value).tolist()


def _topology(model: keras.Model, layers: _Layers, outputs: Sequence[Call]) -> dict[str, Any]:
    config = {
        "name": model.name,
        "layers": layers.entries,
        "input_layers": [[*layers.place_of(each), 0] for each in model.inputs],
        "output_layers": [[*call, 0] for call in outputs],
    }
    described = {"class_name": "Functional", "config": config}
    return {"keras_version": keras.__version__, "backend": "tensorflow", "model_config": described}


def _tensor(layer: str, shape: Sequence[int | None]) -> dict[str, Any]:
    sizes = [{"size": str(-1 if size is None else size)} for size in shape]
    return {"name": layer, "dtype": "DT_FLOAT", "tensorShape": {"dim": sizes}}


def _wanted_names(model: keras.Model, card: Card, features: Mapping[str, str]) -> dict[str, str]:
    """Return layer of the model -> the name that it bears in TF.js: that of its output or cut, where it has one."""
    wanted = {}
    for cut, output in features_names(card.cut).items():
        wanted.setdefault(features[output], cut)
    for name, value in named_outputs(model).items():
        operation = value._keras_history.operation
        if not isinstance(operation, keras.layers.InputLayer):
            wanted[operation.name] = name
    return wanted


class _Layers:
    """The layers of TF.js, in the order of the model's calls: `entries` as model.json has them, `weights` by layer."""

    def __init__(self, model: keras.Model, wanted: Mapping[str, str], reserved: Collection[str] = ()) -> None:
        self.entries: list[dict[str, Any]] = []
        self.weights: dict[str, tuple[tuple[str, np.ndarray], ...]] = {}
        self._wanted = dict(wanted)
        # The name of an output or a cut is no other layer's.
        self._reserved = frozenset(reserved)
        self._taken = {each.name for each in model.operations} | self._reserved
        self._names: dict[str, list[str]] = {}
        self._places: dict[int, Call] = {}
        for tensor in model.inputs:
            settings = {"batch_input_shape": tensor.shape, "dtype": "float32", "sparse": False}
            name = tensor._keras_history.operation.name
            self._places[id(tensor)] = self._called(name, "InputLayer", settings, None)
        for node in calls_of(model):
            self._add(node)

    def place_of(self, tensor: keras.KerasTensor) -> Call:
        """Return the call that gives a tensor."""
        return self._places[id(tensor)]

    def alias(self, name: str, call: Call) -> Call:
        """Add a layer that gives what a call gives, under another name."""
        return self._called(name, "Activation", {"activation": "linear"}, [call])

    def _add(self, node: Any) -> None:
        operation = node.operation
        inputs, output = node.input_tensors, node.outputs[0]
        pieces = pieces_of(operation, tuple(len(each.shape) for each in inputs), tuple(output.shape))
        if any(each.weights for each in pieces) and not _NAME.fullmatch(self._name(operation)):
            raise refusal(
                operation, "of a layer with weights it takes names of letters, digits, '.', '_' and '-' alone"
            )
        taken = [self._places[id(each)] for each in inputs]
        calls: list[Call] = []
        for name, piece in zip(self._names_of(operation, len(pieces)), pieces, strict=True):
            given = [call for index in piece.takes for call in (taken if index == INPUT else [calls[index]])]
            calls.append(self._called(name, piece.kind, piece.config, given))
            if piece.weights:
                self.weights[name] = piece.weights
        self._places[id(output)] = calls[-1]

    def _names_of(self, operation: Any, count: int) -> list[str]:
        """Return the names of the pieces of a layer, of which the last one bears its own."""
        if operation.name not in self._names:
            own = self._name(operation)
            self._names[operation.name] = [*(self._unused(f"{own}_part_{index}") for index in range(count - 1)), own]
        return self._names[operation.name]

    def _name(self, operation: Any) -> str:
        if operation.name not in self._wanted:
            reserved = operation.name in self._reserved
            self._wanted[operation.name] = self._unused(operation.name) if reserved else operation.name
        return self._wanted[operation.name]

    def _unused(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _called(self, name: str, kind: str, config: Mapping[str, Any], taken: list[Call] | None) -> Call:
        entry = next((each for each in self.entries if each["name"] == name), None)
        if entry is None:
            entry = {"name": name, "class_name": kind, "config": {"name": name, **config}, "inbound_nodes": []}
            self.entries.append(entry)
        if taken is not None:
            entry["inbound_nodes"].append([[*call, 0, {}] for call in taken])
        return name, max(0, len(entry["inbound_nodes"]) - 1)


def _check_order(entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise InputError where TF.js would count the calls of a shared layer otherwise than model.json does.

    It goes through the layers again and again, and makes each call as soon as there is what it takes.
    """
    made = {each["name"]: int(not each["inbound_nodes"]) for each in entries}
    waiting = {each["name"]: list(enumerate(each["inbound_nodes"])) for each in entries}
    while any(waiting.values()):
        for each in entries:
            name = each["name"]
            calls, waiting[name] = waiting[name], []
            for number, call in calls:
                if any(made[source] <= index for source, index, *_ in call):
                    waiting[name].append((number, call))
                elif number != made[name]:
                    raise InputError(
                        f"TF.js would count the calls of the layer '{name}', which is called several times, in another order.",
                        "a model whose shared layers are called one after the other",
                        "leave tfjs_layers out of --formats: the graph model of the format tfjs holds more",
                    )
                else:
                    made[name] += 1


def _write_weights(layers: _Layers, out: Path) -> list[dict[str, Any]]:
    """Write the weight files; returns the weights manifest."""
    weights = [(f"{layer}/{name}", values) for layer, each in layers.weights.items() for name, values in each]
    data = b"".join(np.asarray(values, "<f4").tobytes() for _, values in weights)
    parts = [data[start : start + SHARD_BYTES] for start in range(0, len(data), SHARD_BYTES)]
    paths = [f"group1-shard{number}of{len(parts)}.bin" for number in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        (out / path).write_bytes(part)
    described = [{"name": name, "shape": values.shape, "dtype": "float32"} for name, values in weights]
    return [{"paths": paths, "weights": described}]
