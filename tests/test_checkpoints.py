"""Checkpoints: bit for bit, whole or not at all, and a damaged one is found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoints import Checkpoint, read_checkpoint, write_checkpoint

GENERATOR = np.random.default_rng(0)
ARRAYS = {
    "weights": (GENERATOR.normal(size=(3, 4)).astype(np.float32), np.array([1e-45, np.pi], np.float32)),
    "optimizer": (np.int64(12), np.array(0.1, np.float32)),
    "best": (),
}
SHAPES = {kind: [np.shape(each) for each in row] for kind, row in ARRAYS.items()}
STATE = {"history": {"loss": [0.1, float("nan")]}, "best": 1 / 3, "wait": 2}


def write(path: Path) -> Path:
    write_checkpoint(path, Checkpoint(ARRAYS, STATE))
    return path


def test_it_comes_back_bit_for_bit(tmp_path: Path) -> None:
    found = read_checkpoint(write(tmp_path / "folder" / "a.npz"), SHAPES)
    for kind, row in ARRAYS.items():
        assert [each.tobytes() for each in found.arrays[kind]] == [np.asarray(each).tobytes() for each in row]
        assert [each.dtype for each in found.arrays[kind]] == [np.asarray(each).dtype for each in row]
    assert found.state["best"] == STATE["best"] and found.state["wait"] == 2
    assert np.isnan(found.state["history"]["loss"][1])
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.npz"]


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "a.npz", SHAPES) is None


def test_the_one_before_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.npz")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pipeline.checkpoints.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_a_truncated_file_is_found_out(share: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"."):
        read_checkpoint(path, SHAPES)


def test_a_flipped_bit_in_the_weights_is_found_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["weights"][0].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"CRC"):
        read_checkpoint(path, SHAPES)


def test_other_variables_are_found_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    for other in (
        {**SHAPES, "weights": [(4, 3), (2,)]},
        {**SHAPES, "weights": [(3, 4)]},
        {**SHAPES, "best": [(1,)] * 2},
    ):
        if other["best"]:
            assert read_checkpoint(path, other).arrays["best"] == ()
        else:
            with pytest.raises(ValueError, match="variables"):
                read_checkpoint(path, other)


def test_something_else_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"."):
        read_checkpoint(path, SHAPES)
