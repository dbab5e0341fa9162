"""The one place where errors become messages and exit codes, and where results and logs go."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from exporters.errors import CutpointError, InputError, NotVerifiedError
from pipeline.terminal import Terminal


def guard(work: Callable[[Terminal], int], as_json: bool) -> None:
    """Run a command; whatever goes wrong becomes one message and the exit code of its kind."""
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


def _show_error(terminal: Terminal, fault: CutpointError, as_json: bool) -> None:
    if as_json:
        print_json(terminal, fault.to_json() | {"exit_code": fault.exit_code})
    else:
        terminal.messages.print(f"cutpoint: {fault}", markup=False, soft_wrap=True)


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


def needs_extra(command: str, fault: ImportError) -> NotVerifiedError:
    """Return what to say where a command's packages are not installed."""
    return NotVerifiedError(
        f"`cutpoint {command}` needs a package that is not installed: {fault}.",
        "the extra 'train'",
        "pip install 'cutpoint[train]' (see the README on tensorflowjs)",
    )


def show_report(terminal: Terminal, report: dict[str, Any], folder: Path | None, as_json: bool) -> int:
    """Show a report as a table or as JSON, and return its exit code; `folder` is where it was written, if anywhere."""
    if as_json:
        from exporters.report import to_json

        # The same text as report.json: strict JSON, without NaN or infinity.
        terminal.results.file.write(to_json(report).rstrip() + "\n")
        terminal.results.file.flush()
    else:
        from exporters.report import print_table

        print_table(report, terminal.results, folder)
    return report["exit_code"]


def print_json(terminal: Terminal, data: Any) -> None:
    """Write JSON to standard output."""
    terminal.results.file.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    terminal.results.file.flush()


@contextlib.contextmanager
def logging_aside(terminal: Terminal) -> Iterator[None]:
    """Log into a temporary file, which goes when all is well."""
    log = _temporary_log()
    try:
        with terminal.logging_to(log):
            yield
    except CutpointError:
        log.unlink(missing_ok=True)
        raise
    log.unlink(missing_ok=True)


def _temporary_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="cutpoint-", suffix=".log")
    os.close(descriptor)
    return Path(name)
