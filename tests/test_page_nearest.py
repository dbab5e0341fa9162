"""The page names the nearest pictures by an embedding: of the published ones, and of those that were kept during the visit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.contract import CEILINGS, ArtifactName
from exporters.export import export_artifact
from exporters.golden import GoldenSet, write_golden, write_manifest
from exporters.golden_files import images_of_files, prepare_files
from exporters.runners.keras import KerasRunner
from exporters.saved_model import write_saved_model
from tests import small_models
from tests.demo_page import browser, choose, encoded, opened, serving  # noqa: F401  browser is a fixture
from tests.mixed_heads import card_of, mixed
from tests.pictures import picture
from tests.test_page_access import violations

SHOWN = 5
# What float32 in the browser may make of a cosine.
CLOSE = 1e-5


def folder(out: Path, heads: tuple[str, ...], publish: str) -> Path:
    """A result folder of the small model with heads, its TF.js model and its golden set."""
    one, card = mixed(heads), dataclasses.replace(card_of(heads), cut=())
    saved = write_saved_model(one.model, {}, out / "saved")
    export_artifact(ArtifactName("tfjs", "float32"), saved, card, out / "artifacts", one.calibration_images)
    files = prepare_files(small_models.write_pictures(out / "pictures", 24), out)
    with KerasRunner(one.model) as runner:
        answers = runner.predict(images_of_files(files, card))
    truth = {name: np.zeros(len(one.images), np.int64) for name in heads}
    write_golden(GoldenSet(one.images, truth, one.reference, card, CEILINGS), out, files, answers)
    write_manifest(out, card, CEILINGS, publish=publish)
    card.write(out / "card.json")
    return out


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("published"), ("kind", "near"), "samples")


@pytest.fixture
def page(browser: Browser, published: Path) -> Iterator[Page]:  # noqa: F811
    with serving(published) as url, opened(browser, url) as page:
        yield page


def vectors_of(out: Path) -> dict[str, np.ndarray]:
    """Published picture -> the Keras model's embedding of it."""
    listed = json.loads((out / "golden/files/expected.json").read_text(encoding="utf-8"))["files"]
    return {each["file"]: np.array(each["outputs"]["near"]) for each in listed if each["file"].endswith(".png")}


def shown(page: Page) -> dict[str, float]:
    """Picture -> cosine, as the page lists them."""
    found = page.get_by_test_id("neighbour").evaluate_all("all => all.map(({dataset}) => [dataset.id, dataset.cosine])")
    return {name: float(cosine) for name, cosine in found}


def check(found: dict[str, float], vector: np.ndarray, among: dict[str, np.ndarray]) -> None:
    """The pictures found are the nearest ones, in their order, but for what rounding makes of equal ones."""
    cosines = {name: float(vector @ each) for name, each in among.items()}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert list(found.values()) == pytest.approx(sorted(cosines.values(), reverse=True)[:SHOWN], abs=CLOSE)
    for name, cosine in found.items():
        assert cosine == pytest.approx(cosines[name], abs=CLOSE), name


def show(page: Page, name: str, image: np.ndarray) -> np.ndarray:
    """Let the page answer a picture, and return what Keras answers."""
    data = encoded(image)
    choose(page, name, data)
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", name)
    resized = pixels.resize(pixels.decode(data), card_of(("near",)).resize)[None].astype(np.float32)
    return np.asarray(mixed(("kind", "near")).model(resized, training=False)["near"])[0]


def test_the_nearest_published_pictures(page: Page, published: Path) -> None:
    known = vectors_of(published)
    assert len(known) > 2 * SHOWN
    spans = []
    for name, image in (("one.png", picture(90, 70)), ("other.png", 255 - picture(90, 70))):
        vector = show(page, name, image)
        check(shown(page), vector, known)
        spans.append(shown(page))
    assert list(spans[0]) != list(spans[1])
    # They are seen: the pictures have arrived, under names that can be read aloud.
    images = page.locator(".nearest img")
    expect(images).to_have_count(SHOWN)
    for index in range(SHOWN):
        images.nth(index).scroll_into_view_if_needed()
        assert images.nth(index).evaluate("each => each.decode().then(() => each.naturalWidth)") > 0
        assert images.nth(index).get_attribute("alt").startswith("test picture ")


def test_a_published_picture_is_not_compared_with_itself(page: Page, published: Path) -> None:
    known = vectors_of(published)
    name = sorted(known)[3]
    page.get_by_test_id(f"sample-{name}").click()
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", name)
    check(shown(page), known[name], {other: each for other, each in known.items() if other != name})
    page.get_by_test_id("keep-picture").click()
    expect(page.locator("#keep output")).to_have_text("This picture is one of those to compare with already.")


def test_pictures_that_are_kept_are_compared_with(page: Page, published: Path) -> None:
    page.get_by_test_id("keep-picture").click()
    expect(page.locator("#keep output")).to_have_text("There is no answer yet. Show the model a picture first.")
    first = show(page, "first.png", picture(90, 70))
    page.get_by_test_id("keep-picture").click()
    expect(page.locator("#keep output")).to_have_text("One picture is kept until this page is closed.")
    check(shown(page), first, vectors_of(published))
    # The same picture in another file is nearest to it.
    show(page, "again.png", picture(90, 70))
    assert next(iter(shown(page).items())) == ("kept-1", pytest.approx(1, abs=CLOSE))
    address = page.locator(".nearest img").first.get_attribute("src")
    assert address.startswith("blob:") and page.locator(".nearest img").first.evaluate("each => each.naturalWidth") > 0
    expect(page.locator(".nearest img").first).to_have_attribute("alt", "kept picture 1 (first.png)")
    check(shown(page), first, {**vectors_of(published), "kept-1": first})


def test_neighbours_are_for_everyone(page: Page) -> None:
    show(page, "first.png", picture(90, 70))
    page.get_by_test_id("keep-picture").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#keep output")).to_contain_text("One picture is kept")
    show(page, "again.png", picture(90, 70))
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert violations(page) == [], (width, scheme)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_an_embedding_alone_has_its_neighbour_as_the_headline(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    out = folder(tmp_path, ("near",), "samples")
    with serving(out) as url, opened(browser, url) as page:
        show(page, "one.png", picture(90, 70))
        (name, cosine), *_ = shown(page).items()
        place = sorted(vectors_of(out)).index(name) + 1
        expect(page.locator("#headline")).to_have_text(f"Most like test picture {place}, cosine {cosine:.3f}")


def test_without_published_pictures(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    with serving(folder(tmp_path, ("near",), "none")) as url, opened(browser, url) as page:
        show(page, "one.png", picture(90, 70))
        expect(page.get_by_test_id("answer")).to_contain_text("no test pictures are published, and none was kept")
        expect(page.locator("#headline")).to_have_text("near: 96 numbers")
        page.get_by_test_id("keep-picture").click()
        expect(page.locator("#keep output")).to_contain_text("One picture is kept")
        show(page, "other.png", 255 - picture(90, 70))
        assert list(shown(page)) == ["kept-1"]


def test_a_model_without_an_embedding_offers_no_keeping(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    with serving(folder(tmp_path, ("kind",), "samples")) as url, opened(browser, url) as page:
        choose(page, "one.png", encoded(picture(90, 70)))
        expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "one.png")
        expect(page.get_by_test_id("keep-picture")).to_be_hidden()
        assert shown(page) == {}
