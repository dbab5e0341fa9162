"""The command line. Loads no framework until a command needs one; the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from exporters.errors import CutpointError, InputError, NotVerifiedError
from pipeline.terminal import Terminal

app = typer.Typer(
    name="cutpoint",
    help="Cut a pretrained vision backbone, train a head on your pictures, export it to TF.js, TFLite and ONNX, and "
    "prove that every artifact answers as the Keras model does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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


def _config(
    path: Path | None,
    data: str | None,
    backbone: str | None,
    weights: str | None,
    cut: str | None,
    head: str | None,
    formats: str | None,
    seed: int | None,
    device: str | None,
    settings: list[str] | None,
    runtimes: str | None = None,
    trust: bool = False,
) -> Any:
    from pipeline.config import QUICKSTART_CONFIG, read_config

    flags = {
        "data.path": data,
        "backbone.name": backbone,
        "backbone.weights": weights,
        "backbone.cut": cut,
        "backbone.trust": trust or None,
        "seed": seed,
        "device": device,
        "export.formats": _listed(formats),
        "parity.runtimes": _listed(runtimes),
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


def _listed(names: str | None) -> list[str] | None:
    return [each for each in names.split(",") if each.strip()] if names is not None else None


def _claim(config: Any, out: Path | None) -> Path:
    from pipeline import bundle
    from pipeline.run import check, result_name

    check(config)
    return bundle.claim(out or bundle.RUNS / result_name(config))


@app.command()
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

        settings = _config(config, data, backbone, weights, cut, head, formats, seed, device, set, runtimes, trust)
        folder = _claim(settings, out)
        with terminal.logging_to(folder / "log.txt"):
            report = run_stages(settings, folder, terminal)
            return _show_report(terminal, report, folder, as_json)

    _guard(work, as_json)


@app.command()
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

        settings = _config(config, data, backbone, weights, cut, head, formats, seed, device, set, trust=trust)
        folder = _claim(settings, out)
        with terminal.logging_to(folder / "log.txt"):
            train_stages(settings, folder, terminal)
            state = read_state(folder)
            if as_json:
                _print_json(terminal, {key: state[key] for key in ("name", "data", "training", "reference", "stages")})
            else:
                terminal.results.print(f"{folder / 'model.keras'}  (next: cutpoint export {folder})", markup=False)
        return 0

    _guard(work, as_json)


@app.command()
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
            settings = _config(None, data, None, None, None, None, formats, seed, None, set, runtimes, trust)
            folder = bundle.claim(out or bundle.RUNS / folder_or_model.stem)
            with terminal.logging_to(folder / "log.txt"):
                stages.choose_tensorflow()
                from pipeline.foreign import export_foreign

                export_foreign(folder_or_model, settings, pixel_scaling, folder, terminal)
                report = stages.verify(folder, terminal, runtimes=settings.parity.runtimes)
                return _show_report(terminal, report, folder, as_json)
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
        chosen, judged_in = _listed(formats), _checked_runtimes(runtimes)
        with terminal.logging_to(folder / "log.txt"):
            stages.export(folder, tuple(chosen) if chosen is not None else stages.formats_of(folder), terminal)
            report = stages.verify(folder, terminal, runtimes=judged_in)
            return _show_report(terminal, report, folder, as_json)

    _guard(work, as_json)


@app.command()
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
            with _logging_aside(terminal):
                settings = _config(None, data, None, None, None, None, None, None, None, set, runtimes, trust)
                from pipeline.comparison import verify_foreign

                report = verify_foreign(reference, artifact, settings, pixel_scaling, precision, terminal, out)
                return _show_report(terminal, report, out, as_json)
        if out is not None:
            raise InputError(
                "--out goes with --reference only.",
                "a result folder alone: its reports are written into it",
                "take --out away, or name --reference, --artifact and --data",
            )
        judged_in = _checked_runtimes(runtimes)
        found = find_result_folder(folder, "golden/manifest.json")
        writable = os.access(found, os.W_OK)
        with terminal.logging_to(found / "log.txt") if writable else _logging_aside(terminal):
            report = verify_stage(found, terminal, runtimes=judged_in, layers=layers)
            return _show_report(terminal, report, found, as_json)

    _guard(work, as_json)


@app.command()
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

        settings = _config(None, "", backbone, None, None, None, None, None, None, set, trust=trust)
        if is_of_table(settings.backbone):
            backbone_row(settings.backbone.name)
        else:
            check_foreign(settings.backbone)
        with _logging_aside(terminal):
            # Loads Keras: after what needs no Keras to be seen to be wrong.
            from pipeline.listing import layers_of

            rows = layers_of(settings, input_size)
        if as_json:
            _print_json(terminal, rows)
        else:
            from pipeline.listing import print_layers

            print_layers(rows, terminal)
        return 0

    _guard(work, as_json)


@app.command()
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

        settings = _config(
            config,
            data,
            backbone,
            weights,
            None,
            head,
            formats,
            seed,
            device,
            [
                *(set or ()),
                *([f"advise.max_size={json.dumps(max_size)}"] if max_size is not None else ()),
                *([f"advise.max_latency={json.dumps(max_latency)}"] if max_latency is not None else ()),
            ],
            trust=trust,
        )
        with _logging_aside(terminal):
            advice = advise_and_tell(settings, config, apply, out, terminal, as_json)
            if as_json:
                _print_json(terminal, advice)
            return 0 if advice["chosen"] is not None else InputError.exit_code

    _guard(work, as_json)


@app.command()
def predict(
    folder_or_artifact: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_ARTIFACT", help="A result folder, an artifact's folder or its file.")
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE...]", help="Pictures; with --data all of the CSV by default.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME=VALUE", help="What stands beside every picture, such as age=40; may be repeated."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="CSV", help="What stands beside each picture: path, and the model's columns."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many labels to show.")] = 5,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Where segmentations go, as indexed PNGs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The answers of an artifact, in its own runtime."""

    def work(terminal: Terminal) -> int:
        from exporters.contract import Card
        from exporters.prediction import describe, find_artifact, predict_pictures, remark_on_columns
        from pipeline.cells import cells_told

        with _logging_aside(terminal):
            card = Card.read(find_artifact(folder_or_artifact) / "card.json")
            pictures, cells = cells_told(card.columns, images or (), column or (), data)
            answers = predict_pictures(folder_or_artifact, pictures, top, masks, cells)
        if remark := remark_on_columns(answers):
            terminal.messages.print(f"predict: {remark}", markup=False)
        if as_json:
            _print_json(terminal, answers)
            return 0
        for answer in answers:
            for name, output in answer["outputs"].items():
                terminal.results.print(f"{answer['path']}  {name}: {describe(output)}", markup=False)
        return 0

    _guard(work, as_json)


