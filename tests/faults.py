"""Every kind of broken artifact: how it is made, of which artifacts, and what must catch it.

A row names, for an artifact (`onnx-int8`), a format (`tflite`), a precision (`int8`) or all others (``), the checks that
must all fire; other checks may fire besides. Where a row says nothing, the fault cannot be made, or is none.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.verification import verify_folder
from tests import (
    faults_exports,
    faults_keras,
    faults_onnx,
    faults_onnx_graph,
    faults_papers,
    faults_tfjs,
    faults_tflite,
    faults_weights,
)
from tests.faults_rebuilding import Maker
from tests.faults_workshop import FAST, NAMES, Workshop

BY_CHECKSUM = "checksum"
ANSWERS = {
    "": "difference, log-probabilities",
    "uint8": "difference",
    "dynamic_int8": "difference",
    "int8": "agreement",
    **dict.fromkeys(("uint16", "int16x8"), "difference"),
}
WEIGHTS = {"": "weights"}
ANSWERS_AND_WEIGHTS = {key: f"{checks}, weights" for key, checks in ANSWERS.items()}
CONSTANTS = {key: f"{checks}, constants" for key, checks in ANSWERS.items()}


@dataclasses.dataclass(frozen=True)
class Fault:
    """One kind of broken artifact.

    `caught` artifact -> the checks that must fire; `make` leaves `artifacts/<name>` in a result folder; `golden` damages
    the golden set, before checksums are written anew; `later` damages the artifact's folder behind them. `costly` ones are
    exported.
    """

    kind: str
    caught: Mapping[str, tuple[str, ...]]
    make: Callable[[Workshop, str, Path], object]
    golden: Callable[[Path], None] | None = None
    later: Callable[[Workshop, str, Path], None] | None = None
    exit_code: int = 1
    costly: bool = False


def _rows(expected: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    rows = {}
    for name, parts in NAMES.items():
        for key in (name, parts.format, parts.precision, ""):
            if key in expected:
                if expected[key]:
                    rows[name] = tuple(expected[key].split(", "))
                break
    return rows


def _kind(make: Callable) -> str:
    return make.__name__.replace("_", " ")


# Faults in the Keras model, behind the folding.
KERAS: dict[Maker, dict[str, str]] = {
    faults_keras.swapped_heads: ANSWERS,
    faults_keras.one_head_twice: ANSWERS_AND_WEIGHTS,
    faults_weights.permuted_classes: ANSWERS_AND_WEIGHTS,
    faults_weights.swapped_color_channels: ANSWERS_AND_WEIGHTS,
    faults_keras.missing_scaling: CONSTANTS,
    faults_keras.doubled_scaling: ANSWERS,
    faults_keras.scaling_of_another_family: CONSTANTS,
    faults_keras.scaling_slightly_off: {"": "constants"},
    faults_keras.transposed_image: ANSWERS,
    faults_keras.padding_off_by_one: ANSWERS,
    faults_keras.softmax_over_the_batch: ANSWERS,
    faults_keras.pooling_over_the_batch: ANSWERS,
    faults_weights.one_wrong_weight: ANSWERS_AND_WEIGHTS,
    faults_weights.one_weight_off_by_a_step: WEIGHTS,
    faults_weights.one_bias_off: WEIGHTS,
    faults_weights.dead_filter: {**ANSWERS_AND_WEIGHTS, "int8": "accuracy, weights"},
    faults_weights.two_filters_swapped: ANSWERS_AND_WEIGHTS,
    faults_weights.kernel_transposed: ANSWERS_AND_WEIGHTS,
    faults_keras.layer_skipped: ANSWERS_AND_WEIGHTS,
    faults_keras.relu6_become_relu: {"": "difference, activations", "int8": "activations"},
    # In int8 nothing can be above 6 there: it is the same function.
    faults_keras.relu6_become_relu_unseen: {"": "activations", "int8": ""},
    faults_keras.relu_left_out: {"": "difference, activations", "int8": "agreement, activations"},
    # The quantiser of ONNX refuses NaN.
    faults_weights.nan_weight: {
        "": "NaN, weights",
        **dict.fromkeys(("uint8", "uint16", "int8", "int16x8"), WEIGHTS[""]),
        "onnx-int8": "",
    },
    # In 16 bits the converter finds no range, or no such operator, and gives up.
    faults_weights.early_nan_weight: {"": "weights", "onnx-int8": "", "int16x8": ""},
    faults_weights.infinite_weight: WEIGHTS,
    faults_weights.infinite_bias: WEIGHTS,
    faults_weights.constant_output: {key: f"{checks}, constant answer" for key, checks in ANSWERS_AND_WEIGHTS.items()},
    faults_keras.one_hot_answers: {**ANSWERS, "tflite-int8": "outputs", "onnx-int8": "confidence", "int16x8": ""},
    faults_keras.softmax_twice: {**ANSWERS, "int8": "confidence"},
    faults_keras.logits_in_place_of_probabilities: {**ANSWERS, "tflite-int8": "outputs", "onnx-int8": "activations"},
    faults_keras.sigmoid_in_place_of_softmax: {**ANSWERS, "int8": "activations"},
    faults_keras.dropout_left_on: {"": "random operators", "int16x8": ""},
    faults_keras.another_run: {"": "weights, agreement"},
    faults_keras.another_alpha: ANSWERS_AND_WEIGHTS,
    # Whole numbers know no NaN.
    faults_keras.nan_for_one_image: {"": "NaN", "int8": "", "int16x8": ""},
}
# Faults in the Keras model before it is folded.
UNFOLDED: dict[Maker, dict[str, str]] = {
    faults_weights.lost_statistics: ANSWERS_AND_WEIGHTS,
    faults_weights.wrong_epsilon: WEIGHTS,
}
# Faults in the files: name of a function of the format's module -> what catches it; only where a key fits.
FILES: dict[str, dict[str, str]] = {
    "weight_scale_off": dict.fromkeys(("uint8", "uint16", "dynamic_int8", "int8", "int16x8"), "weights"),
    "scales_permuted": dict.fromkeys(("uint8", "uint16", "dynamic_int8", "int8", "int16x8"), "weights, agreement"),
    "weight_zero_point_off": {"uint8": "weights", "uint16": "weights"},
    "bias_off_by_a_step": {"int8": "weights"},
    "activation_zero_point_off": {"tflite-int8": "spans", "onnx-int8": "activations"},
    "activation_scale_off": {"tflite-int8": "spans", "tflite-int16x8": "spans", "onnx-int8": "activations"},
    "pooled_zero_point_off": {"tflite-int8": "spans"},
    "logits_scale_off": {"onnx-int8": "file"},
    "image_range_too_narrow": {"onnx-int8": "input"},
    "pooled_range_too_narrow": {"tflite-int8": "weights", "onnx-int8": "agreement"},
    "scaled_pixels_range_too_narrow": {"tflite-int8": "weights", "onnx-int8": "spans"},
    "softmax_too_steep": {**ANSWERS, "tflite-int8": "confidence", "onnx-int8": "computed precision"},
    "custom_operator": {"": "operators"},
    "random_operator": {"tfjs": "random operators", "onnx": "random operators"},
    "another_opset": {"onnx": "opset"},
    "input_renamed": {"": "input"},
    "input_scale_off": {"tflite-int8": "input"},
    "output_scale_off": {"tflite-int8": "outputs", "onnx-int8": "confidence"},
    "fixed_batch": {"tfjs": "runtime", "onnx": "input"},
    "swapped_labels_inside": {"tfjs": "card inside", "onnx": "card inside"},
    "swapped_lists_inside": {"tflite": "labels inside", "onnx": "labels inside"},
    "extra_output": {"": "extra output"},
    "missing_output": {"": "missing output"},
    "answer_with_another_axis": {"onnx": "shape"},
    "swapped_outputs": {"tfjs": "runtime"},
    "features_in_float": {"onnx-int8": "computed precision"},
    "logits_in_float": {"onnx-int8": "computed precision"},
    "activations_in_float": {"onnx-int8": "computed precision, agreement"},
    "answers_through_8_bits": {"onnx-float32": "difference", "onnx-float16": "log-probabilities"},
    "classes_rolled": {"onnx-float32": "agreement", "onnx-float16": "agreement", "onnx-int8": "agreement"},
}
# Of these nothing tells: the scaled pixels lie in -1..1, for which two zero points are equally right, and what lies
# between the last layer and its softmax is not written down. A test holds how little they change.
NOT_CAUGHT = ("scaled_pixels_zero_point_off", "logits_zero_point_off", "logits_scale_off")
_MODULES = {"tfjs": (faults_tfjs,), "tflite": (faults_tflite,), "onnx": (faults_onnx, faults_onnx_graph)}


PAPERS: dict[Callable[[Path], None], str] = {
    faults_papers.swapped_labels: "card",
    faults_papers.swapped_labels_in_the_card: "card",
    faults_papers.swapped_labels_in_the_text: "labels",
    faults_papers.labels_of_the_other_head: "card",
    faults_papers.card_of_another_run: "card",
    faults_papers.card_of_another_cut: "card",
    faults_papers.card_of_another_alpha: "card",
    faults_papers.card_of_another_resize: "card",
    faults_papers.card_of_another_precision: "card",
    faults_papers.card_of_another_input_type: "card",
    faults_papers.card_of_another_color_order: "card",
    faults_papers.card_without_a_head: "card",
    faults_papers.card_of_another_task: "card",
}
# What happens to files on their way. With checksums written anew, the readers and the runtimes must tell; of a single bit
# they can only where it means something.
DAMAGE: dict[Callable[[Path], None], dict[str, str]] = {
    faults_papers.truncated_file: {"": "file"},
    faults_papers.flipped_bit: {},
    faults_papers.missing_file: {"": "card", "tfjs": "file, runtime"},
}
GOLDEN: dict[Callable[[Path], None], tuple[str, int]] = {
    faults_papers.no_golden_images: ("nothing to compare", 3),
    faults_papers.one_golden_image: ("degenerate", 3),
    faults_papers.golden_set_without_fingerprints: ("fingerprints missing", 3),
    faults_papers.golden_set_without_files: ("no files", 3),
    faults_papers.golden_set_of_another_model: ("agreement", 1),
    faults_papers.golden_files_resized_otherwise: ("pixels", 1),
    faults_papers.card_that_promises_another_shape: ("shape", 1),
}


def _every_fault() -> Iterator[Fault]:
    for make, expected in KERAS.items():
        yield Fault(_kind(make), _rows(expected), functools.partial(_exported, make), costly=True)
    for make, expected in UNFOLDED.items():
        yield Fault(_kind(make), _rows(expected), functools.partial(_exported_before_folding, make), costly=True)
    for make, expected in faults_exports.EXPORTS.items():
        yield Fault(_kind(make), _rows(expected), make, costly=True)
    for function, expected in FILES.items():
        yield Fault(function.replace("_", " "), _rows(expected), functools.partial(_edited, function))
    for make, check in PAPERS.items():
        yield Fault(_kind(make), _rows({"": check}), functools.partial(_copied_and, make))
    for make, expected in DAMAGE.items():
        if expected:
            yield Fault(f"{_kind(make)}, checksums anew", _rows(expected), functools.partial(_copied_and, make))
        yield Fault(_kind(make), _rows({"": BY_CHECKSUM}), _copied, later=lambda shop, name, out, make=make: make(out))
    yield Fault("stale file", _rows({"": BY_CHECKSUM}), _copied, later=faults_exports.stale)
    for make, (check, code) in GOLDEN.items():
        yield Fault(_kind(make), _rows({"": check}), _copied, golden=make, exit_code=code)


def _exported(make: Maker, workshop: Workshop, name: str, out: Path) -> None:
    workshop.export(name, workshop.damaged_folded(make, name), out)


def _exported_before_folding(make: Maker, workshop: Workshop, name: str, out: Path) -> None:
    workshop.export(name, workshop.damaged_before_folding(make, name), out)


def _edited(function: str, workshop: Workshop, name: str, out: Path) -> None:
    (edit,) = (getattr(each, function) for each in _MODULES[NAMES[name].format] if hasattr(each, function))
    edit(workshop.good(name, out))


def _copied(workshop: Workshop, name: str, out: Path) -> None:
    workshop.good(name, out)


def _copied_and(make: Callable[[Path], None], workshop: Workshop, name: str, out: Path) -> None:
    make(workshop.good(name, out))


def judge(fault: Fault, workshop: Workshop, name: str, out: Path, runtimes: Sequence[str] = FAST) -> dict[str, Any]:
    """Make one broken artifact in a result folder of its own, and return what the check reports of it."""
    fault.make(workshop, name, out)
    workshop.golden(out, fault.golden)
    if fault.later is not None:
        fault.later(workshop, name, out / "artifacts" / name)
    return verify_folder(out, runtimes=runtimes)


FAULTS = {each.kind: each for each in _every_fault()}
