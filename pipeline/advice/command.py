"""`cutpoint advise`: from a configuration to the table, the files of `--out`, and the cut that `--apply` writes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.errors import InputError
from pipeline.config import Config
from pipeline.dataset import list_examples
from pipeline.run import check, data_folder, prepare_keras
from pipeline.targets import readings_of
from pipeline.terminal import Terminal

FILES = ("advice.json", "advice.md", "advice.html")


def advise_and_tell(
    config: Config, path: Path | None, apply: bool, out: Path | None, terminal: Terminal, as_json: bool
) -> dict[str, Any]:
    """Measure, print the table unless JSON is wanted, write the files that are asked for; returns the advice.

    Args:
        config: the checked configuration.
        path: the TOML file that it was read from; None: none was given.
        apply: write the chosen cut into it.
        out: where advice.json, advice.md and advice.html go; None: nowhere.
        terminal: where progress and the table go.
        as_json: the caller prints the advice itself.

    Raises:
        InputError: what the user gave is wrong; or `apply` without a file, or where nothing fits into the budget.
    """
    check(config)
    if apply:
        _check_apply(path)
    if out is not None:
        _check_out(out)
    root = data_folder(config, terminal)
    examples = list_examples(root, readings_of(config), config.data.group, config.columns)
    terminal.say(f"data: {len(examples)} pictures")
    prepare_keras(config.device)
    # Loads Keras: after what needs no Keras to be seen to be wrong.
    advice = importlib.import_module("pipeline.advice.advise").advise(config, root, examples, terminal)
    if not as_json:
        from pipeline.advice.table import print_advice

        print_advice(advice, terminal)
    if out is not None:
        _write(advice, out)
        terminal.say(f"advise: {', '.join(str(out / name) for name in FILES)}")
    if advice["chosen"] is None:
        if apply or not as_json:
            raise InputError(*advice["budget"]["error"])
    elif apply and path is not None:
        from pipeline.advice.applying import write_cut

        before = write_cut(path, advice["chosen"])
        terminal.say(f'advise: {path}: cut = "{advice["chosen"]}"' + (f" in place of {before}" if before else ""))
    return advice


def _check_apply(path: Path | None) -> None:
    if path is None:
        raise InputError(
            "--apply was given no configuration to write the cut into.",
            "a TOML file as the first argument",
            "cutpoint advise my.toml --apply; or leave --apply away and name the cut with `cutpoint run --cut NAME`",
        )
    try:
        importlib.import_module("tomlkit")
    except ModuleNotFoundError as fault:
        raise InputError(
            "--apply needs the package tomlkit, which keeps a file's comments.",
            "the extra 'train' or 'keras'",
            "pip install tomlkit, or write the cut into the file yourself",
        ) from fault


def _check_out(out: Path) -> None:
    present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if (out.exists() and not out.is_dir()) or (present and not present <= set(FILES)):
        example = sorted(present - set(FILES))[0] if present else "a file"
        raise InputError(
            f"The output {out} holds '{example}', which `cutpoint advise` did not make."
            if present
            else f"{out} is a file.",
            "a new or empty folder, or one that `cutpoint advise` made",
            "set --out to another place",
        )


def _write(advice: Mapping[str, Any], out: Path) -> None:
    from exporters.report import to_json
    from exporters.report_advice_page import to_html
    from exporters.report_advice_text import to_markdown

    texts = (to_json(advice), to_markdown(advice) + "\n", to_html(advice))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, texts, strict=True):
            (out / name).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(
            f"The output folder {out} cannot be written: {fault.strerror or fault}.",
            "a folder that can be written",
            "set --out to another place",
        ) from fault
