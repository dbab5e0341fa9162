"""`module:object`: a head that the user wrote, laid flat into stock layers, so that every format can hold it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from exporters.contract import REGRESSION
from exporters.errors import InputError, nearest
from exporters.keras_graph import each_once, graph_of, rebuild, run
from pipeline.config import HeadSection

POOLING = "average"
# Layers within layers within layers: deeper ones are no head any more.
_MOST_DEPTH = 10
# Operations that are layers under another name; a softmax along another axis than the last is none.
ACTIVATIONS_OUTSIDE = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Tanh": "tanh",
    "Elu": "elu",
    "Selu": "selu",
    "Softplus": "softplus",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Softmax": "softmax",
}


def build(name: str, section: HeadSection, task: str, width: int, units: int, seed: int) -> keras.Model:
    """Build the head that a user's object makes; see `build_head`.

    The object is a function of the features, a Lambda-style one too, or a `keras.layers.Layer` or `keras.Model`, as a class or
    ready made; one that has a parameter `units` is given how many numbers the answer has. What it is made of is laid flat:
    its `call` is followed with symbolic features, so that the layers inside stand in the model themselves.

    Args:
        name: of the head.
        section: its configuration; `kind` is `module:object`.
        task: of the head.
        width: of the pooled features.
        units: how many numbers the answer must have.
        seed: of its initial weights.

    Returns:
        features (N, width) -> (N, units); with a normalisation in front, which training sets, and one behind for a regression.

    Raises:
        InputError: it cannot be found, called, laid flat, or answers with another shape.
    """
    found = load(section.kind)
    keras.utils.set_random_seed(seed)
    features = keras.Input((width,), name=f"{name}_features")
    value = keras.layers.Normalization(mean=None, name=f"{name}_normalization")(features)
    answered = _called(section.kind, found, value, units)
    if not isinstance(answered, keras.KerasTensor):
        raise _fault(
            section.kind, f"answers with {type(answered).__name__}", "one tensor", "return what the last layer gives"
        )
    if tuple(answered.shape[1:]) != (units,):
        shape = ", ".join(["N", *map(str, answered.shape[1:])])
        raise _fault(
            section.kind,
            f"answers with ({shape})",
            f"(N, {units}) for the task '{task}' of the head '{name}'",
            "end with a layer of that many units; a parameter `units` is given the number",
        )
    flat = _flat(section.kind, keras.Model(features, answered))
    flat = _renamed(name, flat)
    if task != REGRESSION:
        return keras.Model(flat.inputs, flat.outputs[0], name=f"{name}_head")
    spread = keras.layers.Normalization(mean=None, invert=True, name=name)
    return keras.Model(flat.inputs, spread(flat.outputs[0]), name=f"{name}_head")


def load(kind: str) -> Any:
    """Import a user's object; the current folder is searched last, so that nothing in it hides what is installed.

    Raises:
        InputError: no such module or object, it cannot be called, or the module's own code fails.
    """
    module_name, _, attribute = kind.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as fault:
        if fault.name and module_name.startswith(fault.name):
            raise InputError(
                f"There is no module '{module_name}' for the head '{kind}'.",
                f"{module_name}.py in the current folder, or an installed module",
                "check the name before the colon, or start cutpoint where the file is",
            ) from fault
        raise _fault(
            kind, f"needs the module '{fault.name}', which is missing", "its imports installed", "install it"
        ) from fault
    except Exception as fault:  # whatever a user's own code raises
        raise _fault(kind, f"cannot be imported: {_in_words(fault)}", "a module that imports", "mend it") from fault
    if not hasattr(module, attribute):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise InputError(
            f"The module '{module_name}' has no '{attribute}'.",
            nearest(attribute, known),
            "check the name behind the colon",
        )
    found = getattr(module, attribute)
    if not callable(found):
        raise _fault(kind, f"is {type(found).__name__}", "a function, a layer or a model", "name one of these")
    return found


def source_digest(kind: str) -> str:
    """Return the sha256 of the user's source: of the object's module and of the modules beside it that it loaded."""
    load(kind)
    module = sys.modules[kind.partition(":")[0]]
    path = getattr(module, "__file__", None)
    if path is None:
        return ""
    folder = Path(path).resolve().parent
    loaded = {getattr(each, "__file__", None) for each in list(sys.modules.values())}
    beside = sorted(Path(each).resolve() for each in loaded if each and Path(each).resolve().is_relative_to(folder))
    digest = hashlib.sha256()
    for each in beside if "site-packages" not in str(folder) else [Path(path)]:
        digest.update(each.read_bytes())
    return digest.hexdigest()


def _called(kind: str, found: Any, value: keras.KerasTensor, units: int) -> Any:
    given = {"units": units} if _takes_units(found) else {}
    try:
        if inspect.isclass(found):
            return found(**given)(value)
        if isinstance(found, keras.layers.Layer):
            # A head is built more than once, and each time anew.
            return type(found).from_config(found.get_config())(value)
        return found(value, **given)
    except Exception as fault:  # whatever a user's own code raises
        raise _fault(
            kind,
            f"cannot be called on symbolic features: {_in_words(fault)}",
            "keras.layers and keras.ops throughout: TensorFlow's own functions take no symbolic values",
            "replace tf.nn.relu by keras.ops.relu, tf.concat by keras.ops.concatenate, and so on",
        ) from fault


def _takes_units(found: Any) -> bool:
    try:
        return "units" in inspect.signature(found).parameters and not isinstance(found, keras.layers.Layer)
    except (TypeError, ValueError):
        return False


def _flat(kind: str, model: keras.Model) -> keras.Model:
    """Return the model with what is inside of models, foreign layers and Lambdas in their places."""
    for _ in range(_MOST_DEPTH):
        if not any(_opens(operation) for operation in model.operations):
            return model
        model = rebuild(model, lambda operation: _opened(kind, operation) if _opens(operation) else operation)
    raise _fault(
        kind, "holds layers that open into themselves", "layers of layers, in the end Keras's own", "simplify it"
    )


def _opens(operation: Any) -> bool:
    if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.layers.InputLayer):
        return False
    return isinstance(operation, (keras.Model, keras.layers.Lambda)) or not _is_stock(operation)


def _is_stock(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.partition(".")[0] == "keras"


def _opened(kind: str, layer: keras.layers.Layer) -> Callable:
    if isinstance(layer, keras.layers.Lambda):
        return lambda value, **options: layer.function(value, **(layer.arguments or {}))
    if isinstance(layer, keras.Model) and hasattr(graph_of(layer), "_run_through_graph"):
        # Its graph is known already, and has no operations that only its `call` adds.
        return lambda *values, **options: run(
            layer,
            keras.tree.pack_sequence_as(graph_of(layer)._inputs_struct, list(values)),
            lambda operation: operation,
        )
    if layer._trainable_variables or layer._non_trainable_variables:
        own = [each.name for each in (*layer._trainable_variables, *layer._non_trainable_variables)]
        raise _fault(
            kind,
            f"is a layer with weights of its own, {', '.join(own)}, which no other program could load or convert",
            "weights in layers of Keras inside it",
            "make them with keras.layers.Dense, Conv2D or BatchNormalization instead of add_weight",
        )

    def call(*values: Any, **options: Any) -> Any:
        options.pop("training", None)
        try:
            return layer.call(*values, **options)
        except Exception as fault:  # whatever a user's own code raises
            raise _fault(
                kind,
                f"has the layer '{layer.name}', whose call cannot be followed: {_in_words(fault)}",
                "keras.layers and keras.ops throughout",
                "replace what works on values by what works on symbols, such as tf.nn.relu by keras.ops.relu",
            ) from fault

    return call


def _renamed(name: str, model: keras.Model) -> keras.Model:
    """Return the model with names that begin with the head's, as two heads may be made by the same code, and with activations
    outside of layers, such as `keras.ops.relu(x)`, as layers.
    """
    taken: set[str] = set()

    def unused(operation: Any) -> str:
        wanted, number = f"{name}_{_plain(operation)}", 2
        while wanted in taken:
            wanted, number = f"{name}_{_plain(operation)}_{number}", number + 1
        taken.add(wanted)
        return wanted

    def renamed(operation: Any) -> Callable:
        if operation.name.startswith(f"{name}_"):
            return operation
        activation = ACTIVATIONS_OUTSIDE.get(type(operation).__name__)
        if activation and not isinstance(operation, keras.layers.Layer):
            return keras.layers.Activation(activation, name=unused(operation))
        operation.name = unused(operation)
        return operation

    return rebuild(model, each_once(renamed))


def _plain(operation: Any) -> str:
    """Return an operation's name; without the number that Keras counts on from whatever the process built before."""
    stem = re.sub(r"_\d+$", "", operation.name)
    automatic = stem.replace("_", "") == type(operation).__name__.lower()
    return stem if automatic else operation.name


def _in_words(fault: Exception) -> str:
    text = " ".join(str(fault).split())
    return f"{type(fault).__name__}: {text[:300]}"


def _fault(kind: str, what: str, expected: str, mend: str) -> InputError:
    return InputError(f"The head '{kind}' {what}.", expected, mend)
