"""What answers say to people, in Python and in JavaScript alike, and segmentations as picture files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporters.contract import ArtifactName, Output, Resize
from exporters.errors import InputError
from exporters.explanation import Seen, class_probabilities, explain
from exporters.export import export_artifact
from exporters.masks import full_mask
from exporters.pixels import CROPS, resize, window
from exporters.prediction import describe, predict_pictures
from exporters.saved_model import write_saved_model
from tests.commands import cutpoint
from tests.mixed_heads import CUT, TASKS, mixed
from tests.test_predict_js import call_javascript

SQUARE = Seen(64, 64, Resize(32, 32))
LABELS = ("a", "b", "c")
KIND = Output("kind", "linear", "multiclass", (3,), labels=LABELS)
SURE = Output("sure", "linear", "binary", (1,), activation="sigmoid", labels=("no", "yes"))
MARKS = Output("marks", "linear", "multilabel", (3,), activation="sigmoid", labels=LABELS)
RANK = Output("rank", "linear", "ordinal", (2,), activation="sigmoid", labels=LABELS)
SIZE = Output("size", "linear", "regression", (2,), activation="linear", columns=("width", "height"), unit="cm")
ANGLE = Output("angle", "linear", "regression", (1,), activation="linear")
NEAR = Output("near", "embedding", "embedding", (3,), activation="unit_length")
PLACE = Output("place", "boxes", "boxes", (4,), activation="sigmoid")
MASK = Output("mask", "segmentation", "segmentation", (2, 4, 3), labels=LABELS)


def said(answer: list, output: Output, seen: Seen = SQUARE, top: int = 5) -> dict[str, Any]:
    return explain(np.array(answer, np.float32), output, seen, top)


def pairs(told: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(each["label"], pytest.approx(each["probability"], abs=1e-6)) for each in told]


def test_multiclass_gives_the_likeliest_labels_and_ties_keep_their_order() -> None:
    assert pairs(said([0.25, 0.5, 0.25], KIND)["top"]) == [("b", 0.5), ("a", 0.25), ("c", 0.25)]
    assert len(said([0.25, 0.5, 0.25], KIND, top=2)["top"]) == 2


def test_binary_gives_both_labels() -> None:
    assert pairs(said([0.2], SURE)["top"]) == [("no", 0.8), ("yes", 0.2)]
    assert pairs(said([0.9], SURE, top=1)["top"]) == [("yes", 0.9)]


def test_multilabel_gives_all_labels_that_hold() -> None:
    found = said([0.6, 0.5, 0.9], MARKS, top=1)
    assert pairs(found["labels"]) == [("c", 0.9), ("a", 0.6)]
    assert pairs(found["top"]) == [("c", 0.9)]
    assert said([0.1, 0.2, 0.3], MARKS)["labels"] == []


def test_ordinal_gives_rank_label_and_probabilities() -> None:
    found = said([0.9, 0.2], RANK)
    assert (found["rank"], found["label"]) == (1, "b")
    assert pairs(found["top"]) == [("b", 0.7), ("c", 0.2), ("a", 0.1)]
    np.testing.assert_allclose(class_probabilities(np.array([0.2, 0.6])), np.array([0.8, 0.0, 0.6]) / 1.4)


def test_regression_gives_its_columns_by_name() -> None:
    assert said([1.5, 2.0], SIZE) == {"values": {"width": 1.5, "height": 2.0}, "unit": "cm"}
    assert said([1.5], ANGLE) == {"values": {"angle": 1.5}, "unit": ""}
    assert list(said([1, 2], dataclasses.replace(SIZE, columns=()))["values"]) == ["0", "1"]


def test_embedding_gives_its_vector() -> None:
    assert said([0.5, 0.0, -0.5], NEAR) == {"vector": [0.5, 0.0, -0.5]}


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (97, 331), (32, 24)])
def test_boxes_are_where_the_model_saw_them(crop: str, size: tuple[int, int]) -> None:
    """A white block in a black picture, whose edges are measured in what the model sees of it."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    x, y = slice(width * 4 // 10, width * 6 // 10), slice(height * 45 // 100, height * 6 // 10)
    picture[y, x] = 255
    how = Resize(320, 240, crop=crop)
    lit = resize(picture, how)[:, :, 0] > 127
    columns, rows = np.flatnonzero(lit.any(0)), np.flatnonzero(lit.any(1))
    seen = [columns[0] / 320, rows[0] / 240, (columns[-1] + 1) / 320, (rows[-1] + 1) / 240]
    found = said(seen, PLACE, Seen(width, height, how))
    step = max(width / 320, height / 240, 1.0)
    expected = {"x_min": x.start, "y_min": y.start, "x_max": x.stop, "y_max": y.stop}
    assert found["box_px"] == {side: pytest.approx(px, abs=1.5 * step) for side, px in expected.items()}
    assert found["box"]["x_max"] == pytest.approx(found["box_px"]["x_max"] / width)
    assert found["box"]["y_min"] == pytest.approx(found["box_px"]["y_min"] / height)


