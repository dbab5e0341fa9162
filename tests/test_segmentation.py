"""The head of label maps: its shapes for any pyramid, the standardisation folded into it, and what stands in the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from exporters.contract import UNKNOWN_PIXEL, Resize
from exporters.errors import InputError
from pipeline.assembly import MAPS, Part, assemble
from pipeline.config import Config, Data, HeadSection, TrainingSection, TrunkSection
from pipeline.geometry import Grid, label_map_shape
from pipeline.heads import build_head
from pipeline.heads.segmentation import fold, map_head, moments
from pipeline.heads.sharing import on_trunk
from pipeline.lessons import Lesson
from pipeline.memory import check_memory, free_memory
from pipeline.scores import score
from pipeline.targets import Target
from pipeline.training import train_heads

SECTION = HeadSection(kind="segmentation", labels=("ground", "figure", "edge"), dimension=8)
GRIDS = {
    "pyramid": Grid(((16, 24, 4), (8, 12, 5), (2, 3, 6)), (16, 24)),
    "one deep cut": Grid(((3, 3, 7),), (24, 24)),
    "sides that strides round up": Grid(((12, 9, 3), (6, 5, 4), (3, 3, 5), (2, 2, 6)), (12, 9)),
    "finer than the answer": Grid(((45, 32, 3), (12, 8, 4)), (12, 8)),
}


def rows_of(maps: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([each.reshape(len(each), -1) for each in maps], axis=1)


def some_maps(grid: Grid, count: int = 4, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(3, 2, (count, *shape)).astype(np.float32) for shape in grid.maps]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_flattened_maps_and_maps_answer_alike(grid: Grid) -> None:
    maps = some_maps(grid)
    head = build_head("outline", SECTION, grid.places[-1][1], 3, 0, grid)
    answers = np.asarray(head(rows_of(maps)))
    assert answers.shape == (4, *grid.shape, 3) and answers.dtype == np.float32
    assert np.allclose(answers.sum(-1), 1, atol=1e-5)
    assert np.allclose(map_head(head)(maps), answers, atol=1e-6)
    assert map_head(head).layers[-1].name == "outline"


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_standardisation_is_folded_into_the_laterals(grid: Grid) -> None:
    features = rows_of(some_maps(grid, count=6))
    head = build_head("outline", SECTION, grid.places[-1][1], 3, 0, grid)
    mean, deviation = moments(features, grid)
    standardised = (features - mean) / deviation
    for start, end in grid.places:
        assert abs(standardised[:, start:end].mean()) < 1e-4
    expected = np.asarray(head(standardised))
    fold(head, grid, mean, deviation)
    assert np.allclose(head(features), expected, atol=1e-4)
    assert not np.allclose(head(standardised), expected, atol=1e-2)


def figures_of(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two maps that show a rectangle, finely and coarsely, and its label map, partly unknown."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((count, 8, 8), np.uint8)
    for each in truth:
        top, left = rng.integers(0, 4, 2)
        each[top : top + 4, left : left + 4] = 1
    fine = np.stack([truth, 1 - truth, rng.random(truth.shape)], -1) + rng.normal(0, 0.2, (count, 8, 8, 3))
    coarse = truth.reshape(count, 4, 2, 4, 2).mean((2, 4))[..., None] * 5
    truth[:, 0] = UNKNOWN_PIXEL
    return [fine.astype(np.float32), coarse.astype(np.float32)], truth


@pytest.mark.parametrize("loss", ["", "dice"])
def test_it_learns_the_class_of_each_pixel(loss: str) -> None:
    grid = Grid(((8, 8, 3), (4, 4, 1)), (8, 8))
    (maps, truth), (others, their_truth) = figures_of(200, 1), figures_of(40, 2)
    section = HeadSection(kind="segmentation", labels=("ground", "figure"), dimension=8, loss=loss, l2=1e-4)
    lessons = {"outline": Lesson(section, truth, their_truth, 2, grid)}
    settings = TrainingSection(epochs=10, batch_size=20, learning_rate=0.02)
    trained = train_heads(lessons, settings, (rows_of(maps), rows_of(others)), 0)
    answers = np.asarray(trained.heads["outline"].predict(rows_of(others), verbose=0))
    figures = score(Target("segmentation", ("mask",), ("ground", "figure"), grid=grid), their_truth, answers)
    assert list(figures) == ["mean_iou", "pixel_accuracy", "iou_of_classes"]
    # Whoever names the ground everywhere has half of its share of pixels.
    assert figures["mean_iou"] > 0.85
    assert set(figures["iou_of_classes"]) == {"ground", "figure"}
    history = trained.histories["outline"]
    assert history["val_pixel_accuracy"][history["best_epoch"] - 1] == pytest.approx(
        figures["pixel_accuracy"], abs=0.01
    )
    penalties = [getattr(layer, "kernel_regularizer", None) for layer in map_head(trained.heads["outline"]).layers]
    assert not any(penalties), "what only training needs is shipped"


def test_it_is_shipped_in_float32_after_mixed_precision() -> None:
    grid = Grid(((8, 8, 3), (4, 4, 1)), (8, 8))
    maps, truth = figures_of(40, 3)
    section = HeadSection(kind="segmentation", labels=("ground", "figure"), dimension=8)
    settings = TrainingSection(epochs=2, batch_size=20, mixed_precision=True)
    lessons = {"outline": Lesson(section, truth, truth[:8], 2, grid)}
    head = train_heads(lessons, settings, (rows_of(maps), rows_of(maps)[:8]), 0).heads["outline"]
    assert {layer.compute_dtype for layer in map_head(head).layers} == {"float32"}
    assert np.isfinite(head.predict(rows_of(maps), verbose=0)).all()


def test_the_assembled_model_takes_the_maps_themselves() -> None:
    image = keras.Input((32, 32, 3))
    fine = keras.layers.Conv2D(4, 3, 4, "same", name="fine")(image)
    deep = keras.layers.Conv2D(6, 3, 2, "same", name="deep")(fine)
    truncated = keras.Model(image, {"fine": fine, "deep": deep})
    grid = Grid(((8, 8, 4), (4, 4, 6)), label_map_shape(Resize(32, 32)))
    head = build_head("outline", SECTION, grid.places[-1][1], 3, 0, grid)
    model = assemble(truncated, "none", {"outline": Part(MAPS, ("fine", "deep"), head)})
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    maps = truncated(pictures)
    rows = rows_of([np.asarray(maps[cut]) for cut in ("fine", "deep")])
    assert np.allclose(model(pictures)["outline"], head(rows), atol=1e-5)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Flatten", "Reshape", "Functional", "GetItem"}


def test_label_maps_never_go_through_the_trunk() -> None:
    config = Config(data=Data(path="x.csv"), trunk=TrunkSection(hidden=(8,)))
    assert on_trunk(config, HeadSection()) and not on_trunk(config, SECTION)


def test_scores_leave_out_what_nobody_knows() -> None:
    target = Target("segmentation", ("mask",), ("a", "b", "never"))
    truth = np.array([[[0, 0], [1, UNKNOWN_PIXEL]]], np.uint8)
    answers = np.eye(3, dtype=np.float32)[np.array([[[0, 1], [1, 0]]])]
    figures = score(target, truth, answers)
    assert figures["iou_of_classes"] == {"a": 0.5, "b": 0.5, "never": None}
    assert figures["mean_iou"] == 0.5 and figures["pixel_accuracy"] == pytest.approx(2 / 3)


def test_maps_that_do_not_fit_into_memory() -> None:
    free = free_memory()
    assert free is None or free > 2**20
    check_memory("head 'outline'", 1000)
    check_memory("head 'outline'", 1000, free=12_000)
    with pytest.raises(InputError, match=r"head 'outline' needs 12\.0 GiB .* 8\.0 GiB are free"):
        check_memory("head 'outline'", 2**30, free=8 * 2**30)
