"""Cells to numbers: the same in Python and in JavaScript, bit for bit, odd ones too; and cards that hold no such columns."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from exporters.columns import BUCKET, CATEGORY, NUMBER, Column, encode_cells
from exporters.contract import Card
from exporters.errors import InputError, ParityError
from exporters.inputs import Inputs, check_columns, fill_up, input_names, join, one_of, with_cells
from tests.columned_folder import CARD, COLUMNS

COLUMNS_JS = Path(__file__).parents[1] / "web_demo" / "columns.js"
CALLER = """
import { readFileSync } from "node:fs";
const { encodeCells } = await import(process.argv[1]);
const { columns, rows } = JSON.parse(readFileSync(0, "utf8"));
const answers = rows.map((row) => {
  try {
    return { values: Array.from(encodeCells(columns, [row]), String) };
  } catch (fault) {
    return { error: fault.message };
  }
});
console.log(JSON.stringify(answers));
"""
ODD = (
    Column("number", NUMBER, default=0.1, mean=3.0, standard_deviation=2.0),
    Column("bucket", BUCKET, default=-7.25, boundaries=(0.0, 10.0)),
    Column(
        "category",
        CATEGORY,
        categories=("0", "Ärger", "A\u0308rger", "__proto__", "constructor", "toString", "🙂", "null", "a b", "NaN"),
    ),
    Column("__proto__", CATEGORY, categories=("x", "y")),
    Column("hasOwnProperty", NUMBER, default=5.0),
)
NUMBERS = [
    *("0", "-0", "+7", "12.", ".5", "-.5e-3", "1e3", "1E+3", "007", "3.14159265358979", "1e-400", "1e38", "16777217"),
    *("3.4028235e38", "3.40282356e38", "  40\t", "\u00a012", "\u20032.5\u3000", "\x1f8\x85", "1" * 39),
    *(40, 2.5, 1e22, -0.0, None, "", "  "),
]
NO_NUMBERS = [
    *("0x10", "1_000", "1,5", "1e", "e3", ".", "+", "--1", "1e39", "1e999", "-1e999", "NaN", "inf", "Infinity"),
    *("vierzig", "٣", "１２", "4 0", "\ufeff12", "1\n2", "12\u200b", "1e3.5", "9" * 400, True),
    # Half a step above the largest number of float32: both round it to infinity.
    "3.4028235677973366e38",
]
CATEGORIES = [
    *("0", "0.0", "Ärger", "A\u0308rger", "ärger", "__proto__", "constructor", "toString", "valueOf", "🙂", "🙂\ufe0f"),
    *(" a b ", "a  b", "\ufeff0", "null", "NaN", "undefined", "", "  ", None, 0),
]


def in_javascript(columns: tuple[Column, ...], rows: list[Mapping[str, object]]) -> list[dict]:
    assert shutil.which("node"), "Node 20 or later is missing: install it from your system's packages"
    asked = json.dumps({"columns": [column.to_json() for column in columns], "rows": rows})
    command = ["node", "--input-type=module", "--eval", CALLER, "--", COLUMNS_JS.as_uri()]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_python(columns: tuple[Column, ...], row: Mapping[str, object]) -> np.ndarray | None:
    try:
        return encode_cells(columns, [row])[0]
    except InputError:
        return None


def test_javascript_encodes_every_cell_as_python_does() -> None:
    rows = [{name: cell} for name in ("number", "bucket", "hasOwnProperty") for cell in (*NUMBERS, *NO_NUMBERS)]
    rows += [{name: cell} for name in ("category", "__proto__") for cell in (*CATEGORIES, "x", "y")]
    rows += [{}, {"category": "0", "__proto__": "y", "number": "2"}, {"unheard of": "1"}, {"toString": "1"}]
    answers = in_javascript(ODD, rows)
    refused = 0
    for row, answer in zip(rows, answers, strict=True):
        expected = in_python(ODD, row)
        assert ("error" in answer) == (expected is None), (row, answer, expected)
        if expected is None:
            refused += 1
            continue
        found = np.array([float(each) for each in answer["values"]], np.float32)
        # Without the sign, which a zero loses when JavaScript writes it down.
        np.testing.assert_array_equal(found.view(np.int32) << 1, expected.view(np.int32) << 1, err_msg=str(row))
    assert refused == 3 * len(NO_NUMBERS) + 2 and len(answers) == len(rows)


@pytest.mark.parametrize("cell", NO_NUMBERS)
def test_what_is_no_number_is_refused_by_name(cell: object) -> None:
    with pytest.raises(InputError, match="The column 'number' has "):
        encode_cells(ODD, [{"number": cell}])


def test_what_is_unknown_is_a_default_or_index_0() -> None:
    rows = [{}, {"age": "", "skin": "", "weight": " "}, {"skin": "purple"}, {"age": None, "skin": None}]
    expected = np.tile(np.array([41.5, 0, 72], np.float32), (4, 1))
    np.testing.assert_array_equal(encode_cells(COLUMNS, rows), expected, strict=True)
    assert encode_cells(COLUMNS, []).shape == (0, 3) and encode_cells((), [{}, {}]).shape == (2, 0)


def test_a_column_that_there_is_not_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no column 'wieght'") as fault:
        encode_cells(COLUMNS, [{"age": "3", "wieght": "4"}])
    assert "weight" in fault.value.expected
    with pytest.raises(InputError, match="no column 'age'"):
        with_cells(np.zeros((1, 4, 4, 3), np.uint8), (), [{"age": "3"}])
    with pytest.raises(InputError, match="2 pictures, and cells for 1"):
        with_cells(np.zeros((2, 4, 4, 3), np.uint8), COLUMNS, [{}])


def test_a_card_keeps_its_columns() -> None:
    assert Card.from_json(json.loads(json.dumps(CARD.to_json()))) == CARD
    assert [column.width for column in COLUMNS] == [1, 4, 4]
    assert "columns" not in Card.to_json(Card.from_json({k: v for k, v in CARD.to_json().items() if k != "columns"}))


@pytest.mark.parametrize(
    "column",
    [
        *(3, None, "age", [], {}, {"name": "age"}, {"name": "age", "kind": "words"}, {"name": 3, "kind": "number"}),
        {"name": "age", "kind": "number", "default": float("nan")},
        {"name": "age", "kind": "number", "default": 10**400},
        {"name": "age", "kind": "number", "mean": "3"},
        {"name": "age", "kind": "number", "size": 3},
        {"name": "age", "kind": "bucket", "boundaries": [2, 1]},
        {"name": "age", "kind": "bucket", "boundaries": [1, 1]},
        {"name": "age", "kind": "bucket", "boundaries": [True]},
        {"name": "age", "kind": "bucket", "boundaries": 3},
        {"name": "skin", "kind": "category", "categories": [1, 2]},
        {"name": "skin", "kind": "category", "categories": ["a", "a"]},
    ],
)
def test_a_card_with_a_column_that_is_none_is_bad_input(column: object) -> None:
    with pytest.raises(InputError, match="not one that cutpoint writes"):
        Card.from_json({**CARD.to_json(), "columns": [column]})


def test_inputs_are_counted_cut_and_joined_together() -> None:
    images, columns = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), np.array([[1], [2]], np.float32)
    both = join([Inputs(images, columns), Inputs(images[:1], columns[1:])])
    assert len(both) == 3 and both.columns.tolist() == [[1], [2], [2]]
    assert both[1:].columns.tolist() == [[2], [2]] and both[np.array([0])].columns.tolist() == [[1]]
    assert fill_up(both, 4).columns.tolist() == [[1], [2], [2], [2]] and fill_up(both, 3) is both
    assert one_of(both).columns.tolist() == [[1]] and one_of(images[0]).images.shape == (1, 2, 2, 3)
    with pytest.raises(ValueError, match="2 pictures, and columns of 1"):
        Inputs(images, columns[:1])


def test_inputs_are_found_by_name() -> None:
    assert input_names(["x"], "It") == ("x", None)
    assert input_names(["columns", "image"], "It") == input_names(["image", "columns"], "It") == ("image", "columns")
    for names in ([], ["columns"], ["image", "mask"], ["image", "columns", "mask"]):
        with pytest.raises(ParityError, match="It takes"):
            input_names(names, "It")
    with pytest.raises(InputError, match="none were given"):
        check_columns(Inputs(np.zeros((1, 2, 2, 3))), "columns", "It")
    with pytest.raises(InputError, match="columns were given"):
        check_columns(Inputs(np.zeros((1, 2, 2, 3)), np.zeros((1, 2))), None, "It")
