"""What a model and its artifacts promise: the card, the formats, the precisions and their limits.

Standard library and numpy only, so that a light installation can read every card.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.columns import Column
from exporters.errors import InputError, nearest

SCHEMA_VERSION = 1
INPUT_NAME = "image"
# The second input of a model with tabular columns beside the picture, see `exporters.columns`.
COLUMNS_NAME = "columns"
# The layer of such a Keras model that gives its columns normalised, in buckets and one-hot, ahead of all heads.
COLUMNS_ENCODED = "columns_encoded"
FEATURES_NAME = "features"
# What the names of outputs begin with that carry further cuts; no head may be called so.
FEATURES_PREFIX = f"{FEATURES_NAME}_"
# Which test pictures may be published: some, none or all of those in the golden set.
PUBLISH = ("samples", "none", "all")


MULTICLASS, BINARY, MULTILABEL, ORDINAL = "multiclass", "binary", "multilabel", "ordinal"
REGRESSION, EMBEDDING, BOXES, SEGMENTATION = "regression", "embedding", "boxes", "segmentation"
# Task -> what an answer of it looks like, without the batch axis, and what the truth of it is in the golden set:
# multiclass    (classes,) softmax; class index.
# binary        (1,) sigmoid, the probability of the second of two labels; class index 0 or 1.
# multilabel    (labels,) sigmoid; (labels,) of 0 and 1.
# ordinal       (labels - 1,) sigmoid, the probabilities that the label is above the 1st, 2nd ... one; class index.
# regression    (columns,) linear; (columns,) of numbers in their own units.
# embedding     (width,) of length 1; class index where it was trained, else none.
# boxes         (4,) x_min, y_min, x_max, y_max in shares 0..1 of the model's input; likewise.
# segmentation  (height, width, classes) softmax; (height, width) of class indices, 255 where nobody knows.
TASKS = (MULTICLASS, BINARY, MULTILABEL, ORDINAL, REGRESSION, EMBEDDING, BOXES, SEGMENTATION)
# The tasks whose answers are probabilities of labels of the whole picture.
CLASSIFICATIONS = frozenset({MULTICLASS, BINARY, MULTILABEL, ORDINAL})
# The tasks whose answers are numbers in units of their own, of any size.
MEASURED = frozenset({REGRESSION})
UNKNOWN_PIXEL = 255


@dataclasses.dataclass(frozen=True)
class Resize:
    """How a decoded RGB picture becomes the model's input (see `exporters.pixels.resize`).

    `width`, `height` in px; `method` is `bilinear`; `crop` is `stretch`, `center` or `pad`.
    """

    width: int
    height: int
    method: str = "bilinear"
    crop: str = "stretch"


@dataclasses.dataclass(frozen=True)
class Output:
    """One named output of a model: one head.

    `shape` without the batch axis; `dtype` as the artifact stores it (runners always answer in float32);
    `task` is one of TASKS. `activation` is `softmax`, `sigmoid`, `linear` or `unit_length`; `labels` in index order, empty
    where the task has none; `columns` are the names of the numbers of a regression or a box; `unit` says what a number of it
    means, `unit length` that each answer is a vector of length 1.
    """

    name: str
    kind: str
    task: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    activation: str = "softmax"
    labels: tuple[str, ...] = ()
    unit: str = ""
    columns: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Which pretrained network the model stands on; `pixel_scaling` is inside the model."""

    name: str
    alpha: float | None
    weights_sha256: str
    pixel_scaling: str


