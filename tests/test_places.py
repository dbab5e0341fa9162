"""Boxes and masks from a CSV: what they become, and what is said of those that cannot be learned."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from figures import COLUMNS, write_figures
from PIL import Image

from exporters.contract import UNKNOWN_PIXEL, Resize
from exporters.errors import InputError
from exporters.pixels import load_images
from pipeline.config import Config, Data, HeadSection
from pipeline.dataset import list_examples
from pipeline.heads import check_head
from pipeline.places import boxes_of, check_places, label_maps_of
from pipeline.splitting import Example, split_dataset
from pipeline.targets import LABEL, MASK, SIDE, readings_of, target_of

BOX = ("x_min", "y_min", "x_max", "y_max")
READINGS = {"label": LABEL, **dict.fromkeys(BOX, SIDE), "mask": MASK}
SEEN = ("background", "figure")
HEADS = {
    "outline": HeadSection(kind="segmentation", labels=SEEN),
    "place": HeadSection(kind="boxes"),
}
CONFIG = Config(data=Data(path="figures.csv"), heads=HEADS)
HOW = Resize(64, 64)


def change(path: Path, row: int, **cells: object) -> None:
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[row].update({key: str(value) for key, value in cells.items()})
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    return write_figures(tmp_path / "data", 12)


def listed(path: Path) -> tuple[Example, ...]:
    return list_examples(path, READINGS, "")


@pytest.mark.parametrize("crop", ["stretch", "pad"])
def test_the_truth_is_where_the_figure_is_seen(figures: Path, crop: str) -> None:
    how = Resize(64, 64, crop=crop)
    examples = listed(figures)
    images = load_images([each.path for each in examples], how)
    boxes, maps = boxes_of(examples, BOX, how), label_maps_of(examples, "mask", SEEN, how)
    assert boxes.dtype == np.float32 and maps.dtype == np.uint8 and maps.shape == (12, 16, 16)
    for image, box, found in zip(images, boxes, maps, strict=True):
        # The figures are brighter than the ground.
        seen = image.max(-1) > 115
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 64
        assert np.abs(edges - box).max() <= 1.5 / 64
        known = found != UNKNOWN_PIXEL
        assert known.all() == (crop == "stretch") or image.min() > 0
        assert (seen[2::4, 2::4][known] == (found == 1)[known]).mean() > 0.9


def test_targets_know_what_they_are(figures: Path) -> None:
    assert readings_of(CONFIG) == {key: value for key, value in READINGS.items() if key != "label"}
    dataset = split_dataset(listed(figures), {}, (0.5, 0.25, 0.25), 0, figures, READINGS)
    place = target_of("place", HEADS["place"], dataset, HOW)
    assert (place.units, place.columns, place.unit) == (4, BOX, "share of the picture")
    outline = target_of("outline", HEADS["outline"], dataset, HOW, [(8, 8, 24), (4, 4, 48)])
    assert (outline.units, outline.labels, outline.grid.shape) == (2, SEEN, (16, 16))
    assert outline.grid.places == ((0, 1536), (1536, 2304))
    assert place.truth(dataset.of_split("test")).shape == (len(dataset.of_split("test")), 4)


def test_masks_are_part_of_the_fingerprint(figures: Path) -> None:
    def fingerprint() -> str:
        return split_dataset(listed(figures), {}, (0.5, 0.25, 0.25), 0, figures, READINGS).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    path = figures.parent / "0003_mask.png"
    # Under another name it is the same mask.
    path.rename(figures.parent / "moved.png")
    change(figures, 3, mask="moved.png")
    assert fingerprint() == first
    mask = Image.open(figures.parent / "moved.png")
    mask.putpixel((0, 0), 1)
    mask.save(figures.parent / "moved.png")
    assert fingerprint() != first


def test_a_mask_that_was_changed_is_read_again(figures: Path) -> None:
    examples = listed(figures)[:1]
    before = label_maps_of(examples, "mask", SEEN, HOW)
    mask = Path(examples[0].targets["mask"])
    Image.new("P", Image.open(mask).size, 1).save(mask)
    assert (label_maps_of(examples, "mask", SEEN, HOW) == 1).all() and not (before == 1).all()


BAD_BOXES: dict[str, tuple[Callable[[int, int], dict[str, object]], str]] = {
    "no width": (lambda width, height: {"x_min": 40, "x_max": 40}, "ends before it begins"),
    "width and height": (lambda width, height: {"x_min": 60, "y_min": 10, "x_max": 20, "y_max": 25}, "ends before"),
    "beyond the picture": (lambda width, height: {"x_max": width + 5}, "leaves the picture"),
    "before the picture": (lambda width, height: {"y_min": -20}, "leaves the picture"),
    "shares": (lambda width, height: {"x_min": 0.1, "y_min": 0.2, "x_max": 0.5, "y_max": 0.9}, "smaller than a pixel"),
    "empty": (lambda width, height: {"x_min": ""}, "has '' in 'x_min'"),
    "a word": (lambda width, height: {"y_max": "left"}, "has 'left' in 'y_max'"),
    "endless": (lambda width, height: {"x_max": "inf"}, "has 'inf' in 'x_max'"),
}


@pytest.mark.parametrize("kind", BAD_BOXES)
def test_what_is_no_box_names_the_picture(figures: Path, kind: str) -> None:
    cells, told = BAD_BOXES[kind]
    change(figures, 5, **cells(*Image.open(figures.parent / "0005.png").size))
    with pytest.raises(InputError) as fault:
        check_places(CONFIG, HOW, listed(figures))
    assert told in fault.value.what and "0005.png" in fault.value.what


def test_a_box_may_reach_a_pixel_over_the_edge(figures: Path) -> None:
    width, height = Image.open(figures.parent / "0005.png").size
    change(figures, 5, x_min=-1, y_min=0, x_max=width + 1, y_max=height)
    assert boxes_of(listed(figures), BOX, HOW)[5].tolist() == [0, 0, 1, 1]


def test_a_side_may_be_the_same_for_every_picture(figures: Path) -> None:
    for row in range(12):
        change(figures, row, x_min=0)
    assert (boxes_of(listed(figures), BOX, HOW)[:, 0] == 0).all()


def test_a_box_that_the_crop_cuts_away(figures: Path) -> None:
    Image.new("RGB", (200, 50)).save(figures.parent / "0005.png")
    change(figures, 5, x_min=0, y_min=0, x_max=40, y_max=50)
    only_boxes = Config(data=CONFIG.data, heads={"place": HEADS["place"]})
    check_places(only_boxes, HOW, listed(figures))
    with pytest.raises(InputError, match=r"0005.png is left by the resize with crop 'center'"):
        check_places(only_boxes, dataclasses.replace(HOW, crop="center"), listed(figures))


def test_boxes_and_masks_of_a_turned_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("P", (40, 80), 1).save(tmp_path / "mask.png")
    cells = {**dict(zip(BOX, ("0", "40", "40", "80"), strict=True)), "mask": str(tmp_path / "mask.png")}
    example = Example(tmp_path / "turned.jpg", "", cells)
    assert boxes_of([example], BOX, HOW).tolist() == [[0, 0.5, 1, 1]]
    assert (label_maps_of([example], "mask", SEEN, HOW) == 1).all()
    Image.new("P", (80, 40), 1).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="80 x 40 px, and its picture 40 x 80 px"):
        label_maps_of([example], "mask", SEEN, HOW)


BAD_MASKS: dict[str, tuple[Callable[[Path, tuple[int, int]], object], str]] = {
    "colours": (lambda path, size: Image.new("RGB", size).save(path), "has colours"),
    "another size": (lambda path, size: Image.new("P", (size[0] - 1, size[1])).save(path), "and its picture"),
    "an index too many": (lambda path, size: Image.new("L", size, 2).save(path), "holds the index 2"),
    "no picture": (lambda path, size: path.write_bytes(b"no picture"), "cannot be read"),
    "missing": (lambda path, size: path.unlink(), "is not there"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_what_is_no_mask_is_named(figures: Path, kind: str) -> None:
    make, told = BAD_MASKS[kind]
    path = figures.parent / "0005_mask.png"
    make(path, Image.open(figures.parent / "0005.png").size)
    with pytest.raises(InputError) as fault:
        check_places(CONFIG, HOW, listed(figures))
    assert told in fault.value.what and "0005_mask.png" in fault.value.what


def test_an_empty_cell_of_a_mask(figures: Path) -> None:
    change(figures, 5, mask="")
    with pytest.raises(InputError, match=r"0005.png has '' in 'mask'"):
        listed(figures)


def test_masks_of_0_and_255_have_no_figure(figures: Path) -> None:
    for path in figures.parent.glob("*_mask.png"):
        Image.fromarray(np.array(Image.open(path)) * np.uint8(255)).save(path)
    with pytest.raises(InputError, match="hold only 0 beside 255"):
        check_places(CONFIG, HOW, listed(figures))


def test_masks_of_one_bit_are_masks(figures: Path) -> None:
    before = label_maps_of(listed(figures), "mask", SEEN, HOW)
    for path in figures.parent.glob("*_mask.png"):
        Image.fromarray(np.array(Image.open(path)) > 0).save(path)
    assert np.array_equal(label_maps_of(listed(figures), "mask", SEEN, HOW), before)


@pytest.mark.parametrize("labels", [(), ("figure",), ("figure", "figure")])
def test_labels_of_a_mask_have_to_be_listed(figures: Path, labels: tuple[str, ...]) -> None:
    heads = {"outline": HeadSection(kind="segmentation", labels=labels)}
    with pytest.raises(InputError, match=r"heads\.outline\.labels"):
        check_places(Config(data=CONFIG.data, heads=heads), HOW, listed(figures))


def test_pictures_that_cannot_be_read_are_left_to_the_decoding(figures: Path) -> None:
    (figures.parent / "0005.png").write_bytes(b"no picture")
    check_places(CONFIG, HOW, listed(figures))


def test_heads_that_cannot_be() -> None:
    for section, told in (
        (HeadSection(kind="boxes", target="x_min"), "four columns, not from 1"),
        (HeadSection(kind="boxes", target=("a", "b", "c")), "four columns, not from 3"),
        (HeadSection(kind="segmentation", pooling="average"), "whole feature maps"),
        (HeadSection(kind="segmentation", pooling="none"), "no head pooling 'none'"),
        (HeadSection(kind="segmentation", target=("mask", "other")), "learns from one column"),
        (HeadSection(kind="linear", task="boxes"), "cannot answer the task 'boxes'"),
    ):
        with pytest.raises(InputError, match=told):
            check_head(section)
    check_head(HeadSection(kind="boxes", target=("left", "top", "right", "bottom")))
