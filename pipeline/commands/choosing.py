"""The commands that help to choose a cut: `layers` and `advise`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exporters.errors import InputError
from pipeline.commands.guarding import guard, logging_aside, print_json
from pipeline.commands.options import (
    BackboneOption,
    ConfigArgument,
    DataOption,
    DeviceOption,
    FormatsOption,
    HeadOption,
    JsonOption,
    SeedOption,
    SetOption,
    TrustOption,
    WeightsOption,
    settings_of,
)
from pipeline.terminal import Terminal


def layers(
    backbone: Annotated[
        str,
        typer.Argument(metavar="BACKBONE", help="mobilenet_v2 and its like, a .keras or .h5 file, a SavedModel."),
    ],
    input_size: Annotated[int | None, typer.Option("--input-size", metavar="N", help="Width and height in px.")] = None,
    trust: TrustOption = False,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """The layers of a backbone: shape, reduction, parameters and MACs up to there, and where it makes sense to cut."""

    def work(terminal: Terminal) -> int:
        from pipeline.backbones import backbone_row
        from pipeline.backbones.origin import check_foreign, is_of_table

        settings = settings_of(data="", backbone=backbone, settings=set, trust=trust)
        if is_of_table(settings.backbone):
            backbone_row(settings.backbone.name)
        else:
            check_foreign(settings.backbone)
        with logging_aside(terminal):
            # Loads Keras: after what needs no Keras to be seen to be wrong.
            from pipeline.listing import layers_of

            rows = layers_of(settings, input_size)
        if as_json:
            print_json(terminal, rows)
        else:
            from pipeline.listing import print_layers

            print_layers(rows, terminal)
        return 0

    guard(work, as_json)


def advise(
    config: ConfigArgument = None,
    data: DataOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Of the TFLite file: 500kB, 1.5MB, 64KiB, or bytes."),
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option("--max-latency", metavar="TIME", help="Of one image on this machine: 5ms, 0.02s.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the chosen cut into CONFIG.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where advice.json, advice.md and advice.html go.")
    ] = None,
    head: HeadOption = None,
    formats: FormatsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    trust: TrustOption = False,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which layer to cut at, measured on your pictures: what each cut is worth, and what it costs."""

    def work(terminal: Terminal) -> int:
        from pipeline.advice.command import advise_and_tell

        limits = {"advise.max_size": max_size, "advise.max_latency": max_latency}
        settings = settings_of(
            config,
            data=data,
            backbone=backbone,
            weights=weights,
            head=head,
            formats=formats,
            seed=seed,
            device=device,
            settings=[
                *(set or ()),
                *(f"{key}={json.dumps(limit)}" for key, limit in limits.items() if limit is not None),
            ],
            trust=trust,
        )
        with logging_aside(terminal):
            advice = advise_and_tell(settings, config, apply, out, terminal, as_json)
            if as_json:
                print_json(terminal, advice)
            return 0 if advice["chosen"] is not None else InputError.exit_code

    guard(work, as_json)
