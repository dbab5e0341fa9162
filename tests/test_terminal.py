"""Results on stdout, everything else on stderr, other libraries' chatter in the log and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import terminal
from pipeline.terminal import Terminal

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from pipeline.terminal import Terminal

show = Terminal()
show.say("before")
try:
    with show.logging_to(Path(sys.argv[1])):
        print("chatter of Python")
        print("warning of Python", file=sys.stderr)
        os.write(1, b"chatter of C++\\n")
        os.write(2, b"warning of C++\\n")
        subprocess.run(["echo", "chatter of a child"], check=True)
        show.say("data: [bold]3[/bold] pictures, " + "x" * 200)
        show.results.print("the result", markup=False)
        if len(sys.argv) > 2:
            raise KeyError("inside")
except KeyError:
    pass
print("after")
show.say("behind")
"""


def run(log: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(log), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("more", [(), ("fail",)])
def test_streams(tmp_path: Path, more: tuple[str, ...]) -> None:
    done = run(tmp_path / "log.txt", *more)
    long_line = "data: [bold]3[/bold] pictures, " + "x" * 200
    assert done.stdout == "the result\nafter\n"
    assert done.stderr == f"before\n{long_line}\nbehind\n"
    log = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    expected = [
        "chatter of Python",
        "warning of Python",
        "chatter of C++",
        "warning of C++",
        "chatter of a child",
        long_line,
    ]
    assert sorted(log) == sorted(expected)


def test_a_log_is_added_to(tmp_path: Path) -> None:
    run(tmp_path / "log.txt")
    run(tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("chatter of C++") == 2


def test_no_descriptor_is_lost(tmp_path: Path) -> None:
    show = Terminal()
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(20):
        with show.logging_to(tmp_path / "log.txt"):
            os.write(1, b"x")
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    assert after == before


def test_progress_elsewhere_than_on_a_terminal_is_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(clock)))
    show = Terminal()
    with show.progress("features") as progress:
        for done in range(1, 10):
            progress(done * 10, 90)
    lines = capsys.readouterr().err.splitlines()
    # Every five seconds at most, of a clock that goes on by two at each look.
    assert lines == [
        "features: 30 of 90, 5/s, 12 s left",
        "features: 60 of 90, 5/s, 6 s left",
        "features: 90 of 90, 5/s, 0 s left",
    ]


def test_progress_on_a_terminal_is_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    show = Terminal()
    show.messages = Console(file=sys.stderr, force_terminal=True, width=80)
    with show.progress("features") as progress:
        progress(5, 10)
    shown = capfd.readouterr().err
    assert "features" in shown
    assert "5/10" in shown
