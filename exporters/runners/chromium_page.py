"""One page of a Chromium session: what it may fetch, how it is asked, and what its end is called."""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from exporters.errors import ParityError
from exporters.runners.chromium_server import PageServer

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page, Route

Made = TypeVar("Made")

PAGE = "parity.html"
STOP_TIMEOUT_S = 10.0


class Host(Protocol):
    """What a page asks of its session."""

    name: str
    alive: bool
    timeout_s: float
    browser: Browser
    server: PageServer

    def wait(self, asked: Coroutine[Any, Any, Made]) -> Made:
        """Run a coroutine on the session's thread and return what it gives."""


class ParityPage:
    """A page that answers, as a context manager.

    Args:
        host: the session that it belongs to.
        files: what it may fetch besides its own code, by path.
        what: what it stands for in messages, such as `The model in runs/a/artifacts/onnx-int8`.
    """

    def __init__(self, host: Host, files: Mapping[str, Path | bytes], what: str) -> None:
        self._host = host
        self._files: dict[str, Path | bytes] = dict(files)
        self._what = what
        self._page: Page | None = None
        self._address = ""
        self._crashed = asyncio.Event()
        self._complaints: collections.deque[str] = collections.deque(maxlen=20)

    def __enter__(self) -> ParityPage:
        """Open the page; raises ParityError where that fails."""
        try:
            self._host.wait(self._guarded(self._open()))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the page; where it cannot be closed, the whole browser goes."""
        page, self._page = self._page, None
        self._host.server.remove(self._address)
        if page is not None and self._host.alive:
            self._host.wait(self._close(page))

    def call(self, function: str, request: Mapping[str, Any], payload: bytes = b"") -> Any:
        """Call a function of the page (see web_demo/parity.js) and return its answer.

        Args:
            function: its name in `globalThis.cutpoint`.
            request: what JSON can carry; the function also gets `path`, the address of `payload`.
            payload: raw bytes.

        Raises:
            ParityError: the function threw, the page crashed, or no answer came in time.
        """
        if self._page is None:
            raise RuntimeError("a ParityPage answers only inside its with statement")
        self._files["payload"] = payload
        try:
            return self._host.wait(self._guarded(self._ask(function, {**request, "path": "payload"})))
        finally:
            del self._files["payload"]

    def arrays(self, function: str, request: Mapping[str, Any], payload: bytes) -> list[tuple[str, np.ndarray]]:
        """Call a function that answers in arrays; returns name and array of each, in the page's order."""
        answer = self.call(function, request, payload)
        data, at = base64.b64decode(answer["data"]), 0
        made = []
        for part in answer["parts"]:
            taken = np.frombuffer(data, np.uint8, part["bytes"], at).copy().view(part["dtype"])
            made.append((part["name"], taken.reshape(part["shape"])))
            at += part["bytes"]
        return made

    async def _open(self) -> None:
        address = self._address = self._host.server.add(self._files)
        self._page = page = await self._host.browser.new_page(service_workers="block")
        page.on("crash", lambda _: self._crashed.set())
        page.on("pageerror", lambda fault: self._complaints.append(str(fault)))
        page.on("console", self._listen)
        # The context's, so that windows which the page might open are held to it too.
        await page.context.route(lambda url: not url.startswith((address, "blob:", "data:")), self._refuse)
        await page.goto(address + PAGE)
        await page.wait_for_function("globalThis.cutpoint !== undefined")

    async def _ask(self, function: str, request: Mapping[str, Any]) -> Any:
        assert self._page is not None
        return await self._page.evaluate("([name, request]) => globalThis.cutpoint[name](request)", [function, request])

    def _listen(self, said: ConsoleMessage) -> None:
        # LiteRT.js writes its whole log as errors, and marks in each line what it is.
        if said.type == "error" and not said.text.startswith(("INFO:", "WARNING:")):
            self._complaints.append(said.text)

    async def _refuse(self, route: Route) -> None:
        self._complaints.append(f"{route.request.url} was asked for and refused")
        await route.abort("blockedbyclient")

    async def _guarded(self, asked: Coroutine[Any, Any, Made]) -> Made:
        """Wait for an answer, a crash or the end of patience, whichever comes first."""
        from playwright.async_api import Error

        answer, crash = asyncio.ensure_future(asked), asyncio.ensure_future(self._crashed.wait())
        try:
            done, _ = await asyncio.wait(
                [answer, crash], timeout=self._host.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if crash in done:
                raise self._error("the page crashed", "free some memory, or look for what the model asks of it")
            if not done:
                raise self._error(f"no answer within {self._host.timeout_s:g} s", "try again on a machine at rest")
            return answer.result()
        except Error as fault:
            said = fault.message.removeprefix("Page.evaluate: ").removeprefix("Error: ").split("\n    at ")[0]
            raise self._error(said.rstrip(". "), "export the artifact again") from fault
        finally:
            crash.cancel()
            answer.cancel()
            ended, _ = await asyncio.wait([answer, crash], timeout=1)
            # An answer that fails after its page has crashed is asked for its fault, or asyncio would complain of it.
            _ = [task.exception() for task in ended if not task.cancelled()]

    def _error(self, what: str, mend: str) -> ParityError:
        said = " | ".join(dict.fromkeys(self._complaints))[:2000]
        told = f" The browser said: {said}." if said else ""
        return ParityError(f"{self._what} failed in {self._host.name}: {what}.{told}", "an answer", mend)

    async def _close(self, page: Page) -> None:
        from playwright.async_api import Error

        try:
            await asyncio.wait_for(page.close(), STOP_TIMEOUT_S)
        except (Error, TimeoutError):
            with contextlib.suppress(Error, TimeoutError):
                await asyncio.wait_for(self._host.browser.close(), STOP_TIMEOUT_S)
