"""`cutpoint demo` as its user starts it: one line when the page is there, for this machine alone unless told, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.test_server import get, write_artifact

# A line of a console breaks at 80 characters: this one must not.
NAME = "a result folder with a long name, " * 4 + "the end"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT on Windows")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with two result folders, of which the one with the long name is newer."""
    home = tmp_path_factory.mktemp("home")
    for name, age_s in (("older", 1000), (NAME, 0)):
        write_artifact(home / "runs" / name, "tfjs-float32")
        written = time.time() - age_s
        os.utime(home / "runs" / name / "artifacts", (written, written))
    return home


@contextlib.contextmanager
def demo(home: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The running command and its first line on stdout; whatever follows is left to be read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen) -> tuple[int, str, str]:
    """Send Ctrl-C; gives the exit code and what was still said."""
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)
    return process.returncode, *said


def test_the_newest_folder_is_served_until_ctrl_c(home: Path) -> None:
    with demo(home, "--port", "0") as (process, line):
        found = re.fullmatch(r"Serving (.+) at http://127\.0\.0\.1:(\d+)/\n", line)
        assert found and Path(found[1]) == Path("runs") / NAME
        # The line is there when the page is.
        answer, content = get(int(found[2]), "/")
        assert answer.status == 200 and b"<title>Cutpoint</title>" in content
        assert stopped(process) == (0, "", "")


def test_a_named_folder_is_opened_in_the_browser(home: Path, tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" >"{seen}.part" && mv "{seen}.part" "{seen}"\n', encoding="utf-8")
    browser.chmod(0o755)
    with demo(home, "runs/older", "--port", "0", "--open", BROWSER=str(browser)) as (process, line):
        address = re.fullmatch(r"Serving runs/older at (.+)\n", line)[1]
        for _ in range(100):
            if seen.exists():
                break
            time.sleep(0.1)
        assert seen.read_text(encoding="utf-8").strip() == address
        assert stopped(process)[0] == 0


def test_the_whole_network_is_warned_of(home: Path) -> None:
    with demo(home, "--port", "0", "--host", "0.0.0.0") as (process, line):
        port = re.search(r"http://0\.0\.0\.0:(\d+)/\n", line)[1]
        assert get(int(port), "/models.json")[0].status == 200
        code, _, told = stopped(process)
    assert code == 0 and told == "Warning: everyone who can reach 0.0.0.0 can open the page and its models.\n"


def test_an_address_that_is_not_ours_is_said(home: Path) -> None:
    with demo(home, "--host", "203.0.113.7") as (process, line):
        _, told = process.communicate(timeout=30)
    assert (process.returncode, line) == (2, "")
    assert "203.0.113.7, port 8000, cannot be listened on" in told and "Traceback" not in told
    assert "an address of this machine" in told and "correct --host" in told
