"""Artifacts as a faulty exporter would make them: caught in every format, and for the right reason.

The fault is made in a copy of the Keras model, or in the papers, which then goes through the real exporter; card, golden
set and checksums are written anew over it, so that no checksum can tell. Only the reference answers are the true model's.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.contract import CEILINGS, ArtifactName, Card, Output
from exporters.export import export_artifact, write_papers
from exporters.golden import GoldenSet, write_golden, write_manifest
from exporters.runners.keras import KerasRunner
from exporters.saved_model import write_saved_model
from exporters.verification import verify_folder
from tests import small_models
from tests.small_models import CUT, EVERY_ARTIFACT

FLOAT32 = [str(name) for name in EVERY_ARTIFACT if name.precision == "float32"]
QUANTISED = [str(name) for name in EVERY_ARTIFACT if name.precision in ("uint8", "int8")]
NAMES = {str(name): name for name in EVERY_ARTIFACT}


def copy_of(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def change(model: keras.Model, layer: str, edit: Callable[[np.ndarray], np.ndarray]) -> keras.Model:
    """A copy of a model, with an edit of the kernel of one layer."""
    copy = copy_of(model)
    kernel, *others = copy.get_layer(layer).get_weights()
    copy.get_layer(layer).set_weights([edit(kernel.copy()), *others])
    return copy


def permuted_outputs(model: keras.Model) -> keras.Model:
    copy = copy_of(model)
    copy.get_layer("zebra").set_weights([np.roll(each, 1, axis=-1) for each in copy.get_layer("zebra").get_weights()])
    return copy


def swapped_channels(model: keras.Model) -> keras.Model:
    return change(model, "first", lambda kernel: kernel[:, :, ::-1])


def missing_scaling(model: keras.Model) -> keras.Model:
    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name == "pixel_scaling":
            return keras.layers.Rescaling(1.0, name="pixel_scaling")
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def one_wrong_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> np.ndarray:
        kernel[0, 0, 3, 5] += 100 * np.abs(kernel).max()
        return kernel

    return change(model, "point", edit)


def nan_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> np.ndarray:
        kernel[4, 2] = np.nan
        return kernel

    return change(model, "zebra", edit)


def early_nan_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> np.ndarray:
        kernel[1, 1, 0, 4] = np.nan
        return kernel

    return change(model, "first", edit)


def constant_output(model: keras.Model) -> keras.Model:
    return change(change(model, "zebra", np.zeros_like), "apple", np.zeros_like)


def another_model(model: keras.Model) -> keras.Model:
    return small_models.small(1).model


DAMAGES = {
    each.__name__.replace("_", " "): each
    for each in (
        *(permuted_outputs, swapped_channels, missing_scaling, one_wrong_weight, nan_weight, early_nan_weight),
        *(constant_output, another_model),
    )
}
# Kind of fault -> what the reason must say, in float32 and quantised ("": cannot be made there, or costs too much).
DIFFERENCE, AGREEMENT = r"zebra: the largest difference \S+ is over", r"top-1 agreement \S+ is under"
KINDS = {
    "permuted outputs": (DIFFERENCE, AGREEMENT),
    "swapped channels": (DIFFERENCE, AGREEMENT),
    "missing scaling": (DIFFERENCE, AGREEMENT),
    "one wrong weight": (DIFFERENCE, AGREEMENT),
    "nan weight": ("zebra: the answer holds NaN or infinity for 240 of 240 images", ""),
    # Some runtimes' ReLU6 makes a number of NaN again: a wrong one.
    "early nan weight": (f"the answer holds NaN or infinity|{DIFFERENCE}", ""),
    "constant output": (DIFFERENCE, ""),
    "another model": (DIFFERENCE, AGREEMENT),
}
CASES = [
    pytest.param(kind, name, reason, id=f"{kind}-{name}")
    for kind, reasons in KINDS.items()
    for names, reason in zip((FLOAT32, QUANTISED), reasons, strict=True)
    for name in names
    if reason
]


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@functools.cache
def damaged_model(session_folder: Path, kind: str) -> tuple[keras.Model, Path]:
    """A damaged Keras model and its SavedModel."""
    model = DAMAGES[kind](small_models.small().model)
    return model, write_saved_model(model, CUT, session_folder / f"damaged {kind}")


def result_with(session_folder: Path, out: Path, name: str, saved_model: Path) -> Path:
    """A result folder with one artifact, whose golden set is that of the true model and whose checksums are all right."""
    one = small_models.small()
    export_artifact(NAMES[name], saved_model, one.card, out / "artifacts", one.calibration_images)
    write_true_golden(session_folder, out)
    return out


@functools.cache
def true_golden(session_folder: Path, count: int) -> Path:
    """The golden set of the true model with so many of its images, and its card, for results to copy."""
    one, out = small_models.small(), session_folder / f"golden {count}"
    truth, reference = ({name: each[:count] for name, each in arrays.items()} for arrays in (one.truth, one.reference))
    write_golden(GoldenSet(one.images[:count], truth, reference, one.card, CEILINGS), out, [], {})
    one.card.write(out / "card.json")
    return out


def write_true_golden(session_folder: Path, out: Path, count: int = small_models.GOLDEN_IMAGES) -> None:
    """Give a result folder the true model's golden set, and checksums of whatever is in it now."""
    shutil.copytree(true_golden(session_folder, count), out, dirs_exist_ok=True)
    write_manifest(out, small_models.CARD, CEILINGS)


