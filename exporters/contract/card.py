"""The card: what somebody needs to feed a model or an artifact, and to read its answers."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.columns import Column
from exporters.errors import InputError

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
