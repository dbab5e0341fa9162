"""What is inside a TF.js layers model, read from its JSON and its weight files without running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.audit.contents import CONV, DENSE, DEPTHWISE, LINEAR, RELU, RELU6, Constant, Contents, Layer, Port
from exporters.audit.reading import floats, refusal, refusing, tally
from exporters.audit.tfjs_graph import MODEL_FILE, dtype_name, read_weights

FORMAT = "layers-model"
_KINDS = {"Conv2D": CONV, "DepthwiseConv2D": DEPTHWISE, "Dense": DENSE}
# The layers and activations of @tensorflow/tfjs-layers 4.22 that take pictures or what becomes of them.
_CLASSES = """
    Activation Add AlphaDropout Average AveragePooling2D BatchNormalization CenterCrop Concatenate Conv2D Conv2DTranspose
    Cropping2D Dense DepthwiseConv2D Dot Dropout ELU Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D
    GlobalMaxPooling2D InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Minimum Multiply PReLU Permute ReLU
    RepeatVector Rescaling Reshape Resizing SeparableConv2D Softmax ThresholdedReLU UpSampling2D ZeroPadding2D
"""
_FUNCTIONS = """
    elu gelu hard_sigmoid linear log_softmax mish relu relu6 selu sigmoid softmax softplus softsign swish tanh
"""
RUNNABLE, ACTIVATIONS = frozenset(_CLASSES.split()), frozenset(_FUNCTIONS.split())


def read(folder: Path) -> Contents:
    """Read `folder/model.json` and the weight files that it names; operators are the classes of its layers.

    Raises:
        ParityError: the files hold no TF.js layers model, are damaged, or name weight files outside the folder.
    """
    folder = Path(folder)
    with refusing(folder / MODEL_FILE):
        model = json.loads((folder / MODEL_FILE).read_bytes())
        if model.get("format") != FORMAT:
            raise refusal(f"{MODEL_FILE} holds a {model.get('format')!r}, not a {FORMAT}")
        topology = model["modelTopology"]
        config = topology.get("model_config", topology)["config"]
        stored, _ = read_weights(folder, model["weightsManifest"])
        entries = {each["name"]: each for each in config["layers"]}
        weighted = {name: each for name, each in entries.items() if each["class_name"] in _KINDS}
        consumers = _consumers(config)
        signature = model.get("signature") or _signature(config, entries)
        computed = sum(len(each["inbound_nodes"]) for each in entries.values())
        return Contents(
            operators=tally((each["class_name"], max(1, len(each["inbound_nodes"]))) for each in entries.values()),
            custom_operators=tuple(sorted({name for each in entries.values() for name in _lacking(each)})),
            # Those that drop or add by chance do so in training alone.
            random_operators=(),
            opset=None,
            inputs=tuple(_port(*each) for each in signature["inputs"].items()),
            outputs=tuple(_port(*each) for each in signature["outputs"].items()),
            weights=tally((each.dtype, each.values.size) for each in stored.values() if each.values.size > 1),
            activations={"float32": computed},
            layers=tuple(_layer(each, entries, stored, consumers) for each in weighted.values()),
            constants=tuple(_constants(entries, stored)),
            card=(model.get("userDefinedMetadata") or {}).get("card"),
        )


def _port(name: str, tensor: Mapping[str, Any]) -> Port:
    sizes = [int(each["size"]) for each in tensor["tensorShape"]["dim"]]
    return Port(name, dtype_name(tensor["dtype"]), tuple(size if size >= 0 else None for size in sizes))


def _signature(config: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs and outputs of a model that was written elsewhere: those carry no signature."""
    inputs = {}
    for name, *_ in config["input_layers"]:
        settings = entries[name]["config"]
        sizes = [{"size": -1 if size is None else size} for size in settings["batch_input_shape"]]
        inputs[name] = {"dtype": settings["dtype"], "tensorShape": {"dim": sizes}}
    unknown = {"dtype": "float32", "tensorShape": {"dim": [{"size": -1}]}}
    return {"inputs": inputs, "outputs": {name: unknown for name, *_ in config["output_layers"]}}