def copied(session_folder: Path, out: Path, name: str) -> Path:
    """A result folder with a copy of the whole, undamaged artifact, for a test to damage its papers."""
    shutil.copytree(small_models.result_folder(session_folder) / "artifacts" / name, out / "artifacts" / name)
    write_true_golden(session_folder, out)
    return out


def entry_of(out: Path) -> tuple[dict, dict]:
    report = verify_folder(out)
    assert report["integrity"]["status"] == "verified", "the checksums were written after the damage"
    (artifact,) = report["artifacts"]
    (runtime,) = artifact["runtimes"]
    return report, runtime


@pytest.mark.parametrize("name", [*FLOAT32, *QUANTISED])
def test_control_the_undamaged_artifact_is_verified(name: str, session_folder: Path, tmp_path: Path) -> None:
    """Without this, everything below could pass because nothing ever does."""
    report, runtime = entry_of(copied(session_folder, tmp_path, name))
    assert (report["verdict"], report["exit_code"]) == ("verified", 0), runtime["reason"]
    assert runtime["images"] == small_models.GOLDEN_IMAGES
    assert {each["status"] for each in runtime["outputs"].values()} == {"verified"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_damage_changes_answers_but_not_shapes(kind: str, session_folder: Path) -> None:
    one = small_models.small()
    with KerasRunner(damaged_model(session_folder, kind)[0]) as runner:
        answers = runner.predict(one.images)
    assert {name: each.shape for name, each in answers.items()} == dict.fromkeys(one.reference, (240, 5))
    changed = (answers["zebra"].argmax(-1) != one.reference["zebra"].argmax(-1)).mean()
    assert changed > 0.05 or np.isnan(answers["zebra"]).any()


@pytest.mark.parametrize(("kind", "name", "reason"), CASES)
def test_a_damaged_model_is_caught(kind: str, name: str, reason: str, session_folder: Path, tmp_path: Path) -> None:
    report, runtime = entry_of(result_with(session_folder, tmp_path, name, damaged_model(session_folder, kind)[1]))
    assert (runtime["status"], report["verdict"], report["exit_code"]) == ("failed", "failed", 1)
    assert re.search(reason, runtime["reason"]), runtime["reason"]
    assert runtime["images"] == small_models.GOLDEN_IMAGES


def swapped(output: Output) -> Output:
    return dataclasses.replace(output, labels=(output.labels[1], output.labels[0], *output.labels[2:]))


def swapped_labels_everywhere(folder: Path, card: Card) -> None:
    write_papers(folder, dataclasses.replace(card, outputs=tuple(swapped(each) for each in card.outputs)))


def swapped_labels_in_the_card(folder: Path, card: Card) -> None:
    dataclasses.replace(card, outputs=tuple(swapped(each) for each in card.outputs)).write(folder / "card.json")


def swapped_labels_in_the_text(folder: Path, card: Card) -> None:
    path = folder / "labels.zebra.txt"
    first, second, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([second, first, *rest]) + "\n", encoding="utf-8")


def labels_of_the_other_head(folder: Path, card: Card) -> None:
    apple, zebra = card.outputs
    outputs = (dataclasses.replace(apple, labels=zebra.labels), dataclasses.replace(zebra, labels=apple.labels))
    write_papers(folder, dataclasses.replace(card, outputs=outputs))


def card_of_another_run(folder: Path, card: Card) -> None:
    dataclasses.replace(card, created_from="sha256:other").write(folder / "card.json")


def card_of_another_cut(folder: Path, card: Card) -> None:
    dataclasses.replace(card, cut=("point_relu",)).write(folder / "card.json")


def card_of_another_resize(folder: Path, card: Card) -> None:
    dataclasses.replace(card, resize=dataclasses.replace(card.resize, crop="center")).write(folder / "card.json")


def card_of_another_precision(folder: Path, card: Card) -> None:
    dataclasses.replace(card, precision="float16").write(folder / "card.json")


def card_without_a_head(folder: Path, card: Card) -> None:
    dataclasses.replace(card, outputs=card.outputs[:1]).write(folder / "card.json")


