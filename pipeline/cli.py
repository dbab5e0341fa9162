"""The command line. Loads no framework until a command needs one."""

from __future__ import annotations

import typer

from pipeline.commands.asking import predict, similar
from pipeline.commands.choosing import advise, layers
from pipeline.commands.judging import verify
from pipeline.commands.machine import cache, doctor
from pipeline.commands.making import export, import_head, run, train
from pipeline.commands.showing import demo, site

app = typer.Typer(
    name="cutpoint",
    help="Cut a pretrained vision backbone, train a head on your pictures, export it to TF.js, TFLite and ONNX, and "
    "prove that every artifact answers as the Keras model does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# In the order in which they are listed.
for command in (run, train, export, verify, layers, advise, predict, similar, import_head, demo, site, doctor, cache):
    app.command("import" if command is import_head else None)(command)


def main() -> None:
    """Run the command line; the entry point of `cutpoint`."""
    app()
