"""The page for everyone: no violations that axe-core finds, all by keyboard, progress that is told, any width and scheme."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests import small_models, three_formats
from tests.demo_page import choose, encoded, opened, serving, started_browser

ROOT = Path(__file__).parents[1]
AXE = ROOT / "web_demo" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHECK = f"""async () => {{
  const {{ violations, passes }} = await axe.run(document, {{ runOnly: {RULES} }});
  const found = violations.map(({{ id, nodes }}) => `${{id}}: ${{nodes.map(({{ html }}) => html).join(" | ")}}`);
  return {{ found, passes: passes.length }};
}}"""
FOCUSED = "() => document.activeElement.dataset.testid ?? document.activeElement.tagName"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(three_formats.result_folder(tmp_path_factory.getbasetemp())) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser


def answered(page: Page) -> None:
    choose(page, "shown.png", encoded(small_models.pictures(1, 11)[0][0]))
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "shown.png")


def compared(page: Page) -> None:
    answered(page)
    page.get_by_test_id("compare-start").click()
    expect(page.get_by_test_id("compare-table")).to_be_visible(timeout=60_000)


def filmed(page: Page) -> None:
    page.get_by_test_id("camera").click()
    expect(page.get_by_test_id("camera-panel")).to_be_visible(timeout=15_000)


def faulty(page: Page) -> None:
    choose(page, "letter.png", b"not a picture")
    expect(page.get_by_test_id("error")).to_be_visible()


STATES: dict[str, Callable[[Page], None]] = {
    "empty": lambda page: None,
    "answered": answered,
    "faulty": faulty,
    "filmed": filmed,
}


def violations(page: Page) -> list[str]:
    if page.evaluate("() => typeof axe") == "undefined":
        page.evaluate(AXE.read_text(encoding="utf-8"))
    result = page.evaluate(CHECK)
    assert result["passes"] > 15
    return result["found"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_nothing(browser: Browser, url: str, scheme: str, width: int) -> None:
    with opened(browser, url, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        for name, bring_about in STATES.items():
            bring_about(page)
            assert violations(page) == [], name
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_comparison(browser: Browser, url: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 900}, color_scheme=scheme, service_workers="block")
    page.goto(url)
    compared(page)
    assert violations(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320
    page.close()


def test_axe_would_find_something(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        page.evaluate("""() => {
          document.querySelector("#backend-select").closest("label").replaceWith(document.querySelector("#backend-select"));
          document.querySelector("#model-name").style.color = "rgb(200 200 200)";
        }""")
        assert {each.split(":")[0] for each in violations(page)} == {"select-name", "color-contrast"}


def test_everything_is_reached_and_worked_by_keyboard(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        reached = []
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
            if reached[-1] == "BODY":
                break
        samples = [each for each in reached if each.startswith("sample-")]
        assert len(samples) == 3
        assert [each for each in reached if each not in samples and each != "BODY"] == [
            *("file-input", "camera", "clear-canvas", "artifact-select", "backend-select"),
            *("teach-add-class", "teach-train", "SUMMARY", "self-test"),
            *("compare-tflite", "compare-onnx", "compare-start"),
        ]
        # The focus can be seen, that of the hidden file input too.
        page.get_by_test_id("file-input").focus()
        label = page.locator("label", has=page.get_by_test_id("file-input"))
        assert label.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
        with page.expect_file_chooser() as chooser:
            page.get_by_test_id("file-input").press("Space")
        chooser.value.set_files(
            {"name": "keyed.png", "mimeType": "", "buffer": encoded(small_models.pictures(1, 3)[0][0])}
        )
        answer = page.get_by_test_id("answer")
        expect(answer).to_have_attribute("data-source", "keyed.png")
        page.get_by_test_id(samples[0]).press("Enter")
        expect(answer).to_have_attribute("data-source", samples[0].removeprefix("sample-"))
        page.get_by_test_id("backend-select").press("ArrowDown")
        expect(answer).to_have_attribute("data-backend", "webgl", timeout=30_000)
        page.get_by_test_id("camera").press("Space")
        expect(page.get_by_test_id("camera-take")).to_be_visible(timeout=15_000)
        page.get_by_test_id("camera-take").press("Enter")
        expect(answer).to_have_attribute("data-source", "camera.png")
        page.get_by_test_id("clear-canvas").press("Enter")
        expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.")


def test_the_loading_is_told_in_bytes(browser: Browser, url: str) -> None:
    held: list[Route] = []
    page = browser.new_page(service_workers="block")
    page.route("**/*.bin", lambda route: held.append(route))
    page.goto(url)
    loading = page.get_by_test_id("loading")
    expect(loading).to_be_visible()
    bar = page.get_by_role("progressbar", name="Loading the model")
    expect(bar).to_be_visible()
    for _ in range(100):
        if held and bar.evaluate("bar => bar.value") > 0:
            break
        page.wait_for_timeout(50)
    # model.json is there, its weights are not.
    value, most = bar.evaluate("bar => [bar.value, bar.max]")
    assert 0 < value < most
    expect(loading.locator("output")).to_have_text(f"{math.ceil(value / 1000)} of {math.ceil(most / 1000)} kB")
    for route in held:
        route.continue_()
    expect(loading).to_be_hidden(timeout=15_000)
    expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.")
    page.close()
