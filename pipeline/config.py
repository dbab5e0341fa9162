"""The configuration: its keys, types, ranges and defaults, read from TOML and from the command line.

Parsing and type checks are msgspec's; this module adds the nearest right name to a wrong one.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from exporters.contract import (
    CEILINGS,
    COLUMNS_NAME,
    PUBLISH,
    Limits,
    Resize,
    check_runtimes,
    is_features_name,
    parse_formats,
    usual_formats,
)
from exporters.errors import InputError, nearest
from exporters.pixels import check_resize
from pipeline.advice.budget import check_choice, read_budget

QUICKSTART = "quickstart"
QUICKSTART_CONFIG = Path(__file__).parent / "quickstart" / "quickstart.toml"
HEAD_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED_HEAD_NAMES = ("features", "image")

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration: unknown keys are errors, values never change once read."""


class Data(Section):
    """`[data]`: `path` is a folder per class, a CSV, or `quickstart`."""

    path: str = ""
    split: tuple[Share, Share, Share] = (0.7, 0.15, 0.15)
    group: str = ""
    bad_limit: Share = 0.05


class ResizeSection(Section):
    """`[resize]`: the model's input size in px and how a picture is brought to it; 0 takes the backbone's usual size."""

    width: Annotated[int, Meta(ge=0, le=4096)] = 0
    height: Annotated[int, Meta(ge=0, le=4096)] = 0
    method: str = "bilinear"
    crop: str = "stretch"


class BackboneSection(Section):
    """`[backbone]`: `weights` is `imagenet`, `none`, `quickstart` or a file.

    `name` is one of the table, a `.keras` or `.h5` file, a SavedModel's folder or a hub handle; `trust` lets code that
    such a file holds run. `cut` is a layer's name, its index, `stride:16`, `auto`, or a list of names, indices and strides.
    """

    name: str = "mobilenet_v2"
    alpha: Annotated[float, Meta(gt=0, le=4)] = 1.0
    weights: str = "imagenet"
    pixel_scaling: str = "auto"
    trust: bool = False
    cut: str | int | tuple[str | int, ...] = ""


class ColumnSection(Section):
    """`[columns.NAME]`: a tabular column of the CSV beside the picture; the order of the tables is that of the model's input.

    `kind` is `number` (normalised), `category` (one-hot) or `bucket` (a number by the range that it lies in). Of a category,
    `categories` is its vocabulary, else what the training pictures have at least `min_count` times. Of a bucket, `boundaries`
    part the ranges, or there are so many `buckets` with equally many training pictures each.
    """

    kind: str
    categories: tuple[str, ...] = ()
    min_count: Positive | None = None
    boundaries: tuple[float, ...] = ()
    buckets: Annotated[int, Meta(ge=2, le=100)] | None = None


class HeadSection(Section):
    """`[heads.NAME]`: one head; keys that its kind does not use are left at their defaults.

    `task` is the kind's own where it is empty; `features` are the cuts that reach the head, empty for all of them;
    `target` is the CSV's column, or several of a regression; `labels` give an order to labels that are no numbers (ordinal),
    say which one is meant by a probability near 1 (binary, the second) and what the indices in masks stand for (segmentation).
    `dimension` is the width of an embedding that is trained, 0 takes the features as they are; of a segmentation it is how many
    channels the head works with, 0 for 32. `columns` says whether the head takes the tabular columns: by default where its
    kind can. `auxiliary` trains along and is not exported.
    """

    kind: str = "linear"
    task: str = ""
    features: str | int | tuple[str | int, ...] = ()
    target: str | tuple[str, ...] = ""
    labels: tuple[str, ...] = ()
    unit: str = ""
    pooling: str = ""
    hidden: tuple[Positive, ...] = (128,)
    batch_norm: bool = False
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    l2: Annotated[float, Meta(ge=0)] = 0.0
    dimension: Annotated[int, Meta(ge=0, le=4096)] = 0
    loss: str = ""
    loss_weight: Annotated[float, Meta(ge=0)] = 1.0
    metrics: tuple[str, ...] = ()
    optimizer: str = ""
    learning_rate: Annotated[float, Meta(gt=0, le=100)] | None = None
    trunk: bool = True
    columns: bool | None = None
    auxiliary: bool = False


