"""Repairs the description of a network in a legacy `.h5` file that Keras 2 wrote and Keras 3 refuses or reads otherwise.

Only the JSON is rewritten, in memory: nothing of the file runs. What changed between the two is told by Keras's own code of
both: arguments that are gone, slashes in names, and `TFOpLambda`, a TensorFlow function that stands where a layer should.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from exporters.errors import InputError
from pipeline.backbones.screening import AUGMENTATION

# Keras 2 wrote these; every one but `groups` had no effect on the answers.
_GONE = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "DepthwiseConv1D": ("groups",),
    "Conv2DTranspose": ("groups",),
    "BatchNormalization": ("fused", "renorm", "renorm_clipping", "renorm_momentum", "virtual_batch_size", "adjustment"),
    "InputLayer": ("ragged",),
    "GRU": ("implementation", "time_major"),
    "LSTM": ("implementation", "time_major"),
}
_RENAMED = {
    "SyncBatchNormalization": "BatchNormalization",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Convolution2D": "Conv2D",
    "Model": "Functional",
}
_MODULES = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_ADD = ("math.add", "__operators__.add", "nn.bias_add", "add")
_SUBTRACT = ("math.subtract", "__operators__.sub", "subtract")
_MULTIPLY = ("math.multiply", "__operators__.mul", "multiply")
_DIVIDE = ("math.truediv", "__operators__.truediv", "math.divide", "divide", "realdiv")
_UNARY = {
    "nn.relu": ("ReLU", {}),
    "nn.relu6": ("ReLU", {"max_value": 6.0}),
    "nn.silu": ("Activation", {"activation": "silu"}),
    "nn.swish": ("Activation", {"activation": "silu"}),
    "math.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "nn.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "nn.softmax": ("Activation", {"activation": "softmax"}),
    "math.tanh": ("Activation", {"activation": "tanh"}),
    "nn.gelu": ("Activation", {"activation": "gelu"}),
    "identity": ("Identity", {}),
}


@dataclasses.dataclass
class Repaired:
    """A description that Keras 3 reads; `flips` names the layers, written as Identity, that turn the channels round."""

    config: dict[str, Any]
    flips: list[str]


def repair(config: dict[str, Any], path: object) -> Repaired:
    """Rewrite a description so that Keras 3 makes the same network of it.

    Args:
        config: as Keras wrote it; not changed.
        path: for messages.

    Raises:
        InputError: it holds a TensorFlow function that is no plain arithmetic, or what Keras 3 would compute otherwise.
    """
    repaired = Repaired({}, [])
    repaired.config = _repair(config, repaired.flips, path)
    return repaired


def _repair(value: Any, flips: list[str], path: object) -> Any:
    if isinstance(value, list):
        return [_repair(each, flips, path) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") in _OPERATIONS:
        value = _as_layer(value, flips, path)
    changed = {key: _repair(each, flips, path) for key, each in value.items()}
    if "class_name" in changed and isinstance(changed.get("config"), dict):
        _repair_layer(changed, path)
    if isinstance(changed.get("layers"), list):
        changed["layers"] = _with_input(changed["layers"])
    if isinstance(changed.get("name"), str):
        changed["name"] = _legal(changed["name"])
    for key in ("inbound_nodes", "input_layers", "output_layers"):
        if key in changed:
            changed[key] = _with_legal_names(changed[key])
    return _renumbered(changed) if isinstance(changed.get("layers"), list) else changed


def _with_input(layers: list[Any]) -> list[Any]:
    """Return the layers of a Sequential with its input's shape in a layer of its own, where the first layer held it."""
    first = layers[0] if layers and isinstance(layers[0], dict) else {}
    shape = None
    for layer in layers:
        settings = layer.get("config") if isinstance(layer, dict) else None
        if isinstance(settings, dict) and layer.get("class_name") != "InputLayer":
            found = settings.pop("batch_input_shape", None)
            shape = found if layer is first else shape
    if shape is None or "inbound_nodes" in first:
        return layers
    name = f"{first['config'].get('name', 'sequential')}_input"
    return [{"class_name": "InputLayer", "config": {"batch_shape": shape, "name": name}}, *layers]


