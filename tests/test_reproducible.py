"""The same seed on the same machine makes byte-identical artifacts, whatever else differs between two processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_models
from commands import ROOT, start
from pictures import SMALL, write_drawings

from exporters.contract import FORMATS
from exporters.inputs import Inputs
from pipeline import bundle
from pipeline.assembly import save_model

# Those on request too.
EVERY_ARTIFACT = {f"{name}-{precision}": row.file for name, row in FORMATS.items() for precision in row.precisions}
SHIP = """
import sys
from pathlib import Path
from exporters.contract import parse_formats
from pipeline.run import choose_tensorflow

if __name__ == "__main__":
    choose_tensorflow()
    from pipeline.shipping import ship
    from pipeline.stages import StageLog
    from pipeline.terminal import Terminal

    terminal = Terminal()
    assert not ship(Path(sys.argv[1]), parse_formats(sys.argv[2:]), {}, StageLog(terminal.say), terminal)
"""


def digests(out: Path) -> dict[str, str]:
    """Path -> sha256 of every artifact's files, and of what says what they must hold."""
    files = [path for name in ("artifacts", "golden") for path in sorted((out / name).rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_same(first: dict[str, str], second: dict[str, str]) -> None:
    """Nothing is missing from either, and every file is the same."""
    assert {f"artifacts/{name}/{file}" for name, file in EVERY_ARTIFACT.items()} <= set(first)
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []


def exported(out: Path, script: Path, seed_of_hashes: int) -> dict[str, str]:
    """Export the small model in a process of its own with a cache of its own; Python's sets are in another order there."""
    one = small_models.small()
    (out / bundle.MARK).mkdir(parents=True)
    bundle.write_inputs(out / bundle.MARK, bundle.CALIBRATION, Inputs(one.calibration_images))
    bundle.write_inputs(out / bundle.MARK, bundle.SELECTION, Inputs(one.images[:16]))
    save_model(one.model, out / bundle.MODEL)
    one.card.write(out / bundle.CARD)
    cache = {"CUTPOINT_CACHE": str(out.parent / f"cache-{seed_of_hashes}"), "PYTHONHASHSEED": str(seed_of_hashes)}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **cache}
    ended = subprocess.run(
        [sys.executable, script, out, *EVERY_ARTIFACT], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return digests(out)


def test_two_exports_in_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "ship.py"
    script.write_text(SHIP)
    check_same(*(exported(tmp_path / f"run-{seed}", script, seed) for seed in (1, 2)))


@pytest.mark.slow
def test_two_runs_from_pictures_with_cold_caches(tmp_path: Path) -> None:
    data = write_drawings(tmp_path / "drawings")
    found = []
    for number in (1, 2):
        out, cache = tmp_path / f"run-{number}", tmp_path / f"cache-{number}"
        settings = ("--formats", ",".join(EVERY_ARTIFACT), "--runtimes", "local", "--seed", 3)
        environment = {"CUTPOINT_CACHE": str(cache), "PYTHONHASHSEED": str(number)}
        process = start("run", "--data", data, "--out", out, *SMALL, *settings, **environment)
        said = process.communicate(timeout=600)[1]
        assert process.returncode in (0, 1, 3), said
        found.append({**digests(out), "model": hashlib.sha256((out / bundle.MODEL).read_bytes()).hexdigest()})
    check_same(*found)
