"""The camera of the page in a real Chromium, whose camera is a file with a known picture: answers, release, and refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.contract import Resize
from tests import tiny_tfjs
from tests.demo_page import (
    ARGUMENTS,
    another_browser,
    choose,
    encoded,
    listen_for_complaints,
    opened,
    serving,
    started_browser,
)
from tests.pictures import picture
from tests.teaching_page import add_class, of_class

RESIZE = Resize(tiny_tfjs.SIDE_PX, tiny_tfjs.SIDE_PX)
WIDTH_PX, HEIGHT_PX = 360, 240
HEAD = "apple"
# The camera's picture goes through YUV with half the colours' resolution.
CAMERA_ATOL = 0.02
# Only watches: every stream that the page is given.
WATCH = """
globalThis.given = [];
const { mediaDevices } = navigator;
if (mediaDevices) {
  const ask = mediaDevices.getUserMedia.bind(mediaDevices);
  mediaDevices.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    given.push(stream);
    return stream;
  };
}
"""
STATES = "() => given.flatMap((stream) => stream.getTracks().map((track) => track.readyState))"
HIDE = """() => {
  Object.defineProperty(document, "hidden", { value: true, configurable: true });
  Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def y4m(image: np.ndarray, frames: int = 3) -> bytes:
    """A video of one picture, uint8 (height, width, 3) with even sides, as Chromium's camera from a file takes it."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    colors = [
        128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255,
        128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255,
    ]
    halved = [each.reshape(each.shape[0] // 2, 2, each.shape[1] // 2, 2).mean((1, 3)) for each in colors]
    frame = b"FRAME\n" + b"".join(np.rint(plane).astype(np.uint8).tobytes() for plane in (luma, *halved))
    return f"YUV4MPEG2 W{image.shape[1]} H{image.shape[0]} F30:1 Ip A1:1 C420mpeg2\n".encode() + frame * frames


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    return tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def url(tiny: tuple[Path, object]) -> Iterator[str]:
    with serving(tiny[0]) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    video = tmp_path_factory.mktemp("camera") / "known.y4m"
    video.write_bytes(y4m(picture(WIDTH_PX, HEIGHT_PX)))
    arguments = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with started_browser(*arguments, f"--use-file-for-fake-video-capture={video}") as browser:
        yield browser


@contextlib.contextmanager
def watched(browser: Browser, url: str) -> Iterator[Page]:
    with opened(browser, url) as page:
        page.evaluate(f"() => {{ {WATCH} }}")
        yield page


def keras_says(model: object, image: np.ndarray) -> tuple[str, float]:
    (probabilities,) = tiny_tfjs.reference(model, pixels.resize(image, RESIZE)[np.newaxis])[HEAD]
    return tiny_tfjs.LABELS[int(probabilities.argmax())], float(probabilities.max())


def page_says(page: Page, source: str) -> tuple[str, float]:
    answer = page.get_by_test_id("answer")
    expect(answer).to_have_attribute("data-source", source, timeout=15_000)
    return answer.get_attribute("data-label"), float(answer.get_attribute("data-probability"))


def start(page: Page) -> None:
    page.get_by_test_id("camera").click()
    expect(page.get_by_test_id("camera-panel")).to_be_visible(timeout=15_000)
    page_says(page, "the camera")


def test_the_camera_is_answered_as_keras_answers_and_one_picture_is_kept(browser: Browser, url: str, tiny) -> None:
    known = picture(WIDTH_PX, HEIGHT_PX)
    expected, flipped = keras_says(tiny[1], known), keras_says(tiny[1], known[:, ::-1])
    assert abs(expected[1] - flipped[1]) > 4 * CAMERA_ATOL, "a mirrored picture would not be seen"
    with watched(browser, url) as page:
        start(page)
        assert page_says(page, "the camera") == (expected[0], pytest.approx(expected[1], abs=CAMERA_ATOL))
        expect(page.get_by_test_id("camera-select")).to_be_hidden()
        page.get_by_test_id("camera-mirrored").check()
        page.get_by_test_id("camera-take").click()
        assert page_says(page, "camera.png") == (flipped[0], pytest.approx(flipped[1], abs=CAMERA_ATOL))
        assert page.evaluate(STATES) == ["ended"]
        expect(page.get_by_test_id("camera-panel")).to_be_hidden()


def test_answers_come_at_a_steady_rate_and_end_with_the_camera(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        start(page)
        page.evaluate("""() => {
          globalThis.times = [];
          const note = () => times.push(performance.now());
          new MutationObserver(note).observe(document.getElementById("latency"), { childList: true });
        }""")
        page.wait_for_timeout(2000)
        pauses = np.diff(page.evaluate("() => times"))
        assert 5 <= len(pauses) <= 21 and pauses.min() > 25
        expect(page.locator("#headline")).to_have_attribute("aria-live", "off")
        page.get_by_test_id("camera").click()
        page.wait_for_timeout(200)
        count = page.evaluate("() => times.length")
        page.wait_for_timeout(500)
        assert page.evaluate("() => times.length") == count
        assert page.evaluate(STATES) == ["ended"]


def test_what_the_camera_shows_is_added_to_classes_while_it_is_on(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        for name in ("seen", "mirrored"):
            add_class(page, name, [])
        start(page)
        of_class(page, "teach-take", 0).click()
        expect(of_class(page, "teach-count", 0)).to_have_attribute("data-count", "1")
        page.get_by_test_id("camera-mirrored").check()
        # Until an answer to a mirrored frame is there, the one before is the current picture.
        page.wait_for_timeout(500)
        of_class(page, "teach-take", 1).click()
        expect(of_class(page, "teach-count", 1)).to_have_attribute("data-count", "1")
        assert page.evaluate(STATES) == ["live"]
        # The camera shows one picture for ever, which is there already.
        of_class(page, "teach-take", 1).click()
        expect(page.get_by_test_id("teach-status")).to_have_text(
            "the camera is in mirrored already. Add another picture."
        )
        seen, mirrored = (thumbnail(page, index) for index in (0, 1))
        assert np.abs(seen - mirrored[:, ::-1]).mean() < 3 < 10 < np.abs(seen - mirrored).mean()


def thumbnail(page: Page, index: int) -> np.ndarray:
    """The first picture of a class as the page shows it, float64 (height, width, 3)."""
    canvas = page.locator(f'[data-testid="teach-class"][data-class="{index}"] canvas').first
    read = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    side = canvas.evaluate("(canvas) => [canvas.height, canvas.width, 4]")
    return np.array(canvas.evaluate(read), np.float64).reshape(side)[..., :3]


@pytest.mark.parametrize("other", ["file", "drawing", "clear", "hidden"])
def test_the_camera_is_let_go_of(browser: Browser, url: str, other: str) -> None:
    with watched(browser, url) as page:
        start(page)
        assert page.evaluate(STATES) == ["live"]
        if other == "file":
            choose(page, "other.png", encoded(picture()))
            page_says(page, "other.png")
        elif other == "drawing":
            page.get_by_test_id("canvas").click()
            page_says(page, "the drawing")
        elif other == "clear":
            page.get_by_test_id("clear-canvas").click()
            expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.")
        else:
            page.evaluate(HIDE)
            expect(page.get_by_test_id("camera-note")).to_contain_text("could not be seen")
        assert page.evaluate(STATES) == ["ended"]
        expect(page.get_by_test_id("camera")).to_have_attribute("aria-pressed", "false")
        # And on again, as often as one likes.
        start(page)
        assert page.evaluate(STATES) == ["ended", "live"]


def test_one_of_several_cameras_is_chosen(browser: Browser, url: str) -> None:
    arguments = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=device-count=2")
    with another_browser(browser.browser_type, *arguments) as two, watched(two, url) as page:
        start(page)
        select = page.get_by_test_id("camera-select")
        expect(select.locator("option")).to_have_count(2)
        first = select.input_value()
        (second,) = {each.get_attribute("value") for each in select.locator("option").all()} - {first}
        select.select_option(second)
        expect(page.get_by_test_id("camera-panel")).to_be_visible()
        page_says(page, "the camera")
        page.wait_for_timeout(500)
        assert page.evaluate(STATES) == ["ended", "live"]
        assert page.evaluate("() => given[1].getVideoTracks()[0].getSettings().deviceId") == second
        # The camera that is pulled out.
        page.evaluate("() => given[1].getVideoTracks()[0].dispatchEvent(new Event('ended'))")
        expect(page.get_by_test_id("error")).to_contain_text("The camera has stopped sending pictures.")


def refused(browser: Browser, url: str, sentence: str, **options: object) -> None:
    with opened(browser, url, **options) as page:
        page.get_by_test_id("camera").click()
        expect(page.get_by_test_id("error")).to_contain_text(sentence, timeout=15_000)
        expect(page.get_by_test_id("camera")).to_have_attribute("aria-pressed", "false")
        # A picture is answered all the same, and the sentence goes.
        choose(page, "after.png", encoded(picture()))
        page_says(page, "after.png")
        expect(page.get_by_test_id("error")).to_be_hidden()


def test_a_refused_permission_is_said(browser: Browser, url: str) -> None:
    with another_browser(browser.browser_type, "--use-fake-device-for-media-stream") as asking:
        refused(asking, url, "The camera was not allowed.", permissions=[])


def test_a_missing_camera_is_said(browser: Browser, url: str) -> None:
    arguments = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=device-count=0")
    with another_browser(browser.browser_type, *arguments) as none:
        refused(none, url, "There is no camera here.")


def test_a_camera_in_use_is_said(browser: Browser, url: str) -> None:
    # What browsers do where another program has the camera; Chromium's own stand-in for a camera is never in use.
    fail = """() => {
      const fault = new DOMException("Could not start video source", "NotReadableError");
      navigator.mediaDevices.getUserMedia = () => Promise.reject(fault);
    }"""
    with opened(browser, url) as page:
        page.evaluate(fail)
        page.get_by_test_id("camera").click()
        expect(page.get_by_test_id("error")).to_contain_text("The camera is in use, or does not answer.")


def test_an_address_without_https_is_said_and_works_otherwise(browser: Browser, url: str) -> None:
    resolver = ARGUMENTS[1].replace("MAP *", "MAP lan.test 127.0.0.1 , MAP *")
    lan = url.replace("127.0.0.1", "lan.test")
    with another_browser(browser.browser_type, resolver) as insecure:
        refused(insecure, lan, "Browsers allow a camera over https")
        page = insecure.new_page()
        complaints = listen_for_complaints(page, lan)
        page.goto(lan)
        expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
        assert page.evaluate("() => isSecureContext") is False
        page.close()
    assert complaints == []
