"""What must hold of the insides of an artifact: a rule for each kind of fault, over what the readers find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from exporters.audit.contents import DENSE, LINEAR, RELU, RELU6, Constant, Contents, Layer, Port, Quantisation
from exporters.audit.weights import HALF_A_STEP, Difference, Pair, compare_constant
from exporters.contract import (
    BINARY,
    COLUMNS_ENCODED,
    COLUMNS_NAME,
    FORMATS,
    INPUT_NAME,
    MEASURED,
    WHOLE_NUMBERS,
    ArtifactName,
    Card,
    Format,
)
from exporters.fingerprints import WeightSet
from exporters.papers import artifact_card, labels_files

# Precision -> how its kernels are stored.
STORED = {
    "float32": "float32",
    "float16": "float16",
    "uint8": "uint8",
    "uint16": "uint16",
    "dynamic_int8": "int8",
    "int8": "int8",
    "int16x8": "int8",
}
# Precision -> kernels with fewer values may stay in float32: TFLite's converter leaves small ones alone.
LEFT_ALONE = {"dynamic_int8": 1024}
SAME_NAME = {"logistic": "sigmoid"}
TO_PROBABILITIES = frozenset({"softmax", "sigmoid"})
# A converter's scale is the span divided by the number of steps, but for the rounding of float32 and of the calibration.
SCALE_ROUNDING = 2e-3
LARGEST_WIDENING = 2.0
# Of the width of what is concatenated: how much of one part may lie outside the range that all parts share.
LARGEST_CLIPPING = 0.05
# Of ReLU and ReLU6, which some formats write as a clip between two constants.
ACTIVATION_BOUNDS = (0.0, 6.0)
# The least number above 0 in float16: a constant that stands for 0 where 0 itself would be taken for something else.
NEXT_TO_0 = 2.0**-24
MOST_REASONS = 3
_RAW = {INPUT_NAME: "pixels", COLUMNS_NAME: "numbers"}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is audited: the artifact's name and insides, and what was promised; None where it was made elsewhere."""

    name: ArtifactName
    contents: Contents
    card: Card | None
    expected: WeightSet | None
    pairs: tuple[tuple[Pair, Difference | None], ...]

    @property
    def row(self) -> Format:
        """The row of its format."""
        return FORMATS[self.name.format]


def operators(subject: Subject) -> list[str]:
    """No operator that a plain runtime of the format lacks: Flex and custom ones, other domains."""
    found = subject.contents.custom_operators
    return [f"it needs operators that its runtimes lack: {', '.join(found)}"] if found else []


def random_operators(subject: Subject) -> list[str]:
    """Nothing that answers otherwise each time, as dropout that is left on does."""
    found = subject.contents.random_operators
    return [f"it holds random operators: {', '.join(found)}"] if found else []


def opset(subject: Subject) -> list[str]:
    """The opset that the format is written in here; of an artifact made elsewhere it is only told."""
    promised, found = subject.row.opset, subject.contents.opset
    return [f"its opset is {found}, not {promised}"] if subject.card and found != promised else []


def stored_precision(subject: Subject) -> list[str]:
    """Kernels are stored as the precision says."""
    wanted, least = STORED[subject.name.precision], LEFT_ALONE.get(subject.name.precision, 0)
    wrong = [
        layer for layer in subject.contents.layers if layer.kernel.dtype != wanted and layer.kernel.values.size >= least
    ]
    wrong = _without_measuring(wrong, subject) if wanted == "float16" else wrong
    if not wrong:
        return []
    count = len(subject.contents.layers)
    return [f"{len(wrong)} of {count} kernels are stored in {wrong[0].kernel.dtype}, not in {wanted}: {wrong[0].name}"]


def _without_measuring(layers: list[Layer], subject: Subject) -> list[Layer]:
    """Leave out one dense layer in float32 for each answer of as many numbers in units of their own.

    Those need not fit into float16, and the exporters keep their last layer wide.
    """
    widths = [each.shape[-1] for each in subject.card.outputs if each.task in MEASURED] if subject.card else []
    left = []
    for layer in layers:
        width = layer.kernel.values.shape[-1]
        if layer.kind == DENSE and layer.kernel.dtype == "float32" and layer.activation == LINEAR and width in widths:
            widths.remove(width)
        else:
            left.append(layer)
    return left


