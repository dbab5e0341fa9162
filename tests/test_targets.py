"""Cells become truth: labels, several labels, ranks and numbers; what cannot be read is told with its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporters.errors import InputError
from pipeline.config import Config, HeadSection
from pipeline.dataset import list_examples
from pipeline.splitting import Dataset, Example, split_dataset
from pipeline.targets import LABELS, NUMBER, number, readings_of, split_labels, target_of

HEADER = "path,label,tags,age,weight,size\n"


def examples(**cells: list[str]) -> list[Example]:
    count = len(next(iter(cells.values())))
    rows = [{key: values[index] for key, values in cells.items()} for index in range(count)]
    return [Example(Path(f"{index}.png"), f"{index:064x}", row, split="train") for index, row in enumerate(rows)]


def dataset(labels: dict[str, tuple[str, ...]]) -> Dataset:
    return Dataset((), labels, (), (), "sha256:")


def write_csv(root: Path, rows: list[str]) -> Path:
    (root / "data.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    for row in rows:
        (root / row.split(",")[0]).write_bytes(row.encode())
    return root / "data.csv"


def test_multiclass_and_binary() -> None:
    shown = examples(label=["b", "a", "b"])
    found = target_of("x", HeadSection(), dataset({"label": ("a", "b")}))
    assert (found.labels, found.units) == (("a", "b"), 2)
    assert found.truth(shown).tolist() == [1, 0, 1]
    binary = target_of("x", HeadSection(task="binary", labels=("b", "a")), dataset({"label": ("a", "b")}))
    assert (binary.labels, binary.units) == (("b", "a"), 1)
    assert binary.truth(shown).tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="has 3 labels") as caught:
        target_of("x", HeadSection(task="binary"), dataset({"label": ("a", "b", "c")}))
    assert 'task = "multiclass"' in caught.value.mend


def test_multilabel() -> None:
    section = HeadSection(task="multilabel", target="tags")
    found = target_of("x", section, dataset({"tags": ("red", "round", "small")}))
    truth = found.truth(examples(tags=["round| red", "", "small"]))
    assert truth.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert found.units == 3
    assert split_labels(" a |b||a") == ["a", "b"]


def test_ordinal_labels_are_in_order() -> None:
    section = HeadSection(task="ordinal", target="age")
    found = target_of("x", section, dataset({"age": ("10", "2", "33")}))
    assert (found.labels, found.units) == (("2", "10", "33"), 2)
    assert found.truth(examples(age=["33", "2", "10"])).tolist() == [2, 0, 1]
    named = dataset({"age": ("high", "low", "middle")})
    with pytest.raises(InputError, match="order of the labels 'high', 'low', 'middle'"):
        target_of("x", section, named)
    ordered = HeadSection(task="ordinal", target="age", labels=("low", "middle", "high"))
    assert target_of("x", ordered, named).labels == ("low", "middle", "high")


@pytest.mark.parametrize(
    ("labels", "what"),
    [(("a",), "does not list 'b'"), (("a", "b", "c"), "lists 'c', and no picture has it"), (("a", "b", "a"), "twice")],
)
def test_labels_that_are_not_those_of_the_data(labels: tuple[str, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        target_of("x", HeadSection(labels=labels), dataset({"label": ("a", "b")}))


def test_regression_of_several_columns() -> None:
    section = HeadSection(task="regression", target=("age", "weight"), unit="kg")
    found = target_of("x", section, dataset({}))
    truth = found.truth(examples(age=["1", "2.5"], weight=["-3e2", "−4"]))
    assert truth.dtype == np.float32
    assert truth.tolist() == [[1, -300], [2.5, -4]]
    assert (found.columns, found.units, found.unit) == (("age", "weight"), 2, "kg")


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "1,5"])
def test_what_is_no_number(cell: str) -> None:
    with pytest.raises(ValueError):
        number(cell)


def test_a_cell_that_is_no_number_is_named_by_its_picture(tmp_path: Path) -> None:
    path = write_csv(tmp_path, ["a.png,x,,1,1,1", "b.png,y,,old,1,1"])
    with pytest.raises(InputError, match=r"picture b\.png has 'old' in 'age'"):
        list_examples(path, {"age": NUMBER}, "")


def test_numbers_that_are_all_the_same_teach_nothing(tmp_path: Path) -> None:
    path = write_csv(tmp_path, [f"{index}.png,x,,7,1,1" for index in range(4)])
    with pytest.raises(InputError, match="'age' is 7 for every picture"):
        list_examples(path, {"age": NUMBER}, "")


def test_several_labels_in_a_csv(tmp_path: Path) -> None:
    rows = [f"{index}.png,x,{tags},1,1,1" for index, tags in enumerate(["a|b", "", "b", "a", "a|c", "c"])]
    found = list_examples(write_csv(tmp_path, rows), {"tags": LABELS}, "")
    split = split_dataset(found, {}, (0.7, 0.15, 0.15), 0, tmp_path, {"tags": LABELS})
    assert split.labels == {"tags": ("a", "b", "c")}
    lonely = write_csv(tmp_path, ["0.png,x,a|b,1,1,1", "1.png,x,a,1,1,1"])
    with pytest.raises(InputError, match="class 'b' has 1 usable picture"):
        list_examples(lonely, {"tags": LABELS}, "")
    empty = write_csv(tmp_path, ["0.png,x,,1,1,1", "1.png,x,|,1,1,1"])
    with pytest.raises(InputError, match=r"No picture of .* has a label in 'tags'"):
        list_examples(empty, {"tags": LABELS}, "")


def test_numbers_are_alike_in_every_split() -> None:
    values = np.random.default_rng(0).gamma(2, 10, 400)
    shown = [Example(Path(f"{index}.png"), f"{index:064x}", {"age": f"{value}"}) for index, value in enumerate(values)]
    found = split_dataset(shown, {}, (0.7, 0.15, 0.15), 0, Path(), {"age": NUMBER})
    means = [
        np.mean([float(each.targets["age"]) for each in found.of_split(split)]) for split in ("train", "val", "test")
    ]
    assert [len(found.of_split(split)) for split in ("train", "val", "test")] == [280, 60, 60]
    assert np.ptp(means) < 0.25 * values.std()


def test_two_columns_of_labels_do_not_leave_every_picture_alone() -> None:
    shown = [
        Example(Path(f"{index}.png"), f"{index:064x}", {"kind": f"{index % 5}", "other": f"{index * 7 % 41}"})
        for index in range(200)
    ]
    found = split_dataset(shown, {}, (0.7, 0.15, 0.15), 0, Path())
    for split, count in (("train", 28), ("val", 6), ("test", 6)):
        kinds = [each.targets["kind"] for each in found.of_split(split)]
        assert [kinds.count(str(kind)) for kind in range(5)] == [count] * 5


def test_a_column_is_read_in_one_way() -> None:
    heads = {"one": HeadSection(target="age"), "other": HeadSection(task="regression", target="age")}
    with pytest.raises(InputError, match="reads the column 'age' as number, and another one as label"):
        readings_of(Config(heads=heads))
    heads = {"one": HeadSection(target="age"), "near": HeadSection(kind="embedding")}
    assert readings_of(Config(heads=heads)) == {"age": "label"}