def card_of_another_task(folder: Path, card: Card) -> None:
    outputs = tuple(dataclasses.replace(each, task="regression") for each in card.outputs)
    dataclasses.replace(card, outputs=outputs).write(folder / "card.json")


PAPERS: dict[Callable[[Path, Card], None], str] = {
    swapped_labels_everywhere: "its card lists the labels of 'apple' otherwise",
    swapped_labels_in_the_card: "its card lists the labels of 'apple' otherwise",
    swapped_labels_in_the_text: "labels.zebra.txt lists the labels otherwise",
    labels_of_the_other_head: "its card lists the labels of 'apple' otherwise",
    card_of_another_run: "its card belongs to another run",
    card_of_another_cut: "another resize, cut or backbone",
    card_of_another_resize: "another resize, cut or backbone",
    card_of_another_precision: "its card says precision float16",
    card_without_a_head: "its card has no output 'zebra'",
    card_of_another_task: "its card describes the output 'apple' otherwise",
}


@pytest.mark.parametrize("name", FLOAT32)
@pytest.mark.parametrize(("damage", "reason"), PAPERS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_wrong_papers_are_caught(
    damage: Callable[[Path, Card], None], reason: str, name: str, session_folder: Path, tmp_path: Path
) -> None:
    folder = copied(session_folder, tmp_path, name) / "artifacts" / name
    damage(folder, Card.read(folder / "card.json"))
    write_manifest(tmp_path, small_models.CARD, CEILINGS)
    report, runtime = entry_of(tmp_path)
    assert (runtime["status"], report["exit_code"]) == ("failed", 1)
    assert reason in runtime["reason"]


@pytest.mark.parametrize("name", FLOAT32)
def test_labels_swapped_in_the_manifest_too_are_caught(name: str, session_folder: Path, tmp_path: Path) -> None:
    folder = copied(session_folder, tmp_path, name) / "artifacts" / name
    swapped_labels_everywhere(folder, Card.read(folder / "card.json"))
    card = dataclasses.replace(small_models.CARD, outputs=tuple(map(swapped, small_models.CARD.outputs)))
    write_manifest(tmp_path, card, CEILINGS)
    report = verify_folder(tmp_path)
    assert (report["integrity"]["changed"], report["exit_code"]) == (["card.json"], 1)


@pytest.mark.parametrize("name", [*FLOAT32, *QUANTISED])
@pytest.mark.parametrize(
    ("count", "status", "reason", "exit_code"),
    [(0, "not_verified", "holds no images: nothing was compared", 3), (1, "degenerate", "one image cannot tell", 3)],
    ids=["empty golden set", "golden set of one image"],
)
def test_a_golden_set_that_proves_nothing_is_not_verified(
    count: int, status: str, reason: str, exit_code: int, name: str, session_folder: Path, tmp_path: Path
) -> None:
    copied(session_folder, tmp_path, name)
    write_true_golden(session_folder, tmp_path, count)
    report, runtime = entry_of(tmp_path)
    assert (runtime["status"], report["verdict"], report["exit_code"]) == (status, "not_verified", exit_code)
    assert reason in runtime["reason"]


@pytest.mark.parametrize("name", FLOAT32)
def test_an_empty_golden_set_does_not_hide_a_broken_artifact_s_papers(
    name: str, session_folder: Path, tmp_path: Path
) -> None:
    folder = copied(session_folder, tmp_path, name) / "artifacts" / name
    card_of_another_run(folder, Card.read(folder / "card.json"))
    write_true_golden(session_folder, tmp_path, 0)
    assert entry_of(tmp_path)[0]["exit_code"] == 1


@pytest.mark.parametrize("name", FLOAT32)
def test_a_golden_set_of_another_model_is_caught(name: str, session_folder: Path, tmp_path: Path) -> None:
    copied(session_folder, tmp_path, name)
    other = small_models.small(1)
    write_golden(GoldenSet(other.images, other.truth, other.reference, small_models.CARD, CEILINGS), tmp_path, [], {})
    write_manifest(tmp_path, small_models.CARD, CEILINGS)
    report, runtime = entry_of(tmp_path)
    assert (runtime["status"], report["exit_code"]) == ("failed", 1)
    assert re.search(DIFFERENCE, runtime["reason"])


def test_every_kind_is_tried_in_every_format() -> None:
    formats = {name.format for name in EVERY_ARTIFACT}
    for kind in KINDS:
        tried = {NAMES[case.values[1]].format for case in CASES if case.values[0] == kind}
        assert tried == formats, kind
    assert set(KINDS) == set(DAMAGES)
    assert {ArtifactName("tflite", "int8"), ArtifactName("onnx", "int8")} <= {NAMES[name] for name in QUANTISED}
