"""Finds the first layer at which an artifact leaves the Keras model. Light: Keras comes in as a `Reference`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.audit.contents import LINEAR, RELU, RELU6, Contents, Layer
from exporters.contract import FORMATS
from exporters.errors import CutpointError
from exporters.inputs import Inputs, as_inputs
from exporters.layers.alignment import ALIKE, align, distance, only_scaled
from exporters.layers.comparison import LayerValues, Sums, figures, off_by, sums_of
from exporters.layers.rounding import Rounding, rounding_of

Pairs = Sequence[tuple[int | None, int | None]]
TRACED, NOT_TRACED = "traced", "not_traced"
BATCH = 8
# A layer is off where its own error is so many times what its roundings explain.
LARGEST_RATIO = 6.0
# An activation that a format may compute in several operators: the layer is then compared before it.
_POSITIVE = (RELU, RELU6, "softmax", "sigmoid")
_COMPARED_BEHIND = (LINEAR, *_POSITIVE)


@dataclasses.dataclass(frozen=True)
class ReferenceLayer:
    """A layer with weights of the folded Keras model; the fields as in `contents.Layer`, `kernel` as an array."""

    name: str
    kind: str
    kernel: np.ndarray
    activation: str


@dataclasses.dataclass(frozen=True)
class Tapped:
    """What an artifact's layer gave: float32 (N, ...), behind its activation or before it, and how it rounds."""

    values: np.ndarray
    before_activation: bool
    rounding: Rounding


@dataclasses.dataclass(frozen=True)
class Reference:
    """The Keras model as a trace wants it.

    `values(inputs, taps)` takes pictures, uint8 (N, height, width, 3), with columns for a model that takes such, and index of
    a layer -> what the artifact gave for it, and yields the values of every layer that is tapped.
    """

    layers: tuple[ReferenceLayer, ...]
    values: Callable[[Inputs, Mapping[int, Tapped]], Iterator[LayerValues]]


@dataclasses.dataclass(frozen=True)
class _Found:
    """An artifact's layer in the form that `align` takes."""

    kind: str
    kernel: np.ndarray
    layer: Layer


def trace_artifact(folder: Path, format_name: str, images: np.ndarray | Inputs, reference: Reference) -> dict[str, Any]:
    """Compare an artifact with the Keras model layer by layer.

    Args:
        folder: the artifact's.
        format_name: a key of FORMATS.
        images: uint8 (N, height, width, 3), with columns for a model that takes such; a dozen do.
        reference: the Keras model, as `reference.load_reference` gives it.

    Returns:
        `status`, `traced` or `not_traced`; `reason`, why not, or what is odd; `images`, how many; `first_off`, the name of
        the first layer at which the artifact leaves the Keras model, or None; `rows`, one for each layer, with `name`,
        `kind` and `max_abs`, `relative`, `snr_db`, `cosine` of its values against Keras's from the image on, and
        `own_error`, the error that is not inherited, in multiples of what the layer's roundings explain. Numbers are
        None where there are none. Nothing is raised: what fails is the reason.
    """
    result = {"status": NOT_TRACED, "reason": "", "images": len(images), "first_off": None, "rows": []}
    if not len(images):
        return result | {"images": 0, "reason": "there are no images to compare on"}
    try:
        return result | _trace(Path(folder), format_name, as_inputs(images), reference)
    except CutpointError as fault:
        return result | {"reason": fault.what}
    except ImportError as fault:
        return result | {"reason": f"a package is missing: {fault}"}
    except Exception as fault:  # Whatever a file made elsewhere does to a runtime or a reader: verifying goes on.
        return result | {"reason": f"{type(fault).__name__}: {fault}"}


def _trace(folder: Path, format_name: str, images: Inputs, reference: Reference) -> dict[str, Any]:
    row = FORMATS[format_name]
    read, tap = _attribute(row.reader), _attribute(row.tap)
    contents = read(folder)
    found = [_Found(each.kind, each.kernel.values, each) for each in contents.layers]
    if not found:
        return {"reason": "the artifact holds no layers with weights"}
    if not reference.layers:
        return {"reason": "the Keras model has no layers with weights"}
    pairs = align(reference.layers, found)
    partners = {one: found[other].layer for one, other in pairs if one is not None and other is not None}
    if not partners:
        return {"reason": "no layer of the artifact has the kind and the kernel shape of one of the Keras model"}
    taps = _taps(folder, tap, images, reference, partners, contents)
    rows = _judged(pairs, images, reference, found, taps)
    entries = [row.entry for row in rows]
    reason = "; ".join(row.remark for row in rows if row.remark)
    return {"status": TRACED, "reason": reason, "first_off": first_off(rows), "rows": entries}


def _attribute(entry: str) -> Callable:
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _taps(
    folder: Path,
    tap: Callable,
    images: Inputs,
    reference: Reference,
    partners: Mapping[int, Layer],
    contents: Contents,
) -> dict[int, Tapped]:
    """Return index of a Keras layer -> what the artifact's layer gives for all images."""
    values = tap(folder, list(dict.fromkeys(layer.output for layer in partners.values())), images)
    taps = {}
    for one, layer in partners.items():
        expected = reference.layers[one]
        early = layer.activation == LINEAR and expected.activation not in _COMPARED_BEHIND
        taps[one] = Tapped(values[layer.output], early, rounding_of(layer, expected.kernel, contents))
    return taps


