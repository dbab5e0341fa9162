"""The page's self-test in a real Chromium: it passes where Python passes, and fails on every tampered model and golden set."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from exporters import parity
from exporters.contract import CEILINGS, ArtifactName, Card
from exporters.export import export_artifact
from exporters.golden import GoldenSet, read_golden, read_manifest, write_golden, write_manifest
from exporters.golden_files import digest_of, images_of_files, prepare_files, read_files
from exporters.inputs import with_cells
from exporters.papers import parse_artifact_name
from exporters.pixels import read_picture, resize
from exporters.runners.keras import KerasRunner
from exporters.runners.tfjs import TfjsRunner
from exporters.saved_model import write_saved_model
from exporters.verification import judge_answers
from pipeline.server import site_files, write_site
from tests import columned_folder, small_models
from tests.demo_page import opened, serving, started_browser
from tests.mixed_heads import CUT, TASKS, mixed

NAMES = (ArtifactName("tfjs", "float32"), ArtifactName("tfjs", "uint8"))
SLOW = pytest.mark.slow
# Beside this machine's own address, one of which the browser does not know that it is this machine.
ELSEWHERE = "elsewhere.test"
EXPECTED = "golden/files/expected.json"
# Figures of report.json that the page measures too.
ALIKE = (
    "max_abs", "mean_abs", "cosine", "agreement", "near_ties", "iou", "neighbours", "least_cosine", "relative_error",
    "log_max_abs", "confidence_shift", "accuracy", "accuracy_drop",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    rules = f"MAP {ELSEWHERE} 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with started_browser(f"--host-resolver-rules={rules}") as browser:
        yield browser


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts of a model with columns and two heads of one shape; six golden files are published."""
    return columned_folder.result_folder(tmp_path_factory.getbasetemp(), NAMES)


@pytest.fixture(scope="module")
def every_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artifact with a head of every task; the whole golden set is published."""
    out, one = tmp_path_factory.mktemp("every-task"), mixed()
    saved = write_saved_model(one.model, CUT, out / "saved")
    export_artifact(NAMES[0], saved, one.card, out / "artifacts", one.calibration_images)
    files = prepare_files(small_models.write_pictures(out / "pictures", 12), out)
    with KerasRunner(one.model) as runner:
        of_files = runner.predict(images_of_files(files, one.card))
    write_golden(GoldenSet(one.images, {}, one.reference, one.card, CEILINGS), out, files, of_files)
    write_manifest(out, one.card, CEILINGS, publish="all")
    return out


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(base, tmp_path / "out", ignore=shutil.ignore_patterns("pictures", "*.keras")))


def publish(out: Path, which: str = "samples", card: Card = columned_folder.CARD) -> None:
    """Mend all checksums, and say what may be published."""
    write_manifest(out, card, CEILINGS, publish=which)


def run(page: Page, backend: str = "wasm") -> tuple[str, dict[str, Any]]:
    """Press the button; return the verdict and the JSON that can be downloaded."""
    page.get_by_test_id("backend-select").select_option(backend)
    page.get_by_test_id("self-test").click()
    verdict = page.get_by_test_id("self-test-verdict")
    expect(verdict).to_have_attribute("data-verdict", re.compile("."), timeout=60_000)
    expect(page.get_by_test_id("self-test-cancel")).to_be_hidden()
    expect(page.get_by_test_id("self-test-error")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_test_id("self-test-download").click()
    assert download.value.suggested_filename.endswith(f"-{backend}.json")
    return verdict.get_attribute("data-verdict"), json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


@contextlib.contextmanager
def after_self_test(browser: Browser, out: Path, backend: str = "wasm") -> Iterator[tuple[Page, str, dict[str, Any]]]:
    """The page of a folder after a self-test, with the verdict and the JSON; it must complain of nothing."""
    with serving(out) as url, opened(browser, url) as page:
        yield page, *run(page, backend)


def runtimes(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each["runtimes"][0] for each in result["artifacts"]}


def answers_of_files(out: Path, artifact: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What Keras and Node answer to the published golden files, in the order of the list."""
    files = [each for each in read_files(out) if each.lossless]
    card = Card.read(out / "artifacts" / artifact / "card.json")
    cells = [each.cells for each in files] if card.columns else None
    inputs = with_cells(images_of_files([each.path for each in files], card), card.columns, cells)
    with TfjsRunner(out / "artifacts" / artifact) as runner:
        answers = runner.predict(inputs)
    names = files[0].outputs
    return {name: np.stack([each.outputs[name] for each in files]).astype(np.float32) for name in names}, answers


