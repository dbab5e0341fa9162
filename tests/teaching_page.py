"""Teaching on the page, as its user does it, for the tests of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

TRAINED = 60_000
# What asks for more than to be sent something.
READING = ("GET", "HEAD")


def listen_for_uploads(page: Page) -> list[str]:
    """Give the list that fills with every request that sends something away."""
    sent: list[str] = []
    page.on(
        "request",
        lambda request: (
            (request.method in READING and not request.post_data_buffer)
            or sent.append(f"{request.method} {request.url}")
        ),
    )
    return sent


def of_class(page: Page, handle: str, index: int) -> Locator:
    """The element of a class, by its handle."""
    return page.locator(f'[data-testid="{handle}"][data-class="{index}"]')


def add_class(page: Page, name: str, pictures: Sequence[bytes]) -> int:
    """Add a class with a name and pictures, in PNG or JPEG; returns its index."""
    index = page.get_by_test_id("teach-file-input").count()
    page.get_by_test_id("teach-add-class").click()
    of_class(page, "teach-class-name", index).fill(name)
    give(page, index, [(f"{name}-{number}.png", data) for number, data in enumerate(pictures)])
    expect(of_class(page, "teach-count", index)).to_have_attribute("data-count", str(len(pictures)), timeout=TRAINED)
    return index


def give(page: Page, index: int, files: Sequence[tuple[str, bytes]]) -> None:
    """Choose files for a class."""
    payload = [{"name": name, "mimeType": "", "buffer": data} for name, data in files]
    of_class(page, "teach-file-input", index).set_input_files(payload)


def train(page: Page) -> tuple[float, int]:
    """Press Train and wait; returns the accuracy on the pictures that were held out, and how many these are."""
    page.get_by_test_id("teach-train").click()
    expect(page.get_by_test_id("teach-status")).to_contain_text("Trained in", timeout=TRAINED)
    told = page.get_by_test_id("teach-accuracy")
    return float(told.get_attribute("data-accuracy")), int(told.get_attribute("data-count"))


def teach(page: Page, classes: Mapping[str, Sequence[bytes]]) -> tuple[float, int]:
    """Add classes, train, and return what `train` does."""
    for name, pictures in classes.items():
        add_class(page, name, pictures)
    return train(page)


def download(page: Page, target: Path, *, with_pictures: bool = False) -> dict[str, Any]:
    """Download what was taught to `target` and return what it holds."""
    kept = page.get_by_test_id("teach-kept")
    if kept.get_attribute("open") is None:
        kept.locator("summary").click()
    page.get_by_test_id("teach-with-pictures").set_checked(with_pictures)
    with page.expect_download() as started:
        page.get_by_test_id("teach-download").click()
    started.value.save_as(target)
    return json.loads(target.read_text(encoding="utf-8"))


def taught_answer(page: Page) -> tuple[str, float]:
    """The likeliest of the taught classes for the picture that is shown, and its probability."""
    answer = page.get_by_test_id("teach-answer")
    expect(answer).to_be_visible()
    return answer.get_attribute("data-label"), float(answer.get_attribute("data-probability"))
