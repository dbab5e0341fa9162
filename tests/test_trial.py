"""What is wrong with a head is told before anything is computed for it: a user's own object, labels that do not suit the task."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import cutpoint, in_fresh_process
from pictures import SMALL, write_noise

OWN = """
    import keras

    def fitting(features, units):
        return keras.layers.Dense(units, activation="softmax")(features)

    too_wide = lambda features: keras.layers.Dense(7)(features)
    constant = 3
"""
HEADS = {
    "my_heds:fitting": "no module 'my_heds'",
    "my_heads:fiting": "has no 'fiting'",
    "my_heads:constant": "is int",
    "my_heads:too_wide": "answers with (N, 7)",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_heads.py").write_text(textwrap.dedent(OWN), encoding="utf-8")
    write_noise(tmp_path / "photos", {"cat": 4, "dog": 4, "owl": 4})
    yield tmp_path
    sys.modules.pop("my_heads", None)


def features_in(folder: Path) -> list[Path]:
    return list(folder.rglob("rows.f32"))


@pytest.mark.parametrize(("kind", "words"), HEADS.items())
@pytest.mark.parametrize("trunk", ["[]", "[16]"])
def test_a_head_of_ones_own_is_tried_first(kind: str, words: str, trunk: str, here: Path) -> None:
    cache = {"CUTPOINT_CACHE": str(here / "cache")}
    run = ("train", "--data", here / "photos", "--out", here / "out", *SMALL, "--set", f"trunk.hidden={trunk}")
    failed = cutpoint(*run, "--head", kind, cwd=here, environment=cache)
    assert failed.exit_code == 2
    assert words in failed.stderr
    assert not features_in(here / "cache")
    assert not (here / "out" / "model.keras").exists()


def test_one_that_fits_is_trained(here: Path) -> None:
    cache = {"CUTPOINT_CACHE": str(here / "cache")}
    run = ("train", "--data", here / "photos", "--out", here / "out", *SMALL, "--set", "training.epochs=1")
    assert cutpoint(*run, "--head", "my_heads:fitting", cwd=here, environment=cache).exit_code == 0
    assert features_in(here / "cache")
    assert (here / "out" / "model.keras").is_file()


def test_labels_that_do_not_suit_the_task_load_no_framework(here: Path) -> None:
    settings = {
        'heads.label.task="binary"': "two labels for the task binary",
        'heads.label.task="ordinal"': "The order of the labels 'cat', 'dog', 'owl'",
        'heads.label.labels=["cat", "dog"]': "does not list 'owl'",
        'heads.label.labels=["cat", "dog", "owl", "eel"]': "no picture has it",
    }
    run = ("train", "--data", here / "photos", "--out", here / "out", *SMALL)
    found = in_fresh_process([{"arguments": [*map(str, run), "--set", setting]} for setting in settings])
    for outcome, words in zip(found, settings.values(), strict=True):
        assert outcome.exit_code == 2, outcome.stderr
        assert words in outcome.stderr
        assert not {"keras", "tensorflow"} & set(outcome.loaded)
