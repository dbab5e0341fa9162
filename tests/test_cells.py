"""What `cutpoint predict` is told of pictures by --column and --data."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.columns import CATEGORY, NUMBER, Column
from exporters.errors import InputError
from pipeline.cells import cells_told

COLUMNS = (Column("age", NUMBER), Column("skin", CATEGORY, categories=("dark", "fair")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    text = "skin,path,other,age\ndark,a.png,1,40\n,sub/b.png,2,\n"
    (tmp_path / "data.csv").write_text("\ufeff" + text, encoding="utf-8")
    return tmp_path / "data.csv"


def test_a_column_for_all_pictures() -> None:
    pictures = [Path("a.png"), Path("b.png")]
    found = cells_told(COLUMNS, pictures, ["age=40", "skin=a=b"], None)
    assert found == (pictures, [{"age": "40", "skin": "a=b"}] * 2)
    assert cells_told(COLUMNS, pictures, [], None) == (pictures, [{}, {}])
    assert cells_told((), pictures, [], None) == (pictures, None)


def test_a_csv_tells_each_picture_by_itself(data: Path) -> None:
    folder = data.parent
    pictures, cells = cells_told(COLUMNS, [], [], data)
    assert pictures == [folder / "a.png", folder / "sub" / "b.png"]
    assert cells == [{"age": "40", "skin": "dark"}, {"age": "", "skin": ""}]
    assert cells_told(COLUMNS, [folder / "sub" / "b.png"], [], data)[1] == [{"age": "", "skin": ""}]
    assert cells_told(COLUMNS, [folder / "x" / ".." / "a.png"], ["age=7"], data)[1] == [{"age": "7", "skin": "dark"}]
    assert cells_told((), [], [], data) == (pictures, None)


@pytest.mark.parametrize(
    ("pictures", "named", "with_data", "said"),
    [
        (["a.png"], ["agee=3"], False, "no column 'agee'.\nExpected: did you mean 'age'"),
        (["a.png"], ["age"], False, "'--column age' names no cell"),
        ([], [], False, "No picture is named"),
        (["c.png"], [], True, "has no line for"),
    ],
)
def test_what_is_wrong_is_named(data: Path, pictures: list[str], named: list[str], with_data: bool, said: str) -> None:
    with pytest.raises(InputError) as found:
        cells_told(COLUMNS, [data.parent / each for each in pictures], named, data if with_data else None)
    assert said in str(found.value)
    assert found.value.mend


def test_a_csv_that_lacks_a_column_needs_to_be_told_of_it(data: Path) -> None:
    columns = (*COLUMNS, Column("weight", NUMBER))
    with pytest.raises(InputError, match="has no column 'weight'"):
        cells_told(columns, [], [], data)
    assert cells_told(columns, [], ["weight=3"], data)[1][0] == {"age": "40", "skin": "dark", "weight": "3"}
    with pytest.raises(InputError, match="cannot be read"):
        cells_told(columns, [], [], data.with_name("none.csv"))


def test_a_model_of_pictures_alone_has_no_columns() -> None:
    with pytest.raises(InputError, match="Expected: a picture alone"):
        cells_told((), [Path("a.png")], ["age=3"], None)