@app.command()
def similar(
    folder_or_artifact: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_ARTIFACT", help="A result folder, an artifact's folder or its file.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to find others like.")],
    among: Annotated[
        Path | None,
        typer.Option(
            "--among", metavar="DIR", help="Where to look; by default in the pictures the model was made with."
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", metavar="NAME", help="Which embedding, where there are several.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many pictures to show.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """The pictures that are nearest to a picture, by an embedding."""

    def work(terminal: Terminal) -> int:
        from pipeline.similar import find_similar

        with _logging_aside(terminal):
            answers = find_similar(folder_or_artifact, images, among, head, top)
        if as_json:
            _print_json(terminal, answers)
            return 0
        for answer in answers:
            terminal.results.print(f"{answer['path']}  {answer['head']}:", markup=False)
            for each in answer["similar"]:
                label = f"  {each['label']}" if each["label"] else ""
                terminal.results.print(f"  {each['cosine']:.3f}  {each['path']}{label}", markup=False)
        return 0

    _guard(work, as_json)


@app.command("import")
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
            "export.formats": _listed(formats),
            "parity.runtimes": _listed(runtimes),
        }
        settings = import_settings(head, folder, target, flags, tuple(set or ()))
        stages.choose_tensorflow()
        stages.prepare_keras("auto")
        with _logging_aside(terminal):
            from pipeline.importing import import_taught

            import_taught(head, folder, settings, target, terminal)
        with terminal.logging_to(target / "log.txt"):
            stages.export(target, settings.export.formats, terminal)
            report = stages.verify(target, terminal, runtimes=settings.parity.runtimes)
            return _show_report(terminal, report, target, as_json)

    _guard(work, as_json)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A result folder; by default the newest.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0: for the whole network, with a warning."
        ),
    ] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the page with the exported TF.js model on this machine."""

    def work(terminal: Terminal) -> int:
        from pipeline.bundle import find_result_folder

        found = find_result_folder(folder, "artifacts")
        try:
            from pipeline.server import serve
        except ImportError as fault:
            raise _needs_extra("demo", fault) from fault
        serve(
            found,
            host=host,
            port=port,
            open_browser=open_browser,
            ready=lambda url: terminal.results.print(f"Serving {found} at {url}", markup=False),
        )
        return 0

    _guard(work, False)


@app.command()
def site(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A result folder.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the static files go.")],
    slim: Annotated[
        bool, typer.Option("--slim", help="Without the TFLite and ONNX artifacts and their libraries (24 MB).")
    ] = False,
) -> None:
    """Write the page and the models as static files for any host."""

    def work(terminal: Terminal) -> int:
        from pipeline.bundle import find_result_folder

        found = find_result_folder(folder, "artifacts")
        try:
            from pipeline.server import write_site
        except ImportError as fault:
            raise _needs_extra("site", fault) from fault
        from pipeline.publishing import count_pictures

        names = write_site(found, out, slim=slim)
        count, size_mb = count_pictures(found), sum((out / name).stat().st_size for name in names) / 1e6
        terminal.results.print(
            f"{out}: the page and the models of {found}, {size_mb:.1f} MB; {count} test pictures published",
            markup=False,
        )
        return 0

    _guard(work, False)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What is installed, what is missing, and how to get it."""

    def work(terminal: Terminal) -> int:
        from pipeline.doctor import examine

        rows = examine()
        if as_json:
            _print_json(terminal, rows)
        for row in [] if as_json else rows:
            terminal.results.print(f"{row['name']:<14} {row['state']:<8} {row['detail']}", markup=False)
        return 0 if all(row["state"] != "missing" for row in rows) else 3

    _guard(work, as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Where the cache is and how large; features, trained heads and artifacts that later runs take from it."""

    def work(terminal: Terminal) -> int:
        from pipeline.bundle import cache_folder, cache_rows, clear_cache

        folder = cache_folder()
        if clear:
            clear_cache(folder)
        rows = cache_rows(folder)
        if as_json:
            _print_json(terminal, {"path": str(folder), "size_bytes": rows})
        else:
            shown = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in rows.items()) or "empty"
            terminal.results.print(f"{folder}: {shown}", markup=False)
        return 0

    _guard(work, as_json)


def _checked_runtimes(names: str | None) -> tuple[str, ...]:
    from exporters.contract import AUTO, check_runtimes

    return tuple(check_runtimes([names])) if names is not None else (AUTO,)


def _check_foreign_data(data: str | None) -> None:
    if not data:
        raise InputError(
            "No data are named for the model.",
            "--data DIR: pictures to calibrate with and to compare on",
            "cutpoint export MODEL.keras --data photos/",
        )


def _needs_extra(command: str, fault: ImportError) -> NotVerifiedError:
    return NotVerifiedError(
        f"`cutpoint {command}` needs a package that is not installed: {fault}.",
        "the extra 'train'",
        "pip install 'cutpoint[train]' (see the README on tensorflowjs)",
    )


def _show_report(terminal: Terminal, report: dict[str, Any], folder: Path | None, as_json: bool) -> int:
    if as_json:
        from exporters.report import to_json

        # The same text as report.json: strict JSON, without NaN or infinity.
        terminal.results.file.write(to_json(report).rstrip() + "\n")
        terminal.results.file.flush()
    else:
        from exporters.report import print_table

        print_table(report, terminal.results, folder)
    return report["exit_code"]


def _print_json(terminal: Terminal, data: Any) -> None:
    terminal.results.file.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    terminal.results.file.flush()


def _temporary_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="cutpoint-", suffix=".log")
    os.close(descriptor)
    return Path(name)


@contextlib.contextmanager
def _logging_aside(terminal: Terminal) -> Iterator[None]:
    """Log into a temporary file, which goes when all is well."""
    log = _temporary_log()
    try:
        with terminal.logging_to(log):
            yield
    except CutpointError:
        log.unlink(missing_ok=True)
        raise
    log.unlink(missing_ok=True)


def _guard(work: Callable[[Terminal], int], as_json: bool) -> None:
    """Run a command; whatever goes wrong becomes one message and the exit code that INTERFACES fixes."""
    terminal = Terminal()
    try:
        code = work(terminal)
    except CutpointError as fault:
        code = fault.exit_code
        _show_error(terminal, fault, as_json)
    except KeyboardInterrupt:
        code = 130
        terminal.messages.print("Interrupted. Finished stages are kept: the same command goes on from them.")
    except ModuleNotFoundError as fault:
        own = (fault.name or "").startswith(("pipeline", "exporters"))
        problem = _internal_error(fault) if own else _missing_package(fault)
        code = problem.exit_code
        _show_error(terminal, problem, as_json)
    except Exception as fault:
        code = CutpointError.exit_code
        _show_error(terminal, _internal_error(fault), as_json)
    raise typer.Exit(code)


def _internal_error(fault: Exception) -> CutpointError:
    log = _temporary_log()
    log.write_text("".join(traceback.format_exception(fault)), encoding="utf-8")
    first_line = (str(fault).splitlines() or [""])[0]
    return CutpointError(f"An internal error: {type(fault).__name__}: {first_line}", "none", f"report it with {log}")


def _missing_package(fault: ModuleNotFoundError) -> InputError:
    return InputError(
        f"A package is missing: {fault.name}.",
        "for training and exporting, the extra 'train'; for verifying and predicting, the plain installation",
        "pip install 'cutpoint[train]' and then pip install --no-deps tensorflowjs==4.22.0; `cutpoint doctor` lists what "
        "is missing",
    )


def _show_error(terminal: Terminal, fault: CutpointError, as_json: bool) -> None:
    if as_json:
        _print_json(terminal, fault.to_json() | {"exit_code": fault.exit_code})
    else:
        terminal.messages.print(f"cutpoint: {fault}", markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; the entry point of `cutpoint`."""
    app()
