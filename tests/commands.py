"""Runs `cutpoint` as its user does, and keeps what it wrote: in this process, or many commands in one fresh process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("tensorflow", "keras", "tensorflowjs", "tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib")

# Browsers have tests of their own: the others need not wait for one to start.
NO_BROWSER = {"CUTPOINT_NO_BROWSER": "1"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended; `loaded` are the frameworks that its process had loaded by then."""

    exit_code: int
    stdout: str
    stderr: str
    loaded: tuple[str, ...] = ()

    def json(self) -> Any:
        """What was printed on stdout, which has to be JSON and nothing else."""
        return json.loads(self.stdout)


def cutpoint(*arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run one command in this process; whatever reaches the file descriptors 1 and 2 is kept."""
    from pipeline.cli import app

    with _captured() as read, _surroundings(cwd, NO_BROWSER | dict(environment or {})):
        try:
            app(args=[str(each) for each in arguments], prog_name="cutpoint")
            code: object = 0
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr = read()
    loaded = tuple(name for name in FRAMEWORKS if name in sys.modules)
    return Outcome(int(code or 0) if not isinstance(code, str) else 1, stdout, stderr, loaded)


@contextlib.contextmanager
def _captured() -> Iterator[Any]:
    files = [tempfile.TemporaryFile("w+b") for _ in range(2)]  # noqa: SIM115  closed below
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    try:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (_writing_to(number) for number in (1, 2))
        yield lambda: tuple(_text(file) for file in files)
    finally:
        sys.stdout, sys.stderr = streams
        for number, each in enumerate(kept, 1):
            os.dup2(each, number)
            os.close(each)
        for file in files:
            file.close()


def _writing_to(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", closefd=False)


def _text(file: Any) -> str:
    file.seek(0)
    return file.read().decode("utf-8")


@contextlib.contextmanager
def _surroundings(cwd: Path | None, environment: Mapping[str, str]) -> Iterator[None]:
    before, folder = dict(os.environ), Path.cwd()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


def in_fresh_process(rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Run commands one after the other in one process that has loaded nothing yet.

    Args:
        rows: the keyword arguments `cwd`, `environment` of `cutpoint`, and `arguments`.
    """
    text = json.dumps(list(rows), default=str)
    started = subprocess.run(
        [sys.executable, __file__], input=text, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )
    assert started.returncode == 0, started.stderr
    return [Outcome(**{**each, "loaded": tuple(each["loaded"])}) for each in json.loads(started.stdout)]


def start(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start `cutpoint` as a process of its own, which can be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd or ROOT,
        env={**os.environ, **NO_BROWSER, "PYTHONPATH": str(ROOT), **environment},
    )


def _main() -> None:
    sys.path.insert(0, str(ROOT))
    rows = json.load(sys.stdin)
    outcomes = [cutpoint(*row.pop("arguments"), **row) for row in rows]
    json.dump([dataclasses.asdict(each) for each in outcomes], sys.stdout)


if __name__ == "__main__":
    _main()
