"""The graph of a functional Keras model: its calls in order, who takes what, and the same graph built anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from exporters.opaque import is_opaque


def calls_of(model: keras.Model) -> list[Any]:
    """Return the calls (Keras's nodes) that compute something, each behind those that it takes from."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]


def consumers_of(model: keras.Model) -> dict[int, int]:
    """Return id of a symbolic tensor -> how many calls take it; that it is an output of the model counts as one more."""
    counts: dict[int, int] = {}
    for tensor in [each for node in calls_of(model) for each in node.input_tensors] + list(model.outputs):
        counts[id(tensor)] = counts.get(id(tensor), 0) + 1
    return counts


def walk(
    model: keras.Model, given: Sequence[Any], call: Callable[[Any, Mapping], list], change: Callable[[Any, Any], Any]
) -> list[Any]:
    """Compute a model's outputs call by call; what nothing takes any more is let go of at once.

    Args:
        model: functional.
        given: a value for each of its inputs.
        call: (a call of the graph, id of a symbolic tensor -> its value) -> what the call gives, as `answers_of` returns it.
        change: (symbolic tensor, its value) -> what goes on in its place.

    Returns:
        A value for each of the model's outputs.
    """
    graph = graph_of(model)
    values = {id(tensor): value for tensor, value in zip(graph.inputs, given, strict=True)}
    for _ in walk_by_calls(graph, values, call, change):
        pass
    return [values[id(tensor)] for tensor in graph.outputs]


def walk_by_calls(
    graph: keras.Model,
    values: dict[int, Any],
    call: Callable[[Any, Mapping], list],
    change: Callable[[Any, Any], Any],
) -> Iterator[tuple[Any, list[Any]]]:
    """Do what `walk` does, and give each call with its values as soon as they are there.

    Args:
        graph: as `graph_of` returns it.
        values: id of a symbolic tensor -> its value, at first of the inputs, at last of the inputs and outputs; changed.
        call, change: as `walk` takes them.
    """
    remaining = consumers_of(graph)
    for node in calls_of(graph):
        found = [change(*each) for each in zip(node.outputs, call(node, values), strict=True)]
        values |= {id(tensor): value for tensor, value in zip(node.outputs, found, strict=True)}
        yield node, found
        let_go(node, values, remaining)


def let_go(node: Any, values: dict[int, Any], remaining: dict[int, int]) -> None:
    """Remove from `values` what a call was the last to take; `remaining`, as `consumers_of` gives it, counts down."""
    for tensor in node.input_tensors:
        remaining[id(tensor)] -= 1
        if not remaining[id(tensor)]:
            del values[id(tensor)]


def answers_of(node: Any, values: Mapping[int, Any]) -> list[Any]:
    """Return what a call gives, in inference, where `values` has what it takes: id of a symbolic tensor -> a tensor."""
    arguments, options = node.arguments.fill_in({id(tensor): values[id(tensor)] for tensor in node.input_tensors})
    if "training" in getattr(node.operation, "_call_context_args", {}):
        options = {**options, "training": False}
    return keras.tree.flatten(node.operation(*arguments, **options))


def rebuild(model: keras.Model, replace: Callable[[Any], Callable]) -> keras.Model:
    """Return a new model with the graph of a given one, every operation replaced.

    Args:
        model: functional; its own layers are not touched as long as `replace` makes new ones.
        replace: operation -> what is called in its place, with the arguments of the operation's call.

    Returns:
        A model with inputs of the same names and shapes, and outputs of the same structure and names.
    """
    fresh = {
        id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)
        for tensor in model.inputs
    }
    inputs = keras.tree.map_structure(lambda tensor: fresh[id(tensor)], model._inputs_struct)
    return keras.Model(inputs, run(model, inputs, replace), name=model.name)


def run(model: keras.Model, inputs: Any, replace: Callable[[Any], Callable]) -> Any:
    """Run values or symbolic tensors through a model's graph; `replace` as in `rebuild`. Returns the model's outputs."""
    return graph_of(model)._run_through_graph(inputs, operation_fn=replace)


def graph_of(model: keras.Model) -> keras.Model:
    """Return the model whose graph can be walked: a Sequential keeps one inside."""
    return model._functional if isinstance(model, keras.Sequential) else model


def each_once(replace: Callable[[Any], Callable]) -> Callable[[Any], Callable]:
    """Return `replace` as a function that asks once for each operation: a layer that is called several times stays one."""
    made: dict[int, Callable] = {}

    def remembered(operation: Any) -> Callable:
        if id(operation) not in made:
            made[id(operation)] = replace(operation)
        return made[id(operation)]

    return remembered


def copy_of(layer: keras.layers.Layer, **settings: Any) -> keras.layers.Layer:
    """Return a new layer of the same class and settings but for those given; its weights are still to be set."""
    # A SavedModel is taken as it is: it has no settings to change, and is never changed itself.
    return layer if is_opaque(layer) else type(layer).from_config({**layer.get_config(), **settings})
