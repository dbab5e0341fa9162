"""Makers of faults around a good model: its papers, its files on the way, and the golden set that should judge it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image

from exporters.contract import CEILINGS, Card, Output
from exporters.export import write_papers
from exporters.golden import GoldenSet, write_golden
from exporters.golden_files import digest_of, images_of_files
from exporters.onnx_metadata import describe
from exporters.papers import parse_artifact_name
from exporters.runners.keras import KerasRunner
from tests import small_models
from tests.faults_files import onnx_of

# Where the largest part of an artifact lies.
_LARGEST = {"tflite": "model.tflite", "onnx": "model.onnx", "tfjs": "group1-shard1of1.bin"}


def _largest(folder: Path) -> Path:
    return folder / _LARGEST[parse_artifact_name(folder.name).format]


def _card(folder: Path, **changes: object) -> None:
    path = folder / "card.json"
    dataclasses.replace(Card.read(path), **changes).write(path)


def _swapped(output: Output) -> Output:
    return dataclasses.replace(output, labels=(output.labels[1], output.labels[0], *output.labels[2:]))


def swapped_labels(folder: Path) -> None:
    """Two labels of every head change places, in the card and in the text files."""
    card = Card.read(folder / "card.json")
    write_papers(folder, dataclasses.replace(card, outputs=tuple(map(_swapped, card.outputs))))


def swapped_labels_in_the_card(folder: Path) -> None:
    _card(folder, outputs=tuple(map(_swapped, Card.read(folder / "card.json").outputs)))


def swapped_labels_in_the_text(folder: Path) -> None:
    path = folder / "labels.zebra.txt"
    first, second, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([second, first, *rest]) + "\n", encoding="utf-8")


def labels_of_the_other_head(folder: Path) -> None:
    card = Card.read(folder / "card.json")
    apple, zebra = card.outputs
    outputs = (dataclasses.replace(apple, labels=zebra.labels), dataclasses.replace(zebra, labels=apple.labels))
    write_papers(folder, dataclasses.replace(card, outputs=outputs))


def card_of_another_run(folder: Path) -> None:
    _card(folder, created_from="sha256:other")


def card_of_another_cut(folder: Path) -> None:
    _card(folder, cut=("point_relu",))


def card_of_another_alpha(folder: Path) -> None:
    _card(folder, backbone=dataclasses.replace(small_models.CARD.backbone, alpha=0.5))


def card_of_another_resize(folder: Path) -> None:
    _card(folder, resize=dataclasses.replace(small_models.CARD.resize, crop="center"))


def card_of_another_precision(folder: Path) -> None:
    other = "float16" if not folder.name.endswith("float16") else "float32"
    _card(folder, precision=other)


def card_of_another_input_type(folder: Path) -> None:
    """Who feeds pixels by this card feeds the wrong type of numbers."""
    other = {"float32": "uint8", "uint8": "float32"}
    _card(folder, input_dtype=other[Card.read(folder / "card.json").input_dtype])


def card_of_another_color_order(folder: Path) -> None:
    path = folder / "card.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["input"] |= {"color": "BGR", "range": [0, 1]}
    path.write_text(json.dumps(described), encoding="utf-8")


def card_without_a_head(folder: Path) -> None:
    _card(folder, outputs=Card.read(folder / "card.json").outputs[:1])


def card_of_another_task(folder: Path) -> None:
    outputs = Card.read(folder / "card.json").outputs
    _card(folder, outputs=tuple(dataclasses.replace(each, task="regression") for each in outputs))


def truncated_file(folder: Path) -> None:
    path = _largest(folder)
    path.write_bytes(path.read_bytes()[:-1000])


def flipped_bit(folder: Path) -> None:
    path = _largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(bytes(content))


def missing_file(folder: Path) -> None:
    _largest(folder).unlink()


def no_golden_images(out: Path) -> None:
    _golden(out, small_models.small(), 0)


def one_golden_image(out: Path) -> None:
    _golden(out, small_models.small(), 1)


def _golden(out: Path, one: small_models.Small, count: int) -> None:
    """Write so many golden images over the golden set; its files and fingerprints stay."""
    files = (out / "golden" / "files" / "expected.json").read_bytes()
    truth, reference = ({name: each[:count] for name, each in arrays.items()} for arrays in (one.truth, one.reference))
    features = small_models.features_of(one) if count == len(one.images) else {}
    (out / "golden" / "features.npz").unlink()
    write_golden(GoldenSet(one.images[:count], truth, reference, one.card, CEILINGS, features=features), out, [], {})
    (out / "golden" / "files" / "expected.json").write_bytes(files)


def golden_set_of_another_model(out: Path) -> None:
    """Images and answers are another run's."""
    _golden(out, small_models.small(1), small_models.GOLDEN_IMAGES)


