"""The commands that show the page: `demo` and `site`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.guarding import guard, needs_extra
from pipeline.terminal import Terminal


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
            raise needs_extra("demo", fault) from fault
        serve(
            found,
            host=host,
            port=port,
            open_browser=open_browser,
            ready=lambda url: terminal.results.print(f"Serving {found} at {url}", markup=False),
        )
        return 0

    guard(work, False)


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
            raise needs_extra("site", fault) from fault
        from pipeline.publishing import count_pictures

        names = write_site(found, out, slim=slim)
        count, size_mb = count_pictures(found), sum((out / name).stat().st_size for name in names) / 1e6
        terminal.results.print(
            f"{out}: the page and the models of {found}, {size_mb:.1f} MB; {count} test pictures published",
            markup=False,
        )
        return 0

    guard(work, False)
