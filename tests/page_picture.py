"""Pictures of the page with the embedded default: two widths, light and dark; and the README's, which is one of them."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect

from tests.demo_page import opened
from tests.strokes import FIGURES, with_mouse

ROOT = Path(__file__).parents[1]
# Ignored by git; kept for whoever wants to look at them.
FOLDER = ROOT / "runs" / "screenshots"
README_PICTURE = ROOT / "docs" / "page.webp"
WIDTHS, SCHEMES = (320, 1280), ("light", "dark")


def take(browser: Browser, url: str, width: int, scheme: str) -> Path:
    """Draw a star on the page and keep a picture of the whole of it."""
    path = FOLDER / f"{width}-{scheme}.png"
    with opened(browser, url, viewport={"width": width, "height": 860}, color_scheme=scheme) as page:
        with_mouse(page, FIGURES["star"])
        expect(page.get_by_test_id("answer")).to_have_attribute("data-label", "star", timeout=15_000)
        expect(page.get_by_test_id("answer")).not_to_have_attribute("aria-busy", "true")
        # Their pictures are fetched when they come into sight.
        for sample in page.locator("#samples img").all()[:6]:
            sample.evaluate("picture => picture.decode()")
        page.evaluate("() => scrollTo(0, 0)")
        page.wait_for_timeout(300)
        page.screenshot(path=path, full_page=True)
    return path


def main() -> None:
    """Write the README's picture from the ones that the tests took."""
    source = FOLDER / f"{WIDTHS[-1]}-{SCHEMES[0]}.png"
    if not source.is_file():
        sys.exit(f"{source} is missing: run the tests of tests/test_page_screens.py first.")
    README_PICTURE.parent.mkdir(exist_ok=True)
    Image.open(source).convert("RGB").save(README_PICTURE, quality=80, method=6)
    print(f"{README_PICTURE.relative_to(ROOT)}: {README_PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