@dataclasses.dataclass(frozen=True)
class Card:
    """Everything that somebody needs to feed an artifact and to read its answers.

    The input is always `image`: (N, `resize.height`, `resize.width`, 3), RGB, raw values 0..255;
    `input_dtype` is `uint8` for full-integer TFLite and `float32` otherwise. `created_from` is the
    fingerprint of the run; no clock time is stored, so that the same run makes the same bytes. `cut` lists the layers that
    the backbone was cut at, the deepest last; `features_names` says which output carries which. `columns` are the tabular
    columns beside the picture, which a model with such takes as its second input `columns`, float32 (N, len(columns)).
    `batch` is how many pictures an artifact takes at once, None for any number.
    """

    name: str
    resize: Resize
    outputs: tuple[Output, ...]
    backbone: Backbone
    cut: tuple[str, ...]
    precision: str = "float32"
    input_dtype: str = "float32"
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    created_from: str = ""
    columns: tuple[Column, ...] = ()
    batch: int | None = None

    def output(self, name: str) -> Output:
        """Return the output of that name; raises KeyError where there is none."""
        return {output.name: output for output in self.outputs}[name]

    def to_json(self) -> dict[str, Any]:
        """Return the card as INTERFACES fixes card.json."""
        columns = {"columns": [column.to_json() for column in self.columns]} if self.columns else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "input": {
                "name": INPUT_NAME,
                "shape": [self.batch, self.resize.height, self.resize.width, 3],
                "dtype": self.input_dtype,
                "range": [0, 255],
                "color": "RGB",
                "layout": "NHWC",
            },
            **columns,
            "resize": dataclasses.asdict(self.resize),
            "outputs": [_output_to_json(output) for output in sorted(self.outputs, key=lambda output: output.name)],
            "backbone": dataclasses.asdict(self.backbone),
            "cut": list(self.cut),
            "precision": self.precision,
            "versions": dict(sorted(self.versions.items())),
            "created_from": self.created_from,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Card:
        """Build a card from card.json; raises InputError where a field is missing or of another schema."""
        try:
            if data["schema_version"] != SCHEMA_VERSION:
                raise InputError(
                    f"The card has schema_version {data['schema_version']!r}.",
                    f"schema_version {SCHEMA_VERSION}",
                    "export the model again with this version of cutpoint",
                )
            return Card(
                name=data["name"],
                resize=Resize(**data["resize"]),
                outputs=tuple(_output_from_json(output) for output in data["outputs"]),
                backbone=Backbone(**data["backbone"]),
                cut=tuple(data["cut"]),
                precision=data["precision"],
                input_dtype=data["input"]["dtype"],
                versions=dict(data["versions"]),
                created_from=data["created_from"],
                columns=tuple(Column.from_json(column) for column in data.get("columns", ())),
                batch=data["input"]["shape"][0],
            )
        except (KeyError, IndexError, TypeError, ValueError) as fault:
            raise InputError(
                f"The card is not one that cutpoint writes: {fault}.",
                "a card.json with the fields of schema_version 1",
                "export the model again",
            ) from fault

    def write(self, path: Path) -> None:
        """Write the card to `path` as UTF-8 JSON with LF line ends."""
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")

    @staticmethod
    def read(path: Path) -> Card:
        """Read card.json; raises InputError where the file is missing or no card."""
        try:
            return Card.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as fault:
            raise InputError(
                f"The card {path} cannot be read: {fault}.",
                "the card.json that an export writes",
                "export the model again",
            ) from fault


def features_names(cut: Sequence[str]) -> dict[str, str]:
    """Return cut -> name of the output that carries its feature map, for all cuts of a model.

    The deepest, thus the last, is `features`; another is `features_` and its layer's name in lower-case letters, digits
    and `_`. Where two layers would share a name, the later one has a number behind it.

    Args:
        cut: names of layers, as `Card.cut` lists them.
    """
    names: dict[str, str] = {}
    for layer in cut[:-1]:
        plain = FEATURES_PREFIX + re.sub(r"[^a-z0-9]+", "_", layer.lower()).strip("_")
        name, number = plain, 2
        while name in names.values():
            name, number = f"{plain}_{number}", number + 1
        names[layer] = name
    return names | ({cut[-1]: FEATURES_NAME} if cut else {})


def is_features_name(name: str) -> bool:
    """Return whether an output of that name carries a cut's feature map, and is thus no head."""
    return name == FEATURES_NAME or name.startswith(FEATURES_PREFIX)


def _output_to_json(output: Output) -> dict[str, Any]:
    lists = {"shape": list(output.shape), "labels": list(output.labels), "columns": list(output.columns)}
    return dataclasses.asdict(output) | lists


