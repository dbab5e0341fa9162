"""Three formats side by side in a real Chromium: what the table says is what Python's own runtimes answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.runners.onnx import OnnxRunner
from exporters.runners.tflite import TfliteRunner
from pipeline import server
from pipeline.web_formats import other_models
from tests import small_models, three_formats
from tests.demo_page import browser, choose, encoded, listen_for_complaints, serving  # noqa: F401  browser is a fixture

HEAD = "apple"
# LiteRT.js looks for a GPU when it starts, and Chromium and it both say that there is none.
NO_GPU = ("warning: No available adapters.", "warning: Failed to create default WebGPU device")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_formats.result_folder(tmp_path_factory.getbasetemp())


@pytest.fixture
def page(browser: Browser, out: Path) -> Iterator[Page]:  # noqa: F811
    with serving(out) as url:
        yield from loaded(browser, url)


def loaded(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    page = browser.new_page(service_workers="block")
    complaints = listen_for_complaints(page, url)
    page.goto(url)
    expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
    yield page
    page.close()
    assert [each for each in complaints if not each.startswith(NO_GPU)] == []


def shown() -> bytes:
    return encoded(small_models.pictures(1, 11)[0][0])


def compare(page: Page, tflite: str = "tflite-float32") -> dict[str, dict[str, str]]:
    """Press the button; gives what each row of the table carries, by its artifact."""
    page.get_by_test_id("compare-tflite").select_option(tflite)
    page.get_by_test_id("compare-start").click()
    rows = page.get_by_test_id("compare-table").locator("tbody tr")
    expect(rows).to_have_count(3, timeout=60_000)
    expect(page.get_by_test_id("compare-start")).to_be_enabled()
    carried = [row.evaluate("row => ({ ...row.dataset, text: row.innerText })") for row in rows.all()]
    return {each["artifact"]: each for each in carried}


def python_says(runner: type, folder: Path, image: np.ndarray) -> np.ndarray:
    with runner(folder) as running:
        return running.predict(image[np.newaxis])[HEAD][0]


def test_three_runtimes_answer_one_picture_as_python_does(page: Page, out: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    choose(page, "shown.png", shown())
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "shown.png")
    assert not [url for url in requests if "parity/" in url or url.endswith((".onnx", ".tflite"))]

    rows = compare(page)
    assert list(rows) == ["tfjs-float32", "tflite-float32", "onnx-float32"]
    image = pixels.resize(pixels.decode(shown()), small_models.CARD.resize)
    for name, runner in (("tflite-float32", TfliteRunner), ("onnx-float32", OnnxRunner)):
        expected = python_says(runner, out / "artifacts" / name, image)
        assert rows[name]["label"] == small_models.LABELS[HEAD][int(expected.argmax())]
        assert float(rows[name]["probability"]) == pytest.approx(float(expected.max()), abs=1e-5)
        assert 0 <= float(rows[name]["difference"]) < 1e-4
    for name, library in zip(rows, ("TF.js 4.22.0, wasm", "LiteRT.js 2.5.3", "onnxruntime-web 1.30.0"), strict=True):
        assert library in rows[name]["text"] and float(rows[name]["median"]) > 0

    # Whole numbers inside: bytes in, bytes out, and a difference that can be seen.
    row = compare(page, "tflite-int8")["tflite-int8"]
    expected = python_says(TfliteRunner, out / "artifacts" / "tflite-int8", image)
    assert float(row["probability"]) == pytest.approx(float(expected.max()), abs=1 / 255)
    assert 1e-4 < float(row["difference"]) < 0.2


def test_a_model_that_answers_otherwise_is_seen(browser: Browser, out: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = Path(shutil.copytree(out, tmp_path / "tampered"))
    path = copy / "artifacts" / "onnx-float32" / "model.onnx"
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * np.float32(1.5)).tobytes()
    onnx.save(model, path)
    with serving(copy) as url:
        for page in loaded(browser, url):
            choose(page, "shown.png", shown())
            rows = compare(page)
    assert float(rows["onnx-float32"]["difference"]) > 0.01 > float(rows["tflite-float32"]["difference"])


def test_what_cannot_be_compared_is_said(browser: Browser, out: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = Path(shutil.copytree(out, tmp_path / "broken"))
    with serving(copy) as url:
        page = browser.new_page(service_workers="block")
        page.goto(url)
        error = page.get_by_test_id("compare-error")
        page.get_by_test_id("compare-start").click()
        expect(error).to_contain_text("There is no picture to compare by.")
        (copy / "artifacts" / "onnx-float32" / "model.onnx").write_bytes(b"not a model")
        choose(page, "shown.png", shown())
        page.get_by_test_id("compare-start").click()
        expect(error).to_contain_text("onnx-float32 could not be loaded into onnxruntime-web:", timeout=60_000)
        expect(error).to_contain_text("Reload the page, or choose another one.")
        expect(page.get_by_test_id("compare-table")).to_be_hidden()
        page.close()


def test_files_that_are_no_models_are_not_offered(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    listed = {each["name"]: each for each in other_models(copy)}
    assert list(listed) == ["tflite-float32", "tflite-int8", "onnx-float32"]
    facts = listed["tflite-int8"]
    assert facts["inputs"]["image"] == {"dtype": "uint8", "scale": 1.0, "zero_point": 0} and facts["batch_at"]
    assert facts["outputs"][HEAD]["dtype"] == "uint8"
    (copy / "artifacts" / "tflite-int8" / "model.tflite").write_bytes(b"not a model")
    (copy / "artifacts" / "onnx-float32" / "card.json").unlink()
    assert [each["name"] for each in other_models(copy)] == ["tflite-float32"]


def test_a_slim_site_has_tfjs_alone(out: Path, tmp_path: Path) -> None:
    whole = server.write_site(out, tmp_path / "whole")
    slim = server.write_site(out, tmp_path / "slim", slim=True)
    gone = set(whole) - set(slim)
    assert {"parity/ort-wasm-simd-threaded.wasm", "parity/litert_wasm_internal.wasm"} < gone
    assert all(name.startswith(("parity/", "artifacts/onnx-", "artifacts/tflite-")) for name in gone)
    assert not any(name.startswith("parity/parity") for name in whole)
    size = {name: sum(path.stat().st_size for path in (tmp_path / name).rglob("*.*")) for name in ("whole", "slim")}
    assert size["whole"] - size["slim"] > 20e6 > size["slim"]
