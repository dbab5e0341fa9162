"""The embedded default as `cutpoint run` makes it, for the slow tests that need a model that knows figures."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.commands import cutpoint

FORMATS = "tfjs,tflite-float32,onnx-float32"


@functools.cache
def result_folder(session_folder: Path) -> Path:
    """One result for all tests of a session, which leave it as it is."""
    out = session_folder / "default"
    outcome = cutpoint("run", "--formats", FORMATS, "--out", str(out), "--runtimes", "local")
    assert outcome.exit_code == 0, outcome.stderr
    return out