def _output_from_json(data: Mapping[str, Any]) -> Output:
    lists = {key: tuple(data.get(key, ())) for key in ("shape", "labels", "columns")}
    return Output(**{**data, **lists})


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
        tap="exporters.layers.tfjs_layers:activations",
        needs="node",
        carries_features=True,
        on_request=("float32",),
    ),
}

# Precisions whose activations are whole numbers too.
WHOLE_NUMBERS = frozenset({"int8", "int16x8"})
QUANTISED = frozenset({"uint8", "uint16", "dynamic_int8", "int8", "int16x8"})


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an artifact may differ by.

    `max_abs` is the largest difference of probabilities, and of boxes in shares of the picture (None: not judged by difference),
    `agreement` the least share 0..1 of images with the same top-1 label outside near-ties, of decisions that stay, of pixels
    that keep their class; `accuracy_drop` the largest fall of accuracy in shares, of boxes and label maps the largest fall of
    the mean IoU with the true ones (None: not judged), `relative_error` the error of a regression in shares of each column's
    spread, of a box in shares of the picture: the largest one, but where `worst_relative_error` limits that one, the root of
    the mean of squares,
    `log_max_abs` the largest difference of log-probabilities, or log-odds (None: not judged), `confidence_shift` by how much the
    mean probability of the likeliest label may change (None: not judged), `least_cosine` the least
    cosine between an embedding and Keras's of the same image, `neighbours` the least share of images whose nearest neighbour
    among the others stays the same (None: embeddings are not judged), `iou` the least mean intersection over union with
    Keras's boxes, or of the regions of each class in the label maps (None: neither is judged).
    """

    max_abs: float | None
    agreement: float
    accuracy_drop: float | None = None
    relative_error: float = 0.01
    log_max_abs: float | None = None
    confidence_shift: float | None = None
    least_cosine: float | None = None
    neighbours: float | None = None
    iou: float | None = None
    worst_relative_error: float | None = None


CEILINGS: dict[str, Limits] = {
    # Of log-probabilities: twenty times what the roundings of float32 bring, seven times those of float16, in real networks.
    # Cosines are those of vectors that are off by 0.1 %, 1 %, 15 % and 35 % of their length across it. What feature maps of
    # these precisions may be off by, an embedding may be, which is their mean; only int8 rounds it once more, in steps of 1/128.
    # Neighbours are held to the share that labels are held to.
    # IoU is what is left of a box half as wide and high as the picture that is shifted along both by 0.02 %, 0.12 %, 0.6 % and
    # 2 % of it. Regions of classes of one size whose pixels agree by A have A / (2 - A) in common: 99 %, 96 % and 90 % for
    # float16, 8 bits and int8; some room is left below, as smaller regions consist of more edge.
    # What 8 bits change varies from image to image: the worst one of some hundreds is off by up to five times as much as all of
    # them in the root of the mean of squares, as one image in twenty may get another label.
    "float32": Limits(1e-4, 1.0, log_max_abs=1e-3, least_cosine=0.9999995, neighbours=1.0, iou=0.998),
    "float16": Limits(5e-3, 0.995, log_max_abs=0.06, least_cosine=0.99995, neighbours=0.995, iou=0.99),
    "uint8": Limits(5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25),
    "uint16": Limits(5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25),
    "dynamic_int8": Limits(
        5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25
    ),
    "int16x8": Limits(5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25),
    "int8": Limits(
        None,
        0.95,
        0.01,
        0.05,
        confidence_shift=0.03,
        least_cosine=0.94,
        neighbours=0.95,
        iou=0.85,
        worst_relative_error=0.25,
    ),
}


@dataclasses.dataclass(frozen=True)
class ArtifactName:
    """A format, a precision and perhaps a variant, written `format-precision[-variant]`: the name of the artifact's folder."""

    format: str
    precision: str
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(each for each in (self.format, self.precision, self.variant) if each)

    @property
    def takes_integers(self) -> bool:
        """Whether it takes pixels, and answers classifications, in uint8."""
        return self.precision in FORMATS[self.format].integer_precisions and self.variant != FLOAT_IO

    @property
    def batch(self) -> int | None:
        """How many pictures it takes at once; None for any number."""
        return 1 if self.variant == BATCH1 else None


