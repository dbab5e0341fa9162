"""What the training split teaches of tabular columns, and the layers that are made of it."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.columns import BUCKET, CATEGORY, NUMBER, Column, encode_cells
from exporters.errors import InputError
from pipeline.columns import MOST_CATEGORIES, learn_columns, notes_of_columns, raw_columns
from pipeline.config import ColumnSection
from pipeline.dataset import list_examples
from pipeline.encoding import columns_input, encode, encoded, names_of_layers
from pipeline.splitting import Example, split_dataset
from tests.pictures import write_noise

COLUMNS = (
    Column("age", NUMBER, default=40.0, mean=40.0, standard_deviation=8.0),
    Column("weight", BUCKET, default=2.0, boundaries=(1.5, 2.5, float(np.float32(0.1 + 3)))),
    Column("skin", CATEGORY, categories=("dark", "fair", "très pâle")),
)


def shown(*cells: str, name: str = "age") -> list[Example]:
    return [Example(Path(f"{index}.png"), f"{index:064x}", {}, cells={name: cell}) for index, cell in enumerate(cells)]


def learned(section: ColumnSection, *cells: str) -> Column:
    return learn_columns({"age": section}, shown(*cells))[0]


def test_a_number_is_told_by_mean_and_deviation() -> None:
    column = learned(ColumnSection(kind=NUMBER), "1", "", "2.5", "-3", "1e2")
    values = np.array([1, 2.5, -3, 100])
    assert column.mean == column.default == pytest.approx(values.mean(), rel=1e-6)
    assert column.standard_deviation == pytest.approx(values.std(), rel=1e-6)


def test_buckets_hold_equally_many_pictures() -> None:
    column = learned(ColumnSection(kind=BUCKET, buckets=4), *(str(each) for each in range(100)), "")
    raw = raw_columns((column,), shown(*(str(each) for each in range(100))))
    assert encode((column,), raw).sum(0).tolist() == [25, 25, 25, 25]
    assert column.default == 49.5


def test_buckets_of_few_values_are_fewer() -> None:
    column = learned(ColumnSection(kind=BUCKET, buckets=4), *["0"] * 90, *["7"] * 10)
    assert column.boundaries == (7.0,)
    column = learned(ColumnSection(kind=BUCKET, boundaries=(0.1, 0.7)), "0.1", "0.7", "0.699999")
    # On a boundary is above it, in float32 as the cell is.
    assert encode((column,), raw_columns((column,), shown("0.1", "0.7", "0.699999", "0"))).argmax(1).tolist() == [
        *(1, 2, 1, 0)
    ]


def test_the_vocabulary_is_sorted_by_code_point_and_may_leave_rare_ones_out() -> None:
    cells = ("b", "a", "Z", "é", "a", "", "b")
    assert learned(ColumnSection(kind=CATEGORY), *cells).categories == ("Z", "a", "b", "é")
    assert learned(ColumnSection(kind=CATEGORY, min_count=2), *cells).categories == ("a", "b")
    assert learned(ColumnSection(kind=CATEGORY, categories=("b", "x", "a")), *cells).categories == ("b", "x", "a")


@pytest.mark.parametrize(
    ("section", "cells", "named"),
    [
        (ColumnSection(kind=NUMBER), ("3", "3.0", ""), "is 3.0 or empty for every picture of the training split"),
        (ColumnSection(kind=NUMBER), ("", ""), "is empty for every picture"),
        (ColumnSection(kind=NUMBER), ("16777216", "16777217"), "for every picture"),
        (ColumnSection(kind=BUCKET, buckets=3), ("5", "5"), "is 5.0 for every picture"),
        (ColumnSection(kind=CATEGORY), ("a", "a"), "is a for every picture"),
        (ColumnSection(kind=CATEGORY), tuple(f"{n}" for n in range(MOST_CATEGORIES + 1)), "501 categories"),
        (ColumnSection(kind=CATEGORY, min_count=9), ("a", "b"), "0 categories in the training split with at least 9"),
        (ColumnSection(kind=CATEGORY, categories=("x",)), ("a", "b"), "has the same of 'age'"),
    ],
)
def test_columns_that_teach_nothing_are_named(section: ColumnSection, cells: tuple[str, ...], named: str) -> None:
    with pytest.raises(InputError) as found:
        learned(section, *cells)
    assert named in str(found.value)
    assert found.value.expected
    assert found.value.mend


def test_one_category_or_none_is_something_to_learn_from() -> None:
    assert learned(ColumnSection(kind=CATEGORY), "yes", "", "yes").width == 1


def test_only_the_training_split_teaches(tmp_path: Path) -> None:
    rows = [f"{index}.png,{'ab'[index % 2]},{index},{'test' if index > 7 else 'train'}" for index in range(12)]
    path = listed(tmp_path, ["path,label,age,split", *rows])
    examples = list_examples(path, ("label",), "", {"age": ColumnSection(kind=NUMBER)})
    dataset = split_dataset(examples, {}, (0.6, 0.2, 0.2), 0, path)
    train = [float(each.cells["age"]) for each in dataset.of_split("train")]
    column = learn_columns({"age": ColumnSection(kind=NUMBER)}, dataset.of_split("train"))[0]
    assert column.mean == pytest.approx(np.mean(train))
    assert max(train) < 8


def test_what_training_never_shows_is_told() -> None:
    train = shown("1", "9")
    column = Column("age", BUCKET, boundaries=(0.0, 5.0, 10.0))
    assert notes_of_columns((column,), train) == [
        "No training picture has below 0 or 10 or more in the column 'age': that tells the heads nothing."
    ]
    assert "'b' in the column" in notes_of_columns((Column("age", CATEGORY, categories=("1", "9", "b")),), train)[0]
    assert not notes_of_columns((Column("age", NUMBER),), train)


def listed(folder: Path, lines: list[str]) -> Path:
    write_noise(folder, {"": len(lines) - 1})
    for index, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(folder / f"{index}.png")
    (folder / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "data.csv"


def test_cells_of_the_csv(tmp_path: Path) -> None:
    sections = {"age": ColumnSection(kind=NUMBER), "skin": ColumnSection(kind=CATEGORY)}
    rows = ["0.png,a, 3 ,dark", "1.png,a,,fair", "2.png,b,4", "3.png,b,-1e-3,"]
    examples = list_examples(listed(tmp_path, ["path,label,age,skin", *rows]), ("label",), "", sections)
    assert [dict(each.cells) for each in examples] == [
        {"age": "3", "skin": "dark"},
        {"age": "", "skin": "fair"},
        {"age": "4", "skin": ""},
        {"age": "-1e-3", "skin": ""},
    ]


@pytest.mark.parametrize(
    ("header", "row", "named"),
    [
        ("path,label,age", "2.png,b,4 kg", "The picture 2.png has '4 kg' in the column 'age'"),
        ("path,label,age", "2.png,b,nan", "The picture 2.png has 'nan'"),
        ("path,label,age", '2.png,b,"3,5"', "The picture 2.png has '3,5'"),
        ("path,label,ages", "2.png,b,4", "has no column 'age'.\nExpected: did you mean 'ages'?"),
    ],
)
def test_cells_that_cannot_be_read(tmp_path: Path, header: str, row: str, named: str) -> None:
    path = listed(tmp_path, [header, "0.png,a,1", "1.png,b,2", row])
    with pytest.raises(InputError) as found:
        list_examples(path, ("label",), "", {"age": ColumnSection(kind=NUMBER)})
    assert named in str(found.value)
    assert found.value.mend


def test_cells_change_the_fingerprint_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    rows = [f"{index}.png,{'ab'[index % 2]},{index}" for index in range(12)]
    path = listed(tmp_path, ["path,label,age", *rows])

    def fingerprint(columns: dict[str, ColumnSection]) -> str:
        return split_dataset(list_examples(path, ("label",), "", columns), {}, (0.6, 0.2, 0.2), 0, path).fingerprint

    plain, with_columns = fingerprint({}), fingerprint({"age": ColumnSection(kind=NUMBER)})
    assert plain != with_columns
    path.write_text(path.read_text(encoding="utf-8").replace(",11\n", ",12\n"), encoding="utf-8")
    assert fingerprint({}) == plain
    assert fingerprint({"age": ColumnSection(kind=NUMBER)}) != with_columns


def test_the_layers_are_the_arithmetic_that_the_card_tells() -> None:
    cells = [
        {"age": "48", "weight": "1.5", "skin": "fair"},
        {"age": "1e9", "weight": "", "skin": "green"},
        {"age": "-1e9", "weight": "3.1", "skin": "très pâle"},
        {},
    ]
    found = encode(COLUMNS, encode_cells(COLUMNS, cells))
    expected = [
        [1, 0, 1, 0, 0, 0, 1, 0],
        [5, 0, 1, 0, 0, 0, 0, 0],
        [-5, 0, 0, 0, 1, 0, 0, 1],
        [0, 0, 1, 0, 0, 0, 0, 0],
    ]
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)
    assert found.shape[1] == sum(column.width for column in COLUMNS)


def test_the_layers_load_in_safe_mode_and_are_named_the_same_each_time(tmp_path: Path) -> None:
    value = columns_input(COLUMNS)
    model = keras.Model(value, encoded(COLUMNS, value))
    again = names_of_layers(COLUMNS)
    assert again == [each.name for each in model.operations]
    assert all(name == "columns" or name.startswith("columns_") for name in again)
    assert len(set(again)) == len(again)
    model.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras", safe_mode=True)
    raw = encode_cells(COLUMNS, [{"age": "33", "weight": "9", "skin": "dark"}, {}])
    assert np.array_equal(np.asarray(loaded(raw)), encode(COLUMNS, raw))
    assert json.loads(loaded.to_json())["config"]["layers"]