def assert_alike(found: dict[str, Any], mine: parity.Comparison) -> None:
    """Chromium and Node compute with the same kernels: the figures are the same but for threads and rounding."""
    assert (found["status"], found["reason"]) == (mine.status, mine.reason)
    for key in ALIKE:
        assert (key in found) == (key in mine.figures), key
        if key in found:
            assert found[key] == pytest.approx(mine.figures[key], abs=2e-5, rel=1e-3), key
    assert found["limits"] == mine.figures["limits"] and found["task"] == mine.figures["task"]
    assert set(found["smallest_passing_limits"]) == set(mine.figures["smallest_passing_limits"])


def test_it_passes_and_its_figures_are_those_of_python(browser: Browser, base: Path) -> None:
    with after_self_test(browser, base) as (page, verdict, result):
        assert verdict == "verified" and result["verdict"] == "verified" and result["exit_code"] == 0, result
        expect(page.get_by_test_id("self-test-verdict")).to_have_text(
            "Verified: on this device, with WebAssembly, 2 models answer as the Keras model does, on 6 test pictures."
        )
        rows = page.get_by_test_id("self-test-results").locator("tbody tr")
        assert rows.count() == 4 and rows.locator(".status").all_inner_texts() == ["verified"] * 4
    card = columned_folder.CARD
    manifest = read_manifest(base)
    for name, entry in zip(NAMES, result["artifacts"], strict=True):
        assert (entry["name"], entry["precision"]) == (str(name), name.precision)
        assert all(manifest["files"][f"artifacts/{name}/{path}"] == each for path, each in entry["sha256"].items())
        (runtime,) = entry["runtimes"]
        assert (runtime["runner"], runtime["backend"], runtime["images"]) == ("tfjs-chromium", "wasm", 6)
        assert 0 < runtime["latency_ms"]["median"] <= runtime["latency_ms"]["p95"] < 10_000
        reference, answers = answers_of_files(base, str(name))
        compared = parity.compare(reference, answers, card.outputs, CEILINGS[name.precision], {}, sampled=True)
        assert set(runtime["outputs"]) == set(compared) == {"apple", "grade"}
        for output, mine in compared.items():
            assert_alike(runtime["outputs"][output], mine)
    assert runtimes(result)["tfjs-uint8"]["outputs"]["grade"]["max_abs"] > 1e-4
    assert result["integrity"]["status"] == "verified" and result["integrity"]["checked"] >= 6 + 1 + 2 * 4
    assert [each["status"] for each in result["image_files"]] == ["verified"]
    assert result["device"]["cross_origin_isolated"] is True and result["device"]["cores"] >= 1


@pytest.mark.parametrize("backend", ["webgl", "cpu"])
def test_it_passes_on_the_other_backends(browser: Browser, base: Path, backend: str) -> None:
    with after_self_test(browser, base, backend) as (page, verdict, result):
        assert verdict == "verified", result["reasons"]
        assert {each["backend"] for each in runtimes(result).values()} == {backend}
        assert all(each["outputs"]["grade"]["max_abs"] > 0 for each in runtimes(result).values())
        # The page answers as before.
        expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.")
        page.locator(".sample").first.click()
        expect(page.get_by_test_id("answer")).to_have_attribute("data-backend", backend)


def assert_judged_as_here(out: Path, result: dict[str, Any], heads: tuple[str, ...]) -> None:
    """All golden images are judged, and each output of each artifact is as Python judges it."""
    golden = read_golden(out, read_manifest(out))
    for name, runtime in runtimes(result).items():
        with TfjsRunner(out / "artifacts" / name) as runner:
            answers = runner.predict(golden.inputs, outputs=list(heads))
        judged = judge_answers(golden, answers, CEILINGS[parse_artifact_name(name).precision])
        assert runtime["images"] == len(golden.images) and not runtime["sampled"]
        assert (runtime["status"], set(runtime["outputs"])) == (judged["status"], set(heads))
        for head, found in runtime["outputs"].items():
            mine = judged["outputs"][head]
            assert_alike(found, parity.Comparison(mine["status"], mine["reason"], mine))


@pytest.mark.slow
def test_the_whole_golden_set_is_judged_where_it_is_published(browser: Browser, every_task: Path) -> None:
    with after_self_test(browser, every_task) as (_, verdict, result):
        assert verdict == "verified", result["reasons"]
    assert runtimes(result)["tfjs-float32"]["files"]["images"] == 12
    assert_judged_as_here(every_task, result, tuple(TASKS))


