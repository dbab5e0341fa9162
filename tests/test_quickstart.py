"""The embedded default: drawings, the pretraining set, the pretraining run, and what the shipped weights are worth."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporters.errors import InputError
from pipeline.quickstart import WEIGHTS, procedural
from pipeline.quickstart.drawings import LABELS, draw, make_drawings
from pipeline.quickstart.families import FAMILIES
from pipeline.quickstart.recipe import Recipe

REALDATA = os.environ.get("CUTPOINT_REALDATA")
TINY = Recipe(rounds=3, images_per_round=32, passes=1, batch_size=16, small_px=32, large_px=32)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "drawings"
    make_drawings(folder, per_class=100)
    return folder


def test_drawings_are_balanced_and_have_the_size_asked_for(drawings):
    assert sorted(path.name for path in drawings.iterdir()) == list(LABELS)
    assert {len(list(folder.glob("*.png"))) for folder in drawings.iterdir()} == {100}
    for path in drawings.glob("*/0007.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (128, 128))


def test_drawings_are_the_same_bytes_for_the_same_seed_and_others_for_another(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        make_drawings(tmp_path / name, seed=seed, per_class=3, size_px=64)
    files = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).glob("*/*.png"))]
        for name in ("first", "again", "other")
    }
    assert len(files["first"]) == 3 * len(LABELS)
    assert files["first"] == files["again"]
    assert not set(files["first"]) & set(files["other"])


def test_every_drawing_shows_something_and_many_are_dark_on_white():
    white = 0
    for label_index, label in enumerate(LABELS):
        for number in range(40):
            image = draw(label, np.random.default_rng([0, label_index, number]), 64)
            assert image.std() > 2, (label, number)
            paper = np.median(image.reshape(-1, 3), axis=0)
            white += (paper == 255).all() and image.min() < 100
    assert white > 0.25 * 40 * len(LABELS)


def test_drawings_leave_what_is_there_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another"):
        make_drawings(tmp_path / "photos", per_class=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "mine.txt"]


def test_half_made_drawings_are_not_left_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.quickstart.drawings.draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_drawings(tmp_path / "drawings", per_class=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"size_px": 4}])
def test_drawings_of_no_number_or_no_size_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected per_class"):
        make_drawings(tmp_path / "drawings", **wrong)


def test_drawings_need_no_framework():
    code = "import sys, pipeline.quickstart.drawings; print(sorted({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    root = Path(__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert answer.stdout.strip() == "[]"


def test_pretraining_classes_are_many_and_hold_none_of_the_figures():
    assert len(procedural.CLASSES) == len(set(procedural.CLASSES)) >= 300
    assert not {name.split("/")[0] for name in procedural.CLASSES} & set(LABELS)


def test_glyphs_have_more_strokes_than_any_figure_of_one_or_two():
    for number in range(FAMILIES["glyph"].classes):
        assert len(procedural._class_parameters("glyph", number)) >= 3


def test_contours_are_no_circle_square_triangle_or_star():
    from pipeline.quickstart.contours import _repetition, _solidity

    for number in range(FAMILIES["contour"].classes):
        angles, radii = procedural._class_parameters("contour", number)
        assert _solidity(angles, radii) < 0.85
        assert _repetition(angles, radii) < 0.3
    even = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    assert _solidity(even, np.ones(40)) > 0.95
    assert _solidity(even[::10], np.ones(4)) > 0.95
    assert _repetition(even[::4], np.tile([1.0, 0.4], 5)) > 0.8


def test_pretraining_images_depend_on_seed_and_number_only():
    images, labels = procedural.draw_images(24, seed=5)
    later, later_labels = procedural.draw_images(8, seed=5, first=16)
    assert images.shape == (24, 96, 96, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[16:], later)
    np.testing.assert_array_equal(labels[16:], later_labels)
    assert not np.array_equal(images, procedural.draw_images(24, seed=6)[0])
    with pytest.raises(ValueError, match="expected a count"):
        procedural.draw_images(-1, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pretraining_images_vary_within_and_between_classes(family):
    def covers(number):
        parameters = procedural._class_parameters(family, number)
        return np.stack([FAMILIES[family].draw(parameters, np.random.default_rng(k), 96).cover for k in range(6)])

    for number in range(0, FAMILIES[family].classes, 7):
        drawn = covers(number)
        assert drawn.std(axis=0).mean() > 0.01
        assert 0.005 < drawn.mean() < 0.95
        # The same random numbers, another class: what differs is the class alone.
        assert np.abs(drawn - covers(number + 1 if number + 1 < FAMILIES[family].classes else 0)).mean() > 0.01


def test_augmentation_keeps_range_and_gives_the_size_asked_for():
    from pipeline.quickstart.augmentation import augment

    images, _ = procedural.draw_images(12, seed=1)
    batch = augment(images, 48, np.random.default_rng(0))
    assert batch.shape == (12, 48, 48, 3)
    assert batch.dtype == np.float32
    assert 0 <= batch.min() < batch.max() <= 255
    np.testing.assert_array_equal(batch, augment(images, 48, np.random.default_rng(0)))


def test_recipe_counts_its_steps_and_grows_its_images():
    recipe = Recipe(rounds=10, images_per_round=100, passes=2, batch_size=30, large_from=0.7)
    assert recipe.steps == 10 * 2 * 3
    assert [recipe.size_px(number) for number in (0, 6, 7, 9)] == [64, 64, 96, 96]


@pytest.fixture
def eagerly(monkeypatch):
    """Six steps take less time than to compile them."""
    from pipeline.quickstart import pretraining

    compiled = pretraining.build_classifier

    def build(recipe):
        backbone, classifier = compiled(recipe)
        classifier.run_eagerly = True
        return backbone, classifier

    monkeypatch.setattr(pretraining, "build_classifier", build)


@pytest.mark.slow
def test_pretraining_goes_on_where_it_was_stopped(tmp_path, eagerly):
    from pipeline.quickstart.pretrain import pretrain
    from pipeline.quickstart.pretraining import CHECKPOINT

    out = tmp_path / "backbone.weights.h5"
    assert pretrain(TINY, tmp_path, out, workers=1, rounds=1) == 1
    assert not out.exists()
    with np.load(tmp_path / CHECKPOINT) as stored:
        before = {name: stored[name] for name in stored.files}
    assert pretrain(TINY, tmp_path, out, workers=1) == TINY.rounds
    with np.load(tmp_path / CHECKPOINT) as stored:
        after = {name: stored[name] for name in stored.files}
    assert (before["done"], after["done"]) == (1, TINY.rounds)
    steps = {name for name in after if after[name].shape == () and after[name].dtype.kind == "i" and name != "done"}
    assert {int(before[name]) for name in steps} == {TINY.steps // TINY.rounds}
    assert {int(after[name]) for name in steps} == {TINY.steps}
    assert hashlib.sha256(out.read_bytes()).hexdigest() in out.with_name(out.name + ".sha256").read_text()


def test_pretraining_refuses_the_checkpoint_of_another_recipe(tmp_path):
    from pipeline.quickstart.pretraining import CHECKPOINT, load_checkpoint

    np.savez(tmp_path / CHECKPOINT, done=1, recipe=json.dumps({"rounds": 1}))
    with pytest.raises(InputError, match="another recipe"):
        load_checkpoint(None, TINY, tmp_path)


def test_shipped_weights_are_small_and_the_named_ones():
    assert WEIGHTS.stat().st_size < 2.5e6
    digest, name = WEIGHTS.with_name(WEIGHTS.name + ".sha256").read_text().split()
    assert name == WEIGHTS.name
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == digest


def worth_of(folder):
    """Return what `worth.measure` does, of its own process: what it computes at once leaves gigabytes behind in TensorFlow."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measured, folder).result()


def measured(folder):
    from pipeline.quickstart import worth

    return worth.measure(*worth.read_folder(folder), WEIGHTS, seed=0)


@pytest.mark.slow
def test_shipped_weights_are_worth_ten_points_more_than_random_ones_on_drawings(drawings):
    embedded, random, _ = worth_of(drawings)
    assert embedded > random + 0.1
    assert embedded > 0.8


@pytest.mark.slow
@pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set")
def test_shipped_weights_are_worth_thirty_points_more_than_random_ones_on_photographs():
    embedded, random, raw = worth_of(Path(REALDATA) / "datasets" / "sign_language_digits")
    assert embedded > random + 0.3
    assert embedded > raw
