"""Artifacts with columns in a real Chromium, which looks the cells up itself: verified, or found out where it is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from exporters.columns import encode_cells
from exporters.contract import CEILINGS, FORMATS, Card
from exporters.errors import CutpointError, InputError, ParityError
from exporters.golden import write_manifest
from exporters.image_files import _judged
from exporters.inputs import Inputs
from exporters.runners.chromium import close_session, session
from exporters.runtimes import open_runtime
from exporters.verification import verify_folder
from tests import demo_page  # noqa: F401  skips this file too where CUTPOINT_NO_BROWSER says that there is no browser
from tests.columned_folder import CARD, FLOAT32, columned, result_folder
from tests.test_columns import CATEGORIES, NUMBERS, ODD
from tests.test_columns_answers import permuted


@pytest.fixture(scope="module", autouse=True)
def one_browser() -> Iterator[None]:
    yield
    close_session()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result_folder(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    "runtimes",
    [["tfjs-chromium/wasm", "litert-js", "onnxruntime-web"], pytest.param(["browser"], marks=pytest.mark.slow)],
)
def test_browser_runtimes_answer_as_keras_does(runtimes: list[str], whole: Path) -> None:
    report = verify_folder(whole, runtimes=runtimes)
    assert (report["verdict"], report["exit_code"]) == ("verified", 0)
    assert [(each["where"].split()[0], each["status"]) for each in report["image_files"]] == [
        ("Python", "verified"),
        ("Chromium", "verified"),
    ]
    for artifact in report["artifacts"]:
        wanted = [str(each) for each in FORMATS[artifact["format"]].runtimes if each.browser]
        found = [f"{each['runner']}/{each['backend']}" for each in artifact["runtimes"]]
        assert found == (wanted if runtimes == ["browser"] else wanted[:1])
        for runtime in artifact["runtimes"]:
            assert (runtime["files"]["status"], runtime["files"]["images"]) == ("verified", 6)


def test_categories_in_another_order_are_found_out_there_too(whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    for folder in (out / "artifacts").iterdir():
        if folder.name != "onnx-float32":
            shutil.rmtree(folder)
    permuted(Card.read(out / "artifacts" / "onnx-float32" / "card.json")).write(
        out / "artifacts" / "onnx-float32" / "card.json"
    )
    permuted(CARD).write(out / "card.json")
    write_manifest(out, permuted(CARD), CEILINGS)
    report = verify_folder(out, runtimes="browser")
    (runtime,) = report["artifacts"][0]["runtimes"]
    assert (report["verdict"], runtime["files"]["status"]) == ("failed", "failed")
    assert {each["status"] for each in runtime["outputs"].values()} == {"verified"}


def test_chromium_encodes_odd_cells_as_python_does() -> None:
    rows = [{"number": cell, "bucket": cell} for cell in NUMBERS]
    rows += [{"category": cell, "__proto__": "y"} for cell in CATEGORIES]
    np.testing.assert_array_equal(session().encode_cells(ODD, rows), encode_cells(ODD, rows), strict=True)
    with pytest.raises(ParityError, match="The column number has"):
        session().encode_cells(ODD, [{"number": "0x10"}])
    assert _judged(0, 0, False) == {
        "status": "failed",
        "reason": "it encodes the columns of the golden files otherwise than Python does",
    }


@pytest.mark.parametrize("name", [str(each) for each in FLOAT32])
def test_a_page_never_answers_without_the_columns_it_needs(name: str, whole: Path) -> None:
    format_name, one = name.partition("-")[0], columned()
    runtime = next(each for each in FORMATS[format_name].runtimes if each.browser)
    with open_runtime(runtime, whole / "artifacts" / name) as runner:
        with pytest.raises(InputError, match="takes columns beside the picture, and none were given"):
            runner.predict(one.inputs.images[:2])
        some = one.inputs[:3]
        np.testing.assert_allclose(runner.predict(some)["grade"], one.reference["grade"][:3], atol=1e-4)
        assert len(runner.time_one(some[:1], 2)) == 2
        with pytest.raises(CutpointError):
            runner.predict(Inputs(some.images, np.concatenate([some.columns, some.columns], axis=1)))
