"""The command that judges artifacts: `verify`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from exporters.errors import InputError
from pipeline.commands.guarding import guard, logging_aside, show_report
from pipeline.commands.options import (
    DataOption,
    JsonOption,
    RuntimesOption,
    SetOption,
    TrustOption,
    checked_runtimes,
    settings_of,
)
from pipeline.terminal import Terminal


def verify(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A result folder; by default the newest under runs/.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL.keras", help="A Keras model made elsewhere.")
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option("--artifact", metavar="FILE", help="An artifact of it: model.json, .tflite or .onnx.")
    ] = None,
    data: DataOption = None,
    pixel_scaling: Annotated[
        str,
        typer.Option("--pixel-scaling", metavar="none|tf|torch|caffe|unit", help="What both expect of their pixels."),
    ] = "none",
    precision: Annotated[str, typer.Option("--precision", help="Whose limits judge the artifact.")] = "float32",
    runtimes: RuntimesOption = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare layer by layer too, and name the first that is off; needs Keras.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="With --reference: where report.md, .xml, .html, .json go."),
    ] = None,
    trust: TrustOption = False,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the artifacts of a result folder, or one artifact against its Keras model, in their own runtimes."""

    def work(terminal: Terminal) -> int:
        from pipeline.bundle import find_result_folder
        from pipeline.run import verify as verify_stage

        if reference is not None or artifact is not None or data is not None:
            if reference is None or artifact is None or data is None:
                raise InputError(
                    "verify was given a part of --reference, --artifact and --data.",
                    "all three, or a result folder alone",
                    "cutpoint verify --reference MODEL.keras --artifact model.tflite --data photos/",
                )
            with logging_aside(terminal):
                settings = settings_of(data=data, settings=set, runtimes=runtimes, trust=trust)
                from pipeline.comparison import verify_foreign

                report = verify_foreign(reference, artifact, settings, pixel_scaling, precision, terminal, out)
                return show_report(terminal, report, out, as_json)
        if out is not None:
            raise InputError(
                "--out goes with --reference only.",
                "a result folder alone: its reports are written into it",
                "take --out away, or name --reference, --artifact and --data",
            )
        judged_in = checked_runtimes(runtimes)
        found = find_result_folder(folder, "golden/manifest.json")
        writable = os.access(found, os.W_OK)
        with terminal.logging_to(found / "log.txt") if writable else logging_aside(terminal):
            report = verify_stage(found, terminal, runtimes=judged_in, layers=layers)
            return show_report(terminal, report, found, as_json)

    guard(work, as_json)
