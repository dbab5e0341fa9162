"""A real Chromium, without a window and without a network, in which artifacts answer and pictures are decoded.

Its pages may fetch what is handed to them, from exporters/javascript, from the artifact and from memory, and no more.
Playwright drives it on a thread of its own, so that any thread may ask, also one that runs an event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from exporters.columns import Column
from exporters.contract import Resize
from exporters.errors import NotVerifiedError
from exporters.runners.chromium_page import PAGE, STOP_TIMEOUT_S, ParityPage
from exporters.runners.chromium_server import HOST, PARITY, PageServer

if TYPE_CHECKING:
    from playwright.async_api import Browser, Playwright

Made = TypeVar("Made")

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    # No other machine can be reached; other servers on this one are kept off by the page (`chromium_page`).
    f"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {HOST}",
    # WebGL in software: the same on every machine, and there without a graphics card.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
# Long enough for a large network in software WebGL on a slow machine.
TIMEOUT_S = 600.0
START_TIMEOUT_S = 60.0
# How much goes to a page at once; decoded, pictures are many times larger than their files.
FILES_AT_ONCE = 16
BYTES_AT_ONCE = 4 * 2**20
EXPECTED = "Playwright and a Chromium that it can start"
MEND = "make setup-browser; where Cutpoint was installed as a package: pip install 'cutpoint[browser]', and a Chromium"


def find_chromium() -> str | None:
    """Return the Chromium to start: $CUTPOINT_CHROMIUM, else one on PATH; None: Playwright's own, if it has one."""
    found = [os.environ.get("CUTPOINT_CHROMIUM"), *(shutil.which(name) for name in CHROMIUMS)]
    return next((each for each in found if each), None)


