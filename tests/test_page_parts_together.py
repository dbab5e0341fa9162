"""Parts of the page that meet: columns or several cuts, and teaching, the comparison and the self-test."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.contract import CEILINGS, ArtifactName, Card
from exporters.export import export_artifact
from exporters.golden import FEATURES_IMAGES, GoldenSet, write_golden, write_manifest
from exporters.golden_files import images_of_files, prepare_files
from exporters.inference import InferenceModels
from exporters.inputs import with_cells
from exporters.measures import spread
from exporters.runners.keras import KerasRunner
from exporters.runners.onnx import OnnxRunner
from exporters.runners.tflite import TfliteRunner
from pipeline.importing import build, check_patterns
from pipeline.taught_file import read_taught
from tests import columned_folder, small_models
from tests.columned_folder import GRADES
from tests.demo_page import browser, choose, encoded, listen_for_complaints, serving  # noqa: F401  browser is a fixture
from tests.pictures import picture
from tests.small_models import COLORS, CUT, LABELS
from tests.teaching_page import download, taught_answer, teach

HEAD, PLAIN = "grade", "apple"
EARLIER = "point_relu"
CELLS = {"age": "40", "skin": "dark", "weight": "70.5"}
OTHER_CELLS = {"age": "75", "skin": "müde", "weight": "101.25"}
# LiteRT.js looks for a GPU when it starts, and Chromium and it both say that there is none.
NO_GPU = ("warning: No available adapters.", "warning: Failed to create default WebGPU device")


@pytest.fixture(scope="module")
def with_columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return columned_folder.result_folder(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def with_cuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder of the small model that was cut at two layers, whose TF.js model gives the features of both."""
    out, one = tmp_path_factory.mktemp("two cuts") / "out", small_models.small()
    card = dataclasses.replace(one.card, cut=(EARLIER, CUT), created_from="sha256:two cuts")
    (out / "work").mkdir(parents=True)
    cuts = (EARLIER, CUT)
    models = InferenceModels(one.model, cuts, one.calibration_images, out / "work", features_everywhere=False)
    for name in ("tfjs-float32", "tflite-float32", "onnx-float32"):
        artifact, saved = ArtifactName(*name.split("-")), models.saved_model("float32")
        export_artifact(artifact, saved, card, out / "artifacts", one.calibration_images)
    _write_golden(out, card)
    one.model.save(out / "model.keras")
    return out


def _write_golden(out: Path, card: Card) -> None:
    one = small_models.small()
    chosen = one.images[spread(len(one.images), FEATURES_IMAGES)].astype(np.float32)
    layers = {f"features_{EARLIER}": EARLIER, "features": CUT}
    outputs = {name: one.model.get_layer(layer).output for name, layer in layers.items()}
    features = {name: np.asarray(each) for name, each in keras.Model(one.model.inputs, outputs)(chosen).items()}
    files = prepare_files(small_models.write_pictures(out / "pictures"), out)
    with KerasRunner(one.model) as runner:
        of_files = runner.predict(images_of_files(files, card))
    golden = GoldenSet(one.images, one.truth, one.reference, card, CEILINGS, features=features)
    write_golden(golden, out, files, of_files)
    write_manifest(out, card, CEILINGS)
    card.write(out / "card.json")


def loaded(browser: Browser, out: Path) -> Iterator[Page]:  # noqa: F811
    with serving(out) as url:
        page = browser.new_page(service_workers="block", viewport={"width": 1200, "height": 1100})
        complaints = listen_for_complaints(page, url)
        page.goto(url)
        expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
        yield page
        found = [each for each in complaints if not each.startswith(NO_GPU)]
        page.close()
        assert found == []


@pytest.fixture
def columns_page(browser: Browser, with_columns: Path) -> Iterator[Page]:  # noqa: F811
    yield from loaded(browser, with_columns)


@pytest.fixture
def cuts_page(browser: Browser, with_cuts: Path) -> Iterator[Page]:  # noqa: F811
    yield from loaded(browser, with_cuts)


def coloured(seed: int, count: int = 8) -> dict[str, list[bytes]]:
    """Pictures of the small model in two colours, by the colour's name."""
    images, shown = small_models.pictures(20 * count, seed)
    names = list(COLORS)[:2]
    return {name: [encoded(each) for each in images[shown["apple"] == i][:count]] for i, name in enumerate(names)}


def fill(page: Page, cells: dict[str, str]) -> None:
    for name, cell in cells.items():
        field = page.get_by_test_id(f"column-{name}")
        field.select_option(cell) if name == "skin" else field.fill(cell)
    page.wait_for_function(
        "(cells) => { const said = JSON.parse(document.querySelector('#answer').dataset.columns ?? '{}');"
        " return Object.entries(cells).every(([name, cell]) => said[name] === cell); }",
        arg=cells,
    )


