"""`cutpoint layers`: the table that guides to transfer learning give, and its marks."""

from __future__ import annotations

import io
from typing import Any

import pytest
from commands import cutpoint
from rich.console import Console

from pipeline.config import BackboneSection, Config
from pipeline.listing import layers_of, print_layers
from pipeline.terminal import Terminal

KEYS = ["index", "name", "type", "shape", "reduction", "params", "macs", "part", "usual", "candidate"]


def layers(name: str, alpha: float = 1.0, input_size: int | None = None) -> dict[str, dict[str, Any]]:
    rows = layers_of(Config(backbone=BackboneSection(name=name, alpha=alpha)), input_size)
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize(
    ("name", "alpha", "cut", "shape"),
    [
        ("mobilenet", 0.25, "conv_pw_13_relu", [7, 7, 256]),
        ("mobilenet_v2", 1.0, "out_relu", [7, 7, 1280]),
        ("resnet50", 1.0, "conv5_block3_out", [7, 7, 2048]),
        ("vgg16", 1.0, "block5_pool", [7, 7, 512]),
    ],
)
def test_the_usual_cuts_of_the_guides(name: str, alpha: float, cut: str, shape: list[int]) -> None:
    row = layers(name, alpha)[cut]
    assert (row["shape"], row["reduction"], row["part"], row["usual"]) == (shape, 32, "late", True)


def test_every_key_of_every_row() -> None:
    rows = layers("mobilenet_v2", 0.35, 96)
    assert all(list(row) == KEYS for row in rows.values())
    assert [row["index"] for row in rows.values()] == list(range(len(rows)))
    assert rows["out_relu"]["shape"] == [3, 3, 1280]
    assert rows["out_relu"]["params"] == 410_208
    assert [name for name, row in rows.items() if row["usual"]] == [
        "block_6_expand_relu",
        "block_13_expand_relu",
        "out_relu",
    ]
    assert all(row["candidate"] for row in rows.values() if row["usual"])
    assert not rows["block_1_pad"]["candidate"]


def test_the_table_has_a_line_for_each_layer_and_whole_names() -> None:
    rows = list(layers("inception_v3", input_size=75).values())
    stream = io.StringIO()
    terminal = Terminal()
    terminal.results = Console(file=stream, width=40)
    print_layers(rows, terminal)
    head, *lines = stream.getvalue().splitlines()
    assert head.split()[:8] == ["index", "layer", "type", "shape", "reduction", "params", "MACs", "part"]
    assert [line.split()[:2] for line in lines] == [[str(row["index"]), row["name"]] for row in rows]
    marks = {row["name"]: line.split()[-1] for row, line in zip(rows, lines, strict=True)}
    assert (marks["mixed10"], marks["mixed9"], marks["input_layer"]) == ("*", "+", "early")


def test_the_command_prints_the_same_rows() -> None:
    outcome = cutpoint("layers", "mobilenet", "--input-size", "64", "--set", "backbone.alpha=0.25", "--json")
    assert outcome.json() == list(layers("mobilenet", 0.25, 64).values())
