"""The page in a real Chromium: what it answers is what Keras answers, and it asks no other host for anything."""

from __future__ import annotations

import functools
import http.server
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.contract import Resize
from pipeline import server
from tests import tiny_tfjs
from tests.demo_page import browser, choose, encoded, opened, serving  # noqa: F401  browser is a fixture
from tests.pictures import picture

RESIZE = Resize(tiny_tfjs.SIDE_PX, tiny_tfjs.SIDE_PX)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    out, model = tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())
    return out, model


@pytest.fixture(scope="module")
def url(tiny: tuple[Path, keras.Model]) -> Iterator[str]:
    with serving(tiny[0]) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    with opened(browser, url, viewport={"width": 1200, "height": 900}) as page:
        yield page


def keras_says(model: keras.Model, data: bytes, head: str = "apple") -> tuple[str, float]:
    image = pixels.resize(pixels.decode(data), RESIZE)
    (probabilities,) = tiny_tfjs.reference(model, image[np.newaxis])[head]
    return tiny_tfjs.LABELS[int(probabilities.argmax())], float(probabilities.max())


def page_says(page: Page, source: str, backend: str = "wasm") -> tuple[str, float]:
    answer = page.get_by_test_id("answer")
    expect(answer).to_have_attribute("data-source", source)
    expect(answer).to_have_attribute("data-backend", backend, timeout=30_000)
    expect(answer).to_have_attribute("data-artifact", "tfjs-float32")
    return answer.get_attribute("data-label"), float(answer.get_attribute("data-probability"))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def draw_circle(page: Page) -> None:
    box = page.get_by_test_id("canvas").bounding_box()
    x, y, radius = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] * 0.3
    page.mouse.move(x + radius, y)
    page.mouse.down()
    for step in range(1, 25):
        page.mouse.move(x + radius * math.cos(step * math.tau / 24), y + radius * math.sin(step * math.tau / 24))
    page.mouse.up()


def test_a_chosen_picture_is_answered_as_keras_answers(page: Page, tiny) -> None:
    for number, size in enumerate(((57, 41), (32, 32), (9, 200), (640, 480))):
        data = encoded(picture(*size))
        choose(page, f"{number}.png", data)
        label, probability = page_says(page, f"{number}.png")
        expected = keras_says(tiny[1], data)
        assert label == expected[0]
        assert probability == pytest.approx(expected[1], abs=1e-4)
    # The second head has a list of its own, under its name.
    expect(page.locator("#answer h3")).to_have_text(["apple", "zebra"])
    best = page.locator("#answer ol").nth(1).locator(".label").first
    expect(best).to_have_text(keras_says(tiny[1], data, "zebra")[0])
    expect(page.get_by_test_id("latency")).to_contain_text(" ms for 3.png")


@pytest.mark.parametrize("name", ["dropped.png", "turned.jpg"])
def test_a_dropped_picture_is_answered(page: Page, tiny, name: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    kind = {"dropped.png": {}, "turned.jpg": {"kind": "JPEG", "quality": 95, "exif": turned}}[name]
    data = encoded(picture(80, 60), **kind)
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          return transfer;
        }""",
        [name, list(data)],
    )
    page.get_by_test_id("canvas").dispatch_event("drop", {"dataTransfer": transfer})
    label, probability = page_says(page, name)
    # Decoders of JPEG differ by a level or two.
    assert (label, pytest.approx(probability, abs=5e-3 if kind else 1e-4)) == keras_says(tiny[1], data)


def test_a_pasted_picture_is_answered(page: Page, tiny) -> None:
    data = encoded(picture(80, 60))
    page.evaluate(
        """(bytes) => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        list(data),
    )
    label, probability = page_says(page, "pasted.png")
    assert (label, pytest.approx(probability, abs=1e-4)) == keras_says(tiny[1], data)


def test_orientation_and_transparency_are_those_of_python(page: Page, tiny) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture(64, 40), "JPEG", quality=95, exif=exif)
    upright = encoded(picture(64, 40), "JPEG", quality=95)
    assert abs(keras_says(tiny[1], turned)[1] - keras_says(tiny[1], upright)[1]) > 0.02, "a turn would not be seen"
    # Decoders of JPEG differ by a level or two, and a browser stores colours premultiplied by their transparency.
    for name, data in (("turned.jpg", turned), ("clear.png", encoded(picture(64, 40, 4)))):
        choose(page, name, data)
        label, probability = page_says(page, name)
        assert (label, pytest.approx(probability, abs=5e-3)) == keras_says(tiny[1], data)


def test_every_backend_gives_the_same_answer(page: Page, tiny) -> None:
    data = encoded(picture())
    choose(page, "same.png", data)
    expected = keras_says(tiny[1], data)
    for backend in ("wasm", "cpu", "webgl", "wasm"):
        page.get_by_test_id("backend-select").select_option(backend)
        label, probability = page_says(page, "same.png", backend)
        assert (label, pytest.approx(probability, abs=1e-4)) == expected


def test_a_drawing_is_answered_and_cleared(page: Page) -> None:
    draw_circle(page)
    label, probability = page_says(page, "the drawing")
    assert label in tiny_tfjs.LABELS and 0.2 < probability <= 1
    page.get_by_test_id("clear-canvas").click()
    expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.")
    expect(page.get_by_test_id("answer")).not_to_have_attribute("data-label", label)


def test_what_is_no_picture_is_said_and_the_next_one_answered(page: Page) -> None:
    choose(page, "letter.png", b"not a picture")
    expect(page.get_by_test_id("error")).to_have_text(
        "letter.png is not a picture that this browser can read. Try a JPEG or a PNG."
    )
    expect(page.get_by_test_id("answer")).not_to_have_attribute("data-source", "letter.png")
    choose(page, "good.png", encoded(picture()))
    page_says(page, "good.png")
    expect(page.get_by_test_id("error")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 400, 1200])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    draw_circle(page)
    page_says(page, "the drawing")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_static_site_works_under_a_sub_path(browser: Browser, tiny, tmp_path: Path) -> None:  # noqa: F811
    server.write_site(tiny[0], tmp_path / "deep" / "site")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{host.server_address[1]}/deep/site/")
        data = encoded(picture())
        expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
        choose(page, "site.png", data)
        label, probability = page_says(page, "site.png")
        page.close()
        host.shutdown()
    assert (label, pytest.approx(probability, abs=1e-4)) == keras_says(tiny[1], data)
