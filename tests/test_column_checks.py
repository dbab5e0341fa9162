"""The configuration of tabular columns: what is wrong is named before anything is read; which heads take them."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import cutpoint

from exporters.errors import InputError
from pipeline.column_checks import check_columns, sees_columns, takes_columns, trunk_takes_columns
from pipeline.config import Config, read_config

BASE = """
[columns.age]
kind = "number"
[columns.skin]
kind = "category"
[columns.weight]
kind = "bucket"
boundaries = [10, 20.5]
[heads.label]
kind = "linear"
"""


def read(folder: Path, *settings: str, text: str = BASE) -> Config:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path, {}, settings)


def test_the_order_of_the_tables_is_that_of_the_columns(tmp_path: Path) -> None:
    config = read(tmp_path, 'columns.first.kind="number"')
    assert list(config.columns) == ["age", "skin", "weight", "first"]
    assert config.columns["weight"].boundaries == (10.0, 20.5)
    check_columns(config)


def test_a_setting_makes_a_column(tmp_path: Path) -> None:
    config = read(tmp_path, "columns.age.kind=number", 'columns.age.kind="number"', text="[heads.label]\n")
    assert config.columns["age"].kind == "number"
    assert takes_columns(config, config.heads["label"])


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ('columns.age.kind="numbr"', "did you mean 'number'"),
        ("columns.age.buckets=4", "which has no 'buckets'"),
        ('columns.age.categories=["a"]', "which has no 'categories'"),
        ("columns.skin.boundaries=[1]", "which has no 'boundaries'"),
        ("columns.weight.min_count=2", "which has no 'min_count'"),
        ("columns.weight.boundaries=[]", "neither boundaries nor buckets"),
        ("columns.weight.buckets=4", "both boundaries and buckets"),
        ("columns.weight.boundaries=[20, 10]", "ascending"),
        ("columns.weight.boundaries=[10, 10]", "ascending"),
        ("columns.weight.boundaries=[1.0, 1.00000001]", "apart in float32"),
        ("columns.weight.boundaries=[1, inf]", "ascending"),
        ("columns.weight.boundaries=[1, 1e300]", "ascending"),
        ('columns.skin.categories=["a", "a"]', "lists 'a' twice"),
        ('columns.skin.categories=["a", " b"]', "without blanks"),
        ('columns.skin.categories=["a", ""]', "lists ''"),
        (f"columns.skin.categories={[str(each) for each in range(501)]}", "501 categories"),
        ('columns.Age.kind="number"', "cannot be called 'Age'"),
        ('columns.path.kind="category"', "cannot be called 'path'"),
        ('columns."a b".kind="number"', "cannot be called"),
        ('columns.label.kind="category"', "gives it away"),
        ("heads.label.columns=false", "no head takes them"),
        ('heads.box={kind="boxes", columns=true}', "takes no columns"),
        ('heads.near={kind="embedding", dimension=8, columns=true}', "takes no columns"),
        ('heads.own={kind="mine:head", target="other", columns=true}', "of your own takes no columns"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, setting: str, named: str) -> None:
    with pytest.raises(InputError) as found:
        check_columns(read(tmp_path, *_quoted(setting)))
    assert named in str(found.value)
    assert found.value.expected
    assert found.value.mend


def _quoted(setting: str) -> tuple[str, ...]:
    # A dotted key of `--set` knows no quotes.
    return (setting.replace('"a b"', "a b"),)


def test_unknown_keys_and_ranges(tmp_path: Path) -> None:
    for setting, named in (
        ("columns.age.knd=1", "did you mean 'kind'"),
        ("columns.weight.buckets=1", "weight.buckets"),
    ):
        with pytest.raises(InputError) as found:
            read(tmp_path, setting)
        assert named in str(found.value).replace("columns.NAME", "columns.weight")


def test_columns_need_a_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind"):
        read(tmp_path, text="[columns.age]\n")


def test_a_head_cannot_have_the_name_of_the_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="second input"):
        read(tmp_path, 'heads.columns.kind="linear"')
    assert "columns" in read(tmp_path, text='[heads.columns]\nkind = "linear"\n').heads


def test_heads_that_are_to_take_columns_where_there_are_none(tmp_path: Path) -> None:
    for setting in ("heads.label.columns=true", "trunk.columns=true"):
        with pytest.raises(InputError, match="there are none"):
            check_columns(read(tmp_path, setting, text="[heads.label]\n"))


def test_which_heads_take_them(tmp_path: Path) -> None:
    heads = 'heads.{0}={{kind="{1}", target="t"}}'
    config = read(
        tmp_path,
        *(heads.format(*each) for each in (("a", "mlp"), ("b", "embedding"), ("c", "mine:head"))),
        'heads.d={kind="linear", target="t", columns=false}',
    )
    check_columns(config)
    assert [name for name, each in sorted(config.heads.items()) if takes_columns(config, each)] == ["a", "label"]
    assert not trunk_takes_columns(config)


def test_the_trunk_takes_them_for_its_heads(tmp_path: Path) -> None:
    trunk, own = "trunk.hidden=[8]", 'heads.own={kind="mine:head", target="t"}'
    config = read(tmp_path, trunk, own)
    check_columns(config)
    assert trunk_takes_columns(config)
    assert all(sees_columns(config, each) and not takes_columns(config, each) for each in config.heads.values())
    for settings in (
        (trunk, "heads.label.columns=false"),
        (trunk, "trunk.columns=false", "heads.label.columns=true"),
        (trunk, 'heads.near={kind="embedding", dimension=8}'),
        (trunk, "trunk.columns=false"),
    ):
        with pytest.raises(InputError):
            check_columns(read(tmp_path, *settings))
    apart = read(tmp_path, trunk, own, "trunk.columns=false", "heads.label.trunk=false")
    check_columns(apart)
    assert [name for name, each in apart.heads.items() if sees_columns(apart, each)] == ["label"]


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    arguments = ("run", tmp_path / "config.toml", "--data", tmp_path / "photos", "--out", tmp_path / "out")
    done = cutpoint(*arguments, "--backbone", "mobilenet_v2", "--weights", "none")
    assert done.exit_code == 2
    assert "is a folder of pictures, which has no column 'age'" in done.stderr
    assert not (tmp_path / "out").exists()
