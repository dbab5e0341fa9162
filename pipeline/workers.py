"""Processes beside this one: how many are worth starting, and how they end. Standard library only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def cores() -> int:
    """Return how many cores this process may use."""
    # Where the system cannot tell which of its cores are this process's, it may use all.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however it does: a killed parent cannot tell its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