def _renumbered(graph: dict[str, Any]) -> dict[str, Any]:
    """Count the calls of models inside a graph from 0: Keras 2 counted the making of such a model as its first call."""
    models = {
        layer.get("name")
        for layer in graph["layers"]
        if isinstance(layer, dict) and layer.get("class_name") in ("Functional", "Sequential")
    }
    calls = {layer.get("name"): len(layer.get("inbound_nodes", [])) for layer in graph["layers"] if layer.get("name")}

    def count(value: Any) -> Any:
        if isinstance(value, list):
            reference = len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int)
            if reference and value[0] in models and value[1] >= max(calls.get(value[0], 0), 1):
                value = [value[0], value[1] - 1, *value[2:]]
            return [count(each) for each in value]
        if isinstance(value, dict):
            return {key: count(each) for key, each in value.items()}
        return value

    layers = [
        {**layer, "inbound_nodes": count(layer["inbound_nodes"])} if "inbound_nodes" in layer else layer
        for layer in graph["layers"]
    ]
    ends = {key: _alone(count(graph[key])) for key in ("input_layers", "output_layers") if key in graph}
    return {**graph, "layers": layers, **ends}


def _alone(ends: Any) -> Any:
    # A list of one would make the model take and give lists, which a Sequential around it cannot pass on.
    return ends[0] if isinstance(ends, list) and len(ends) == 1 and _is_source(ends[0]) else ends


def _repair_layer(layer: dict[str, Any], path: object) -> None:
    name, settings = layer["class_name"], layer["config"]
    if name in AUGMENTATION:
        # Their settings changed often, and outside training they do nothing.
        layer["class_name"], layer["config"] = "Identity", {"name": _legal(settings.get("name", name))}
        return
    if name == "SyncBatchNormalization":
        settings["synchronized"] = True
    layer["class_name"] = name = _RENAMED.get(name, name)
    module = layer.get("module")
    if isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras") and ".engine." in f".{module}.":
        # Keras 3 has its models and its input layer elsewhere.
        layer["module"] = _MODULES.get(name, "keras.layers")
        layer["registered_name"] = name if layer.get("registered_name") else None
    if name in ("DepthwiseConv2D", "SeparableConv2D", "DepthwiseConv1D", "SeparableConv1D", "Conv2DTranspose"):
        # The layers of Keras 2 took the argument and did without it.
        _demand(settings.get("groups", 1) in (1, None), f"{name} with groups={settings.get('groups')}", layer, path)
    _demand(
        settings.get("activation") != "hard_sigmoid" and settings.get("recurrent_activation") != "hard_sigmoid",
        "the hard_sigmoid of Keras 2, which is another function than that of Keras 3",
        layer,
        path,
    )
    if name == "InputLayer" and "batch_input_shape" in settings:
        settings["batch_shape"] = settings.pop("batch_input_shape")
    for key in _GONE.get(name, ()):
        settings.pop(key, None)
    axis = settings.get("axis")
    if name in ("BatchNormalization", "LayerNormalization") and isinstance(axis, list) and len(axis) == 1:
        settings["axis"] = axis[0]


def _demand(holds: bool, what: str, layer: dict[str, Any], path: object) -> None:
    if not holds:
        raise InputError(
            f"The model {path} is not loaded: its layer '{layer['config'].get('name')}' is {what}.",
            "layers that Keras 3 computes as Keras 2 did",
            "load it with the package tf_keras where it comes from, rebuild that layer, and save the model anew",
        )


