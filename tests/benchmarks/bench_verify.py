"""What verifying costs beyond the runtimes' own inference, and how much memory, all processes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.commands import NO_BROWSER, ROOT, cutpoint

IMAGES = 200
MOST_SECONDS_BEYOND = 5.0
MOST_BYTES = 1.5e9
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(process: int) -> int:
    """The memory of a process and of all that it started, shared pages counted in each."""
    try:
        own = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return own + sum(resident_bytes(int(child)) for child in children)


def verify(out: Path) -> tuple[dict, float, int]:
    """Verify a folder in a process of its own: the report, the wall time in s, the most memory at once in bytes."""
    command = [sys.executable, "-m", "pipeline", "verify", str(out), "--runtimes", "local", "--json"]
    started, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        told: list[bytes] = []
        reader = threading.Thread(target=lambda: told.append(process.stdout.read()))
        reader.start()
        while process.poll() is None:
            most = max(most, resident_bytes(process.pid))
            time.sleep(0.02)
        reader.join()
    return json.loads(told[0]), time.perf_counter() - started, most


def test_verifying_costs_little_beyond_inference(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--set", f"parity.images={IMAGES}", "--runtimes", "local")
    # The accuracy of int8 needs more images than these: not enough of them is not what is measured here.
    assert cutpoint("run", "--out", out, *settings, environment=NO_BROWSER).exit_code in (0, 3)
    report, wall_s, memory = verify(out)
    inference_s = sum(runtime["inference_s"] for each in report["artifacts"] for runtime in each["runtimes"])
    count = len(report["artifacts"])
    print(
        f"verify: {count} artifacts, {IMAGES} images, {wall_s:.1f} s, of which {inference_s:.1f} s in the runtimes: "
        f"{wall_s / inference_s:.2f} times their inference, {wall_s - inference_s:.1f} s beyond it; {memory / 1e9:.2f} GB"
    )
    assert count == 10 and all(runtime["images"] for each in report["artifacts"] for runtime in each["runtimes"])
    assert wall_s - inference_s < MOST_SECONDS_BEYOND
    assert memory < MOST_BYTES
