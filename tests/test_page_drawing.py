"""Drawing on the page with mouse, finger and pen; and the embedded default, which knows what is drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests import default_result, tiny_tfjs
from tests.demo_page import browser, opened, serving  # noqa: F401  browser is a fixture
from tests.strokes import FIGURES, HANDS

KINDS = """() => {
  globalThis.kinds = new Set();
  document.getElementById("canvas").addEventListener("pointermove", ({ pointerType }) => kinds.add(pointerType));
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    out, _ = tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())
    with serving(out) as url:
        yield url


def drawn(page: Page) -> np.ndarray:
    """What is on the canvas, uint8 (height, width, 3)."""
    address = page.get_by_test_id("canvas").evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def test_mouse_finger_and_pen_draw_the_same(browser: Browser, url: str) -> None:  # noqa: F811
    pictures = {}
    for hand, draw in HANDS.items():
        with opened(browser, url, has_touch=True) as page:
            page.evaluate(KINDS)
            draw(page, FIGURES["star"])
            expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "the drawing")
            assert page.evaluate("() => [...kinds]") == [hand]
            pictures[hand] = drawn(page)
            # The page stays where it is: a finger draws, and does not scroll.
            assert page.evaluate("() => scrollY") == 0
    ink = (pictures["mouse"] < 128).any(-1).mean()
    assert 0.01 < ink < 0.2
    for hand in ("touch", "pen"):
        assert ((pictures[hand] < 128) != (pictures["mouse"] < 128)).mean() < 0.1 * ink, hand


def test_a_second_finger_draws_nothing(browser: Browser, url: str) -> None:  # noqa: F811
    with opened(browser, url, has_touch=True) as page:
        session = page.context.new_cdp_session(page)
        box = page.get_by_test_id("canvas").bounding_box()

        def touch(kind: str, *shares: float) -> None:
            points = [
                {"x": box["x"] + at * box["width"], "y": box["y"] + at * box["height"], "id": i}
                for i, at in enumerate(shares)
            ]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", 0.1)
        touch("touchMove", 0.2)
        touch("touchStart", 0.2, 0.9)
        touch("touchMove", 0.2, 0.8)
        touch("touchEnd")
        expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "the drawing")
        picture = drawn(page)
        side = len(picture)
        assert (picture[: side // 3, : side // 3] < 128).any()
        assert not (picture[side // 3 :] < 128).any()


@pytest.mark.slow
def test_drawn_figures_are_recognised(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:  # noqa: F811
    out: Path = default_result.result_folder(tmp_path_factory.getbasetemp())
    with serving(out) as url:
        for hand, draw in HANDS.items():
            with opened(browser, url, has_touch=True) as page:
                for label, points in FIGURES.items():
                    page.get_by_test_id("clear-canvas").click()
                    draw(page, points)
                    answer = page.get_by_test_id("answer")
                    expect(answer).to_have_attribute("data-label", label, timeout=15_000)
                    expect(answer).not_to_have_attribute("aria-busy", "true")
                    probability = float(answer.get_attribute("data-probability"))
                    print(f"{hand}: {label} {probability:.3f}")
                    assert probability > 0.6