def _as_layer(operation: dict[str, Any], flips: list[str], path: object) -> dict[str, Any]:
    """Return the stock layer that does what a TensorFlow function in the network does."""
    name = _legal(operation["config"]["name"])
    function = operation["config"].get("function", "")
    nodes = operation.get("inbound_nodes", [])
    node = nodes[0] if len(nodes) == 1 and isinstance(nodes[0], list) and len(nodes[0]) == 4 else None
    found = _stock(function, node, name, flips) if node else None
    if found is None:
        raise InputError(
            f"The model {path} is not loaded: it calls tf.{function} as '{name}', which is no layer.",
            "layers of Keras, and between them at most plain arithmetic (+ - * /, relu, relu6, sigmoid, silu)",
            "cut the model before it, or rebuild that part of layers, where it comes from",
        )
    kind, settings, sources = found
    inputs = [[*source, {}] for source in sources]
    return {"class_name": kind, "config": {"name": name, **settings}, "name": name, "inbound_nodes": [inputs]}


def _stock(function: str, node: list[Any], name: str, flips: list[str]) -> tuple[str, dict[str, Any], list] | None:
    """Return class, settings and sources of the layer; None where there is none."""
    first, options = node[:3], {key: value for key, value in node[3].items() if key not in ("name", "data_format")}
    if function in _UNARY and not options:
        return *_UNARY[function], [first]
    if function == "nn.leaky_relu" and set(options) <= {"alpha"}:
        return "LeakyReLU", {"negative_slope": options.get("alpha", 0.2)}, [first]
    if function == "cast" and options == {"dtype": "float32"}:
        return "Identity", {}, [first]
    if function in ("math.reduce_mean", "reduce_mean") and options.get("axis") in ([1, 2], [-3, -2]):
        return "GlobalAveragePooling2D", {"keepdims": bool(options.get("keepdims"))}, [first]
    if function == "__operators__.getitem" and _turns_channels(options.get("slice_spec")):
        flips.append(name)
        return "Identity", {}, [first]
    if set(options) <= {"y", "bias"} and len(options) == 1:
        return _arithmetic(function, first, next(iter(options.values())))
    return None


def _turns_channels(spec: Any) -> bool:
    turned = {"start": None, "stop": None, "step": -1}
    whole = {"start": None, "stop": None, "step": None}
    return spec in ([{"class_name": "__ellipsis__"}, turned], [whole, whole, whole, turned])


def _arithmetic(function: str, first: list[Any], second: Any) -> tuple[str, dict[str, Any], list] | None:
    constant_first = first[0] == "_CONSTANT_VALUE"
    if constant_first:
        first, second = second, first[2]
        if not _is_source(first) or not _is_constant(second):
            return None
    if _is_source(second):
        kinds = {"Add": _ADD, "Subtract": _SUBTRACT, "Multiply": _MULTIPLY}
        found = [kind for kind, functions in kinds.items() if function in functions]
        return (found[0], {}, [first, second]) if found else None
    if not _is_constant(second):
        return None
    if function in _ADD:
        return "Rescaling", {"scale": 1.0, "offset": second}, [first]
    if function in _MULTIPLY:
        return "Rescaling", {"scale": second, "offset": 0.0}, [first]
    if function in _SUBTRACT:
        offset = second if constant_first else _each(second, lambda value: -value)
        return "Rescaling", {"scale": -1.0 if constant_first else 1.0, "offset": offset}, [first]
    if function in _DIVIDE and not constant_first:
        return "Rescaling", {"scale": _each(second, lambda value: 1 / value), "offset": 0.0}, [first]
    return None


def _is_source(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _is_constant(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def _each(value: Any, change: Any) -> Any:
    return [change(each) for each in value] if isinstance(value, list) else change(value)


def _legal(name: str) -> str:
    """Return a layer's name as Keras 3 takes it: without a slash."""
    return name.replace("/", "_")


def _with_legal_names(nodes: Any) -> Any:
    if isinstance(nodes, list):
        if nodes and isinstance(nodes[0], str):
            return [_legal(nodes[0]), *(_with_legal_names(each) for each in nodes[1:])]
        return [_with_legal_names(each) for each in nodes]
    if isinstance(nodes, dict):
        return {key: _with_legal_names(each) for key, each in nodes.items()}
    return nodes