def test_accuracy_is_judged_by_the_labels_where_they_are_published(browser: Browser, folder: Path) -> None:
    publish(folder, "all")
    with after_self_test(browser, folder) as (_, verdict, result):
        assert verdict == result["verdict"].replace("_", "-")
    assert_judged_as_here(folder, result, ("apple", "grade"))
    figures = runtimes(result)["tfjs-uint8"]["outputs"]["grade"]
    assert 0.5 < figures["accuracy"] <= 1 and figures["limits"]["accuracy_drop"] == 0.01


# What is done to a copy of the folder, whether its checksums are mended, and what is said.
Tamper = Callable[[Path], None]


def weights(out: Path, change: Callable[[np.ndarray], None], name: str = "tfjs-float32") -> None:
    """Change the numbers of an artifact's weights."""
    (path,) = (out / "artifacts" / name).glob("*.bin")
    values = np.frombuffer(path.read_bytes(), "<f4").copy()
    change(values)
    path.write_bytes(values.tobytes())


def one_weight(values: np.ndarray) -> None:
    # Among the weights are whole numbers, -1 for one, which read as NaN.
    values[int(np.nan_to_num(np.abs(values), nan=0).argmax())] *= -1


def all_nan(values: np.ndarray) -> None:
    values[-40:] = np.nan


def in_expected(out: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    listed = json.loads((out / EXPECTED).read_text(encoding="utf-8"))
    change(listed["files"])
    (out / EXPECTED).write_text(json.dumps(listed), encoding="utf-8")


def another_answer(files: list[dict[str, Any]]) -> None:
    answer = files[2]["outputs"]["grade"]
    answer[0], answer[1] = answer[1], answer[0]


def answers_of_another_picture(files: list[dict[str, Any]]) -> None:
    files[0]["outputs"], files[1]["outputs"] = files[1]["outputs"], files[0]["outputs"]


def other_cells(files: list[dict[str, Any]]) -> None:
    for each in files:
        each["columns"] = {"weight": "99"}


def another_picture(out: Path) -> None:
    path = out / "golden" / "files" / "0001.png"
    Image.fromarray(255 - read_picture(path)).save(path)


def another_picture_and_its_pixels(out: Path) -> None:
    another_picture(out)
    shaped = resize(read_picture(out / "golden" / "files" / "0001.png"), columned_folder.CARD.resize)
    in_expected(out, lambda files: files[1].update(pixels_sha256=digest_of(shaped)))


def other_labels(out: Path) -> None:
    path = out / "artifacts" / "tfjs-float32" / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    labels = card["outputs"][1]["labels"]
    labels[0], labels[1] = labels[1], labels[0]
    path.write_text(json.dumps(card), encoding="utf-8")


def other_outputs(out: Path) -> None:
    """Both heads under each other's name."""
    path = out / "artifacts" / "tfjs-float32" / "model.json"
    text = path.read_text(encoding="utf-8")
    model = json.loads(text)
    named = model["signature"]["outputs"]
    named["apple"], named["grade"] = named["grade"], named["apple"]
    path.write_text(json.dumps(model), encoding="utf-8")


TAMPERS: dict[str, tuple[Tamper, bool, str]] = {
    "a weight": (lambda out: weights(out, one_weight), True, "the largest difference"),
    "a weight, by its checksum": (lambda out: weights(out, one_weight), False, "changed since the export"),
    "NaN among the weights": (lambda out: weights(out, all_nan), True, "NaN"),
    "the labels": (other_labels, True, "lists the labels of 'grade' otherwise"),
    "the names of the outputs": (other_outputs, True, "the largest difference"),
    "a picture, by its checksum": (another_picture, False, "golden/files/0001.png was changed"),
    "a picture": (another_picture, True, "1 of 6 golden files give other pixels: 0001.png"),
    "a picture and its pixels": (another_picture_and_its_pixels, True, "the largest difference"),
    "an answer, by its checksum": (lambda out: in_expected(out, another_answer), False, f"{EXPECTED} was changed"),
    "an answer": (lambda out: in_expected(out, another_answer), True, "grade: the largest difference"),
    "answers of another picture": (
        lambda out: in_expected(out, answers_of_another_picture),
        True,
        "the largest difference",
    ),
    "the cells": (lambda out: in_expected(out, other_cells), True, "grade: the largest difference"),
    "a picture that is gone": (
        lambda out: (out / "golden" / "files" / "0003.png").unlink(),
        False,
        "golden/files/0003.png is missing",
    ),
    "a picture too many": (
        lambda out: in_expected(out, lambda files: files.append({**files[0], "file": "0009.png"}))
        or shutil.copy(out / "golden/files/0000.png", out / "golden/files/0009.png"),
        False,
        "changed since the export",
    ),
}  # fmt: skip


# Of each kind one; the others are for `make test-all`.
QUICK = ("a weight", "a weight, by its checksum", "the labels", "a picture", "an answer")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=SLOW) for name in TAMPERS])
def test_it_fails_on_what_was_tampered_with(browser: Browser, folder: Path, name: str) -> None:
    tamper, mended, said = TAMPERS[name]
    tamper(folder)
    if mended:
        publish(folder)
    with after_self_test(browser, folder) as (page, verdict, result):
        assert verdict == "failed" and result["exit_code"] == 1
        assert any(said in each for each in result["reasons"]), result["reasons"]
        shown = (
            page.get_by_test_id("self-test-verdict").inner_text()
            + page.get_by_test_id("self-test-reasons").inner_text()
        )
        assert said in shown


