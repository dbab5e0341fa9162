"""What the tests of the code in artifacts' READMEs share: artifacts, pictures, and what the code must say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporters.contract import ArtifactName, Card
from exporters.explanation import explain
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.pixels import read_picture, resize
from exporters.runtimes import open_runner
from tests.column_models import with_columns
from tests.mixed_heads import TASKS, mixed
from tests.pictures import picture

# Of a picture: what stands beside it, in the order of `column_models.COLUMNS`.
BESIDE = [2019.0, 250_000.0, 7.5, 2.0]


def code_of(text: str, language: str) -> str:
    """The code in that language of an artifact's README; empty where there is none."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    assert len(found) <= 1
    return found[0] if found else ""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest.fixture(scope="module")
def exported(work: Path) -> Callable[[str], Path]:
    """Export the network with a head of every task, or, for names that begin with `columns/`, the one with columns."""
    models: dict[str, InferenceModels] = {}

    def export(asked: str) -> Path:
        columned, name = asked.startswith("columns/"), parsed(asked)
        # A layers model has no layer that brings an embedding to its length.
        heads = tuple(head for head in TASKS if head != "near" or name.format != "tfjs_layers")
        one = with_columns() if columned else mixed(heads)
        images = one.calibration if columned else one.calibration_images
        key = "columns" if columned else str(len(heads))
        folder = work / key
        if key not in models:
            saved = folder / "saved"
            saved.mkdir(parents=True)
            models[key] = InferenceModels(one.model, one.card.cut, images, saved, features_everywhere=False)
        if not (folder / str(name)).exists():
            export_artifact(name, models[key].saved_model(name.precision), one.card, folder, images)
        return folder / str(name)

    return export


@pytest.fixture(scope="module")
def shown(work: Path) -> list[Path]:
    """Pictures as people have them: a photograph of another aspect, turned by its EXIF block, and one that is transparent."""
    photograph, turned, clear = (work / name for name in ("picture.png", "turned.jpg", "clear.png"))
    Image.fromarray(picture(57, 41)).save(photograph)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(64, 40)).save(turned, exif=exif, quality=95)
    Image.fromarray(picture(50, 70, 4)).save(clear)
    return [photograph, turned, clear]


def parsed(asked: str) -> ArtifactName:
    return ArtifactName(*asked.rpartition("/")[2].split("-", 2))


def expected_answers(card: Card, numbers: dict[str, np.ndarray]) -> dict[str, object]:
    """What the numbers of each output say, by the words that `cutpoint predict` has for it."""
    said = {}
    for output in card.outputs:
        value = numbers[output.name]
        if output.task == "boxes":
            said[output.name] = dict(zip(output.columns, value.tolist(), strict=True))
            continue
        if output.task in ("embedding", "segmentation"):
            said[output.name] = (value if output.task == "embedding" else value.argmax(-1).ravel()).tolist()
            continue
        told = explain(value, output, (1, 1, card.resize), len(output.labels))
        pairs = told.get("labels", told.get("top")) or []
        pairs = [[each["label"], each["probability"]] for each in pairs]
        said[output.name] = told.get("label") or told.get("values") or pairs
    return said


def check_answers(card: Card, told: dict, close: float) -> None:
    """The answers of the README's code say what its numbers do."""
    numbers = {name: np.asarray(value, np.float32) for name, value in told["numbers"].items()}
    numbers = {each.name: numbers[each.name].reshape(each.shape) for each in card.outputs}
    expected = expected_answers(card, numbers)
    assert set(told["answer"]) == set(expected)
    for name, wanted in expected.items():
        found = told["answer"][name]
        if card.output(name).task == "segmentation":
            found = np.ravel(found).tolist()
        assert_alike(found, wanted, close)


def assert_alike(found: object, wanted: object, close: float) -> None:
    """Equal, numbers up to `close`."""
    if isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for key, value in wanted.items():
            assert_alike(found[key], value, close)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for mine, theirs in zip(found, wanted, strict=True):
            assert_alike(mine, theirs, close)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=close, rel=close)
    else:
        assert found == wanted


def given(card: Card, path: Path) -> np.ndarray:
    return resize(read_picture(path), card.resize)


def unknown(card: Card) -> np.ndarray | None:
    """The columns of a picture of which nothing but itself is known."""
    values = [0.0 if each.kind == "category" else each.default for each in card.columns]
    return np.array([values], np.float32) if values else None


def answers_of_runner(
    folder: Path, card: Card, pixels: np.ndarray, columns: np.ndarray | None
) -> dict[str, np.ndarray]:
    names = [each.name for each in card.outputs]
    with open_runner(folder, parsed(folder.name).format) as runner:
        found = runner.predict(Inputs(pixels[np.newaxis], columns), outputs=names)
    return {name: values[0] for name, values in found.items()}