class ChromiumSession:
    """A running Chromium, as a context manager.

    Args:
        timeout_s: how long one answer may take before the page counts as hung.

    Attributes:
        version: Chromium's version, known inside the context.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self.version = ""
        self.browser: Browser
        self.server: PageServer
        self._playwright: Playwright | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """`Chromium <version>`."""
        return f"Chromium {self.version}".strip()

    @property
    def alive(self) -> bool:
        """Whether the browser still runs."""
        return self._playwright is not None and self.browser.is_connected()

    def __enter__(self) -> ChromiumSession:
        """Start Chromium.

        Raises:
            NotVerifiedError: Playwright, Chromium or the built page is missing, or Chromium does not start.
        """
        if not (PARITY / PAGE).is_file():
            raise NotVerifiedError(
                f"No browser can answer: {PARITY / PAGE} is missing.", "the built page", "make setup"
            )
        self.server = PageServer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutpoint-chromium", daemon=True)
        self._thread.start()
        try:
            self.wait(self._start())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop Chromium."""
        self.close()

    def close(self) -> None:
        """Stop Chromium and its thread; does nothing where they are stopped already."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._stop(), loop).result(3 * STOP_TIMEOUT_S)
        self.server.close()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            loop.close()

    def wait(self, asked: Coroutine[Any, Any, Made]) -> Made:
        """Run a coroutine on the session's thread and return what it gives."""
        if self._loop is None:
            asked.close()
            raise RuntimeError("a ChromiumSession answers only inside its with statement")
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    def page(self, files: Mapping[str, Path | bytes], what: str) -> ParityPage:
        """Return a page, not yet entered, that may fetch these files by their paths; `what` names it in messages."""
        return ParityPage(self, files, what)

    def decode_files(self, files: Sequence[bytes], resize: Resize) -> list[tuple[np.ndarray, np.ndarray]]:
        """Decode image files in the browser and resize them, by the code of the demo page.

        Args:
            files: the bytes of each file, in any format that Chromium reads.
            resize: how.

        Returns:
            For each file the decoded picture, uint8 (h, w, 3), and the resized one, uint8 (height, width, 3); RGB.

        Raises:
            ParityError: Chromium cannot decode one of them, or failed.
        """
        how, made = dataclasses.asdict(resize), []
        with self.page({}, "Decoding") as page:
            for at, end in _groups([len(each) for each in files]):
                some = files[at:end]
                request = {"sizes": [len(each) for each in some], "first": at, "resize": how}
                made += [array for _, array in page.arrays("decode", request, b"".join(some))]
        return list(zip(made[::2], made[1::2], strict=True))

    def resize_pictures(self, pictures: Sequence[np.ndarray], resize: Resize) -> list[np.ndarray]:
        """Resize pictures in the browser, by the code of the demo page.

        Args:
            pictures: uint8 (h, w, 3) each, RGB.
            resize: how.

        Returns:
            uint8 (height, width, 3) for each.

        Raises:
            ParityError: the code refuses one of them, or Chromium failed.
        """
        how, made = dataclasses.asdict(resize), []
        with self.page({}, "Resizing") as page:
            for at, end in _groups([each.size for each in pictures]):
                some = pictures[at:end]
                request = {"shapes": [each.shape for each in some], "resize": how}
                data = b"".join(np.ascontiguousarray(each, np.uint8).tobytes() for each in some)
                made += [array for _, array in page.arrays("resize", request, data)]
        return made

    def encode_cells(self, columns: Sequence[Column], rows: Sequence[Mapping[str, str]]) -> np.ndarray:
        """Encode cells in the browser, by the code of the demo page; in and out as `exporters.columns.encode_cells` has them.

        Raises:
            ParityError: the code refuses a cell, or Chromium failed.
        """
        # As bytes, since a cell or a column may bear any name, also one that an object of JavaScript has already.
        asked = {"columns": [each.to_json() for each in columns], "rows": [dict(row) for row in rows]}
        with self.page({}, "Encoding the columns") as page:
            ((_, encoded),) = page.arrays("encode", {}, json.dumps(asked).encode())
        return encoded

    async def _start(self) -> None:
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError as fault:
            raise NotVerifiedError(f"No browser can answer: {fault}.", EXPECTED, MEND) from fault
        path = find_chromium()
        try:
            self._playwright = await async_playwright().start()
            # Without Chromium's own sandbox, which root cannot have, nor many a container: only files of ours come in.
            self.browser = await self._playwright.chromium.launch(
                executable_path=path, args=ARGUMENTS, chromium_sandbox=False, timeout=START_TIMEOUT_S * 1000
            )
        except (Error, OSError) as fault:
            said = str(fault).strip().splitlines()[0]
            raise NotVerifiedError(f"{path or 'Chromium'} cannot be started: {said}.", EXPECTED, MEND) from fault
        self.version = self.browser.version

    async def _stop(self) -> None:
        playwright, self._playwright = self._playwright, None
        if playwright is None:
            return
        from playwright.async_api import Error

        with contextlib.suppress(Error, TimeoutError):
            if hasattr(self, "browser"):
                await asyncio.wait_for(self.browser.close(), STOP_TIMEOUT_S)
        with contextlib.suppress(Error, TimeoutError):
            await asyncio.wait_for(playwright.stop(), STOP_TIMEOUT_S)


def _groups(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Divide a row of things, by their bytes, into what goes at once; gives the first of each group and its end."""
    at = 0
    while at < len(sizes):
        end = at + 1
        while end < len(sizes) and end - at < FILES_AT_ONCE and sum(sizes[at : end + 1]) <= BYTES_AT_ONCE:
            end += 1
        yield at, end
        at = end


_lock = threading.Lock()
_shared: ChromiumSession | None = None


def session() -> ChromiumSession:
    """Return the session that all runners share, started by the first who asks, and anew where its browser has died.

    Raises:
        NotVerifiedError: Playwright, Chromium or the built page is missing, or Chromium does not start.
    """
    global _shared
    with _lock:
        if _shared is None or not _shared.alive:
            if _shared is not None:
                _shared.close()
            _shared = None
            _shared = ChromiumSession().__enter__()
        return _shared


def close_session() -> None:
    """Stop the shared session; does nothing where there is none. Called at exit too."""
    global _shared
    with _lock:
        if _shared is not None:
            _shared.close()
        _shared = None


atexit.register(close_session)
