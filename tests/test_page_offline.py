"""The page without a network after the first visit: all of one version, never an old model with new weights."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from pipeline import server
from tests import tiny_tfjs
from tests.demo_page import (  # noqa: F401  browser is a fixture
    ARGUMENTS,
    another_browser,
    browser,
    choose,
    encoded,
    listen_for_complaints,
    serving,
)
from tests.pictures import picture

READY = "Draw something, or choose a picture."
# Resolves when the worker has the page, and has been told what version the page is.
KEPT = """async () => {
  const { active } = await navigator.serviceWorker.ready;
  while (active.state !== "activated" || !navigator.serviceWorker.controller) await new Promise((done) => setTimeout(done, 20));
  const names = (await caches.keys()).filter((name) => name.endsWith(" pages"));
  while (!(await (await caches.open(names[0])).keys()).length) await new Promise((done) => setTimeout(done, 20));
}"""
VERSIONS = """async () => {
  const names = await caches.keys();
  return names.filter((name) => !name.endsWith(" pages"));
}"""


@pytest.fixture
def out(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    made, _ = tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())
    return with_second(Path(shutil.copytree(made, tmp_path / "out")))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:  # noqa: F811
    context = browser.new_context()
    yield context
    context.close()


def with_second(out: Path) -> Path:
    """Add another artifact, which is not fetched before it is chosen."""
    shutil.copytree(out / "artifacts" / "tfjs-float32", out / "artifacts" / "tfjs-float16")
    return out


def change(out: Path, factor: float) -> None:
    """Give every artifact other weights, and other names of labels: what is mixed is seen."""
    for folder in (out / "artifacts").iterdir():
        for shard in folder.glob("*.bin"):
            shard.write_bytes((np.fromfile(shard, np.float32) * np.float32(factor)).tobytes())
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        for output in card["outputs"]:
            output["labels"] = [f"new {label}" for label in output["labels"]]
        (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")


def visit(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#headline")).to_have_text(READY, timeout=30_000)
    return page


def answer(page: Page, name: str, artifact: str = "tfjs-float32") -> tuple[str, float]:
    choose(page, name, encoded(picture()))
    shown = page.get_by_test_id("answer")
    expect(shown).to_have_attribute("data-source", name, timeout=15_000)
    expect(shown).to_have_attribute("data-artifact", artifact, timeout=15_000)
    return shown.get_attribute("data-label"), float(shown.get_attribute("data-probability"))


def again(page: Page) -> None:
    page.reload()
    expect(page.locator("#headline")).to_have_text(READY, timeout=30_000)


def test_the_page_works_when_the_server_is_gone(context: BrowserContext, out: Path) -> None:
    with serving(out) as url:
        page = visit(context, url)
        complaints = listen_for_complaints(page, url)
        before = answer(page, "before.png")
        page.evaluate(KEPT)
        assert complaints == []
    again(page)
    assert answer(page, "after.png") == before
    # A backend's code is of the page; another artifact was never fetched, which is said.
    page.get_by_test_id("backend-select").select_option("cpu")
    expect(page.get_by_test_id("answer")).to_have_attribute("data-backend", "cpu", timeout=15_000)
    page.get_by_test_id("artifact-select").select_option("tfjs-float16")
    expect(page.get_by_test_id("error")).to_contain_text("The model tfjs-float16 could not be loaded")
    addresses = page.evaluate("""async () => {
      const caught = await Promise.all((await caches.keys()).map(async (name) => (await caches.open(name)).keys()));
      return caught.flat().map(({ url }) => url);
    }""")
    assert len(addresses) > 10 and all(address.startswith(url) for address in addresses)
    page.close()


def test_what_was_used_online_works_offline_and_an_open_page_goes_on(context: BrowserContext, out: Path) -> None:
    with serving(out) as url:
        page = visit(context, url)
        page.evaluate(KEPT)
        page.get_by_test_id("artifact-select").select_option("tfjs-float16")
        before = answer(page, "before.png", "tfjs-float16")
        page.get_by_test_id("artifact-select").select_option("tfjs-float32")
        answer(page, "float32.png")
    page.get_by_test_id("artifact-select").select_option("tfjs-float16")
    assert answer(page, "open.png", "tfjs-float16") == before
    again(page)
    page.get_by_test_id("artifact-select").select_option("tfjs-float16")
    assert answer(page, "after.png", "tfjs-float16") == before


def test_a_changed_site_is_seen_at_once_and_kept_instead(context: BrowserContext, out: Path) -> None:
    with serving(out) as url:
        page = visit(context, url)
        old = answer(page, "old.png")
        page.evaluate(KEPT)
        (first,) = page.evaluate(VERSIONS)
        change(out, 1.2)
        # The page that is open is of the old version: no new weights for it.
        page.get_by_test_id("artifact-select").select_option("tfjs-float16")
        expect(page.get_by_test_id("error")).to_contain_text("The site has changed. Reload the page", timeout=15_000)
        again(page)
        new = answer(page, "new.png")
        assert new[0].startswith("new ") and new[1] != old[1]
        for _ in range(100):
            if page.evaluate(VERSIONS) != [first] and len(page.evaluate(VERSIONS)) == 1:
                break
            page.wait_for_timeout(100)
        (second,) = page.evaluate(VERSIONS)
        assert second != first
        page.evaluate(KEPT)
    again(page)
    assert answer(page, "offline.png") == new


def test_half_a_change_is_not_kept(context: BrowserContext, out: Path) -> None:
    """A file that is not the one that the worker was told of: nothing is kept of it, and the network's page works."""
    files = server.whole_site(out)
    worker = files["sw.js"].decode()
    assert json.loads(worker[len("const SITE = ") : worker.index(";\n")])["first"]
    site = out.parent / "site"
    server.write_site(out, site)
    shard = site / "artifacts" / "tfjs-float32" / "group1-shard1of1.bin"
    shard.write_bytes((np.fromfile(shard, np.float32) * np.float32(1.1)).tobytes())
    with hosting(site) as url:
        page = visit(context, url)
        answer(page, "online.png")
        page.wait_for_timeout(1500)
        assert page.evaluate(VERSIONS) == []
        assert page.evaluate("async () => (await navigator.serviceWorker.getRegistration())?.active ?? null") is None
    page.close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def hosting(folder: Path, port: int = 0) -> Iterator[str]:
    """Any host of static files: no headers of ours."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_address[1]}/"
        host.shutdown()


def test_two_sites_under_sub_paths_of_one_host_do_not_mix(context: BrowserContext, out: Path, tmp_path: Path) -> None:
    server.write_site(out, tmp_path / "host" / "one")
    change(out, 1.2)
    server.write_site(out, tmp_path / "host" / "deep" / "two")
    answers = {}
    with hosting(tmp_path / "host") as url:
        for path in ("one/", "deep/two/"):
            page = visit(context, url + path)
            answers[path] = answer(page, "before.png")
            page.evaluate(KEPT)
            page.close()
    assert answers["one/"] != answers["deep/two/"]
    for path, expected in answers.items():
        page = visit(context, url + path)
        assert answer(page, "after.png") == expected
        page.close()


def test_addresses_without_https_have_no_worker(browser: Browser, out: Path) -> None:  # noqa: F811
    resolver = ARGUMENTS[1].replace("MAP *", "MAP lan.test 127.0.0.1 , MAP *")
    with serving(out) as url, another_browser(browser.browser_type, resolver) as insecure:
        lan = url.replace("127.0.0.1", "lan.test")
        page = insecure.new_page()
        complaints = listen_for_complaints(page, lan)
        page.goto(lan)
        expect(page.locator("#headline")).to_have_text(READY, timeout=30_000)
        answer(page, "lan.png")
        assert page.evaluate("() => [isSecureContext, 'serviceWorker' in navigator]") == [False, False]
        page.close()
    assert complaints == []