def compared(page: Page) -> dict[str, dict[str, str]]:
    """Press the comparison's button; gives what each row carries, by its artifact."""
    page.get_by_test_id("compare-start").click()
    rows = page.get_by_test_id("compare-table").locator("tbody tr")
    expect(rows).to_have_count(3, timeout=60_000)
    carried = [row.evaluate("row => ({ ...row.dataset })") for row in rows.all()]
    return {each["artifact"]: each for each in carried}


def import_says(page: Page, out: Path, tmp_path: Path) -> str:
    """Download what was taught and put it on the folder's Keras model, as `cutpoint import` does."""
    path = tmp_path / "taught.cutpoint.json"
    download(page, path)
    taught = read_taught(path)
    return check_patterns(build(taught, out), taught)


def test_teaching_beside_columns_goes_by_pictures_alone(columns_page: Page, with_columns: Path, tmp_path: Path) -> None:
    page = columns_page
    accuracy, held_out = teach(page, coloured(61))
    assert (accuracy, held_out) == (1.0, 4)
    shown, grades = coloured(62, 1), set()
    for name, (data,) in shown.items():
        choose(page, f"{name}.png", data)
        expect(page.get_by_test_id("answer")).to_have_attribute("data-source", f"{name}.png")
        answers = []
        for cells in (CELLS, OTHER_CELLS):
            fill(page, cells)
            answers.append(taught_answer(page))
            grades.add(page.locator("#answer ol").nth(1).locator("li").first.inner_text())
        assert answers[0] == answers[1] and answers[0][0] == name
    assert len(grades) > 1, "the columns would not be seen"
    assert "at most" in import_says(page, with_columns, tmp_path)


def test_runtimes_are_compared_with_the_columns_that_are_filled_in(columns_page: Page, with_columns: Path) -> None:
    page, data = columns_page, encoded(picture())
    choose(page, "one.png", data)
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "one.png")
    image = pixels.resize(pixels.decode(data), columned_folder.CARD.resize)
    found = []
    for cells in (CELLS, OTHER_CELLS):
        fill(page, cells)
        rows = compared(page)
        given = with_cells(image[np.newaxis], columned_folder.CARD.columns, [cells])
        for name, runner in (("tflite-float32", TfliteRunner), ("onnx-float32", OnnxRunner)):
            with runner(with_columns / "artifacts" / name) as running:
                answers = running.predict(given)
            # Every head is compared, of which the table shows the page's headline's.
            assert 0 <= float(rows[name]["difference"]) < 1e-4
            (expected,) = answers[PLAIN]
            assert rows[name]["label"] == LABELS[PLAIN][int(expected.argmax())]
            assert float(rows[name]["probability"]) == pytest.approx(float(expected.max()), abs=1e-5)
        found.append(answers[HEAD][0])
        page_says = page.locator("#answer ol").nth(1).locator("li").first.locator(".label").inner_text()
        assert page_says == GRADES[int(found[-1].argmax())]
    assert np.abs(found[0] - found[1]).max() > 0.1, "the columns would not be seen"


def test_of_several_cuts_the_deepest_one_is_taught_on(cuts_page: Page, with_cuts: Path, tmp_path: Path) -> None:
    page = cuts_page
    accuracy, held_out = teach(page, coloured(63))
    assert (accuracy, held_out) == (1.0, 4)
    for name, (data,) in coloured(64, 1).items():
        choose(page, f"{name}.png", data)
        expect(page.get_by_test_id("answer")).to_have_attribute("data-source", f"{name}.png")
        assert taught_answer(page)[0] == name
    assert "at most" in import_says(page, with_cuts, tmp_path)
    kept = json.loads((tmp_path / "taught.cutpoint.json").read_text(encoding="utf-8"))
    assert (kept["cut"], kept["head"]["width"]) == (CUT, 96)


def test_several_cuts_are_compared_and_tested_by_their_heads(cuts_page: Page, with_cuts: Path) -> None:
    page, (image,) = cuts_page, small_models.pictures(1, 65)[0]
    choose(page, "one.png", encoded(image))
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "one.png")
    with TfliteRunner(with_cuts / "artifacts" / "tflite-float32") as runner:
        (expected,) = runner.predict(image[np.newaxis])[PLAIN]
    row = compared(page)["tflite-float32"]
    assert 0 <= float(row["difference"]) < 1e-4
    assert float(row["probability"]) == pytest.approx(float(expected.max()), abs=1e-5)
    verified(page)


def verified(page: Page) -> None:
    page.get_by_test_id("self-test").click()
    verdict = page.get_by_test_id("self-test-verdict")
    expect(verdict).to_have_attribute("data-verdict", "verified", timeout=120_000)
