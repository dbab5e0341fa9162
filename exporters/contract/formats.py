"""The formats: who writes each, who reads it back, and in which runtimes its artifacts are judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Where an artifact of a format is run: `runner` is `module:class`, or a function, of a context manager over its folder.

    `images` is the most that it is given, the first ones of the golden set; 0 gives all: slow runtimes get a sample.
    `browser` says that it runs in a Chromium, which not every machine has.
    """

    name: str
    runner: str
    backend: str
    images: int = 0
    browser: bool = False

    def __str__(self) -> str:
        return f"{self.name}/{self.backend}"


# What a slow runtime is given: enough to tell a wrong answer, few enough to wait for.
SAMPLE = 16


@dataclasses.dataclass(frozen=True)
class Format:
    """One row of FORMATS: who writes the format and who reads it back.

    `exporter` is `module:function`, called as `export(saved_model_dir, card, out, *, precision, calibration_images)`, with
    `variant` besides where one is asked for; `runner` is `module:class`, a context manager over an artifact folder;
    `precisions` lists what it can hold, the first being what an unadorned format name adds first, and `on_request` those
    of them that such a name does not add, but where it would add none; `variants` is variant -> the precisions that can
    be made so, which is done only where a name says so; `file` is the file that stands for the artifact;
    `backends` are what its runner can compute with; `integer_precisions` take uint8 pixels and answer classifications in
    uint8; `needs` names a program that its runner starts; `runtimes` are all in which its artifacts are judged, the
    first being the one that judges the accuracy; `reader` is `module:function`, which tells what is inside an artifact
    folder; `tap` is `module:function`, which gives the values of its inner tensors; `opset` the one it is written in;
    `carries_features` says that its artifacts give every cut's feature map, whether asked for or not.
    """

    exporter: str
    runner: str
    precisions: tuple[str, ...]
    file: str
    backends: tuple[str, ...]
    runtimes: tuple[Runtime, ...]
    reader: str
    tap: str
    integer_precisions: tuple[str, ...] = ()
    needs: str = ""
    opset: int | None = None
    carries_features: bool = False
    on_request: tuple[str, ...] = ()
    variants: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


# Variants: takes one picture at once, as LiteRT.js wants it; takes and answers float32 although it computes in whole numbers.
BATCH1, FLOAT_IO = "batch1", "float_io"

FORMATS: dict[str, Format] = {
    "tfjs": Format(
        exporter="exporters.tfjs:export",
        runner="exporters.runners.tfjs:TfjsRunner",
        precisions=("float32", "float16", "uint8", "uint16"),
        file="model.json",
        backends=("wasm", "cpu"),
        runtimes=(
            Runtime("tfjs-node", "exporters.runners.tfjs:TfjsRunner", "wasm"),
            Runtime("tfjs-node", "exporters.runners.tfjs:TfjsRunner", "cpu", SAMPLE),
            Runtime("tfjs-chromium", "exporters.runners.chromium:TfjsChromiumRunner", "wasm", browser=True),
            Runtime("tfjs-chromium", "exporters.runners.chromium:TfjsChromiumRunner", "webgl", SAMPLE, browser=True),
        ),
        reader="exporters.audit.tfjs:read",
        tap="exporters.layers.tfjs:activations",
        needs="node",
        carries_features=True,
        on_request=("uint16",),
    ),
    "tflite": Format(
        exporter="exporters.tflite:export",
        runner="exporters.runners.tflite:TfliteRunner",
        precisions=("float32", "float16", "dynamic_int8", "int8", "int16x8"),
        file="model.tflite",
        backends=("xnnpack", "reference"),
        runtimes=(
            Runtime("litert", "exporters.runners.tflite:TfliteRunner", "xnnpack"),
            Runtime("litert", "exporters.runners.tflite:TfliteRunner", "reference", SAMPLE),
            Runtime("litert-js", "exporters.runners.chromium:LitertWebRunner", "wasm", browser=True),
        ),
        reader="exporters.audit.tflite:read",
        tap="exporters.layers.tflite:activations",
        integer_precisions=("int8",),
        on_request=("int16x8",),
        variants={BATCH1: ("float32", "float16", "dynamic_int8", "int8", "int16x8"), FLOAT_IO: ("int8",)},
    ),
    "onnx": Format(
        exporter="exporters.onnx:export",
        runner="exporters.runners.onnx:OnnxRunner",
        precisions=("float32", "float16", "dynamic_int8", "int8"),
        file="model.onnx",
        backends=("cpu",),
        runtimes=(
            Runtime("onnxruntime", "exporters.runners.onnx:OnnxRunner", "cpu"),
            Runtime("onnxruntime-web", "exporters.runners.chromium:OnnxWebRunner", "wasm", browser=True),
        ),
        reader="exporters.audit.onnx:read",
        tap="exporters.layers.onnx:activations",
        opset=17,
        variants={BATCH1: ("float32", "float16", "dynamic_int8", "int8")},
    ),
    "tfjs_layers": Format(
        exporter="exporters.tfjs_layers:export",
        runner="exporters.runners.tfjs:layers_runner",
        precisions=("float32",),
        file="model.json",
        backends=("wasm", "cpu"),
        runtimes=(
            Runtime("tfjs-node", "exporters.runners.tfjs:layers_runner", "wasm"),
            Runtime("tfjs-node", "exporters.runners.tfjs:layers_runner", "cpu", SAMPLE),
            Runtime("tfjs-chromium", "exporters.runners.chromium:layers_chromium_runner", "wasm", browser=True),
            Runtime(
                "tfjs-chromium", "exporters.runners.chromium:layers_chromium_runner", "webgl", SAMPLE, browser=True
            ),
        ),
        reader="exporters.audit.tfjs_layers:read",
        tap="exporters.layers.tfjs:layers_activations",
        needs="node",
        carries_features=True,
        on_request=("float32",),
    ),
}

# Precisions whose activations are whole numbers too.
WHOLE_NUMBERS = frozenset({"int8", "int16x8"})
QUANTISED = frozenset({"uint8", "uint16", "dynamic_int8", "int8", "int16x8"})


def every_runtime() -> tuple[Runtime, ...]:
    """Return all runtimes of all formats, in the order of FORMATS."""
    return tuple(runtime for row in FORMATS.values() for runtime in row.runtimes)
