"""What a visitor of the page waits for: until the embedded default can answer, and its first answer, in a real Chromium."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests import default_result, small_models
from tests.demo_page import browser, encoded, serving  # noqa: F401  browser is a fixture

VISITS = 5
# In the page, so that nothing of Playwright's is timed: when the model was ready, and how long its first answers took.
WAITS = """async ([bytes, backend]) => {
  const answer = document.querySelector("[data-testid=answer]");
  const headline = document.getElementById("headline");
  const until = (there) => new Promise((resolve) => {
    const look = () => (there() ? resolve(performance.now()) : setTimeout(look, 1));
    look();
  });
  const ready = await until(() => headline.textContent.startsWith("Draw something"));
  const select = document.querySelector("[data-testid=backend-select]");
  if (select.value !== backend) {
    select.value = backend;
    select.dispatchEvent(new Event("change"));
    await until(() => !answer.hasAttribute("aria-busy"));
  }
  const times = [];
  for (let i = 0; i < 10; i++) {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], `${i}.png`, { type: "image/png" }));
    const input = document.querySelector("[data-testid=file-input]");
    input.files = transfer.files;
    const begun = performance.now();
    input.dispatchEvent(new Event("change"));
    times.push((await until(() => answer.dataset.source === `${i}.png` && !answer.hasAttribute("aria-busy"))) - begun);
  }
  return { ready, times, backend: answer.dataset.backend };
}"""


def visited(browser: Browser, url: str, backend: str = "wasm") -> tuple[float, list[float]]:  # noqa: F811
    page: Page = browser.new_page(service_workers="block")
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#headline")
    waits = page.evaluate(WAITS, [list(encoded(small_models.pictures(1, 3)[0][0])), backend])
    page.close()
    assert waits["backend"] == backend, "another backend was timed"
    return waits["ready"], waits["times"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return default_result.result_folder(tmp_path_factory.getbasetemp())


def test_the_first_answer_comes_within_a_second(browser: Browser, out: Path) -> None:  # noqa: F811
    with serving(out) as url:
        visits = [visited(browser, url) for _ in range(VISITS)]
    ready, first = min(ready for ready, _ in visits), min(times[0] for _, times in visits)
    later = statistics.median(time for _, times in visits for time in times[5:])
    print(f"wasm: ready {ready:.0f} ms after the visit, first answer {first:.0f} ms, later ones {later:.0f} ms")
    assert first < 1000
    # Nothing is compiled, nor fetched, for the first one that is not for the others.
    assert first < 5 * later


@pytest.mark.parametrize("backend", ["webgl", "cpu"])
def test_what_other_backends_take(browser: Browser, out: Path, backend: str) -> None:  # noqa: F811
    with serving(out) as url:
        visits = [visited(browser, url, backend) for _ in range(3)]
    first, later = (
        statistics.median(each)
        for each in zip(*((times[0], statistics.median(times[5:])) for _, times in visits), strict=True)
    )
    # As for wasm: the page answers a blank picture before it says that it is ready.
    print(f"{backend}: first answer {first:.0f} ms, later ones {later:.0f} ms")
    assert first < 5 * later
