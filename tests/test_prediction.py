"""Predictions from picture files, in any artifact's own runtime."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from exporters.contract import FORMATS
from exporters.errors import InputError
from exporters.pixels import load_images
from exporters.prediction import find_artifact, predict_pictures
from exporters.runners.keras import KerasRunner
from tests import small_models
from tests.small_models import EVERY_ARTIFACT, LABELS


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.result_folder(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_models.write_pictures(tmp_path_factory.mktemp("predicted"))


@pytest.fixture(scope="session")
def expected(pictures: list[Path]) -> dict[str, np.ndarray]:
    with KerasRunner(small_models.small().model) as runner:
        return runner.predict(load_images(pictures, small_models.CARD.resize))


@pytest.mark.parametrize("name", map(str, EVERY_ARTIFACT))
def test_every_artifact_answers_pictures_as_keras_does(
    name: str, whole: Path, pictures: list[Path], expected: dict[str, np.ndarray]
) -> None:
    found = predict_pictures(whole / "artifacts" / name, pictures, top=3)
    assert [each["path"] for each in found] == [str(path) for path in pictures]
    assert {each["artifact"] for each in found} == {name}
    for index, each in enumerate(found):
        assert list(each["outputs"]) == ["apple", "zebra"]
        for head, answer in each["outputs"].items():
            order = np.argsort(-expected[head][index])[:3]
            assert answer["top"][0]["label"] == LABELS[head][order[0]]
            assert len(answer["top"]) == 3
            assert answer["top"][0]["probability"] == pytest.approx(expected[head][index][order[0]], abs=0.1)
            shares = [one["probability"] for one in answer["top"]]
            assert shares == sorted(shares, reverse=True)


def test_a_result_folder_answers_with_a_float_artifact_that_needs_no_node(whole: Path, pictures: list[Path]) -> None:
    assert predict_pictures(whole, pictures[:1], top=1)[0]["artifact"] == "tflite-float32"


@pytest.mark.parametrize("name", [str(name) for name in EVERY_ARTIFACT if name.precision == "float32"])
def test_a_folder_and_the_file_in_it_mean_the_same(name: str, whole: Path) -> None:
    folder = whole / "artifacts" / name
    assert find_artifact(folder) == folder
    assert find_artifact(folder / FORMATS[name.split("-")[0]].file) == folder


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (("tfjs-float32", "onnx-float32"), "onnx-float32"),
        (("tfjs-float32", "tflite-int8"), "tfjs-float32"),
        (("tflite-int8", "onnx-int8"), "tflite-int8"),
        (("tfjs-uint8", "onnx-int8"), "tfjs-uint8"),
    ],
)
def test_what_a_result_folder_answers_with(present: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    for name in (*present, ".tflite-float32-half"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
    assert find_artifact(tmp_path).name == chosen


def test_what_is_no_artifact_is_an_input_error(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "model.keras").write_bytes(b"1")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "model.keras", whole / "golden"):
        with pytest.raises(InputError, match="is no artifact"):
            find_artifact(path)


def test_a_picture_that_cannot_be_read_is_named(whole: Path, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InputError, match=r"text\.png"):
        predict_pictures(whole, [*pictures, tmp_path / "text.png"], top=1)


def test_an_artifact_of_another_name_is_an_input_error(whole: Path, pictures: list[Path], tmp_path: Path) -> None:
    shutil.copytree(whole / "artifacts" / "onnx-float32", tmp_path / "my model")
    with pytest.raises(InputError, match="no known format"):
        predict_pictures(tmp_path / "my model", pictures, top=1)


def test_an_artifact_without_its_card_is_an_input_error(whole: Path, pictures: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(whole / "artifacts" / "onnx-float32", tmp_path / "onnx-float32")
    (folder / "card.json").unlink()
    with pytest.raises(InputError, match=r"card\.json"):
        predict_pictures(folder, pictures, top=1)