def constant(files: list[dict[str, Any]]) -> None:
    for each in files:
        each["outputs"] = files[0]["outputs"]


@pytest.mark.parametrize("which", ["none", pytest.param("no pictures", marks=SLOW), "constant"])
def test_what_compares_nothing_is_no_pass(browser: Browser, folder: Path, which: str) -> None:
    if which != "none":
        in_expected(folder, constant if which == "constant" else list.clear)
    if which == "no pictures":
        for path in (folder / "golden" / "files").glob("*.png"):
            path.unlink()
    publish(folder, "none" if which == "none" else "samples")
    with after_self_test(browser, folder) as (page, verdict, result):
        assert verdict == "not-verified" and result["exit_code"] == 3
        said = {
            "none": "No test pictures were published with this model, so nothing was compared.",
            "no pictures": "nothing was compared",
            "constant": "a constant would agree",
        }
        assert said[which] in page.get_by_test_id("self-test-verdict").inner_text()


def test_what_is_copied_names_browser_and_device(browser: Browser, base: Path) -> None:
    with serving(base) as url, opened(browser, url) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        _, result = run(page)
        page.get_by_test_id("self-test-copy").click()
        expect(page.locator("#self-test-note")).to_have_text("Copied as Markdown.")
        text = page.evaluate("navigator.clipboard.readText()")
        stale = "document.getElementById('self-test').click(), document.querySelector('[data-verdict]')"
        assert page.evaluate(stale) is None, "the verdict of the run before is still there"
        expect(page.get_by_test_id("self-test-verdict")).to_have_attribute("data-verdict", "verified", timeout=60_000)
    lines = text.split("\n")
    assert lines[0] == "## Self-test of columned: verified"
    assert f"- Browser: {result['device']['browser']} ({result['device']['user_agent']})" in lines
    assert f"{result['device']['cores']} logical cores" in text and "cross-origin isolated" in text
    assert "- Backend: wasm, tfjs-chromium 4." in text and "Chrom" in result["device"]["browser"]
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [row[:3] for row in table[2:]] == [
        [name, head, "verified"] for name in ("tfjs-float32", "tfjs-uint8") for head in ("apple", "grade")
    ]
    figures = runtimes(result)["tfjs-uint8"]["outputs"]["grade"]
    assert float(table[-1][3]) == pytest.approx(figures["max_abs"], rel=0.06)
    assert table[-1][4:8] == ["0.05", "100 %", "98 %", "6"]
    assert len({len(row) for row in table}) == 1


# Presses Cancel at the first picture: from outside, a small model is through before one can.
CANCELS = """() => {
  const [text, cancel] = ["self-test-progress-text", "self-test-cancel"].map((id) => document.getElementById(id));
  new MutationObserver((_, observer) => {
    if (!/picture \\d/.test(text.textContent)) return;
    observer.disconnect();
    cancel.focus();
    cancel.click();
  }).observe(text, { childList: true, characterData: true, subtree: true });
}"""


