"""The page shows every task's own kind of answer: bars, numbers, a box and a mask over the picture."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from exporters import pixels
from exporters.contract import ArtifactName, Resize
from exporters.explanation import Seen, classes_of, explain
from exporters.export import export_artifact
from exporters.saved_model import write_saved_model
from tests.demo_page import browser, choose, encoded, opened, serving  # noqa: F401  browser is a fixture
from tests.mixed_heads import CUT, TASKS, mixed
from tests.pictures import picture

# A picture twice as wide as high is filled up, above and below, by a quarter of the input each.
RESIZE = Resize(32, 32, crop="pad")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    out, one = tmp_path_factory.mktemp("page"), mixed()
    card = dataclasses.replace(one.card, resize=RESIZE)
    saved = write_saved_model(one.model, CUT, out / "saved")
    export_artifact(ArtifactName("tfjs", "float32"), saved, card, out / "artifacts", one.calibration_images)
    card.write(out / "card.json")
    with serving(out) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    with opened(browser, url, viewport={"width": 1200, "height": 1400}) as page:
        yield page


def answered(page: Page, data: bytes) -> tuple[dict[str, np.ndarray], Seen]:
    """Let the page answer a picture; return what Keras answers, and the picture as it was seen."""
    choose(page, "shown.png", data)
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "shown.png", timeout=30_000)
    decoded = pixels.decode(data)
    image = pixels.resize(decoded, RESIZE)[None].astype(np.float32)
    answers = {name: np.asarray(each)[0] for name, each in mixed().model(image, training=False).items()}
    return answers, Seen(decoded.shape[1], decoded.shape[0], RESIZE)


def under(page: Page, head: str) -> str:
    """The text between the name of a head and the next one."""
    whole = page.get_by_test_id("answer").inner_text()
    following = [each for each in sorted(TASKS) if each > head]
    start = whole.index(f"{head}\n")
    return whole[start : whole.index(f"\n{following[0]}\n", start)] if following else whole[start:]


def shares_of(text: str) -> dict[str, float]:
    """Label -> percentage of the bars in a text, in which each is in two lines."""
    lines = text.split("\n")
    return {
        before: float(line[:-2])
        for before, line in itertools.pairwise(lines)
        if line.endswith(" %") and "," not in line
    }


def test_every_task_has_its_own_kind_of_answer(page: Page) -> None:
    answers, seen = answered(page, encoded(picture(200, 100)))
    said = {name: explain(answers[name], TASKS[name], seen, 5) for name in TASKS}
    expect(page.locator("#answer h3")).to_have_text(sorted(TASKS))
    for column, value in said["amounts"]["values"].items():
        assert f"{column}\n{value:.6g}"[:8] in under(page, "amounts")
    for name in ("kind", "sort", "sure", "rank", "marks"):
        for each in said[name]["top"]:
            assert shares_of(under(page, name))[each["label"]] == pytest.approx(100 * each["probability"], abs=0.06)
    assert f"{said['rank']['label']}, rank {said['rank']['rank']}" in under(page, "rank")
    assert (" + ".join(each["label"] for each in said["marks"]["labels"]) or "none") in under(page, "marks")
    for each in said["mask"]["areas"]:
        assert shares_of(under(page, "mask"))[each["label"]] == pytest.approx(100 * each["share"], abs=0.06)
    for side, px in said["place"]["box_px"].items():
        assert f"{side}\n{px:.1f} px" in under(page, "place")
    assert "numbers\n96\nlength\n1.0000\n" in under(page, "near")
    # The first classification by name is the headline.
    best = said["kind"]["top"][0]
    expect(page.locator("#headline")).to_have_text(f"{best['label']}, {100 * best['probability']:.1f} %")
    expect(page.get_by_test_id("answer")).to_have_attribute("data-label", best["label"])


def test_box_and_mask_lie_over_the_picture(page: Page) -> None:
    answers, seen = answered(page, encoded(picture(200, 100)))
    script = "o => [...o.getContext('2d').getImageData(0, 0, o.width, o.height).data]"
    overlay = page.get_by_test_id("overlay").evaluate(script)
    over = np.array(overlay, np.uint8).reshape(384, 384, 4)
    # A line of 3 px may reach over the edge by half of it. The picture lies in the middle half of the square, and nothing
    # is drawn over the paper around it.
    assert (over[:94, :, 3] == 0).all() and (over[-94:, :, 3] == 0).all() and (over[98:286, 4:-4, 3] > 0).all()
    classes = classes_of(answers["mask"])
    # Each of the eight columns of the mask is 48 px wide; the picture shows its four rows in the middle.
    colors = {
        int(classes[row, column]): tuple(over[96 + (row - 2) * 48 + 30, column * 48 + 10, :3])
        for row in range(2, 6)
        for column in range(8)
    }
    for row in range(2, 6):
        for column in range(8):
            place = over[96 + (row - 2) * 48 + 30, column * 48 + 10, :3].astype(int)
            inside_box_line = np.abs(place - (229, 72, 77)).sum() < 60
            assert inside_box_line or np.abs(place - np.array(colors[int(classes[row, column])], int)).max() <= 6
    assert len(set(colors.values())) == len(colors) >= 2
    box = explain(answers["place"], TASKS["place"], seen, 5)["box_px"]
    scale = 384 / 200
    x, y = (box["x_min"] + box["x_max"]) / 2 * scale, 96 + box["y_min"] * scale
    red = over[int(y) - 2 : int(y) + 3, int(x), :3].astype(int)
    assert np.abs(red - (229, 72, 77)).sum(1).min() < 60
    page.get_by_test_id("clear-canvas").click()
    expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.")
    blank = (
        "o => o.toDataURL() === Object.assign(document.createElement('canvas'), {width: 384, height: 384}).toDataURL()"
    )
    assert page.get_by_test_id("overlay").evaluate(blank)