class TrunkSection(Section):
    """`[trunk]`: dense layers that heads share; none, and no trunk, where `hidden` is empty. It takes columns by default."""

    hidden: tuple[Positive, ...] = ()
    pooling: str = "average"
    columns: bool | None = None
    features: str | int | tuple[str | int, ...] = ()
    batch_norm: bool = False
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    l2: Annotated[float, Meta(ge=0)] = 0.0


class TrainingSection(Section):
    """`[training]`: of the heads, on cached features; `tensorboard` writes logs into `OUT/logs`."""

    epochs: Positive = 50
    batch_size: Positive = 64
    optimizer: str = "adam"
    learning_rate: Annotated[float, Meta(gt=0, le=100)] = 1e-3
    patience: Positive = 5
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    class_weights: bool = True
    mixed_precision: bool = False
    tensorboard: bool = False


class FineTuningSection(Section):
    """`[fine_tuning]`: the backbone's layers from `layer` on are trained too, after the heads; empty for none.

    `layer` is a name or an index, as `cutpoint layers` lists them.
    """

    layer: str | int = ""
    epochs: Positive = 10
    batch_size: Positive = 16
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 1e-5
    patience: Positive = 3


class AugmentationSection(Section):
    """`[augmentation]`: how training pictures are changed at random; never part of the exported model.

    `flip` is `horizontal`, `vertical` or `both`; `rotation` at most so many degrees to either side; `crop` at most this share
    of the area is cut away; `brightness`, `contrast` and `saturation` change by at most this share. Fine-tuning draws anew in
    every epoch; the features of so many `views` of each picture train the heads beside those of the picture itself.
    """

    flip: str = ""
    rotation: Annotated[float, Meta(ge=0, le=180)] = 0.0
    crop: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    brightness: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    contrast: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    saturation: Share = 0.0
    views: Annotated[int, Meta(ge=0, le=100)] = 0


class ExportSection(Section):
    """`[export]`: `formats` are names such as `tfjs` or `tfjs-float16`; `auxiliary` exports auxiliary heads too."""

    formats: tuple[str, ...] = usual_formats()
    calibration_images: Positive = 200
    features: bool = False
    auxiliary: bool = False


class LimitsSection(Section):
    """`[parity.limits.PRECISION]`: what is given here replaces the ceiling; loosening is written into the report."""

    max_abs: Annotated[float, Meta(ge=0)] | None = None
    agreement: Share | None = None
    accuracy_drop: Share | None = None
    relative_error: Annotated[float, Meta(ge=0)] | None = None
    worst_relative_error: Annotated[float, Meta(ge=0)] | None = None
    log_max_abs: Annotated[float, Meta(ge=0)] | None = None
    confidence_shift: Annotated[float, Meta(ge=0)] | None = None
    least_cosine: Share | None = None
    neighbours: Share | None = None
    iou: Share | None = None


class ParitySection(Section):
    """`[parity]`: how many test images travel with the artifacts and judge them, and in which runtimes."""

    images: Positive = 200
    runtimes: tuple[str, ...] = ("auto",)
    limits: dict[str, LimitsSection] = {}


class GoldenSection(Section):
    """`[golden]`: which test pictures the page and a site may publish: `samples` (24 of them), `none` or `all`."""

    publish: str = "samples"


class AdviseSection(Section):
    """`[advise]`: which cut `cut = "auto"` takes; see `cutpoint advise`.

    `max_size` (`500kB`) and `max_latency` (`5ms`) are a budget: the most accurate cut that fits is taken. Without one
    `choose` says which. `precision` is the one that the size is meant in: empty for int8 where an int8 artifact is asked
    for, else float32. At most `most_cuts` candidates are measured.
    """

    max_size: str | int = ""
    max_latency: str = ""
    choose: str = "smallest_within_a_point"
    precision: str = ""
    most_cuts: Annotated[int, Meta(ge=2, le=200)] = 30


