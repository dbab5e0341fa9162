"""`cutpoint similar`: the nearest pictures, of those of the model or of a folder; a word where there is nothing to find."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from commands import cutpoint
from PIL import Image

from exporters.contract import ArtifactName
from exporters.errors import InputError
from exporters.export import export_artifact
from exporters.saved_model import write_saved_model
from pipeline.similar import find_similar, write_gallery
from pipeline.splitting import Example
from tests.mixed_heads import card_of, mixed

NAME = ArtifactName("tflite", "float32")
GALLERY = 30


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with one artifact and the gallery of the embedding `near`, and its pictures as files beside it."""
    root = tmp_path_factory.mktemp("similar")
    one, out, photos = mixed(("kind", "near")), root / "out", root / "photos"
    saved = write_saved_model(one.model, {}, root / "saved")
    (out / "artifacts").mkdir(parents=True)
    card = dataclasses.replace(card_of(("kind", "near")), cut=())
    export_artifact(NAME, saved, card, out / "artifacts", one.calibration_images)
    photos.mkdir()
    for index, image in enumerate(one.images):
        Image.fromarray(image).save(photos / f"{index:03}.png")
    examples = [Example(photos / f"{index:03}.png", "", {"label": f"sort {index % 3}"}) for index in range(GALLERY)]
    write_gallery(out, "near", examples, "label", one.reference["near"][:GALLERY], photos)
    return root


def nearest_by_keras(index: int, among: range) -> list[int]:
    vectors = mixed(("kind", "near")).reference["near"]
    return sorted(among, key=lambda other: -float(vectors[index] @ vectors[other]))


def test_the_nearest_pictures_of_the_gallery(result: Path) -> None:
    wanted = [result / "photos" / "050.png", result / "photos" / "004.png"]
    found = find_similar(result / "out", wanted, None, None, 3)
    assert [(each["path"], each["head"], each["artifact"]) for each in found] == [
        (str(path), "near", str(NAME)) for path in wanted
    ]
    for index, each in zip((50, 4), found, strict=True):
        names = [one["path"] for one in each["similar"]]
        assert names == [f"{other:03}.png" for other in nearest_by_keras(index, range(GALLERY))[:3]]
        assert each["similar"][0]["label"] == f"sort {int(names[0][:3]) % 3}"
        cosines = [one["cosine"] for one in each["similar"]]
        assert cosines == sorted(cosines, reverse=True)
    # It is in the gallery itself, and nearest to itself.
    assert found[1]["similar"][0]["path"] == "004.png" and found[1]["similar"][0]["cosine"] == pytest.approx(
        1, abs=1e-4
    )


def test_the_nearest_pictures_in_a_folder_but_for_itself(result: Path) -> None:
    found = find_similar(
        result / "out" / "artifacts" / str(NAME), [result / "photos" / "004.png"], result / "photos", "near", 2
    )
    count = len(mixed(("kind", "near")).images)
    others = nearest_by_keras(4, [index for index in range(count) if index != 4])
    assert [Path(one["path"]).name for one in found[0]["similar"]] == [f"{other:03}.png" for other in others[:2]]


def test_the_command(result: Path) -> None:
    picture = result / "photos" / "050.png"
    told = cutpoint("similar", result / "out", picture, "--top", 2)
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert len(lines) == 3 and lines[0].endswith("050.png  near:") and "sort" in lines[1]
    plain = cutpoint("similar", result / "out", picture, "--top", 2, "--json")
    assert [one["path"] for one in plain.json()[0]["similar"]] == [line.split()[1] for line in lines[1:]]


def test_what_cannot_be_found_is_told(result: Path, tmp_path: Path) -> None:
    picture, out = result / "photos" / "050.png", result / "out"
    with pytest.raises(InputError, match="no embedding 'nea'") as caught:
        find_similar(out, [picture], None, "nea", 3)
    assert "near" in caught.value.expected
    with pytest.raises(InputError, match="holds no pictures"):
        find_similar(out, [picture], tmp_path, None, 3)
    with pytest.raises(InputError, match="is no artifact"):
        find_similar(tmp_path, [picture], None, None, 3)
    damaged = tmp_path / "out"
    (damaged / "artifacts").mkdir(parents=True)
    (damaged / "artifacts" / str(NAME)).symlink_to(out / "artifacts" / str(NAME))
    with pytest.raises(InputError, match="There are no pictures to look in") as caught:
        find_similar(damaged, [picture], None, None, 3)
    assert "--among" in caught.value.mend
    (damaged / "gallery").mkdir()
    np.savez(
        damaged / "gallery" / "near.npz",
        vectors=np.zeros((2, 3)),
        paths=np.array(["a", "b"]),
        labels=np.array(["", ""]),
    )
    with pytest.raises(InputError, match=r"holds \(2, 3\) for 2 pictures"):
        find_similar(damaged, [picture], None, None, 3)


def test_a_model_without_an_embedding(result: Path, tmp_path: Path) -> None:
    one = mixed(("kind",))
    saved = write_saved_model(one.model, {}, tmp_path / "saved")
    folder = export_artifact(
        NAME, saved, dataclasses.replace(card_of(("kind",)), cut=()), tmp_path, one.calibration_images
    )
    with pytest.raises(InputError, match="has no embedding") as caught:
        find_similar(folder, [result / "photos" / "050.png"], None, None, 3)
    assert "[heads.near]" in caught.value.mend