def test_boxes_stay_in_the_picture() -> None:
    found = said([0.0, 0.0, 1.0, 1.0], PLACE, Seen(200, 100, Resize(64, 64, crop="pad")))
    assert found["box_px"] == {"x_min": 0.0, "y_min": 0.0, "x_max": 200.0, "y_max": 100.0}
    assert window(200, 100, Resize(64, 64, crop="pad")) == (0.0, -50.0, 200.0, 150.0)


def one_hot(classes: list[list[int]]) -> list:
    return np.eye(3)[np.array(classes)].tolist()


def test_segmentation_gives_shares_of_the_picture() -> None:
    answer = one_hot([[0, 0, 0, 2], [0, 2, 2, 0]])
    assert said(answer, MASK)["areas"] == [{"label": "a", "share": 5 / 8}, {"label": "c", "share": 3 / 8}]
    # With a picture twice as high as wide, the outer two of four columns are black filling.
    high = Seen(50, 100, Resize(40, 40, crop="pad"))
    assert said(answer, MASK, high)["areas"] == [{"label": "a", "share": 0.5}, {"label": "c", "share": 0.5}]


def test_masks_have_the_size_of_the_picture() -> None:
    answer = np.array(one_hot([[0, 1, 1, 2], [2, 1, 1, 0]]))
    found = full_mask(answer, Seen(80, 40, Resize(32, 16)))
    assert found.shape == (40, 80) and found.dtype == np.uint8
    assert [found[0, 0], found[19, 19], found[19, 20], found[20, 0], found[39, 79]] == [0, 0, 1, 2, 0]
    padded = full_mask(answer, Seen(50, 100, Resize(40, 40, crop="pad")))
    assert padded.shape == (100, 50) and (padded == 1).all()
    cut = full_mask(answer, Seen(100, 50, Resize(40, 40, crop="center")))
    assert (cut[:, :25] == 255).all() and (cut[:, 75:] == 255).all() and (cut[:, 25:75] != 255).all()
    single = full_mask(np.array([[[0.1, 0.9]]]), Seen(7, 5, Resize(4, 4)))
    assert single.shape == (5, 7) and (single == 1).all()


@pytest.mark.parametrize("crop", CROPS)
def test_javascript_says_the_same(crop: str) -> None:
    generator = np.random.default_rng(5)
    outputs = [*(KIND, SURE, MARKS, RANK, SIZE, ANGLE, NEAR, PLACE, MASK), *TASKS.values()]
    sizes = [(200, 100), (100, 200), (97, 331), (32, 24), (1, 1)]
    cases = [(output, Seen(*size, Resize(48, 32, crop=crop))) for output in outputs for size in sizes]
    answers = [generator.uniform(0, 1, output.shape).astype(np.float32) for output, _ in cases]
    calls = [
        {
            "call": "explain",
            "answer": answer.ravel().tolist(),
            "output": dataclasses.asdict(output),
            "seen": dataclasses.asdict(seen),
            "top": 2,
        }
        for (output, seen), answer in zip(cases, answers, strict=True)
    ]
    compared = 0
    for (output, seen), answer, found in zip(cases, answers, call_javascript(calls), strict=True):
        expected = explain(answer, output, seen, 2)
        assert flat(found["said"]) == pytest.approx(flat(json.loads(json.dumps(expected))), abs=1e-9), output.name
        compared += 1
    assert compared == len(outputs) * len(sizes) == 90


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every number and text of a nested answer, by where it stands."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {f"{path} has": len(value)} | {
            place: each for key, part in items for place, each in flat(part, f"{path}/{key}").items()
        }
    return {path: value}


