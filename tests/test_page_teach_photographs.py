"""Teaching on real photographs with real ImageNet weights: what the page learns, how long it takes, and what comes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import cutpoint
from playwright.sync_api import Browser, Page, expect

from tests.demo_page import browser, choose, opened, serving  # noqa: F401  browser is a fixture
from tests.teaching_page import add_class, download, listen_for_uploads, taught_answer, train

REALDATA = os.environ.get("CUTPOINT_REALDATA", "")
pytestmark = [pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set"), pytest.mark.slow]

WEIGHTS = "mobilenet_2_5_224_tf_no_top.h5"
PER_CLASS = 20
# Taught are other digits than those that the model was trained on.
MODELS, TAUGHT = ("7", "8", "9"), ("0", "2", "5")
NEW = 10


def photographs(digit: str, count: int, start: int = 0) -> list[Path]:
    folder = Path(REALDATA) / "datasets" / "sign_language_digits" / digit
    return sorted(path for path in folder.rglob("*") if path.is_file())[start : start + count]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    rows = [f"{path},{digit}" for digit in MODELS for path in photographs(digit, 20)]
    (root / "photographs.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    ended = cutpoint(
        *("run", "--data", root / "photographs.csv", "--backbone", "mobilenet", "--set", "backbone.alpha=0.25"),
        *("--weights", Path(REALDATA) / "weights" / WEIGHTS, "--formats", "tfjs-float32"),
        *("--runtimes", "tfjs-node/wasm", "--out", root / "out"),
    )
    assert (root / "out" / "artifacts" / "tfjs-float32" / "model.json").exists(), ended.stderr
    return root / "out"


@pytest.fixture
def page(browser: Browser, out: Path) -> Iterator[Page]:  # noqa: F811
    with serving(out) as url, opened(browser, url) as page:
        sent = listen_for_uploads(page)
        yield page
        assert sent == []


def taught(page: Page, groups: list[list[Path]]) -> tuple[float, int]:
    for digit, group in zip(TAUGHT, groups, strict=True):
        add_class(page, digit, [path.read_bytes() for path in group])
    return train(page)


@pytest.mark.parametrize("backend", ["wasm", "cpu", "webgl"])
def test_three_hand_signs_are_learned_in_seconds(page: Page, out: Path, tmp_path: Path, backend: str) -> None:
    page.get_by_test_id("backend-select").select_option(backend)
    start = time.perf_counter()
    accuracy, held_out = taught(page, [photographs(digit, PER_CLASS) for digit in TAUGHT])
    said = page.get_by_test_id("teach-status").inner_text()
    print(
        f"{backend}: {accuracy:.2f} on {held_out}; {said} {time.perf_counter() - start:.1f} s with the reading of the files"
    )
    assert held_out == 12
    assert accuracy >= 0.75
    right = 0
    if backend != "wasm":
        return
    for digit in TAUGHT:
        for path in photographs(digit, NEW, start=100):
            choose(page, path.name, path.read_bytes())
            expect(page.get_by_test_id("answer")).to_have_attribute("data-source", path.name, timeout=30_000)
            right += taught_answer(page)[0] == digit
    print(f"{backend}: {right} of {3 * NEW} photographs of others")
    assert right >= 0.75 * 3 * NEW
    file = tmp_path / "hands.cutpoint.json"
    download(page, file)
    table = ["path,label,split"]
    for digit in TAUGHT:
        others = photographs(digit, 60, start=100)
        table += [f"{path},{digit},{'train' if index < 10 else 'test'}" for index, path in enumerate(others)]
    (tmp_path / "others.csv").write_text("\n".join(table) + "\n")
    ended = cutpoint(
        *("import", file, "--from", out, "--data", tmp_path / "others.csv", "--out", tmp_path / "hands", "--json"),
        *("--formats", "tfjs-float32,tflite-float32,onnx-float32"),
    )
    report = ended.json()
    assert (ended.exit_code, report["verdict"]) == (0, "verified"), ended.stderr
    print(f"imported: {report['reference']['accuracy']} on {report['data']['test']}, {report['notes'][:2]}")
    assert report["reference"]["accuracy"]["label"] >= 0.75


def test_shuffled_labels_are_not_learned(page: Page) -> None:
    pictures = [path for digit in TAUGHT for path in photographs(digit, PER_CLASS)]
    order = np.random.default_rng(0).permutation(len(pictures))
    accuracy, held_out = taught(page, [[pictures[i] for i in group] for group in np.split(order, 3)])
    print(f"shuffled: {accuracy:.2f} on {held_out}")
    assert accuracy <= 0.6
