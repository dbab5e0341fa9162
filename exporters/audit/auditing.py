"""Audits one artifact folder: reads its files, holds every rule against them, and tells what is inside."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from exporters import parity
from exporters.audit.contents import Contents, Port
from exporters.audit.rules import RULES, Subject
from exporters.audit.weights import Difference, Pair, compare_layer, pair_layers, with_scaling
from exporters.contract import FORMATS, ArtifactName, Card
from exporters.errors import ParityError
from exporters.fingerprints import WeightSet

NONE_COMPARED = "no layer of the artifact could be compared with one of the Keras model"
NO_FINGERPRINTS = "the golden set holds no weights for this precision: what is stored was not compared"


def audit(folder: Path, name: ArtifactName, card: Card | None, expected: WeightSet | None) -> dict[str, Any]:
    """Read an artifact's files and hold every rule against them.

    Args:
        folder: the artifact's.
        name: format, precision and variant.
        card: what it promises; None for an artifact made elsewhere, which may take and answer what it likes.
        expected: the fingerprints for its precision; None where there are none.

    Returns:
        `audit` of the artifact's entry of report.json: `status`, `reason`, `faults` ([{"check", "reason"}]) and what is
        inside.
    """
    try:
        contents = read_contents(folder, name.format)
    except ParityError as fault:
        return _refused("file", fault.what)
    subject = Subject(name, contents, card, expected, _paired(contents, expected))
    faults = [{"check": check, "reason": reason} for check, rule in RULES.items() for reason in rule(subject)]
    status, reason = parity.FAILED, "; ".join(fault["reason"] for fault in faults)
    if not faults:
        # Of an artifact made elsewhere nobody wrote down what it must hold; of ours somebody should have.
        missing = card is not None and expected is None
        none = (
            card is not None
            and contents.layers
            and not any(not pair.expected.touched for pair, each in subject.pairs if each)
        )
        status = parity.NOT_VERIFIED if missing or none else parity.VERIFIED
        reason = NO_FINGERPRINTS if missing else NONE_COMPARED if none else ""
    return {
        "status": status,
        "reason": reason,
        "faults": faults,
        **describe(contents),
        "constants": _tally(subject),
    }


def read_contents(folder: Path, format_name: str) -> Contents:
    """Read what is inside an artifact folder; raises ParityError where its files are not of that format."""
    module, _, attribute = FORMATS[format_name].reader.partition(":")
    return getattr(importlib.import_module(module), attribute)(folder)


def _refused(check: str, reason: str) -> dict[str, Any]:
    return {"status": parity.FAILED, "reason": reason, "faults": [{"check": check, "reason": reason}]}


def _paired(contents: Contents, expected: WeightSet | None) -> tuple[tuple[Pair, Difference | None], ...]:
    if expected is None:
        return ()
    pairs = pair_layers(contents.layers, expected.layers)
    return tuple(_compared(pair, expected) if pair.layer and pair.expected else (pair, None) for pair in pairs)


def _compared(pair: Pair, expected: WeightSet) -> tuple[Pair, Difference]:
    """Compare a pair; the layer behind the pixel scaling may have it folded in, which the pair then says."""
    difference = compare_layer(pair)
    scaling = expected.behind_scaling.get(pair.expected.name)
    if difference.excess <= 1 or scaling is None:
        return pair, difference
    scale, offset = (expected.others[f"{scaling}/{each}"] for each in ("scale", "offset"))
    # All of it, or where other layers need the scaled pixels too, only what is added.
    for factor in (scale, np.ones(1, np.float32)):
        folded = dataclasses.replace(pair, expected=with_scaling(pair.expected, factor, offset), folded=scaling)
        found = compare_layer(folded)
        if found.excess <= 1:
            return folded, found
    return pair, difference


def _tally(subject: Subject) -> dict[str, Any]:
    # What is not judged is not told as compared.
    compared = [(pair, each) for pair, each in subject.pairs if each is not None and not pair.expected.touched]
    told = {id(pair.layer) for pair, _ in compared}
    rest = [each for each in subject.contents.layers if id(each) not in told]
    uncompared = sum(each.kernel.values.size + (each.bias.values.size if each.bias else 0) for each in rest)
    if subject.expected is None or not subject.expected.closed:
        uncompared += sum(int(each.values.size) for each in subject.contents.constants)
    worst = max(compared, key=lambda each: each[1].excess, default=None)
    steps = [difference.steps for _, difference in compared if difference.steps is not None]
    relative = [difference.relative for _, difference in compared if difference.relative is not None]
    return {
        "layers": len(compared),
        "compared": sum(difference.compared for _, difference in compared),
        "largest_steps": max(steps, default=None),
        "largest_relative": max(relative, default=None),
        "worst": worst[0].expected.name if worst else None,
        "uncompared": uncompared,
    }


def describe(contents: Contents) -> dict[str, Any]:
    """Return what is inside as JSON can hold it."""
    return {
        "operators": dict(sorted(contents.operators.items())),
        "custom_operators": list(contents.custom_operators),
        "opset": contents.opset,
        "inputs": [_port(port) for port in contents.inputs],
        "outputs": [_port(port) for port in contents.outputs],
        "weights": dict(contents.weights),
        "activations": dict(contents.activations),
    }


def _port(port: Port) -> dict[str, Any]:
    scale = port.quantisation.scale if port.quantisation else np.ones(1)
    zero_point = port.quantisation.zero_point if port.quantisation else np.zeros(1, np.int64)
    return {
        "name": port.name,
        "dtype": port.dtype,
        "shape": list(port.shape),
        "scale": float(np.ravel(scale)[0]),
        "zero_point": int(np.ravel(zero_point)[0]),
    }
