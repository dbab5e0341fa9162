"""The options that commands share, and the configuration that they make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.config import Config


ConfigArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG]", help="A TOML file; without it and without --data: the embedded quickstart."),
]
DataOption = Annotated[str | None, typer.Option("--data", metavar="DIR_OR_CSV", help="A folder per class, or a CSV.")]
BackboneOption = Annotated[
    str | None,
    typer.Option(
        "--backbone", metavar="NAME|PATH", help="mobilenet_v2 and its like, a .keras or .h5 file, a SavedModel."
    ),
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", metavar="imagenet|none|PATH", help="Which weights it starts from.")
]
CutOption = Annotated[
    str | None,
    typer.Option(
        "--cut", metavar="LAYER", help="Where to cut: a layer's name, its index, stride:16, auto, or several: a,b,c."
    ),
]
HeadOption = Annotated[
    str | None,
    typer.Option("--head", metavar="KIND", help="linear, mlp, embedding, boxes, segmentation, module:object."),
]
FormatsOption = Annotated[str | None, typer.Option("--formats", metavar="LIST", help="For example tfjs,onnx-float32.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The result folder; by default runs/NAME.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Of splits, weights and shuffling.")]
DeviceOption = Annotated[str | None, typer.Option("--device", metavar="auto|cpu|gpu", help="Where to train.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration; may be repeated.")
]
RuntimesOption = Annotated[
    str | None,
    typer.Option(
        "--runtimes",
        metavar="auto|local|browser|all|LIST",
        help="Where artifacts are judged: auto takes a Chromium where there is one; or names such as litert,tfjs-chromium.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust", help="Let code that a model file from elsewhere holds run: only where you know who made it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON on stdout.")]


def settings_of(
    path: Path | None = None,
    *,
    data: str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    cut: str | None = None,
    head: str | None = None,
    formats: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Iterable[str] | None = None,
    runtimes: str | None = None,
    trust: bool = False,
) -> Config:
    """Return the configuration of a file with what the options say; the embedded quickstart's without file and data.

    Args:
        path: of a TOML file.
        settings: KEY=VALUE, as `--set` takes them.
        data, backbone, weights, cut, head, formats, seed, device, runtimes, trust: as the options of these names give them;
            None leaves what the file says.

    Raises:
        InputError: the file cannot be read, or a key or a value is wrong.
    """
    from pipeline.config import QUICKSTART_CONFIG, read_config

    flags = {
        "data.path": data,
        "backbone.name": backbone,
        "backbone.weights": weights,
        "backbone.cut": cut,
        "backbone.trust": trust or None,
        "seed": seed,
        "device": device,
        "export.formats": listed(formats),
        "parity.runtimes": listed(runtimes),
    }
    if path is None and data is None:
        path = QUICKSTART_CONFIG
        flags = _without_its_backbone(flags)
    return read_config(path, flags, tuple(settings or ()), head=head)


def _without_its_backbone(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags with what undoes the quickstart's settings of its own backbone, where a file's was asked for."""
    from pipeline.backbones.origin import TABLE, origin_of

    name = flags["backbone.name"]
    if name is None or origin_of(name) == TABLE:
        return flags
    plain = {
        "backbone.alpha": 1.0,
        "backbone.weights": "imagenet",
        "backbone.cut": "",
        "backbone.pixel_scaling": "auto",
    }
    return {
        "resize.width": 0,
        "resize.height": 0,
        **plain,
        **{key: each for key, each in flags.items() if each is not None},
    }


def listed(names: str | None) -> list[str] | None:
    """Return what stands between the commas; None stays None."""
    return [each for each in names.split(",") if each.strip()] if names is not None else None


def claim(config: Config, out: Path | None) -> Path:
    """Return the result folder of a configuration, made where it is missing: `out`, or what the configuration's name says.

    Raises:
        InputError: the configuration cannot be run, or the folder is somebody else's.
    """
    from pipeline import bundle
    from pipeline.run import check, result_name

    check(config)
    return bundle.claim(out or bundle.RUNS / result_name(config))


def checked_runtimes(names: str | None) -> tuple[str, ...]:
    """Return what `--runtimes` names, `auto` where it names nothing.

    Raises:
        InputError: no runtime is called so.
    """
    from exporters.contract import AUTO, check_runtimes

    return tuple(check_runtimes([names])) if names is not None else (AUTO,)
