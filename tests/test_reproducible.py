"""The same seed on the same machine makes byte-identical artifacts, whatever else differs between two processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from commands import start
from pictures import SMALL, write_drawings

from exporters.contract import FORMATS
from pipeline import bundle

# Those on request too.
EVERY_ARTIFACT = {f"{name}-{precision}": row.file for name, row in FORMATS.items() for precision in row.precisions}


def digests(out: Path) -> dict[str, str]:
    """Path -> sha256 of every artifact's files, and of what says what they must hold."""
    files = [path for name in ("artifacts", "golden") for path in sorted((out / name).rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_same(first: dict[str, str], second: dict[str, str]) -> None:
    """Nothing is missing from either, and every file is the same."""
    assert {f"artifacts/{name}/{file}" for name, file in EVERY_ARTIFACT.items()} <= set(first)
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.slow
def test_two_runs_from_pictures_with_cold_caches(tmp_path: Path) -> None:
    data = write_drawings(tmp_path / "drawings")
    found = []
    for number in (1, 2):
        out, cache = tmp_path / f"run-{number}", tmp_path / f"cache-{number}"
        # Which runtimes answer changes no artifact: one is enough.
        settings = ("--formats", ",".join(EVERY_ARTIFACT), "--runtimes", "onnxruntime", "--seed", 3)
        environment = {"CUTPOINT_CACHE": str(cache), "PYTHONHASHSEED": str(number)}
        process = start("run", "--data", data, "--out", out, *SMALL, *settings, **environment)
        said = process.communicate(timeout=600)[1]
        assert process.returncode in (0, 1, 3), said
        found.append({**digests(out), "model": hashlib.sha256((out / bundle.MODEL).read_bytes()).hexdigest()})
    check_same(*found)
