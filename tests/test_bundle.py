"""The result folder and the cache: recognised, and never touched where somebody else's things are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from exporters.errors import InputError
from pipeline import bundle


def files(here: Path) -> dict[str, bytes]:
    return {path.relative_to(here).as_posix(): path.read_bytes() for path in sorted(here.rglob("*")) if path.is_file()}


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def a_result(out: Path) -> Path:
    """A folder as a run leaves it, as far as names go."""
    bundle.claim(out)
    for name in ("model.keras", "card.json", "report.json", "report.md", "report.html", "report.xml", "log.txt"):
        write(out / name)
    promised = [
        write(out / "artifacts" / "tflite-float32" / "model.tflite"),
        write(out / "golden" / "images.npz"),
        write(out / "golden" / "reference.npz"),
        write(out / "golden" / "files" / "0000.png"),
    ]
    manifest = {"schema_version": 1, "files": {path.relative_to(out).as_posix(): "" for path in promised}}
    write(out / "golden" / "manifest.json", json.dumps(manifest))
    return out


def test_a_new_an_empty_and_an_own_folder_are_claimed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new" / "er", tmp_path / "empty", a_result(tmp_path / "own")):
        before = files(out) if out.exists() else {}
        assert bundle.claim(out) == out
        assert (out / ".cutpoint").is_dir()
        assert files(out) == before


@pytest.mark.parametrize("name", ["thesis.txt", "photos/cat.jpg", ".git/config", "artifacts.zip"])
def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    for out in (tmp_path / "theirs", a_result(tmp_path / "ours")):
        write(out / name)
        before = files(out)
        with pytest.raises(InputError, match="did not make") as caught:
            bundle.claim(out)
        assert name.partition("/")[0] in caught.value.what
        assert files(out) == before


def test_a_folder_that_only_looks_like_ours(tmp_path: Path) -> None:
    write(tmp_path / "out" / "model.keras")
    with pytest.raises(InputError, match=r"holds 'model\.keras'"):
        bundle.claim(tmp_path / "out")
    assert not (tmp_path / "out" / ".cutpoint").exists()


@pytest.mark.parametrize(
    ("name", "interrupted"),
    [
        ("artifacts/tflite-float32/notes.txt", False),
        *(
            (name, interrupted)
            for name in ("golden/mine.npz", "artifacts/mine/x", "artifacts/x")
            for interrupted in (False, True)
        ),
    ],
)
def test_something_else_deeper_down(tmp_path: Path, name: str, interrupted: bool) -> None:
    out = a_result(tmp_path / "out")
    write(out / name)
    if interrupted:
        # Without a manifest a run's own folders are known by their names alone.
        (out / "golden" / "manifest.json").unlink()
    with pytest.raises(InputError, match="did not make"):
        bundle.claim(out)


def test_what_a_killed_run_left_is_ours(tmp_path: Path) -> None:
    out = a_result(tmp_path / "out")
    (out / "golden" / "manifest.json").unlink()
    write(out / "artifacts" / ".copying-x1" / "tfjs-float16" / "model.json")
    write(out / ".cutpoint" / "next-1" / "model.keras")
    assert bundle.claim(out) == out


@pytest.mark.parametrize("place", ["file/out", "file", "proc"])
def test_places_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    write(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot be written|is a file"):
        bundle.claim(Path("/proc/cutpoint") if place == "proc" else tmp_path / place)
    assert files(tmp_path) == {"file": b"x"}


def test_new_results_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    out = a_result(tmp_path / "out")
    with bundle.staging(out) as staged:
        for name in ("model.keras", "card.json", "golden/images.npz", "run.json", "calibration.npz"):
            write(Path(staged) / name, "new")
        bundle.replace_results(out, Path(staged))
    assert files(out) == {
        "log.txt": b"x",
        "model.keras": b"new",
        "card.json": b"new",
        "golden/images.npz": b"new",
        ".cutpoint/run.json": b"new",
        ".cutpoint/calibration.npz": b"new",
    }
    assert sorted(path.name for path in (out / ".cutpoint").iterdir()) == ["calibration.npz", "run.json"]


def test_the_newest_result_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no result folder under runs/"):
        bundle.find_result_folder(None, "model.keras")
    for age, name in enumerate(("b", "c", "a")):
        os.utime(write(Path("runs") / name / "model.keras"), (1000 - age, 1000 - age))
    write(Path("runs") / "other" / "card.json")
    assert bundle.find_result_folder(None, "model.keras") == Path("runs/b")
    assert bundle.find_result_folder(Path("runs/a"), "model.keras") == Path("runs/a")
    with pytest.raises(InputError, match=r"holds no model\.keras"):
        bundle.find_result_folder(Path("runs/other"), "model.keras")


def test_state_comes_back_and_damage_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / ".cutpoint").mkdir()
    bundle.write_state(tmp_path / ".cutpoint", {"name": "é", "seed": 3})
    assert bundle.read_state(tmp_path) == {"name": "é", "seed": 3}
    assert [path.name for path in (tmp_path / ".cutpoint").iterdir()] == ["run.json"]
    write(tmp_path / ".cutpoint" / "run.json", '{"name": ')
    with pytest.raises(InputError, match="no trained model"):
        bundle.read_state(tmp_path)


def test_calibration_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        bundle.read_calibration(tmp_path)
    (tmp_path / ".cutpoint").mkdir()
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    np.savez_compressed(tmp_path / ".cutpoint" / "calibration.npz", images=images)
    assert np.array_equal(bundle.read_calibration(tmp_path).images, images)
    damaged = (tmp_path / ".cutpoint" / "calibration.npz").read_bytes()[:-40]
    (tmp_path / ".cutpoint" / "calibration.npz").write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        bundle.read_calibration(tmp_path)


def test_the_cache_is_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTPOINT_CACHE", str(tmp_path / "deep" / "cache"))
    assert bundle.cache_folder() == tmp_path / "deep" / "cache"
    assert files(tmp_path) == {}
    monkeypatch.delenv("CUTPOINT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in bundle.cache_folder().parents
    monkeypatch.setenv("CUTPOINT_CACHE", str(write(tmp_path / "file") / "cache"))
    with pytest.raises(InputError, match="cannot be written"):
        bundle.cache_folder()


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    for name in bundle.CACHE_ENTRIES:
        write(tmp_path / name / "deep" / "data", "12345")
    write(tmp_path / "thesis.txt")
    write(tmp_path / "photos" / "cat.jpg", "123")
    assert bundle.cache_rows(tmp_path) == dict.fromkeys(
        (name.removeprefix("cutpoint-") for name in bundle.CACHE_ENTRIES), 5
    )
    bundle.clear_cache(tmp_path)
    assert set(files(tmp_path)) == {"thesis.txt", "photos/cat.jpg"}
    bundle.clear_cache(tmp_path)
