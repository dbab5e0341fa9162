"""What a person waits for before anything happens: a set-up that is done already, and the help of each command."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer.main

from pipeline import cli

ROOT = Path(__file__).parents[2]
COMMANDS = ["", *typer.main.get_command(cli.app).commands]


def best_of(runs: int, command: list[str]) -> float:
    """The shortest wall time of several runs, in seconds: the others measure what else the machine was doing."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times)


def test_a_set_up_that_is_done_costs_under_a_second() -> None:
    subprocess.run(["make", "setup"], cwd=ROOT, check=True)
    seconds = best_of(3, ["make", "setup"])
    print(f"make setup, done already: {seconds:.2f} s")
    assert seconds < 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_at_once(command: str) -> None:
    seconds = best_of(3, [sys.executable, "-m", "pipeline", *command.split(), "--help"])
    print(f"cutpoint {command} --help: {seconds:.2f} s")
    assert seconds < 0.5