def parse_formats(names: tuple[str, ...] | list[str]) -> tuple[ArtifactName, ...]:
    """Turn what a user lists into artifact names, in the order of FORMATS, each once.

    Args:
        names: `tfjs` (all its precisions but those on request), `tfjs-float16` or `tflite-float32-batch1`.

    Raises:
        InputError: an unknown format, precision or variant, or an empty list.
    """
    wanted = {each for name in names for each in _named(name)}
    if not wanted:
        raise InputError(
            "No format is asked for.", f"at least one of {', '.join(FORMATS)}", "set --formats or export.formats"
        )
    return tuple(
        name
        for format_name, row in FORMATS.items()
        for precision in row.precisions
        for variant in ("", *row.variants)
        if (name := ArtifactName(format_name, precision, variant)) in wanted
    )


def _named(name: str) -> list[ArtifactName]:
    """Return what one name in a user's list stands for."""
    format_name, _, rest = name.strip().partition("-")
    precision, _, variant = rest.partition("-")
    mend = "change --formats or export.formats"
    if format_name not in FORMATS:
        raise InputError(f"There is no format '{format_name}'.", nearest(format_name, FORMATS), mend)
    row = FORMATS[format_name]
    if not rest:
        usual = [each for each in row.precisions if each not in row.on_request] or row.precisions
        return [ArtifactName(format_name, each) for each in usual]
    if precision not in row.precisions:
        what = f"The format '{format_name}' has no precision '{precision}'."
        raise InputError(what, f"one of {', '.join(row.precisions)}", mend)
    known = variants_of(format_name, precision)
    if variant not in ("", *known):
        expected = " or ".join(str(ArtifactName(format_name, precision, each)) for each in ("", *known))
        raise InputError(f"There is no variant '{variant}' of {format_name}-{precision}.", expected, mend)
    return [ArtifactName(format_name, precision, variant)]


def usual_formats() -> tuple[str, ...]:
    """Return the formats that are exported where none is named: not those that hold some models only, all on request."""
    return tuple(name for name, row in FORMATS.items() if set(row.on_request) < set(row.precisions))


def variants_of(format_name: str, precision: str) -> tuple[str, ...]:
    """Return the variants in which a precision of a format can be made, in the order of its row; none for unknown ones."""
    variants = FORMATS[format_name].variants if format_name in FORMATS else {}
    return tuple(variant for variant, precisions in variants.items() if precision in precisions)


AUTO, LOCAL, BROWSER, ALL = "auto", "local", "browser", "all"


def every_runtime() -> tuple[Runtime, ...]:
    """Return all runtimes of all formats, in the order of FORMATS."""
    return tuple(runtime for row in FORMATS.values() for runtime in row.runtimes)


def runtimes_called(name: str) -> set[Runtime]:
    """Return the runtimes that `local`, `browser`, `all`, `litert` or `litert/reference` stands for; none for another name."""
    groups = {ALL: lambda each: True, LOCAL: lambda each: not each.browser, BROWSER: lambda each: each.browser}
    chosen = groups.get(name, lambda each: name in (each.name, str(each)))
    return {each for each in every_runtime() if chosen(each)}


def check_runtimes(names: tuple[str, ...] | list[str]) -> list[str]:
    """Return the names of runtimes that a user lists, each by itself.

    Raises:
        InputError: an unknown name, or none.
    """
    listed = [each.strip() for name in names for each in name.split(",") if each.strip()]
    known = every_runtime()
    choices = [AUTO, LOCAL, BROWSER, ALL, *dict.fromkeys(each.name for each in known), *map(str, known)]
    for name in listed:
        if name not in choices:
            raise InputError(
                f"There is no runtime '{name}'.", nearest(name, choices), "change --runtimes or parity.runtimes"
            )
    if not listed:
        raise InputError(
            "No runtime is asked for.", f"one of {', '.join(choices)}", "set --runtimes or parity.runtimes"
        )
    return listed
