"""What `cutpoint site` and the page give away of the test pictures: as much as `golden.publish` allows, and no more."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from exporters.contract import CEILINGS
from exporters.golden import GoldenSet, read_manifest, write_golden, write_manifest
from exporters.golden_files import prepare_files
from pipeline.publishing import count_pictures, published_files, samples_listed, with_manifest
from tests import small_models
from tests.commands import cutpoint

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
REFERENCE = {name: np.random.default_rng(1).random((6, 5), np.float32) for name in ("apple", "zebra")}


def result_folder(out: Path, publish: str) -> Path:
    """A golden set of six images, two of them as files."""
    files = prepare_files(small_models.write_pictures(out / "pictures", 2), out)
    answers = {name: values[: len(files)] for name, values in REFERENCE.items()}
    write_golden(GoldenSet(IMAGES, {}, REFERENCE, small_models.CARD, CEILINGS), out, files, answers)
    write_manifest(out, small_models.CARD, CEILINGS, publish=publish)
    return out


@pytest.mark.parametrize(
    ("publish", "names", "count"),
    [
        ("samples", ["files/0000.png", "files/0001.png", "files/expected.json"], 2),
        ("all", ["files/0000.png", "files/0001.png", "files/expected.json", "images.npz", "reference.npz"], 8),
        ("none", [], 0),
        ("a word that there is not", [], 0),
    ],
)
def test_what_is_published(publish: str, names: list[str], count: int, tmp_path: Path) -> None:
    out = result_folder(tmp_path, publish)
    assert sorted(published_files(out)) == [f"golden/{name}" for name in names]
    assert count_pictures(out) == count


def test_the_answers_that_are_published_are_those_to_the_published_files(tmp_path: Path) -> None:
    content = published_files(result_folder(tmp_path, "samples"))["golden/files/expected.json"]
    listed = json.loads(content)["files"]
    assert [each["file"] for each in listed] == ["0000.png", "0001.png"]
    np.testing.assert_allclose(listed[1]["outputs"]["zebra"], REFERENCE["zebra"][1])


def test_a_folder_whose_manifest_says_nothing_publishes_nothing(tmp_path: Path) -> None:
    out = result_folder(tmp_path, "all")
    manifest = json.loads((out / "golden" / "manifest.json").read_text(encoding="utf-8"))
    del manifest["publish"]
    (out / "golden" / "manifest.json").write_text(json.dumps(manifest))
    assert published_files(out) == {} and count_pictures(out) == 0
    assert published_files(tmp_path / "nothing") == {}


@pytest.mark.parametrize("publish", ["samples", "all"])
def test_the_manifest_that_is_published_is_of_what_is_published(publish: str, tmp_path: Path) -> None:
    out = result_folder(tmp_path, publish)
    files = published_files(out)
    site = with_manifest(out, {**files, "index.html": b"page"})
    told = json.loads(site.pop("golden/manifest.json"))
    assert site == {**files, "index.html": b"page"}
    assert set(told) == {"schema_version", "created_from", "card", "publish", "limits", "files"}
    assert set(told["files"]) == set(files) and told["publish"] == publish
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert told["files"][name] == hashlib.sha256(data).hexdigest()
    assert "features.npz" not in json.dumps(told) and ".jpg" not in json.dumps(told)
    assert samples_listed(with_manifest(out, files)) == {
        "samples": "golden/files/expected.json",
        "golden": "golden/manifest.json",
    }


def test_without_published_pictures_there_is_no_manifest(tmp_path: Path) -> None:
    files = published_files(result_folder(tmp_path, "none"))
    assert with_manifest(tmp_path, files) == {} and samples_listed(files) == {}


def test_the_checksums_are_those_of_the_export(tmp_path: Path) -> None:
    out = result_folder(tmp_path, "samples")
    before = read_manifest(out)["files"]
    (out / "golden" / "files" / "0000.png").write_bytes(b"another")
    (out / "golden" / "files" / "0001.png").unlink()
    listed = json.loads((out / "golden" / "files" / "expected.json").read_text(encoding="utf-8"))
    listed["files"][0]["outputs"]["zebra"][0] += 0.5
    (out / "golden" / "files" / "expected.json").write_text(json.dumps(listed))
    files = with_manifest(out, published_files(out))
    told = json.loads(files["golden/manifest.json"])["files"]
    names = {"golden/files/0000.png", "golden/files/0001.png", "golden/files/expected.json"}
    assert told == {name: before[name] for name in names}
    assert told["golden/files/expected.json"] != hashlib.sha256(files["golden/files/expected.json"]).hexdigest()


def test_a_wrong_word_in_the_configuration_names_the_nearest(tmp_path: Path) -> None:
    answer = cutpoint("run", "--set", 'golden.publish="sample"', "--out", str(tmp_path / "out"))
    assert answer.exit_code == 2 and "samples" in answer.stderr and "golden.publish" in answer.stderr
