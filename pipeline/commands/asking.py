"""The commands that ask an artifact: `predict` and `similar`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.guarding import guard, logging_aside, print_json
from pipeline.commands.options import JsonOption
from pipeline.terminal import Terminal


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

        with logging_aside(terminal):
            card = Card.read(find_artifact(folder_or_artifact) / "card.json")
            pictures, cells = cells_told(card.columns, images or (), column or (), data)
            answers = predict_pictures(folder_or_artifact, pictures, top, masks, cells)
        if remark := remark_on_columns(answers):
            terminal.messages.print(f"predict: {remark}", markup=False)
        if as_json:
            print_json(terminal, answers)
            return 0
        for answer in answers:
            for name, output in answer["outputs"].items():
                terminal.results.print(f"{answer['path']}  {name}: {describe(output)}", markup=False)
        return 0

    guard(work, as_json)


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

        with logging_aside(terminal):
            answers = find_similar(folder_or_artifact, images, among, head, top)
        if as_json:
            print_json(terminal, answers)
            return 0
        for answer in answers:
            terminal.results.print(f"{answer['path']}  {answer['head']}:", markup=False)
            for each in answer["similar"]:
                label = f"  {each['label']}" if each["label"] else ""
                terminal.results.print(f"  {each['cosine']:.3f}  {each['path']}{label}", markup=False)
        return 0

    guard(work, as_json)