class Config(Section):
    """The whole configuration; see INTERFACES for an example."""

    name: str = ""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    device: str = "auto"
    data: Data = Data()
    resize: ResizeSection = ResizeSection()
    backbone: BackboneSection = BackboneSection()
    columns: dict[str, ColumnSection] = {}
    heads: dict[str, HeadSection] = {}
    trunk: TrunkSection = TrunkSection()
    training: TrainingSection = TrainingSection()
    fine_tuning: FineTuningSection = FineTuningSection()
    augmentation: AugmentationSection = AugmentationSection()
    export: ExportSection = ExportSection()
    parity: ParitySection = ParitySection()
    golden: GoldenSection = GoldenSection()
    advise: AdviseSection = AdviseSection()


def read_config(
    path: Path | None, overrides: dict[str, Any], settings: tuple[str, ...] = (), *, head: str | None = None
) -> Config:
    """Read a configuration, lay the command line over it and check it.

    Args:
        path: a TOML file, whose relative paths are taken from its own folder; None: the defaults.
        overrides: dotted key -> value, from the command line's flags; None values are left out.
        settings: `KEY=VALUE` of `--set`, the value parsed as TOML, or taken as a string where it is none.
        head: the kind of the one head; without any head in the configuration there is `label`.

    Raises:
        InputError: an unreadable file, an unknown key (the nearest is named), a wrong type or range.
    """
    raw = _read_toml(path) if path else {}
    if path:
        _anchor_paths(raw, path.parent)
    for key, value in overrides.items():
        if value is not None:
            _put(raw, key, value)
    _put_head(raw, head)
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found or not key.strip():
            raise InputError(f"'--set {setting}' names no value.", "KEY=VALUE", "for example --set training.epochs=20")
        _put(raw, key.strip(), _parse_value(value.strip()))
    return _check(_with_table_name(_convert(raw, path)))


def _with_table_name(config: Config) -> Config:
    """Write the backbone's name as its table does: `ResNet50V2` is `resnet50_v2` everywhere from here on."""
    from pipeline.backbones import table_name

    section = config.backbone
    found = table_name(section.name) or section.name
    return msgspec.structs.replace(config, backbone=msgspec.structs.replace(section, name=found))


def _put_head(raw: dict[str, Any], kind: str | None) -> None:
    heads = raw.setdefault("heads", {"label": {}})
    if kind is None or not isinstance(heads, dict):
        return
    if len(heads) != 1:
        raise InputError(
            f"--head {kind} does not say which of the heads {', '.join(heads)} is meant.",
            "a configuration with one head",
            f"use --set heads.NAME.kind={kind}",
        )
    _put(raw, f"heads.{next(iter(heads))}.kind", kind)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(
            f"The configuration {path} cannot be read: {fault}.",
            "a TOML file",
            "check the path; a folder of pictures or a CSV is named with --data",
        ) from fault
    except tomllib.TOMLDecodeError as fault:
        raise InputError(
            f"The configuration {path} is not TOML: {fault}.", "a TOML file", "mend the line that is named"
        ) from fault


def _anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    for table, key, words in (
        ("data", "path", (QUICKSTART,)),
        ("backbone", "weights", ("imagenet", "none", QUICKSTART)),
    ):
        section = raw.get(table)
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, str) and value and value not in words:
            section[key] = str(folder / Path(value).expanduser())
    backbone = raw.get("backbone")
    if isinstance(backbone, dict) and isinstance(backbone.get("name"), str):
        from pipeline.backbones.origin import anchored

        backbone["name"] = anchored(backbone["name"], folder)


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    table = raw
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(
                f"'{key}' goes through '{parent}', which is a value.", "a key of a table", "see the README"
            )
    table[last] = value


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _convert(raw: dict[str, Any], path: Path | None) -> Config:
    _check_keys(raw, Config, "")
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as fault:
        text, _, where = str(fault).partition(" - at `$.")
        key = where.rstrip("`").replace("[...]", ".NAME") or "the top level"
        raise InputError(
            f"The configuration{f' {path}' if path else ''} has a wrong value at '{key}'.",
            text.removeprefix("Expected "),
            f"change '{key}', or set it with --set {key}=VALUE",
        ) from fault


