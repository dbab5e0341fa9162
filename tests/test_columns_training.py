"""Training with tabular columns: where they decide, the answer is far better with them, and turns when they do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from commands import ROOT, cutpoint

from exporters.columns import encode_cells
from exporters.contract import Card
from exporters.golden_files import read_files
from exporters.pixels import load_images
from pipeline import bundle
from pipeline.config import HeadSection, TrainingSection
from pipeline.lessons import Lesson
from pipeline.training import train_heads

CONFIG = ROOT / "examples" / "columns.toml"
COUNT = 360


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_figures", ROOT / "examples" / "make_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(figures: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return figures.make_figures(tmp_path_factory.mktemp("figures"), COUNT)


def train(data: Path, out: Path, *settings: str, config: Path = CONFIG) -> dict[str, Any]:
    few = ("parity.images=24", "export.calibration_images=16")
    arguments = [part for each in (*few, *settings) for part in ("--set", each)]
    done = cutpoint("train", config, "--data", data, "--out", out, *arguments, "--json")
    assert done.exit_code == 0, done.stderr[-3000:]
    return done.json()


def cached(told: dict[str, Any]) -> dict[str, bool]:
    return {stage["name"]: stage["cached"] for stage in told["stages"]}


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("with") / "out"
    return out, train(data, out)


def test_columns_that_decide_make_it_far_better(
    data: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    text = CONFIG.read_text(encoding="utf-8")
    start, end = text.index("[columns.material]"), text.index("[heads.bin]")
    (tmp_path / "plain.toml").write_text(text[:start] + text[end:], encoding="utf-8")
    plain = train(data, tmp_path / "out", config=tmp_path / "plain.toml")
    # What is cached of pictures knows nothing of columns; what is cached of heads does.
    assert cached(plain)["features"]
    assert not cached(plain)["heads"]
    without, with_columns = (each["reference"]["accuracy"]["bin"] for each in (plain, trained[1]))
    assert with_columns >= 0.75
    assert with_columns - without >= 0.25
    assert "columns" not in Card.read(tmp_path / "out" / "card.json").to_json()


def test_the_answer_turns_with_the_column(figures: ModuleType, data: Path, trained: tuple[Path, Any]) -> None:
    out, _ = trained
    card = Card.read(out / "card.json")
    model = keras.models.load_model(out / "model.keras", safe_mode=True)
    assert [each.name for each in model.inputs] == ["image", "columns"]
    shapes = ("bar", "disc", "wedge") * 10
    paths = [data.parent / f"{number:04}.png" for number in range(len(shapes))]
    images, labels = load_images(paths, card.resize).astype(np.float32), card.output("bin").labels
    found, right = {}, {}
    for material in figures.MATERIALS:
        raw = encode_cells(card.columns, [{"weight": "20", "age": "10", "material": material}] * len(shapes))
        found[material] = [labels[index] for index in np.asarray(model([images, raw])["bin"]).argmax(1)]
        right[material] = [figures.bin_of(shape, material, 20.0, 10) for shape in shapes]
    assert np.mean(np.array(found["wood"]) != np.array(found["steel"])) >= 0.4
    assert np.mean(np.array([*found.values()]) == np.array([*right.values()])) >= 0.75


@pytest.mark.slow
def test_a_changed_column_trains_the_head_anew_and_no_picture(
    data: Path, trained: tuple[Path, Any], tmp_path: Path
) -> None:
    again = cached(train(data, tmp_path / "again"))
    assert again["features"]
    assert again["heads"]
    changed = cached(train(data, tmp_path / "changed", "columns.age.boundaries=[40, 60]"))
    assert changed["features"]
    assert not changed["heads"]


def test_what_the_run_leaves_for_the_export(trained: tuple[Path, Any]) -> None:
    out, _ = trained
    card = Card.read(out / "card.json")
    assert [(each.name, each.kind) for each in card.columns] == [
        ("material", "category"),
        ("weight", "number"),
        ("age", "bucket"),
    ]
    calibration = bundle.read_calibration(out)
    assert calibration.columns.shape == (len(calibration.images), 3)
    with np.load(out / "golden" / "images.npz") as arrays:
        assert arrays["columns"].dtype == np.float32
        assert arrays["columns"].shape == (len(arrays["images"]), 3)
        columns = arrays["columns"]
    files = read_files(out)
    assert all(set(each.cells) == {"material", "weight", "age"} for each in files)
    raw = encode_cells(card.columns, [each.cells for each in files])
    stems = [int(each.path.stem) for each in files]
    assert np.array_equal(raw, columns[stems])
    assert json.loads((out / "card.json").read_text(encoding="utf-8"))["columns"][0]["categories"] == [
        *("brass", "steel", "wood")
    ]


@pytest.mark.slow
def test_views_trunk_fine_tuning_and_an_auxiliary_head(data: Path, tmp_path: Path) -> None:
    told = train(
        data,
        tmp_path / "out",
        *("trunk.hidden=[64]", "augmentation.views=1", 'augmentation.flip="horizontal"'),
        *('fine_tuning.layer="Conv_1"', "fine_tuning.epochs=1", "training.mixed_precision=true"),
        'heads.figure={kind="linear", target="label", trunk=false, columns=false}',
        'heads.share={kind="linear", task="regression", target="share", auxiliary=true, loss_weight=0.2}',
        "training.epochs=6",
    )
    assert "fine_tuning" in {stage["name"] for stage in told["stages"]}
    model = keras.models.load_model(tmp_path / "out" / "model.keras")
    assert sorted(model.output) == ["bin", "figure"]
    image = np.zeros((1, 96, 96, 3), np.float32)
    low, high = (model([image, np.array([[1, each, 50]], np.float32)]) for each in (5.0, 195.0))
    assert np.array_equal(np.asarray(low["figure"]), np.asarray(high["figure"]))
    assert not np.array_equal(np.asarray(low["bin"]), np.asarray(high["bin"]))


@pytest.mark.slow
def test_what_only_an_auxiliary_head_takes_is_not_shipped(data: Path, tmp_path: Path) -> None:
    train(
        data,
        tmp_path / "out",
        *("heads.bin.auxiliary=true", 'heads.figure={kind="linear", target="label", columns=false}'),
        *('fine_tuning.layer="Conv_1"', "fine_tuning.epochs=1", "training.epochs=3"),
    )
    model = keras.models.load_model(tmp_path / "out" / "model.keras")
    assert [each.name for each in model.inputs] == ["image"]
    assert not Card.read(tmp_path / "out" / "card.json").columns
    assert bundle.read_calibration(tmp_path / "out").columns is None


def lesson(truth: np.ndarray, count: int) -> dict[str, Lesson]:
    return {"label": Lesson(HeadSection(dropout=0.0), truth[:count], truth[count:], 2)}


def test_what_was_never_shown_changes_no_answer() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 12)).astype(np.float32)
    features[:, 10] = 0
    truth = (features[:, 11] > 0).astype(int)
    trained = train_heads(lesson(truth, 150), TrainingSection(epochs=3), (features[:150], features[150:]), 0, beside=2)
    head, shown = trained.heads["label"], features[:5].copy()
    before = np.asarray(head(shown))
    shown[:, 10] = 1
    assert np.array_equal(np.asarray(head(shown)), before)
    shown[:, 11] += 1
    assert not np.array_equal(np.asarray(head(shown)), before)


def test_a_column_is_heard_among_a_thousand_features() -> None:
    generator = np.random.default_rng(1)
    # As pooled features are: many, and alike.
    pooled = np.maximum(generator.normal(size=(400, 12)) @ generator.normal(size=(12, 1000)) / 4, 0)
    features = np.concatenate([pooled, generator.integers(0, 2, (400, 1))], axis=1).astype(np.float32)
    truth, settings = features[:, -1].astype(int), TrainingSection(epochs=20)
    accuracy = {}
    for beside in (0, 1):
        parts = features[:300], features[300:]
        head = train_heads(lesson(truth, 300), settings, parts, 0, beside=beside).heads["label"]
        accuracy[beside] = (np.asarray(head(features[300:])).argmax(1) == truth[300:]).mean()
    assert accuracy[1] >= 0.95
    assert accuracy[1] - accuracy[0] >= 0.2