def computed_precision(subject: Subject) -> list[str]:
    """A precision of whole numbers computes in whole numbers, layer by layer."""
    if subject.name.precision not in WHOLE_NUMBERS:
        return []
    answering = {port.name for port in subject.contents.outputs if port.dtype.startswith("float")}
    wrong = [
        layer.name
        for layer in subject.contents.layers
        # What a layer with whole numbers on both sides counts up may be the answer as it is.
        if layer.output_quantisation is None and (layer.output not in answering or layer.input_quantisation is None)
    ]
    # Answers that are no classifications are float at the end; nothing else is, but what encodes columns, counted apart.
    floats = sum(count for dtype, count in subject.contents.activations.items() if dtype.startswith("float"))
    answers = sum(port.dtype.startswith("float") for port in subject.contents.outputs)
    if subject.expected and subject.expected.closed and floats > answers:
        return [f"{floats} tensors are computed in float, and it has {answers} answers in float"]
    return [f"{len(wrong)} of {len(subject.contents.layers)} layers compute in float: {wrong[0]}"] if wrong else []


def inputs(subject: Subject) -> list[str]:
    """One input that takes raw pixels, its scale 1.0 and zero point 0, and one in float32 for columns where the card has such."""
    if subject.card is None:
        return []
    resize, columns = subject.card.resize, subject.card.columns
    whole, batch = subject.name.takes_integers, subject.name.batch
    pixels = Port(INPUT_NAME, "uint8" if whole else "float32", (batch, resize.height, resize.width, 3))
    wanted = (pixels, Port(COLUMNS_NAME, "float32", (batch, len(columns)))) if columns else (pixels,)
    found = subject.contents.inputs
    if len(found) != len(wanted):
        return [f"it has {len(found)} inputs" + (f", not {len(wanted)}" if columns else "")]
    named = {port.name: port for port in found}
    # A single input that is called otherwise is still looked at.
    pairs = [(port, named.get(port.name) or (found[0] if len(found) == 1 else None)) for port in wanted]
    return [fault for port, each in pairs for fault in _input_faults(port, each)]


def _input_faults(wanted: Port, found: Port | None) -> list[str]:
    if found is None:
        return [f"it has no input '{wanted.name}'"]
    what = "its input" if wanted.name == INPUT_NAME else f"its input '{wanted.name}'"
    faults = []
    if found.name != wanted.name:
        faults.append(f"its input is called '{found.name}', not '{wanted.name}'")
    if found.dtype != wanted.dtype:
        faults.append(f"{what} is {found.dtype}, not {wanted.dtype}")
    if found.shape != wanted.shape:
        faults.append(f"{what} has the shape {_shape(found)}, not {_shape(wanted)}")
    if not _has_scale(found, 1.0):
        faults.append(f"{what}'s scale is not 1.0 with zero point 0: raw {_RAW[wanted.name]} would be misread")
    return faults


def card_inside(subject: Subject) -> list[str]:
    """A card that is carried inside the model is that beside it."""
    inside = subject.contents.card
    if subject.card is None or inside is None or inside == subject.card.to_json():
        return []
    return ["the card inside the model is another one than card.json"]


def labels_inside(subject: Subject) -> list[str]:
    """Labels that are carried inside the model are the card's; of one probability also the one label that it is of."""
    inside = subject.contents.labels
    if subject.card is None or inside is None:
        return []
    promised = labels_files(subject.card)
    ways = {name: {labels} for name, labels in promised.items()}
    for output in subject.card.outputs:
        of_one = {output.labels[1:]} if output.task == BINARY else set()
        ways[f"labels.{output.name}.txt"] = {output.labels, *of_one}
    wrong = [name for name, labels in inside.items() if labels not in ways.get(name, set())]
    return [f"the labels inside the model are others than the card's: {', '.join(wrong)}"] if wrong else []


def outputs(subject: Subject) -> list[str]:
    """The types that the card promises, and probabilities in whole numbers in steps of 1/256 from 0.

    Names and shapes are seen in the answers.
    """
    if subject.card is None:
        return []
    found = {port.name: port for port in subject.contents.outputs}
    promised = {each.name: each for each in artifact_card(subject.card, subject.name).outputs if each.name in found}
    faults = [
        f"its output '{name}' is {found[name].dtype}, not {output.dtype}"
        for name, output in promised.items()
        if found[name].dtype != output.dtype
    ]
    steps = {name for name, output in promised.items() if output.activation in TO_PROBABILITIES}
    wrong = [name for name in promised if name in steps and not _has_scale(found[name], 1 / 256)]
    return _shortened(faults + [f"its output '{name}' is not in steps of 1/256 from 0" for name in wrong])


