"""The page's form for columns: what is filled in reaches the model, by hand, by a published test picture, and in no other way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.inputs import with_cells
from exporters.runners.keras import KerasRunner
from pipeline.server import write_site
from tests.columned_folder import CARD, GRADES, columned, result_folder
from tests.demo_page import browser, choose, encoded, opened, serving  # noqa: F401  browser is a fixture
from tests.pictures import picture


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result_folder(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def url(out: Path) -> Iterator[str]:
    with serving(out) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    with opened(browser, url) as page:
        yield page


def keras_says(data: bytes, cells: dict[str, str]) -> tuple[str, float]:
    image = pixels.resize(pixels.decode(data), CARD.resize)
    with KerasRunner(columned().model) as runner:
        (shares,) = runner.predict(with_cells(image[np.newaxis], CARD.columns, [cells]))["grade"]
    return GRADES[int(shares.argmax())], float(shares.max())


def page_says(page: Page, cells: dict[str, str]) -> tuple[str, float]:
    """Return the likeliest grade and its share, once the page has answered with these cells, all columns of them."""
    page.wait_for_function(
        "(cells) => { const said = JSON.parse(document.querySelector('#answer').dataset.columns ?? '{}');"
        " return Object.entries(cells).every(([name, cell]) => said[name] === cell); }",
        arg=cells,
    )
    best = page.locator("#answer ol").nth(1).locator("li").first
    share = float(best.locator(".share").inner_text().removesuffix(" %")) / 100
    return best.locator(".label").inner_text(), share


def fill(page: Page, cells: dict[str, str]) -> None:
    for name, cell in cells.items():
        field = page.get_by_test_id(f"column-{name}")
        field.select_option(cell) if name == "skin" else field.fill(cell)


def test_every_column_has_a_field_with_its_name(page: Page) -> None:
    assert page.get_by_label("age").get_attribute("type") == "number"
    assert page.get_by_label("weight").get_attribute("placeholder") == "usual: 72"
    offered = page.get_by_role("combobox", name="skin").locator("option").all_inner_texts()
    assert offered == ["unknown", "__proto__", "dark", "hell", "müde"]
    assert page.get_by_role("form", name="Beside the picture").is_visible()


def test_what_is_filled_in_is_answered_as_keras_answers(page: Page) -> None:
    data = encoded(picture())
    choose(page, "one.png", data)
    given = [
        {"age": "", "skin": "", "weight": ""},
        {"age": "40", "skin": "dark", "weight": ""},
        {"age": "40", "skin": "müde", "weight": "70.5"},
        {"age": "7.5e1", "skin": "__proto__", "weight": "-3"},
        {"age": "12", "skin": "", "weight": "101.25"},
    ]
    answers = set()
    for cells in given:
        fill(page, cells)
        label, share = page_says(page, cells)
        expected = keras_says(data, cells)
        assert (label, share) == (expected[0], pytest.approx(expected[1], abs=6e-4)), cells
        answers.add((label, share))
    assert len(answers) >= 4, "the columns would not be seen"


def test_what_is_no_number_is_said_and_the_next_one_answered(page: Page) -> None:
    choose(page, "one.png", encoded(picture()))
    page_says(page, {"age": ""})
    page.get_by_test_id("column-age").press_sequentially("e")
    expect(page.get_by_test_id("error")).to_have_text("age is not a number. Write one such as 3.5, or nothing.")
    expect(page.get_by_test_id("column-age")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_test_id("answer")).not_to_have_attribute("data-columns", "")
    page.get_by_test_id("column-age").fill("33")
    page_says(page, {"age": "33"})
    expect(page.get_by_test_id("error")).to_be_hidden()


def test_a_published_picture_brings_its_columns(page: Page, out: Path) -> None:
    rows = columned().cells
    assert rows[0].get("skin") != rows[1].get("skin")
    for index in (0, 1, 0):
        page.get_by_test_id(f"sample-{index:04d}.png").click()
        expect(page.get_by_test_id("answer")).to_have_attribute("data-source", f"{index:04d}.png")
        shown = {name: page.get_by_test_id(f"column-{name}").input_value() for name in ("age", "skin", "weight")}
        label, share = page_says(page, shown)
        expected = keras_says((out / "golden" / "files" / f"{index:04d}.png").read_bytes(), rows[index])
        assert (label, share) == (expected[0], pytest.approx(expected[1], abs=6e-4))


@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    fill(page, {"age": "40", "skin": "müde"})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_predict_js_can_be_used_by_itself(page: Page) -> None:
    found = page.evaluate(
        "import('./predict.js').then((it) => [Object.keys(it), "
        "Array.from(it.encodeCells([{name: 'skin', kind: 'category', categories: ['a', 'b']}], [{skin: 'b'}, {}]))])"
    )
    assert {"openPredictor", "encodeCells", "predict", "loadArtifact", "fetchBeside"} <= set(found[0])
    assert found[1] == [2, 0]


def test_a_static_site_says_where_the_test_pictures_are(out: Path, tmp_path: Path) -> None:
    written = write_site(out, tmp_path / "site")
    listing = json.loads((tmp_path / "site" / "models.json").read_text(encoding="utf-8"))
    assert listing["samples"] in written
    files = json.loads((tmp_path / "site" / listing["samples"]).read_text(encoding="utf-8"))["files"]
    assert files[0]["columns"] == {name: cell.strip() for name, cell in columned().cells[0].items()}