def _check_keys(raw: Any, section: Any, where: str) -> None:
    """Name the nearest key for an unknown one, which msgspec's own message does not."""
    if not isinstance(raw, dict):
        return
    known = {field.name: field.type for field in msgspec.structs.fields(section)}
    for key, value in raw.items():
        if key not in known:
            raise InputError(
                f"There is no configuration key '{where}{key}'.", nearest(key, known), "correct it, or take it out"
            )
        inner = known[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _check_keys(value, inner, f"{where}{key}.")
        elif getattr(inner, "__origin__", None) is dict and isinstance(value, dict):
            for name, each in value.items():
                _check_keys(each, inner.__args__[1], f"{where}{key}.{name}.")


def _check(config: Config) -> Config:
    if abs(sum(config.data.split) - 1) > 1e-6 or min(config.data.split) <= 0:
        raise InputError(
            f"data.split is {list(config.data.split)}.",
            "three shares above 0 that add up to 1",
            "for example [0.7, 0.15, 0.15]",
        )
    if config.name in (".", "..") or any(each in "/\\" or ord(each) < 32 for each in config.name):
        raise InputError(
            f"A run cannot be called {config.name!r}.",
            "a name that can be a folder's: no slash, no control character",
            "change 'name'; --out says where the results go",
        )
    if config.device not in ("auto", "cpu", "gpu"):
        raise InputError(
            f"There is no device '{config.device}'.", nearest(config.device, ("auto", "cpu", "gpu")), "set --device"
        )
    for name in config.heads:
        if not is_head_name(name):
            raise InputError(
                f"A head cannot be called '{name}'.",
                "a lower-case letter, then letters, digits and _; not 'image', not 'features', nothing after 'features_'",
                f"rename [heads.{name}]",
            )
    if COLUMNS_NAME in config.heads and config.columns:
        raise InputError(
            f"A head is called '{COLUMNS_NAME}', as the model's second input is.",
            "another name where there are tabular columns",
            f"rename [heads.{COLUMNS_NAME}]",
        )
    for precision in config.parity.limits:
        if precision not in CEILINGS:
            raise InputError(
                f"There is no precision '{precision}' to limit.",
                nearest(precision, CEILINGS),
                "correct [parity.limits]",
            )
    if config.golden.publish not in PUBLISH:
        raise InputError(
            f"golden.publish is '{config.golden.publish}'.",
            nearest(config.golden.publish, PUBLISH),
            "set golden.publish",
        )
    check_choice(config.advise.choose, config.advise.precision)
    read_budget(config.advise.max_size, config.advise.max_latency)
    check_runtimes(config.parity.runtimes)
    parse_formats(config.export.formats)
    check_resize(resize_of(config, 224))
    return config


def is_head_name(name: str) -> bool:
    """Return whether a head, thus an output, can be called that: names that carry feature maps are taken."""
    return bool(HEAD_NAME.fullmatch(name)) and name not in RESERVED_HEAD_NAMES and not is_features_name(name)


def resize_of(config: Config, usual_px: int) -> Resize:
    """Return the resize, with `usual_px` where the configuration leaves width or height open."""
    section = config.resize
    return Resize(
        width=section.width or section.height or usual_px,
        height=section.height or section.width or usual_px,
        method=section.method,
        crop=section.crop,
    )


def limits_of(config: Config) -> dict[str, Limits]:
    """Return the limits per precision: the ceilings, with what the configuration sets laid over them."""
    limits = {}
    for precision, ceiling in CEILINGS.items():
        given = config.parity.limits.get(precision, LimitsSection())
        changed = {key: value for key, value in msgspec.structs.asdict(given).items() if value is not None}
        limits[precision] = Limits(**{**_fields(ceiling), **changed})
    return limits


def _fields(limits: Limits) -> dict[str, Any]:
    return {
        "max_abs": limits.max_abs,
        "agreement": limits.agreement,
        "accuracy_drop": limits.accuracy_drop,
        "relative_error": limits.relative_error,
        "worst_relative_error": limits.worst_relative_error,
        "log_max_abs": limits.log_max_abs,
        "confidence_shift": limits.confidence_shift,
        "least_cosine": limits.least_cosine,
        "neighbours": limits.neighbours,
        "iou": limits.iou,
    }