def _shape(port: Port) -> str:
    return f"({', '.join(map(str, port.shape))})"


def _has_scale(port: Port, wanted: float) -> bool:
    if port.quantisation is None:
        return True
    scale, zero_point = port.quantisation.scale, port.quantisation.zero_point
    return bool(np.allclose(scale, wanted, rtol=1e-6) and (np.asarray(zero_point) == 0).all())


def weights(subject: Subject) -> list[str]:
    """Every kernel and bias, dequantised, is that of the Keras model, within half a quantisation step."""
    faults = []
    for pair, difference in subject.pairs:
        if pair.expected is None:
            # A layer of a kind that is not written down may have become one that is.
            if subject.expected.complete:
                faults.append(f"it holds a layer that the Keras model has not: {pair.layer.kind} {pair.layer.name}")
        elif pair.expected.touched:
            continue
        elif pair.layer is None:
            faults.append(f"the layer '{pair.expected.name}' of the Keras model is missing")
        elif difference.excess > 1:
            faults.append(f"'{pair.expected.name}' is stored with other weights: {difference.place}")
    return _shortened(faults)


def activations(subject: Subject) -> list[str]:
    """Behind each layer stands the activation that the Keras model has there."""
    faults = []
    for pair, _ in subject.pairs:
        known = pair.layer and pair.expected and not pair.expected.touched
        if known and not _same_activation(pair.layer, pair.expected.activation):
            what = f"{pair.layer.activation}, {pair.expected.activation} in Keras"
            faults.append(f"'{pair.expected.name}' is followed by {what}")
    return _shortened(faults)


def _same_activation(layer: Layer, wanted: str) -> bool:
    if wanted in TO_PROBABILITIES and layer.kind == DENSE:
        return SAME_NAME.get(layer.activation, layer.activation) == SAME_NAME.get(wanted, wanted)
    known = (LINEAR, RELU, RELU6)
    if wanted not in known or layer.activation == wanted:
        return True
    if wanted == LINEAR and layer.activation not in known:
        # What follows in Keras is a layer of its own, such as LeakyReLU, which the format has as an activation.
        return True
    if layer.output_quantisation is None:
        return False
    # Where the whole numbers cannot stand for anything outside its range, a converter may leave the activation out.
    low, high = _range(layer.output_quantisation)
    slack = float(layer.output_quantisation.scale.max()) / 2
    weaker = known.index(layer.activation) < known.index(wanted) if layer.activation in known else False
    return weaker and low >= -slack and (wanted == RELU or high <= 6 + slack)


def _range(quantisation: Quantisation) -> tuple[float, float]:
    limits = np.iinfo(quantisation.dtype)
    scale, zero_point = float(quantisation.scale.max()), int(quantisation.zero_point.ravel()[0])
    if quantisation.offset is not None:
        # Each column has a range of its own, which need not hold 0 as what is measured over all of them is made to.
        low, high = (
            (limit - zero_point) * quantisation.scale + quantisation.offset for limit in (limits.min, limits.max)
        )
        return min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    if quantisation.dtype == "int16":
        # Symmetric: its least number is left out.
        return -limits.max * scale, limits.max * scale
    return (limits.min - zero_point) * scale, (limits.max - zero_point) * scale


def spans(subject: Subject) -> list[str]:
    """Activations in whole numbers cover what the calibration images bring about in the Keras model, and no more."""
    faults = []
    for pair, _ in subject.pairs:
        if not pair.layer or not pair.expected or not pair.expected.spans or pair.expected.touched:
            continue
        if _is_behind_the_same(pair):
            faults += _span_fault(pair.expected.name, pair.layer.output_quantisation, pair.expected.spans)
        if not pair.folded:
            name = f"what '{pair.expected.name}' takes"
            faults += _span_fault(name, pair.layer.input_quantisation, pair.expected.input_spans)
    return _shortened(faults)


def _span_fault(name: str, quantisation: Quantisation | None, measured: tuple[tuple[float, float], ...]) -> list[str]:
    if quantisation is None or quantisation.dtype not in ("int8", "uint8", "int16") or not measured:
        return []
    if quantisation.dtype == "int16" and quantisation.offset is None:
        measured = tuple((-max(map(abs, span)), max(map(abs, span))) for span in measured)
    if _covers(quantisation, measured):
        return []
    (low, high), (found_low, found_high) = measured[0], _range(quantisation)
    subject = name if name.startswith("what") else f"'{name}'"
    return [
        f"{subject} covers {found_low:.4g} to {found_high:.4g} in whole numbers, and the calibration images bring about "
        f"{low:.4g} to {high:.4g}"
    ]


