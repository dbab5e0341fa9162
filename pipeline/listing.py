"""`cutpoint layers`: the layers of a backbone as rows and as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import msgspec
from rich.console import Console
from rich.table import Table

from pipeline.backbones.loading import LoadedBackbone, load_backbone
from pipeline.backbones.origin import is_of_table
from pipeline.config import BackboneSection, Config
from pipeline.costs import layer_costs
from pipeline.cut import candidate_cuts
from pipeline.run import usual_resize
from pipeline.terminal import Terminal


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer of `cutpoint layers`; what it costs is that of a network that ends with it: see `pipeline.costs.LayerCost`.

    `shape` of its output without the batch axis; `reduction` is the nominal stride, None where places are gone; `params` and
    `macs` up to and including it; `part` is `early`, `middle` or `late`; `usual` marks the usual cut points, `candidate`
    the layers at which it makes sense to cut.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    reduction: int | None
    params: int
    macs: int
    part: str
    usual: bool
    candidate: bool


def list_layers(backbone: LoadedBackbone) -> list[LayerRow]:
    """List every layer of a backbone, in its order."""
    candidates = set(candidate_cuts(backbone.model))
    return [
        LayerRow(
            *(cost.index, cost.name, cost.type, cost.shape, cost.reduction, cost.params, cost.macs, cost.part),
            usual=cost.name in backbone.usual_cuts,
            candidate=cost.name in candidates,
        )
        for cost in layer_costs(backbone.model)
    ]


def layers_of(config: Config, input_size: int | None) -> list[dict[str, Any]]:
    """Return a row for each layer; see `LayerRow`.

    Args:
        config: whose backbone's name and alpha count; no weights are loaded.
        input_size: width and height in px; None: the backbone's usual size.
    """
    how = usual_resize(config)
    if input_size is not None:
        how = dataclasses.replace(how, width=input_size, height=input_size)
    keras.utils.set_random_seed(0)
    section = BackboneSection(name=config.backbone.name, alpha=config.backbone.alpha, weights="none")
    if not is_of_table(config.backbone):
        # What is done to pixels before it changes none of its layers.
        section = msgspec.structs.replace(config.backbone, pixel_scaling="none")
    return [{**dataclasses.asdict(row), "shape": list(row.shape)} for row in list_layers(load_backbone(section, how))]


def print_layers(rows: list[dict[str, Any]], terminal: Terminal) -> None:
    """Print the rows as a table; usual cut points carry an asterisk, other candidates a plus sign."""
    table = Table(box=None, pad_edge=False)
    for column in ("index", "layer", "type", "shape", "reduction", "params", "MACs", "part", "cut (* usual)"):
        table.add_column(column, justify="right" if column in ("index", "reduction", "params", "MACs") else "left")
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        reduction = "" if row["reduction"] is None else str(row["reduction"])
        mark = "*" if row["usual"] else "+" if row["candidate"] else ""
        figures = (f"{row['params']:,}", _millions(row["macs"]), row["part"], mark)
        table.add_row(str(row["index"]), row["name"], row["type"], shape, reduction, *figures)
    console = terminal.results
    if not console.is_terminal:
        # A pipe has no width: every name is whole in it.
        console = Console(file=console.file, width=200, highlight=False)
    console.print(table, soft_wrap=True)


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f} M"
