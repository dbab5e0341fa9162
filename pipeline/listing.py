"""`cutpoint layers`: the layers of a backbone as rows and as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection, Config
from pipeline.cut import list_layers
from pipeline.run import usual_resize
from pipeline.terminal import Terminal


def layers_of(config: Config, input_size: int | None) -> list[dict[str, Any]]:
    """Return a row for each layer; see `pipeline.cut.LayerRow`.

    Args:
        config: whose backbone's name and alpha count; no weights are loaded.
        input_size: width and height in px; None: the backbone's usual size.
    """
    how = usual_resize(config)
    if input_size is not None:
        how = dataclasses.replace(how, width=input_size, height=input_size)
    keras.utils.set_random_seed(0)
    section = BackboneSection(name=config.backbone.name, alpha=config.backbone.alpha, weights="none")
    rows = list_layers(load_backbone(section, how).model, config.backbone.name)
    return [{**dataclasses.asdict(row), "shape": list(row.shape)} for row in rows]


def print_layers(rows: list[dict[str, Any]], terminal: Terminal) -> None:
    """Print the rows as a table; usual cut points carry an asterisk."""
    table = Table("index", "layer", "type", "shape", "reduction", "params", "usual", box=None, pad_edge=False)
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        reduction = "" if row["reduction"] is None else str(row["reduction"])
        usual = "*" if row["usual"] else ""
        table.add_row(str(row["index"]), row["name"], row["type"], shape, reduction, f"{row['params']:,}", usual)
    console = terminal.results
    if not console.is_terminal:
        # A pipe has no width: every name is whole in it.
        console = Console(file=console.file, width=200, highlight=False)
    console.print(table, soft_wrap=True)
