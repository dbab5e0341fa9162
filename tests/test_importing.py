"""What was taught on the page becomes a Keras head that answers alike, exported and verified; whatever is wrong is refused."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import Outcome, cutpoint
from pictures import SMALL, write_drawings
from playwright.sync_api import Browser

from exporters import pixels
from exporters.contract import Card, Resize
from pipeline.assembly import save_model
from pipeline.importing import build, check_patterns
from pipeline.quickstart.drawings import LABELS, draw
from pipeline.taught_file import head_answers, pattern, read_taught
from tests.demo_page import browser, encoded, opened, serving  # noqa: F401  browser is a fixture
from tests.teaching_page import download, listen_for_uploads, teach

TAUGHT = LABELS[3:6]
# A name of a class is text, whatever it looks like.
NAMES = ("../../" + TAUGHT[0], TAUGHT[1], "=" + TAUGHT[2])
PER_CLASS = 20


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder of the embedded backbone with a head for other drawings."""
    root = tmp_path_factory.mktemp("source")
    write_drawings(root / "photos", per_class=12)
    ended = cutpoint(
        *("run", "--data", root / "photos", *SMALL, "--formats", "tfjs-float32", "--out", root / "runs" / "base"),
        *("--runtimes", "tfjs-node/wasm"),
    )
    assert (root / "runs" / "base" / "artifacts" / "tfjs-float32" / "model.json").exists(), ended.stderr
    return root / "runs" / "base"


def drawings(label: str, count: int = PER_CLASS) -> list[bytes]:
    generators = [np.random.default_rng([11, LABELS.index(label), number]) for number in range(count)]
    return [encoded(draw(label, generator, 96)) for generator in generators]


