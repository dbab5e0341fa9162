"""What goes wrong on the page, in a real Chromium: each is a sentence that says what to do, and the page goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import tiny_tfjs
from tests.demo_page import another_browser, browser, choose, encoded, opened, serving  # noqa: F401
from tests.pictures import picture

WITHOUT_WEBGL = ("--disable-gpu", "--disable-software-rasterizer", "--disable-3d-apis")
# Only watches: every WebGL context that the page makes.
WATCH = """() => {
  globalThis.contexts = [];
  for (const kind of [HTMLCanvasElement, OffscreenCanvas]) {
    const make = kind.prototype.getContext;
    kind.prototype.getContext = function (name, ...rest) {
      const made = make.call(this, name, ...rest);
      if (made && name.startsWith("webgl")) contexts.push(made);
      return made;
    };
  }
}"""
LOSE = """() => {
  const kept = contexts.filter((each) => !each.isContextLost());
  kept.at(-1).getExtension("WEBGL_lose_context").loseContext();
}"""


@pytest.fixture
def out(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    made, _ = tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture
def url(out: Path) -> Iterator[str]:
    with serving(out) as url:
        yield url


def visited(browser: Browser, url: str) -> Page:  # noqa: F811
    page = browser.new_page(service_workers="block")
    page.goto(url)
    return page


def answered(page: Page, name: str, backend: str = "wasm") -> tuple[str, float]:
    choose(page, name, encoded(picture()))
    answer = page.get_by_test_id("answer")
    expect(answer).to_have_attribute("data-source", name, timeout=15_000)
    expect(answer).to_have_attribute("data-backend", backend, timeout=15_000)
    expect(page.get_by_test_id("error")).to_be_hidden()
    return answer.get_attribute("data-label"), float(answer.get_attribute("data-probability"))


def test_a_backend_that_is_not_there_is_said(browser: Browser, url: str) -> None:  # noqa: F811
    with another_browser(browser.browser_type, *WITHOUT_WEBGL) as poor:
        page = visited(poor, url)
        answered(page, "first.png")
        page.get_by_test_id("backend-select").select_option("webgl")
        expect(page.get_by_test_id("error")).to_have_text(
            "This browser cannot compute with WebGL. Choose another one.", timeout=15_000
        )
        page.get_by_test_id("backend-select").select_option("wasm")
        answered(page, "again.png")
        assert page.locator("#backend-select option").all_inner_texts() == ["WebAssembly", "WebGL", "Plain JavaScript"]


def test_a_lost_webgl_context_is_said_and_another_one_taken(browser: Browser, url: str) -> None:  # noqa: F811
    with opened(browser, url) as page:
        page.evaluate(WATCH)
        expected = answered(page, "wasm.png")
        page.get_by_test_id("backend-select").select_option("webgl")
        assert answered(page, "webgl.png", "webgl") == (expected[0], pytest.approx(expected[1], abs=1e-4))
        # While nothing is computed: the next answer takes a new one.
        page.evaluate(LOSE)
        assert answered(page, "idle.png", "webgl") == (expected[0], pytest.approx(expected[1], abs=1e-4))
        # While an answer is being computed, which TF.js would wait for.
        page.evaluate(f"""() => {{
          const lose = {LOSE};
          const read = WebGL2RenderingContext.prototype.fenceSync;
          WebGL2RenderingContext.prototype.fenceSync = function (...given) {{
            WebGL2RenderingContext.prototype.fenceSync = read;
            lose();
            return read.apply(this, given);
          }};
        }}""")
        choose(page, "lost.png", encoded(picture()))
        expect(page.get_by_test_id("error")).to_contain_text("The graphics processor was taken away", timeout=15_000)
        assert answered(page, "after.png", "webgl") == (expected[0], pytest.approx(expected[1], abs=1e-4))


def test_a_model_too_large_for_the_memory_is_said(browser: Browser, url: str, out: Path) -> None:  # noqa: F811
    folder = Path(shutil.copytree(out / "artifacts" / "tfjs-float32", out / "artifacts" / "tfjs-float16"))
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["resize"] |= {"width": 100_000, "height": 100_000}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    page = visited(browser, url)
    answered(page, "small.png")
    page.get_by_test_id("artifact-select").select_option("tfjs-float16")
    expect(page.get_by_test_id("error")).to_contain_text("There is not enough memory", timeout=15_000)
    expect(page.get_by_test_id("error")).to_contain_text("choose a smaller model")
    page.get_by_test_id("artifact-select").select_option("tfjs-float32")
    answered(page, "again.png")
    page.close()


def test_a_missing_model_is_said(browser: Browser, url: str, out: Path) -> None:  # noqa: F811
    folder = out / "artifacts" / "tfjs-float32"
    (folder / "group1-shard1of1.bin").unlink()
    page = visited(browser, url)
    error = page.get_by_test_id("error")
    missing = "The model tfjs-float32 could not be loaded: group1-shard1of1.bin was not served: 404 Not Found."
    expect(error).to_have_text(f"{missing} Reload the page, or choose another model.", timeout=15_000)
    page.close()
    (folder / "model.json").unlink()
    page = visited(browser, url)
    expect(page.locator("body")).to_contain_text("holds no TF.js model for the page.")
    expect(page.locator("body")).to_contain_text("To mend it: export with --formats tfjs")
    page.close()


def test_a_server_that_is_gone_is_said(browser: Browser, out: Path) -> None:  # noqa: F811
    shutil.copytree(out / "artifacts" / "tfjs-float32", out / "artifacts" / "tfjs-float16")
    with serving(out) as url:
        page = visited(browser, url)
        answered(page, "first.png")
    page.get_by_test_id("artifact-select").select_option("tfjs-float16")
    error = page.get_by_test_id("error")
    expect(error).to_contain_text("The model tfjs-float16 could not be loaded: Failed to fetch.")
    page.get_by_test_id("backend-select").select_option("cpu")
    expect(error).to_contain_text(
        "What computes with Plain JavaScript could not be fetched. See whether there is a network"
    )
    page.get_by_test_id("camera").click()
    expect(error).to_contain_text("What works the camera could not be fetched.")
    page.close()


@pytest.mark.slow
def test_webgpu_is_offered_where_there_is_an_adapter(browser: Browser, url: str) -> None:  # noqa: F811
    software = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    with another_browser(browser.browser_type, *software) as able:
        page = visited(able, url)
        scripts: list[str] = []
        page.on("request", lambda request: scripts.append(request.url))
        expected = answered(page, "wasm.png")
        expect(page.locator("#backend-select option")).to_have_text(
            ["WebAssembly", "WebGL", "Plain JavaScript", "WebGPU"]
        )
        assert not [each for each in scripts if each.endswith(".js")]
        page.get_by_test_id("backend-select").select_option("webgpu")
        answer = page.get_by_test_id("answer")
        expect(answer).to_have_attribute("data-backend", "webgpu", timeout=120_000)
        assert answer.get_attribute("data-label") == expected[0]
        assert float(answer.get_attribute("data-probability")) == pytest.approx(expected[1], abs=1e-4)
        assert [each for each in scripts if each.endswith(".js")]
        page.close()