def test_it_can_be_cancelled_and_run_again(browser: Browser, folder: Path) -> None:
    publish(folder, "all")
    with serving(folder) as url, opened(browser, url) as page:
        page.get_by_test_id("backend-select").select_option("cpu")
        page.evaluate(CANCELS)
        page.get_by_test_id("self-test").click()
        verdict = page.get_by_test_id("self-test-verdict")
        expect(verdict).to_have_attribute("data-verdict", "not-verified")
        expect(verdict).to_have_text("Not verified: the self-test was cancelled.")
        expect(page.get_by_test_id("self-test-progress")).to_be_hidden()
        expect(page.get_by_test_id("self-test")).to_be_focused()
        expect(page.get_by_test_id("self-test-download")).to_be_hidden()
        page.locator(".sample").first.click()
        expect(page.get_by_test_id("answer")).to_have_attribute("data-backend", "cpu")
        _, result = run(page)
        assert {each["status"] for each in runtimes(result).values()} <= {"verified", "not_enough_images"}


# Asks for another backend at the first picture of the self-test; tells what came first, the answer or the verdict.
MEANWHILE = """() => new Promise((resolve) => {
  const seen = [];
  const watch = (id, happened, told) => new MutationObserver((_, observer) => {
    const element = document.getElementById(id);
    if (!happened(element)) return;
    observer.disconnect();
    told(element);
  }).observe(document.getElementById(id), { attributes: true, childList: true, characterData: true, subtree: true });
  watch("self-test-progress-text", (text) => /picture \\d/.test(text.textContent), () => {
    const select = document.getElementById("backend-select");
    select.value = "cpu";
    select.dispatchEvent(new Event("change"));
  });
  watch("answer", (answer) => answer.dataset.backend === "cpu", () => seen.push("answer"));
  watch("self-test-verdict", ({ dataset }) => dataset.verdict, ({ dataset }) => resolve([...seen, dataset.verdict]));
  document.getElementById("self-test").click();
})"""


def test_the_page_answers_while_it_runs(browser: Browser, folder: Path) -> None:
    publish(folder, "all")
    with serving(folder) as url, opened(browser, url) as page:
        page.locator(".sample").first.click()
        expect(page.get_by_test_id("answer")).to_have_attribute("data-backend", "wasm")
        told = page.evaluate(MEANWHILE)
        assert told[0] == "answer" and told[1] in ("verified", "not-verified")
        with page.expect_download() as download:
            page.get_by_test_id("self-test-download").click()
        result = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert {each["backend"] for each in runtimes(result).values()} == {"wasm"}
        assert {each["status"] for each in runtimes(result).values()} <= {"verified", "not_enough_images"}


def test_without_checksums_nothing_is_verified(browser: Browser, base: Path, folder: Path) -> None:
    """Over plain HTTP from another machine a browser computes no checksums."""
    weights(folder, one_weight)
    publish(folder)
    for out, wanted in ((base, "not-verified"), (folder, "failed")):
        with serving(out) as url:
            page = browser.new_page()
            page.goto(url.replace("127.0.0.1", ELSEWHERE))
            expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
            verdict, result = run(page)
            assert not page.evaluate("isSecureContext")
            page.close()
        assert verdict == wanted, result["reasons"]
        assert result["integrity"]["status"] == "not_verified" and result["integrity"]["checked"] == 0
        assert any("checksums could not be computed" in each for each in result["reasons"])


def test_a_static_site_publishes_what_the_self_test_needs_and_no_more(base: Path, folder: Path, tmp_path: Path) -> None:
    write_site(folder, tmp_path / "site")
    told = json.loads((tmp_path / "site" / "golden" / "manifest.json").read_text(encoding="utf-8"))
    assert set(told) == {"schema_version", "created_from", "card", "publish", "limits", "files"}
    files = site_files(folder)
    assert set(told["files"]) == {name for name in files if name.startswith(("golden/files/", "artifacts/"))}
    assert told["limits"] == read_manifest(folder)["limits"]
    listed = json.loads((tmp_path / "site" / "models.json").read_text(encoding="utf-8"))
    assert listed["golden"] == "golden/manifest.json"
    publish(folder, "none")
    assert not [name for name in site_files(folder) if name.startswith("golden/")]
    publish(folder, "all")
    assert {"golden/images.npz", "golden/reference.npz"} <= set(
        json.loads(site_files(folder)["golden/manifest.json"])["files"]
    )


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(320, "dark"), *(pytest.param(*each, marks=SLOW) for each in ((320, "light"), (1280, "light"), (1280, "dark")))],
)
def test_the_result_fits_the_window(browser: Browser, base: Path, width: int, scheme: str, tmp_path: Path) -> None:
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with serving(base) as url, opened(browser, url, **options) as page:
        assert run(page)[0] == "verified"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 10_000