def test_each_answer_in_a_line() -> None:
    seen = Seen(200, 100, Resize(32, 32))
    assert describe(said([0.25, 0.5, 0.25], KIND, top=1)) == "b 0.500"
    assert describe(said([0.6, 0.1, 0.9], MARKS, top=1)) == "c + a (c 0.900)"
    assert describe(said([0.1, 0.1, 0.2], MARKS, top=1)) == "none (c 0.200)"
    assert describe(said([0.9, 0.2], RANK, top=1)) == "b, rank 1 (b 0.700)"
    assert describe(said([1.5, 2.0], SIZE)) == "width 1.5 cm, height 2 cm"
    assert describe({"vector": [0.25] * 9}) == "9 values: 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, ..."
    assert describe(said([0.25, 0.5, 0.75, 1.0], PLACE, seen)).startswith(
        "x 50 to 150 px, y 50 to 100 px (shares x_min 0.2"
    )
    assert describe(said(one_hot([[0, 0, 0, 2], [0, 2, 2, 0]]), MASK)) == "a 62.5%, c 37.5%"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, one = tmp_path_factory.mktemp("explained"), mixed()
    saved = write_saved_model(one.model, CUT, folder / "saved")
    return export_artifact(ArtifactName("tflite", "float32"), saved, one.card, folder, one.calibration_images)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / "first" / "one.png", folder / "second" / "one.png"]
    for path, image in zip(paths, mixed().images, strict=False):
        path.parent.mkdir()
        Image.fromarray(image).resize((80, 60)).save(path)
    return paths


def test_predict_answers_every_task_and_writes_masks(artifact: Path, pictures: list[Path], tmp_path: Path) -> None:
    ended = cutpoint("predict", artifact, *pictures, "--json", "--masks", tmp_path / "masks")
    assert ended.exit_code == 0, ended.stderr
    found = ended.json()
    assert [each["path"] for each in found] == [str(path) for path in pictures]
    keys = {name: set(answer) for name, answer in found[0]["outputs"].items()}
    assert keys == {
        "amounts": {"values", "unit"},
        "kind": {"top"},
        "marks": {"labels", "top"},
        "mask": {"areas", "mask"},
        "near": {"vector"},
        "place": {"box", "box_px"},
        "rank": {"label", "rank", "top"},
        "sort": {"top"},
        "sure": {"top"},
    }
    assert list(found[0]["outputs"]["amounts"]["values"]) == ["share", "amount"]
    paths = [Path(each["outputs"]["mask"]["mask"]) for each in found]
    assert [path.name for path in paths] == ["one.mask.png", "one-2.mask.png"]
    with Image.open(paths[0]) as mask:
        assert (mask.mode, mask.size) == ("P", (80, 60))
        shares = np.bincount(np.asarray(mask).ravel(), minlength=3) / 4800
    told = {each["label"]: each["share"] for each in found[0]["outputs"]["mask"]["areas"]}
    labels = TASKS["mask"].labels
    assert told == {labels[each]: pytest.approx(shares[each], abs=0.02) for each in np.flatnonzero(shares)}


def test_predict_in_words(artifact: Path, pictures: list[Path]) -> None:
    ended = cutpoint("predict", artifact, pictures[0])
    assert ended.exit_code == 0, ended.stderr
    lines = ended.stdout.replace("\n", " ")
    for part in ("amounts: share ", "place: x ", "near: 96 values: ", "rank: ", "marks: ", "mask: "):
        assert part in lines


def test_masks_of_a_model_without_any_are_refused(pictures: list[Path], tmp_path: Path) -> None:
    one = mixed(("sort", "kind"))
    saved = write_saved_model(one.model, CUT, tmp_path / "saved")
    folder = export_artifact(ArtifactName("tflite", "float32"), saved, one.card, tmp_path, one.calibration_images)
    with pytest.raises(InputError, match="gives no masks"):
        predict_pictures(folder, pictures, 1, tmp_path / "masks")


def test_masks_that_cannot_be_written_are_an_input_error(artifact: Path, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        predict_pictures(artifact, pictures, 1, tmp_path / "masks")