def _lacking(entry: Mapping[str, Any]) -> list[str]:
    """Return what of a layer TF.js cannot run: its class, or its activation."""
    kind, activation = entry["class_name"], entry["config"].get("activation") or LINEAR
    if kind not in RUNNABLE:
        return [kind]
    return [] if activation in ACTIVATIONS else [f"{kind} with {activation}"]


def _consumers(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return layer -> the layers that take what it gives; an empty name stands for a model's output."""
    consumers: dict[str, list[str]] = {}
    for entry in config["layers"]:
        for call in entry["inbound_nodes"]:
            for source, *_ in call:
                consumers.setdefault(source, []).append(entry["name"])
    for source, *_ in config["output_layers"]:
        consumers.setdefault(source, []).append("")
    return consumers


def _layer(
    entry: Mapping[str, Any],
    entries: Mapping[str, Any],
    stored: Mapping[str, Constant],
    consumers: Mapping[str, list[str]],
) -> Layer:
    name, kind, settings = entry["name"], _KINDS[entry["class_name"]], entry["config"]
    kernel = stored[f"{name}/{'depthwise_kernel' if kind == DEPTHWISE else 'kernel'}"]
    if kernel.values.ndim != (2 if kind == DENSE else 4):
        raise refusal(f"the kernel of {name} has the shape {kernel.values.shape}")
    bias = stored[f"{name}/bias"] if settings.get("use_bias", True) else None
    activation, output = settings.get("activation") or LINEAR, name
    following = consumers.get(name, [])
    if activation == LINEAR and len(following) == 1 and following[0]:
        behind = _activation_of(entries[following[0]])
        if behind != LINEAR:
            activation, output = behind, following[0]
    return Layer(name, kind, kernel, bias, activation, output)


def _activation_of(entry: Mapping[str, Any]) -> str:
    """Return the activation that a layer is; `linear` for any other one."""
    kind, settings = entry["class_name"], entry["config"]
    if kind == "Activation":
        return settings["activation"]
    if kind == "ReLU":
        return {None: RELU, 6.0: RELU6}.get(settings.get("max_value"), "clip")
    return kind.lower() if kind in ("ELU", "LeakyReLU", "PReLU", "Softmax") else LINEAR


def _constants(entries: Mapping[str, Any], stored: Mapping[str, Constant]) -> list[Constant]:
    """Return all other constants: those of Rescaling stand in its settings, those of a BatchNorm are a scale and a shift."""
    found: list[Constant] = []
    for name, entry in entries.items():
        kind, settings = entry["class_name"], entry["config"]
        own = {key.rpartition("/")[2]: each for key, each in stored.items() if key.rpartition("/")[0] == name}
        if kind in _KINDS:
            continue
        if kind == "Rescaling":
            pairs = (("scale", settings["scale"]), ("offset", settings.get("offset") or 0.0))
            found += [floats(f"{name}/{key}", "float32", np.asarray(value, np.float32)) for key, value in pairs]
        elif kind == "BatchNormalization":
            found += _as_scale_and_shift(name, own, float(settings["epsilon"]))
        else:
            found += list(own.values())
    return found


def _as_scale_and_shift(name: str, own: Mapping[str, Constant], epsilon: float) -> list[Constant]:
    mean, variance = (own[each].values.astype(np.float64) for each in ("moving_mean", "moving_variance"))
    with np.errstate(all="ignore"):
        scale = (own["gamma"].values if "gamma" in own else 1.0) / np.sqrt(variance + epsilon)
        shift = (own["beta"].values if "beta" in own else 0.0) - mean * scale
    return [floats(f"{name}/scale", "float32", scale), floats(f"{name}/shift", "float32", shift)]