def _compare(images: Inputs, reference: Reference, taps: Mapping[int, Tapped]) -> dict[int, Sums | None]:
    """Return index of a Keras layer -> its sums over all images; None where the artifact's layer has another shape."""
    sums: dict[int, Sums | None] = {}
    for start in range(0, len(images), BATCH):
        batch = slice(start, start + BATCH)
        of_batch = {one: dataclasses.replace(each, values=each.values[batch]) for one, each in taps.items()}
        for each in reference.values(images[batch], of_batch):
            known = sums.get(each.index)
            new = None if each.found is None else sums_of(each)
            sums[each.index] = known + new if known is not None and new is not None else new
    return sums


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of the comparison.

    `entry` is what the report shows; `off` whether its numbers are; `alone` whether there are none, because the layer is only
    in one of the two models or cannot be compared; `remark` says in words what is odd.
    """

    entry: Mapping[str, Any]
    off: bool
    alone: bool = False
    remark: str = ""


def _judged(
    pairs: Pairs, images: Inputs, reference: Reference, found: Sequence[_Found], taps: Mapping[int, Tapped]
) -> list[Row]:
    """Return a row for each pair; what may be finished only behind a layer is asked of the layers that follow it."""
    rows = _rows(pairs, images, reference, found, taps)
    apart = [
        one
        for row, (one, other) in zip(rows, pairs, strict=True)
        if row.off and one in taps and _finished_behind(reference.layers[one], found[other], taps[one].values)
    ]
    if not apart:
        return rows
    again = _rows(pairs, images, reference, found, _without(taps, apart))
    # Rows that are off only now tell of the layer before them, which nothing makes up for; it is shown with its numbers.
    new = next((at for at, (row, old) in enumerate(zip(again, rows, strict=True)) if row.off and not old.off), None)
    before = [one for one in apart if new is not None and one in {pair[0] for pair in pairs[:new]}]
    named = first_off(again)
    guilty = before[-1] if before else next((one for one in apart if reference.layers[one].name == named), None)
    if guilty is None:
        return again
    return _rows(pairs, images, reference, found, _without(taps, [one for one in apart if one != guilty]))


def _without(taps: Mapping[int, Tapped], apart: Sequence[int]) -> dict[int, Tapped]:
    return {one: each for one, each in taps.items() if one not in apart}


def _rows(
    pairs: Pairs, images: Inputs, reference: Reference, found: Sequence[_Found], taps: Mapping[int, Tapped]
) -> list[Row]:
    sums = _compare(images, reference, taps)
    return [_row(one, other, reference.layers, found, sums) for one, other in pairs]


def _finished_behind(expected: ReferenceLayer, found: _Found, values: np.ndarray) -> bool:
    """Tell whether what an artifact's layer gives may be made Keras's by another operator, so that it cannot be compared.

    Such is a layer without its activation, which optimisers move, and one whose kernel is Keras's but for a factor for each
    channel, behind which a BatchNorm may stand that was not folded. Whether that is so, the next layer tells.
    """
    # Where the range of whole numbers cuts off what an activation would, it needs no operator: no value is negative then.
    if found.layer.activation == LINEAR and expected.activation in _POSITIVE and values.min() < 0:
        return True
    return only_scaled(expected, found)


def _row(
    one: int | None, other: int | None, layers: Sequence[ReferenceLayer], found: Sequence[_Found], sums: Mapping
) -> Row:
    nothing = dict.fromkeys(("max_abs", "relative", "snr_db", "cosine", "own_error"))
    if one is None:
        each = found[other]
        twin = next((layer.name for layer in layers if distance(layer, each) <= ALIKE), None)
        name = f"{twin} (again)" if twin else f"{each.layer.name} (not in the Keras model)"
        return Row(
            {"name": name, "kind": each.kind, **nothing}, False, True, f"the artifact has one layer more: {name}"
        )
    layer = layers[one]
    head = {"name": layer.name, "kind": layer.kind}
    if other is None:
        return Row({**head, **nothing}, False, True, f"the artifact has no layer {layer.name}")
    if sums.get(one) is None:
        remark = f"what {layer.name} gives is finished by another operator: the next layer tells for it"
        return Row({**head, **nothing}, False, True, remark)
    error = off_by(sums[one])
    entry = {**head, **figures(sums[one]), "own_error": error if np.isfinite(error) else None}
    return Row(entry, not error <= LARGEST_RATIO)


def first_off(rows: Sequence[Row]) -> str | None:
    """Return the name of the first layer at which the artifact leaves the Keras model; None where it never does.

    A layer without numbers is named where the layer behind it is off, or where none comes behind it: a converter may take
    a layer apart, and where the next one gets what it should, nothing is lost.
    """
    pending: str | None = None
    for row in rows:
        if row.off:
            return pending or row.entry["name"]
        pending = (pending or row.entry["name"]) if row.alone else None
    return pending
