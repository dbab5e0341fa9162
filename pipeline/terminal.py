"""What a person sees: results on stdout, everything else on stderr, other libraries' chatter in a log file only."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 5.0


class Terminal:
    """The two streams of a command; while a log is open, file descriptors 1 and 2 themselves lead into it.

    TensorFlow and the converters write to the descriptors from C++, past `sys.stderr`.
    """

    def __init__(self) -> None:
        self.results = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self.messages = Console(file=sys.stderr, highlight=False)
        self.log: Path | None = None

    def say(self, text: str) -> None:
        """Show one line of what is going on, and keep it in the log."""
        self.messages.print(text, markup=False, soft_wrap=True)
        if self.log:
            print(text, flush=True)

    @contextlib.contextmanager
    def logging_to(self, path: Path) -> Iterator[None]:
        """Send everything that other libraries print into `path` (appended) while the block runs."""
        sys.stdout.flush()
        sys.stderr.flush()
        kept = os.dup(1), os.dup(2)
        before = self.results, self.messages, self.log
        streams = [os.fdopen(os.dup(each), "w", encoding="utf-8", errors="replace") for each in kept]
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.dup2(log, 1)
            os.dup2(log, 2)
            self.results = Console(file=streams[0], soft_wrap=True, highlight=False)
            self.messages = Console(file=streams[1], highlight=False)
            self.log = path
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, each in enumerate(kept, 1):
                os.dup2(each, number)
                os.close(each)
            os.close(log)
            for stream in streams:
                with contextlib.suppress(OSError):
                    stream.close()
            self.results, self.messages, self.log = before

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far something is: a bar with rate and time left on a terminal, plain lines elsewhere.

        Yields:
            A function that takes how much is done and how much there is to do.
        """
        if not self.messages.is_terminal:
            yield self._plain_progress(title)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.messages, transient=True) as bars:
            task = bars.add_task(title, total=None, rate="")
            start = time.monotonic()

            def show(done: int, total: int) -> None:
                rate = done / max(time.monotonic() - start, 1e-6)
                bars.update(task, completed=done, total=total, rate=f"{rate:.0f}/s")

            yield show

    def _plain_progress(self, title: str) -> Callable[[int, int], None]:
        start = last = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < SECONDS_BETWEEN_LINES:
                return
            last = now
            rate = done / max(now - start, 1e-6)
            self.say(f"{title}: {done} of {total}, {rate:.0f}/s, {(total - done) / max(rate, 1e-6):.0f} s left")

        return show
