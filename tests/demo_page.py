"""The page of a result folder in the machine's Chromium, for the tests that use it: server, browser, pictures."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, BrowserType, Error, Page, expect, sync_playwright

from pipeline import server

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GIVEN_UP = "net::ERR_ABORTED"
ARGUMENTS = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")

# What Playwright says itself where a test wants no service worker.
OF_THE_TEST = ("Service Worker registration blocked by Playwright",)

# What imports this is skipped too.
if os.environ.get("CUTPOINT_NO_BROWSER", "0") not in ("", "0"):
    pytest.skip("CUTPOINT_NO_BROWSER=1: not run", allow_module_level=True)


@contextlib.contextmanager
def started_browser(*arguments: str) -> Iterator[Browser]:
    """Start the machine's Chromium, with no other host to be found."""
    with sync_playwright() as playwright, another_browser(playwright.chromium, *arguments) as browser:
        yield browser


@contextlib.contextmanager
def another_browser(chromium: BrowserType, *arguments: str) -> Iterator[Browser]:
    """Start a Chromium beside one that is there, whose `browser_type` it takes, with arguments of its own."""
    found = [os.environ.get("CUTPOINT_CHROMIUM"), *(shutil.which(name) for name in CHROMIUMS)]
    try:
        path = next((each for each in found if each), None)
        browser = chromium.launch(executable_path=path, args=[*ARGUMENTS, *arguments])
    except Error as fault:
        pytest.fail(
            f"No Chromium can be started: run `make setup-browser`. CUTPOINT_NO_BROWSER=1 goes without.\n{fault}"
        )
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@contextlib.contextmanager
def serving(out: Path, port: int = 0) -> Iterator[str]:
    """Serve the page of a result folder; gives its address."""
    with server._listen("127.0.0.1", port) as listener:
        site = uvicorn.Server(uvicorn.Config(server.application(out), log_level="warning"))
        thread = threading.Thread(target=site.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            site.should_exit = True
            thread.join(10)


def listen_for_complaints(page: Page, url: str) -> list[str]:
    """Give the list that fills with what a page complains of from now on, and with what it asks other hosts for."""
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: message.text in OF_THE_TEST or complaints.append(f"{message.type}: {message.text}"),
    )
    page.on("pageerror", lambda fault: complaints.append(f"exception: {fault}"))
    # What the page itself gives up, as a cancelled self-test does, has not failed.
    page.on("requestfailed", lambda each: each.failure == GIVEN_UP or complaints.append(f"failed: {each.url}"))
    page.on("request", lambda request: request.url.startswith((url, "blob:")) or complaints.append(request.url))
    return complaints


@contextlib.contextmanager
def opened(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """The page, loaded; it must have complained of nothing and asked nobody else when the test is over.

    Without its service worker, which would answer what a test routes elsewhere: tests/test_page_offline.py has that one.
    """
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 1100}, "service_workers": "block", **options})
    complaints = listen_for_complaints(page, url)
    page.goto(url)
    expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
    yield page
    # What is still being fetched when the page goes is nothing to complain of.
    found = list(complaints)
    page.close()
    assert found == [], found


def encoded(array: np.ndarray, kind: str = "PNG", **options) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def choose(page: Page, name: str, data: bytes) -> None:
    """Give the page a file, as its user would choose it."""
    page.get_by_test_id("file-input").set_input_files({"name": name, "mimeType": "", "buffer": data})
