"""`--apply` changes one value of a configuration and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporters.errors import InputError
from pipeline.advice.applying import write_cut
from pipeline.config import read_config

CASES = {
    "plain": (
        '[backbone]\nname = "mobilenet"\ncut = "out_relu"\n',
        '[backbone]\nname = "mobilenet"\ncut = "b"\n',
        '"out_relu"',
    ),
    "with a comment": (
        '# mine\n[backbone]\ncut  =  "x"   # why\n\n[training] # t\nepochs=3\n',
        '# mine\n[backbone]\ncut  =  "b"   # why\n\n[training] # t\nepochs=3\n',
        '"x"',
    ),
    "an index": ("[backbone]\ncut = -1 # last\n", '[backbone]\ncut = "b" # last\n', "-1"),
    "dotted": (
        'backbone.name = "mobilenet"\nbackbone.cut = "x"\n',
        'backbone.name = "mobilenet"\nbackbone.cut = "b"\n',
        '"x"',
    ),
    "in one line": (
        'backbone = { name = "mobilenet", cut = "x" }\n',
        'backbone = { name = "mobilenet", cut = "b" }\n',
        '"x"',
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_everything_else_stays(case: str, tmp_path: Path) -> None:
    text, expected, before = CASES[case]
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    assert write_cut(path, "b") == before
    assert path.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        '[data]\npath = "photos"\n',
        '[backbone]\nname = "mobilenet"\n\n[data]\npath = "x"\n',
        "cut = 3\n[heads.a]\n",
    ],
)
def test_a_cut_is_added_where_there_was_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    assert write_cut(path, "block_6_expand_relu") == ""
    written = path.read_text(encoding="utf-8")
    assert all(line in written.splitlines() for line in text.splitlines())
    if not text.startswith("cut"):
        assert read_config(path, {}).backbone.cut == "block_6_expand_relu"


def test_a_list_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[backbone]\ncut = [\n  "a", # one\n  "b",\n]\nalpha = 0.5\n', encoding="utf-8")
    assert "a" in write_cut(path, "c")
    assert read_config(path, {}).backbone.cut == "c"
    assert read_config(path, {}).backbone.alpha == 0.5


def test_line_endings_mark_mode_and_link_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "run.toml", tmp_path / "link.toml"
    path.write_bytes(b'\xef\xbb\xbf[backbone]\r\ncut = "x"\r\n# end\r\n')
    path.chmod(0o640)
    link.symlink_to(path)
    write_cut(link, "y")
    assert path.read_bytes() == b'\xef\xbb\xbf[backbone]\r\ncut = "y"\r\n# end\r\n'
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.toml", "run.toml"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[backbone]\n", encoding="utf-8")
    # In the way of the draft that is to take its place.
    (tmp_path / f".run.toml.{os.getpid()}").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_cut(path, "y")
    assert path.read_text(encoding="utf-8") == "[backbone]\n"
