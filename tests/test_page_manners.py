"""The page's good manners: how much it fetches before the first answer, and that it does not grow."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.server import PAGE
from tests import tiny_tfjs
from tests.demo_page import browser, opened, serving  # noqa: F401  browser is a fixture

MOST_SCRIPT_BYTES = 250_000
IMPORTED = re.compile(r'(?:from|import)\s*"\./([\w.-]+\.js)"')
MANY = 1000
# Of a picture that was kept, the pixels alone would be 5,760 bytes.
MOST_KEPT_BYTES = 2000
# Chooses a picture again and again, each of another color, and waits for its answer.
ANSWERS = """async ({ from, count }) => {
  const input = document.querySelector("[data-testid=file-input]");
  const answer = document.querySelector("[data-testid=answer]");
  const canvas = new OffscreenCanvas(48, 40);
  const pen = canvas.getContext("2d");
  const held = new Set();
  for (let i = from; i < from + count; i++) {
    pen.fillStyle = `hsl(${(i * 137) % 360} 70% 50%)`;
    pen.fillRect(0, 0, 48, 40);
    const name = `${i}.png`;
    const transfer = new DataTransfer();
    transfer.items.add(new File([await canvas.convertToBlob()], name, { type: "image/png" }));
    input.files = transfer.files;
    const done = new Promise((resolve) => {
      const watch = new MutationObserver(() => {
        if (answer.dataset.source !== name || answer.hasAttribute("aria-busy")) return;
        watch.disconnect();
        resolve();
      });
      watch.observe(answer, { attributes: true });
    });
    input.dispatchEvent(new Event("change"));
    await done;
    held.add(`${answer.dataset.tensors} tensors, ${answer.dataset.bytes} bytes`);
  }
  return [...held];
}"""


@pytest.fixture
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:  # noqa: F811
    out, _ = tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())
    with serving(out) as url, opened(browser, url) as page:
        yield page


def needed(name: str, found: dict[str, int]) -> dict[str, int]:
    """What a script imports before it can run, itself included: name -> bytes in gzip."""
    content = (PAGE / name).read_bytes()
    found[name] = len(gzip.compress(content, 9))
    for other in IMPORTED.findall(content.decode("utf-8")):
        if other not in found:
            needed(other, found)
    return found


def test_the_first_answer_needs_little_script(browser: Browser, page: Page) -> None:  # noqa: F811
    sizes = needed("page.js", {})
    print(sizes, sum(sizes.values()))
    assert 100_000 < sum(sizes.values()) < MOST_SCRIPT_BYTES
    # And the page fetches just these.
    loaded = page.evaluate("() => performance.getEntriesByType('resource').map(({ name }) => name)")
    names = {address.rsplit("/", 1)[1] for address in loaded}
    # The one that asks for a GPU, in a thread of its own.
    assert {name for name in names if name.endswith(".js")} - {"adapter.js"} == set(sizes)
    # What is fetched on demand is there, and is more than that.
    everything = [path.name for path in PAGE.glob("*.js") if path.name not in (*sizes, "sw.js")]
    assert any(name.startswith("compare-") for name in everything) and len(everything) > 6


def growth(page: Page, count: int) -> int:
    """How many bytes the JavaScript heap grows by over so many pictures, what nobody holds collected before and after."""
    session = page.context.new_cdp_session(page)
    sizes = []
    for start in (0, count):
        if start:
            (held,) = page.evaluate(ANSWERS, {"from": start, "count": count})
            assert re.fullmatch(r"[1-9]\d* tensors, [1-9]\d* bytes", held)
        else:
            page.evaluate(ANSWERS, {"from": 0, "count": 20})
        session.send("HeapProfiler.collectGarbage")
        sizes.append(session.send("Runtime.getHeapUsage")["usedSize"])
    return sizes[1] - sizes[0]


def test_no_picture_leaves_a_tensor_behind(page: Page) -> None:
    assert growth(page, 30) < 2**20


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["wasm", "webgl"])
def test_a_thousand_pictures_leave_nothing_behind(page: Page, backend: str) -> None:
    page.get_by_test_id("backend-select").select_option(backend)
    expect(page.get_by_test_id("backend-select")).to_have_value(backend)
    grown = growth(page, MANY)
    print(f"{backend}: {grown} bytes over {MANY} pictures")
    assert grown < MANY * MOST_KEPT_BYTES
