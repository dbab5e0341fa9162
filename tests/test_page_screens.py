"""Pictures of the page with the embedded default, in runs/screenshots, to be looked at; and how soon it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests import default_result
from tests.demo_page import browser, serving  # noqa: F401  browser is a fixture
from tests.page_picture import README_PICTURE, SCHEMES, WIDTHS, take

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(default_result.result_folder(tmp_path_factory.getbasetemp())) as url:
        yield url


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_picture_of_the_page_is_kept(browser: Browser, url: str, width: int, scheme: str) -> None:  # noqa: F811
    path: Path = take(browser, url, width, scheme)
    with Image.open(path) as image:
        assert image.width == width and image.height > 600
        red, green, blue = image.convert("RGB").getpixel((2, 2))
    assert (red + green + blue > 600) == (scheme == "light")


def test_the_readme_shows_the_page() -> None:
    with Image.open(README_PICTURE) as image:
        assert image.width == WIDTHS[-1]
    assert README_PICTURE.stat().st_size < 100_000
