"""The commands that make artifacts: `run` and its stages `train` and `export`, and `import` of what was taught on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporters.errors import InputError
from pipeline.commands.guarding import guard, logging_aside, print_json, show_report
from pipeline.commands.options import (
    BackboneOption,
    ConfigArgument,
    CutOption,
    DataOption,
    DeviceOption,
    FormatsOption,
    HeadOption,
    JsonOption,
    OutOption,
    RuntimesOption,
    SeedOption,
    SetOption,
    TrustOption,
    WeightsOption,
    checked_runtimes,
    claim,
    listed,
    settings_of,
)
from pipeline.terminal import Terminal


def run(
    config: ConfigArgument = None,
    data: DataOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    cut: CutOption = None,
    head: HeadOption = None,
    formats: FormatsOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    runtimes: RuntimesOption = None,
    trust: TrustOption = False,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """All stages: train, export, verify. Stages that nothing changed come from the cache."""

    def work(terminal: Terminal) -> int:
        from pipeline.run import run as run_stages

        settings = settings_of(
            config,
            data=data,
            backbone=backbone,
            weights=weights,
            cut=cut,
            head=head,
            formats=formats,
            seed=seed,
            device=device,
            settings=set,
            runtimes=runtimes,
            trust=trust,
        )
        folder = claim(settings, out)
        with terminal.logging_to(folder / "log.txt"):
            report = run_stages(settings, folder, terminal)
            return show_report(terminal, report, folder, as_json)

    guard(work, as_json)


def train(
    config: ConfigArgument = None,
    data: DataOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    cut: CutOption = None,
    head: HeadOption = None,
    formats: FormatsOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    trust: TrustOption = False,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Features, heads and assembly only: model.keras in a result folder. Any Keras backend (KERAS_BACKEND)."""

    def work(terminal: Terminal) -> int:
        from pipeline.bundle import read_state
        from pipeline.run import train as train_stages

        settings = settings_of(
            config,
            data=data,
            backbone=backbone,
            weights=weights,
            cut=cut,
            head=head,
            formats=formats,
            seed=seed,
            device=device,
            settings=set,
            trust=trust,
        )
        folder = claim(settings, out)
        with terminal.logging_to(folder / "log.txt"):
            train_stages(settings, folder, terminal)
            state = read_state(folder)
            if as_json:
                print_json(terminal, {key: state[key] for key in ("name", "data", "training", "reference", "stages")})
            else:
                terminal.results.print(f"{folder / 'model.keras'}  (next: cutpoint export {folder})", markup=False)
        return 0

    guard(work, as_json)


def export(
    folder_or_model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER | MODEL.keras]",
            help="A trained result folder (by default the newest), or a Keras model made elsewhere.",
        ),
    ] = None,
    data: DataOption = None,
    formats: FormatsOption = None,
    out: OutOption = None,
    pixel_scaling: Annotated[
        str | None,
        typer.Option(
            "--pixel-scaling",
            metavar="none|tf|torch|caffe|unit",
            help="What a model made elsewhere expects of its pixels.",
        ),
    ] = None,
    seed: SeedOption = None,
    runtimes: RuntimesOption = None,
    trust: TrustOption = False,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained result folder, or a Keras model made elsewhere (with --data), and verify it."""

    def work(terminal: Terminal) -> int:
        from pipeline import bundle
        from pipeline import run as stages
        from pipeline.backbones.origin import FILE_SUFFIXES

        if folder_or_model is not None and folder_or_model.suffix in FILE_SUFFIXES:
            _check_foreign_data(data)
            settings = settings_of(data=data, formats=formats, seed=seed, settings=set, runtimes=runtimes, trust=trust)
            folder = bundle.claim(out or bundle.RUNS / folder_or_model.stem)
            with terminal.logging_to(folder / "log.txt"):
                stages.choose_tensorflow()
                from pipeline.foreign import export_foreign

                export_foreign(folder_or_model, settings, pixel_scaling, folder, terminal)
                report = stages.verify(folder, terminal, runtimes=settings.parity.runtimes)
                return show_report(terminal, report, folder, as_json)
        given = {
            "--data": data,
            "--out": out,
            "--pixel-scaling": pixel_scaling,
            "--seed": seed,
            "--set": set,
            "--trust": trust,
        }
        for flag in [flag for flag, value in given.items() if value]:
            raise InputError(
                f"{flag} does not go with a trained result folder.",
                "--formats alone: everything else was fixed in training",
                "take it out, use `cutpoint run`, or name a MODEL.keras made elsewhere",
            )
        folder = bundle.claim(bundle.find_result_folder(folder_or_model, "model.keras"))
        chosen, judged_in = listed(formats), checked_runtimes(runtimes)
        with terminal.logging_to(folder / "log.txt"):
            stages.export(folder, tuple(chosen) if chosen is not None else stages.formats_of(folder), terminal)
            report = stages.verify(folder, terminal, runtimes=judged_in)
            return show_report(terminal, report, folder, as_json)

    guard(work, as_json)


def import_head(
    taught: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help='What the page\'s Download wrote under "Teach it here".')
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="The result folder whose page it was taught on; by default found under runs/.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR_OR_CSV", help="Pictures of the taught classes, to judge with."),
    ] = None,
    formats: FormatsOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    runtimes: RuntimesOption = None,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a Keras head of what was taught on the page, on the same backbone; export and verify it."""

    def work(terminal: Terminal) -> int:
        from pipeline import bundle
        from pipeline import run as stages
        from pipeline.taught_file import read_taught
        from pipeline.taught_source import find_source, import_settings, usual_name

        head = read_taught(taught)
        folder = find_source(source, head)
        target = out or bundle.RUNS / usual_name(taught)
        flags = {
            "data.path": data,
            "seed": seed,
            "export.formats": listed(formats),
            "parity.runtimes": listed(runtimes),
        }
        settings = import_settings(head, folder, target, flags, tuple(set or ()))
        stages.choose_tensorflow()
        stages.prepare_keras("auto")
        with logging_aside(terminal):
            from pipeline.importing import import_taught

            import_taught(head, folder, settings, target, terminal)
        with terminal.logging_to(target / "log.txt"):
            stages.export(target, settings.export.formats, terminal)
            report = stages.verify(target, terminal, runtimes=settings.parity.runtimes)
            return show_report(terminal, report, target, as_json)

    guard(work, as_json)


def _check_foreign_data(data: str | None) -> None:
    if not data:
        raise InputError(
            "No data are named for the model.",
            "--data DIR: pictures to calibrate with and to compare on",
            "cutpoint export MODEL.keras --data photos/",
        )