def _is_behind_the_same(pair: Pair) -> bool:
    """Tell whether artifact and Keras mean the same tensor: the one behind ReLU, ReLU6 or no activation at all."""
    found, wanted = pair.layer.activation, pair.expected.activation
    return (
        wanted in (LINEAR, RELU, RELU6)
        and (found == wanted or _same_activation(pair.layer, wanted))
        and (found in (LINEAR, RELU, RELU6))
    )


def _covers(quantisation: Quantisation, measured: tuple[tuple[float, float], ...]) -> bool:
    (low, high), widest = ((min(span[0], 0.0), max(span[1], 0.0)) for span in (measured[0], measured[-1]))
    found_low, found_high = _range(quantisation)
    step = float(quantisation.scale.max())
    # The zero point is a whole number, which moves the range by up to half a step.
    slack = HALF_A_STEP * step
    # A regression that is counted in shares of its columns' ranges has a margin on either side.
    if len(measured) == 1 and quantisation.offset is None:
        same_width = abs((found_high - found_low) - (high - low)) <= SCALE_ROUNDING * (high - low) + 1e-9
        return same_width and abs(found_low - low) <= slack
    if len(measured) == 3:
        # What is concatenated has one scale, which the converter takes from one of its parts where it was pooled before.
        slack = max(slack, LARGEST_CLIPPING * (widest[1] - widest[0]))
    # What lay in the same memory meanwhile is not known to the last step.
    holds = found_low <= low + slack and found_high >= high - slack
    return holds and found_high - found_low <= LARGEST_WIDENING * (widest[1] - widest[0])


def constants(subject: Subject) -> list[str]:
    """Every other constant is one of the Keras model's, its pixel scaling for one, and none of those is missing."""
    expected = subject.expected
    if expected is None or not expected.closed:
        return []
    folded = {pair.folded for pair, _ in subject.pairs if pair.folded}
    faults, seen = [], {name for name in expected.others if name.split("/")[0] in folded}
    for each in subject.contents.constants:
        names = [name for name, values in expected.others.items() if _same_constant(each, values, name)]
        seen |= set(names)
        bound = each.values.size == 1 and (
            float(np.abs(each.values).max()) <= NEXT_TO_0
            or any(_same_constant(each, np.float32(value)) for value in ACTIVATION_BOUNDS)
        )
        if not names and not bound:
            faults.append(f"it holds a constant that the Keras model has not: {each.name}, {_shown(each.values)}")
    for name, values in expected.others.items():
        # What multiplies by one or adds nothing may be left out.
        if name not in seen and not (values == (0.0 if name.endswith(("offset", "shift", "mean")) else 1.0)).all():
            faults.append(f"'{name}' of the Keras model, {_shown(values)}, is missing")
    return _shortened(faults)


def _same_constant(found: Constant, expected: np.ndarray, name: str = "") -> bool:
    if found.values.size != np.size(expected):
        return False
    if name.startswith(f"{COLUMNS_ENCODED}/"):
        # What encodes columns is in float32 everywhere: a boundary that is off by the least of it lets numbers change sides.
        return bool((found.values.ravel() == np.ravel(expected)).all())
    # The scale of a single number is made for that number: nothing is rounded.
    step = np.ravel(found.step)[:1] if found.values.size > 1 else np.zeros(1)
    flat = Constant(found.name, found.dtype, found.values.ravel(), step)
    return compare_constant(flat, np.ravel(expected), None, found.name).excess <= 1


def _shown(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in np.ravel(values)[:4]) + (" ..." if np.size(values) > 4 else "")


def _shortened(faults: list[str]) -> list[str]:
    more = len(faults) - MOST_REASONS
    return faults if more <= 0 else [*faults[:MOST_REASONS], f"and {more} more of the kind"]


RULES: Mapping[str, Callable[[Subject], list[str]]] = {
    "operators": operators,
    "random operators": random_operators,
    "opset": opset,
    "stored precision": stored_precision,
    "computed precision": computed_precision,
    "input": inputs,
    "card inside": card_inside,
    "labels inside": labels_inside,
    "outputs": outputs,
    "weights": weights,
    "activations": activations,
    "spans": spans,
    "constants": constants,
}
