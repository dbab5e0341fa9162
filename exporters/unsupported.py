"""Says in the user's words which layer a format cannot hold, where a converter gives up over an operator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from exporters.errors import InputError
from exporters.saved_model import SERVING

MOST_NAMES = 5
# Of the functions that hold the graph together: their names say nothing of what is inside.
_CALLS = frozenset({"StatefulPartitionedCall", "PartitionedCall", "Identity", "NoOp", "Const", "Placeholder"})


def unsupported(format_name: str, saved_model_dir: Path, fault: BaseException) -> InputError:
    """Return the error for a conversion that failed.

    Args:
        format_name: in words, such as `TF.js`.
        saved_model_dir: what was to be converted.
        fault: the converter's, whose text names the operators, in most cases.
    """
    places = sorted(_places(saved_model_dir, str(fault)))
    named = ", ".join(f"'{layer}' ({operator})" for layer, operator in places[:MOST_NAMES])
    more = f" and {len(places) - MOST_NAMES} more" if len(places) > MOST_NAMES else ""
    told = f"layers that it lacks: {named}{more}" if places else _first_line(fault)
    return InputError(
        f"{format_name} cannot hold this model: {told}.",
        f"a model of operators that {format_name} has",
        "cut before such a layer, put another one in its place, or leave the format out of --formats",
    )


def _places(saved_model_dir: Path, text: str) -> set[tuple[str, str]]:
    """Return (layer, operator) of all operators of the graph that a text names."""
    named = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)) - _CALLS
    return {(_layer(name), operator) for name, operator in _nodes(saved_model_dir) if operator in named}


def _nodes(saved_model_dir: Path) -> Iterator[tuple[str, str]]:
    graph = tf.saved_model.load(str(saved_model_dir)).signatures[SERVING].graph.as_graph_def()
    for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
        yield node.name, node.op


def _layer(node: str) -> str:
    """Return the layer that a node's name holds: it comes behind the model's, and tracing adds `_1` to both."""
    parts = node.split("/")
    return parts[1].removesuffix("_1") if len(parts) > 2 else node


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
