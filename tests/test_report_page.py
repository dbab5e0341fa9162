"""The page: charts, matrices, worst images and audits; whole without matplotlib; the same bytes for the same report."""

from __future__ import annotations

import base64
import copy
import io
import re
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import sample_reports
from PIL import Image

from exporters import report as reports
from exporters import report_images, report_sections

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 40, 60, 3), dtype=np.uint8)
TRADEOFF = "Accuracy over size of every artifact, the area of a marker being its latency"


@pytest.fixture
def report() -> dict[str, Any]:
    """A verified run with every key of a report."""
    return sample_reports.whole_report()


class Balance(HTMLParser):
    """Finds tags that are closed in another order than they were opened."""

    void = frozenset({"meta", "br", "img", "use", "path", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def pictures(text: str) -> list[str]:
    return re.findall(r'<svg role="img" aria-label="([^"]*)"', text)


def test_page_is_well_formed_escaped_and_asks_for_nothing(report: dict[str, Any]) -> None:
    text = reports.to_html(report, IMAGES)
    Balance(text)
    assert "font-family: '" not in text
    assert "<script" not in text and not re.search(r"https?://|@import|url\((?!#)", text)
    for shown in (
        "tfjs-&lt;webgpu&gt;",
        "first off at &lt;layer 2&gt;",
        "1 &lt;Mean&gt;",
        "It has &lt;no&gt; tensors.",
    ):
        assert shown in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 0.500" in text


def test_same_report_same_bytes(report: dict[str, Any]) -> None:
    before = copy.deepcopy(report)
    assert reports.to_html(report, IMAGES) == reports.to_html(copy.deepcopy(report), IMAGES.copy())
    assert report == before


def test_charts_of_a_whole_report(report: dict[str, Any]) -> None:
    text = reports.to_html(report)
    assert pictures(text) == [
        TRADEOFF, "Relative difference over depth", "Ratio of signal to noise over depth",
        "Learning curve: loss over epochs", "Learning curve: accuracy over epochs",
        *["Confusion matrix: rows are the truth, columns the answer"] * 2,
    ]  # fmt: skip
    assert "tflite-int8, first off at" in text and "onnx-float32 was not traced" in text
    # Keras's own matrix on the compared images is that of the test images here, and the artifact's is another.
    assert "label: Keras, all test images (309)" in text and "label: tflite-int8, 309 compared images" in text


def test_equal_matrices_are_drawn_once(report: dict[str, Any]) -> None:
    report["artifacts"].append(copy.deepcopy(report["artifacts"][1]) | {"name": "onnx-int8", "format": "onnx"})
    assert "label: tflite-int8, onnx-int8, 309 compared images" in reports.to_html(report)
    fewer = copy.deepcopy(sample_reports.CONFUSION)
    fewer[0][0] = 1
    for artifact in (report["artifacts"][1], report["artifacts"][3]):
        artifact["runtimes"][0]["outputs"]["label"]["confusion_of_keras"] = fewer
    text = reports.to_html(report)
    assert "label: Keras, 250 compared images" in text
    assert pictures(text).count("Confusion matrix: rows are the truth, columns the answer") == 3


def test_an_artifact_that_answers_as_keras_needs_no_matrix(report: dict[str, Any]) -> None:
    label = report["artifacts"][0]["runtimes"][0]["outputs"]["label"]
    label |= {"confusion": sample_reports.CONFUSION, "confusion_of_keras": sample_reports.CONFUSION}
    assert "tfjs-float32, 309 compared" not in reports.to_html(report)
    label["confusion"] = sample_reports.OTHER_CONFUSION
    assert "label: tfjs-float32, tflite-int8, 309 compared images" in reports.to_html(report)


def label_boxes(text: str) -> list[tuple[float, float]]:
    chart = text[text.index(TRADEOFF) :]
    chart = chart[: chart.index("</svg>")]
    return [
        (float(x), float(y))
        for x, y in re.findall(r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>[\w-]+, [\d.]+ ms<', chart)
    ]


def test_labels_of_artifacts_at_one_place_do_not_cover_each_other(report: dict[str, Any]) -> None:
    first = report["artifacts"][0]
    report["artifacts"] = [copy.deepcopy(first) | {"name": f"tfjs-float{index}"} for index in range(10)]
    places = label_boxes(reports.to_html(report))
    assert len(places) == 10
    for index, (x, y) in enumerate(places):
        for other_x, other_y in places[index + 1 :]:
            assert abs(y - other_y) > 8 or abs(x - other_x) > 60


def test_one_artifact_makes_no_chart(report: dict[str, Any]) -> None:
    report["artifacts"] = report["artifacts"][:1]
    assert TRADEOFF not in reports.to_html(report)


def test_layers_without_a_figure_are_not_drawn(report: dict[str, Any]) -> None:
    report["artifacts"][0]["layers"]["rows"] = [{"name": "a", "relative": 0.0}, {"name": "b", "relative": None}]
    report["artifacts"][1]["layers"]["rows"] = []
    assert not [title for title in pictures(reports.to_html(report)) if "depth" in title]


def test_the_worst_images_are_shown_once_with_what_the_artifacts_say(report: dict[str, Any]) -> None:
    found = report_images.worst_images(report, IMAGES)
    assert [(each.index, each.keras) for each in found] == [
        (2, "<script>alert(1)</script> 0.500"), (1, "[red]3 0.500"), (0, "<script>alert(1)</script> 0.500"),
    ]  # fmt: skip
    assert found[0].answers == (("tflite-int8", "a|b 0.700", True),)
    assert found[1].answers == (("tflite-int8", "[red]3 0.600", False),)
    # The same image in two runtimes and two artifacts: each artifact once, and as all read alike, only the first.
    assert [name for name, _, _ in found[2].answers] == ["onnx-float32"]
    text = reports.to_html(report, IMAGES)
    assert text.count("data:image/jpeg;base64,") == 3 and '<p class="other">a|b 0.700' in text


def test_thumbnails_are_small_pictures_of_the_right_image(report: dict[str, Any]) -> None:
    large = np.zeros((300, 400, 3), np.uint8)
    large[:, :, 0] = 200
    address = report_images.thumbnail_of(large)
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert picture.size == (128, 96) and abs(picture.getpixel((60, 40))[0] - 200) < 6 and len(address) < 3000


def test_no_more_images_than_a_page_can_hold(report: dict[str, Any]) -> None:
    label = report["artifacts"][1]["runtimes"][0]["outputs"]["label"]
    label["worst"] = [sample_reports._worst(index, 0.3 - index / 100, 0, 1) for index in range(20)]
    text = reports.to_html(report, IMAGES)
    assert text.count("data:image/jpeg") == report_images.MOST_IMAGES == 12


@pytest.mark.parametrize("images", [None, IMAGES[:0]], ids=["none", "too few"])
def test_worst_images_without_the_images(report: dict[str, Any], images: np.ndarray | None) -> None:
    text = reports.to_html(report, images)
    assert "<img" not in text and "The images that differ most" in text and "Keras, image 2" in text


def test_odd_entries_of_worst_images_are_shown_as_far_as_they_go(report: dict[str, Any]) -> None:
    label = report["artifacts"][1]["runtimes"][0]["outputs"]["label"]
    label["worst"] = [
        {"image": 4, "difference": 9.0, "keras": {"value": 20.123}, "artifact": {"value": 29.123}},
        {"image": 5, "difference": 8.0, "keras": {"label": 99, "probability": None}, "artifact": None},
        {"image": None, "difference": 7.0},
        {"image": 6, "difference": None},
    ]
    found = report_images.worst_images(report, None)
    assert [each.keras for each in found[:2]] == ["20.12", "99"] and {each.index for each in found} == {4, 5, 0}


def test_without_matplotlib_the_page_is_whole_and_says_what_is_missing(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("report_plots", "report_charts"):
        monkeypatch.setitem(sys.modules, f"exporters.{name}", None)
        monkeypatch.delattr(f"exporters.{name}", raising=False)
    text = reports.to_html(report, IMAGES)
    Balance(text)
    assert "<svg" not in text and text.count(report_sections.NO_PICTURES) == 4
    for shown in ("What is inside", "The images that differ most", "Every artifact in every runtime: 4", "Model card"):
        assert shown in text


def test_audits_and_image_files_stand_in_tables(report: dict[str, Any]) -> None:
    text = reports.to_html(report)
    for shown in (
        "396\u202f160 int8", "53 layers, 410\u202f368 values, off by at most 0.5 steps, 2 not compared", "at block_3", "opset 17",
        "image: uint8 Nx96x96x3, scale 1, zero point 0", "label: float32 Nx5", "35 Conv2D, 1 &lt;Mean&gt;", "66 float32",
        "Pillow 13.0",
    ):  # fmt: skip
        assert shown in text, shown


def test_page_stays_small(report: dict[str, Any]) -> None:
    artifacts = report["artifacts"]
    report["artifacts"] = [copy.deepcopy(each) | {"name": f"{each['name']}{n}"} for n in range(4) for each in artifacts]
    assert len(reports.to_html(report, IMAGES)) < 600_000


def test_an_audit_that_compared_no_constant_says_so(report: dict[str, Any]) -> None:
    audit = report["artifacts"][0]["audit"]
    audit["constants"] = {"layers": 0, "compared": 0, "largest_steps": None, "worst": None, "uncompared": 2}
    audit["inputs"][0] |= {"dtype": "float32", "shape": [None, 7, 7, 3]}
    found = report_sections.audits(report)[0]
    assert found["constants"] == "none" and found["inputs"] == ["image: float32 Nx7x7x3"]
