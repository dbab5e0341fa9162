"""The commands about this machine: `doctor` and `cache`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.guarding import guard, print_json
from pipeline.commands.options import JsonOption
from pipeline.terminal import Terminal


def doctor(as_json: JsonOption = False) -> None:
    """What is installed, what is missing, and how to get it."""

    def work(terminal: Terminal) -> int:
        from pipeline.doctor import examine

        rows = examine()
        if as_json:
            print_json(terminal, rows)
        for row in [] if as_json else rows:
            terminal.results.print(f"{row['name']:<14} {row['state']:<8} {row['detail']}", markup=False)
        return 0 if all(row["state"] != "missing" for row in rows) else 3

    guard(work, as_json)


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
            print_json(terminal, {"path": str(folder), "size_bytes": rows})
        else:
            shown = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in rows.items()) or "empty"
            terminal.results.print(f"{folder}: {shown}", markup=False)
        return 0

    guard(work, as_json)