@pytest.fixture(scope="module")
def taught(browser: Browser, out: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:  # noqa: F811
    """What the page said of three classes, and its two files: `private` without the pictures, `whole` with them."""
    folder = tmp_path_factory.mktemp("taught")
    with serving(out) as url, opened(browser, url) as page:
        sent = listen_for_uploads(page)
        accuracy, held_out = teach(page, dict(zip(NAMES, map(drawings, TAUGHT), strict=True)))
        whole = download(page, folder / "whole.cutpoint.json", with_pictures=True)
        download(page, folder / "private.cutpoint.json")
        assert sent == []
    yield {"accuracy": accuracy, "held_out": held_out, "json": whole, "folder": folder}


def imported(taught: dict[str, Any], name: str, out: Path, target: Path, *more: object) -> Outcome:
    file = taught["folder"] / f"{name}.cutpoint.json"
    formats = ("--formats", "tfjs-float32,onnx-float32", "--runtimes", "tfjs-node/wasm,onnxruntime/cpu")
    return cutpoint("import", file, "--from", out, "--out", target, *formats, "--json", *more)


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_the_page_learns_drawings_that_the_model_never_saw(taught: dict[str, Any]) -> None:
    assert taught["held_out"] == 12
    assert taught["accuracy"] >= 0.75, "chance is a third"


def test_shuffled_labels_are_not_learned(browser: Browser, out: Path) -> None:  # noqa: F811
    pictures = [each for label in TAUGHT for each in drawings(label)]
    groups = np.split(np.random.default_rng(0).permutation(len(pictures)), len(TAUGHT))
    with serving(out) as url, opened(browser, url) as page:
        named = {f"group {index}": [pictures[i] for i in group] for index, group in enumerate(groups)}
        accuracy, _ = teach(page, named)
    assert accuracy <= 0.6


def test_with_its_pictures_it_is_verified_and_answers_as_the_page_did(taught, out: Path, tmp_path: Path) -> None:
    ended = imported(taught, "whole", out, tmp_path / "out")
    report = ended.json()
    assert (ended.exit_code, report["verdict"]) == (0, "verified"), ended.stderr
    assert {each["name"] for each in report["artifacts"]} == {"tfjs-float32", "onnx-float32"}
    tfjs = next(each for each in report["artifacts"] if each["format"] == "tfjs")
    assert tfjs["runtimes"][0]["features"]["status"] == "verified", "its page can teach again"
    assert report["data"]["test"] == taught["held_out"]
    assert report["reference"]["accuracy"]["label"] == pytest.approx(taught["accuracy"])
    card = Card.read(tmp_path / "out" / "card.json")
    assert card.outputs[0].labels == NAMES and card.cut == ("out_relu",)
    model = keras.models.load_model(tmp_path / "out" / "model.keras")
    given = taught["json"]["pictures"]
    images = np.stack([pixels.decode(base64.b64decode(each["png"])) for each in given]).astype(np.float32)
    answers = np.asarray(model(images, training=False)["label"])
    expected = np.stack([floats(each["probabilities"]) for each in given])
    assert np.abs(answers - expected).max() <= 1e-4
    assert np.ptp(expected, axis=0).min() > 0.5
    manifest = json.loads((tmp_path / "out" / "golden" / "manifest.json").read_text())
    assert manifest["publish"] == "none", "pictures of the user are not given away"


@pytest.mark.slow
def test_without_pictures_the_source_folders_own_judge_and_accuracy_is_not_known(taught, out, tmp_path: Path) -> None:
    file = taught["folder"] / "private.cutpoint.json"
    # Found under runs/ by what it was taught on.
    ended = cutpoint(
        *("import", file, "--out", tmp_path / "out", "--formats", "onnx-float32", "--json"),
        *("--runtimes", "onnxruntime/cpu"),
        cwd=out.parents[1],
    )
    report = ended.json()
    assert (ended.exit_code, report["verdict"]) == (0, "verified"), ended.stderr
    assert report["reference"]["accuracy"] == {}
    assert any("accuracy is not known" in note for note in report["notes"])
    mine, theirs = (np.load(each / "golden" / "images.npz")["images"] for each in (tmp_path / "out", out))
    assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_with_data_it_is_judged_on_them(taught, out: Path, tmp_path: Path) -> None:
    for name, label in zip(("a", "b", "c"), TAUGHT, strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, data in enumerate(drawings(label, 8)):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(data)
    ended = imported(taught, "private", out, tmp_path / "out", "--data", tmp_path / "photos")
    assert ended.exit_code == 2 and "which the head does not know" in ended.json()["error"]["what"]
    assert not (tmp_path / "out").exists()
    table = ["path,label"]
    rows = zip(("a", "b", "c"), NAMES, strict=True)
    table += [f"photos/{name}/{number}.png,{label}" for name, label in rows for number in range(8)]
    (tmp_path / "photos.csv").write_text("\n".join(table) + "\n")
    ended = imported(taught, "private", out, tmp_path / "out", "--data", tmp_path / "photos.csv")
    assert ended.exit_code == 0, ended.stderr
    assert ended.json()["reference"]["accuracy"]["label"] >= 0.75


def bomb() -> bytes:
    """A PNG that says it has the model's size, and unpacks to far more."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(2**20)))


def _flip(values: str) -> str:
    return base64.b64encode(np.flip(floats(values)).astype("<f4").tobytes()).decode()


def _not_a_number(values: str) -> str:
    return base64.b64encode(np.full_like(floats(values), np.nan).tobytes()).decode()


# What is changed in the file, and what of it is said.
WRONG = {
    "another model": (lambda it: it.update(created_from="sha256:another"), "in another run than"),
    "another cut": (lambda it: it.update(cut="block_1_expand"), "the cut 'block_1_expand'"),
    "another backbone": (lambda it: it["backbone"].update(name="vgg16"), "the backbone vgg16"),
    "another size": (lambda it: it["resize"].update(width=64), "no PNG of 64 x 96 px"),
    "another kind": (lambda it: it.update(kind="head"), "Invalid enum value"),
    "another schema": (lambda it: it.update(schema_version=2), "schema_version 2"),
    "an unknown field": (lambda it: it.update(code="import os"), "unknown field `code`"),
    "a field missing": (lambda it: it.pop("labels"), "missing required field `labels`"),
    "no numbers": (lambda it: it["head"].update(kernel=_not_a_number(it["head"]["kernel"])), "a number that is none"),
    "a short kernel": (lambda it: it["head"].update(kernel=it["head"]["kernel"][:16]), "bytes where"),
    "a wrong width": (lambda it: it["head"].update(width=2**40), "its head takes"),
    "a kernel of others": (
        lambda it: it["head"].update(kernel=_flip(it["head"]["kernel"])),
        "does not give the answers",
    ),
    "one label": (lambda it: it.update(labels=it["labels"][:1]), "it has 1 labels"),
    "a label twice": (lambda it: it["labels"].__setitem__(1, it["labels"][0]), "there twice"),
    "a label of two lines": (lambda it: it["labels"].__setitem__(1, "a\nb"), "no line of a text"),
    "labels too many": (lambda it: it["labels"].append("more"), "bytes where"),
    "counts of others": (lambda it: it["training"].update(correct=99), "counts of pictures"),
    "no picture": (lambda it: it["pictures"][0].update(png="aGVsbG8="), "is no PNG of 96 x 96 px"),
    "a bomb": (lambda it: it["pictures"][0].update(png=base64.b64encode(bomb()).decode()), "is no PNG of 96 x 96 px"),
    "half a picture": (lambda it: it["pictures"][0].update(png=it["pictures"][0]["png"][:400]), "a picture is damaged"),
    "a picture of no class": (lambda it: it["pictures"][0].update(label=-1), "a picture is of class -1"),
    "an unknown precision": (lambda it: it.update(precision="float4"), "it names the precision 'float4'"),
    "no name": (lambda it: it.update(name=" "), "its name is empty"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused_in_words_and_nothing_is_written(taught, out, tmp_path: Path, wrong: str) -> None:
    change, said = WRONG[wrong]
    told = copy.deepcopy(taught["json"])
    change(told)
    (tmp_path / "bad.cutpoint.json").write_text(json.dumps(told))
    ended = cutpoint("import", tmp_path / "bad.cutpoint.json", "--from", out, "--out", tmp_path / "out")
    assert ended.exit_code == 2, ended.stderr
    assert said in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"[" * 100_000, b"\xff\xfe", b'{"kind": "cutpoint-taught-head"}'])
def test_what_is_no_file_of_the_page_is_refused(data: bytes, out: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(data)
    ended = cutpoint("import", tmp_path / "bad.json", "--from", out, "--out", tmp_path / "out")
    assert ended.exit_code == 2 and "is not what the page wrote" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_the_source_folder_is_not_overwritten_and_has_to_be_known(taught, out: Path, tmp_path: Path) -> None:
    file = taught["folder"] / "private.cutpoint.json"
    ended = cutpoint("import", file, "--from", out, "--out", out)
    assert ended.exit_code == 2 and "would be overwritten" in ended.stderr
    ended = cutpoint("import", file, cwd=tmp_path)
    assert ended.exit_code == 2 and "--from" in ended.stderr
    ended = cutpoint("import", tmp_path / "missing.json", "--from", out)
    assert ended.exit_code == 2 and "cannot be read" in ended.stderr


def test_a_backbone_that_is_another_behind_the_same_card_is_found_out(taught, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "forged")
    model = keras.models.load_model(out / "model.keras")
    layer = model.get_layer("block_3_project")
    layer.set_weights([1.3 * layer.get_weights()[0]])
    save_model(model, tmp_path / "forged" / "model.keras")
    ended = imported(taught, "private", tmp_path / "forged", tmp_path / "out")
    assert ended.exit_code == 2
    assert "The backbone gives other features than the page's model" in ended.json()["error"]["what"]
    assert not (tmp_path / "out").exists()


def test_page_and_keras_agree_on_the_patterns(taught, out: Path) -> None:
    head = read_taught(taught["folder"] / "private.cutpoint.json")
    said = check_patterns(build(head, out), head)
    apart = float(said.removesuffix(" apart.").split()[-1])
    assert 0 < apart <= 1e-4
    assert np.abs(head_answers(head.kernel, head.bias, head.features) - head.probabilities).max() <= 1e-6
    assert not head.pictures


def test_a_pattern_is_made_of_whole_numbers() -> None:
    """Some of its pixels, worked out by hand: place = x * 256 // 5 + y * 256 // 3, phase 85 each, up to 255 and down again."""
    shown = pattern(0, Resize(5, 3))
    assert shown.shape == (3, 5, 3) and shown.dtype == np.uint8
    assert shown[0, 0].tolist() == [0, 85, 170]
    assert shown[2, 4].tolist() == [511 - 374, 511 - 459, 544 - 512], "the place is 204 + 170"