def golden_set_without_fingerprints(out: Path) -> None:
    for name in ("weights.json", "weights.npz"):
        (out / "golden" / name).unlink()


def golden_set_without_files(out: Path) -> None:
    expected = out / "golden" / "files" / "expected.json"
    expected.write_text(json.dumps({**json.loads(expected.read_text()), "files": []}), encoding="utf-8")


def golden_files_resized_otherwise(out: Path) -> None:
    """The Keras model saw the golden files cropped where the card says that they are stretched."""
    one, files = small_models.small(), sorted((out / "golden" / "files").glob("*.png"))
    card = dataclasses.replace(one.card, resize=dataclasses.replace(one.card.resize, crop="center"))
    with KerasRunner(one.model) as runner:
        answers = runner.predict(images_of_files(files, card))
    write_golden(GoldenSet(one.images, one.truth, one.reference, card, CEILINGS), out, files, answers)


def golden_pixels_resized_otherwise(out: Path) -> None:
    """Only the digests of the pixels are those of another resize; the answers to the files are right."""
    path, card = out / "golden" / "files" / "expected.json", small_models.CARD
    expected = json.loads(path.read_text(encoding="utf-8"))
    other = dataclasses.replace(card.resize, crop="center")
    pngs = [out / "golden" / "files" / each["file"] for each in expected["files"]]
    pixels = images_of_files(pngs, dataclasses.replace(card, resize=other))
    for each, mine in zip(expected["files"], pixels, strict=True):
        each["pixels_sha256"] = digest_of(mine)
    path.write_text(json.dumps(expected), encoding="utf-8")


def card_that_promises_another_shape(out: Path) -> None:
    """Golden set and artifacts agree on a sixth label that the model has never had."""

    def longer(output: Output) -> Output:
        return dataclasses.replace(output, shape=(6,), labels=(*output.labels, "sixth"))

    for path in (out / "artifacts").iterdir():
        card = Card.read(path / "card.json")
        promised = dataclasses.replace(card, outputs=tuple(map(longer, card.outputs)))
        write_papers(path, promised)
        if (path / "model.onnx").is_file():
            with onnx_of(path) as model:
                describe(model, promised)
    card = dataclasses.replace(small_models.CARD, outputs=tuple(map(longer, small_models.CARD.outputs)))
    card.write(out / "card.json")


def nearly_one_label(out: Path) -> None:
    """Of 41 golden images, all but one bear the first label of one head: a constant would nearly always agree."""
    one = small_models.small()
    said = one.reference["zebra"].argmax(-1)
    kept = np.concatenate([np.flatnonzero(said == 0)[:40], np.flatnonzero(said != 0)[:1]])
    truth, reference = ({name: each[kept] for name, each in arrays.items()} for arrays in (one.truth, one.reference))
    _golden(out, dataclasses.replace(one, images=one.images[kept], truth=truth, reference=reference), len(kept))


def answers_of_a_head_that_no_card_promises(out: Path) -> None:
    one = small_models.small()
    reference = {**one.reference, "other": one.reference["apple"]}
    _golden(out, dataclasses.replace(one, reference=reference), len(one.images))


def a_white_golden_file(out: Path) -> None:
    """One picture more among the golden files; it is white all over, and the Keras model's answers to it are right."""
    one, folder = small_models.small(), out / "golden" / "files"
    Image.new("RGB", (71, 53), (255, 255, 255)).save(folder / "white.png")
    files = [*sorted(folder.glob("*.png")), *sorted(folder.glob("*.jpg"))]
    with KerasRunner(one.model) as runner:
        answers = runner.predict(images_of_files(files, one.card))
    write_golden(GoldenSet(one.images, one.truth, one.reference, one.card, CEILINGS), out, files, answers)
