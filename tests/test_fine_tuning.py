"""Fine-tuning: what is trained and what stays, with which losses, and what comes of a run that was killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import Outcome, cutpoint, start
from pictures import SMALL, write_drawings, write_picture

from exporters.contract import Resize
from exporters.errors import CutpointError, InputError
from pipeline import epochs
from pipeline.assembly import Part, assemble, check_frozen
from pipeline.backbones.loading import LoadedBackbone
from pipeline.config import Config, FineTuningSection, HeadSection, TrainingSection
from pipeline.heads import build_head
from pipeline.heads.sharing import check_sharing
from pipeline.lessons import Lesson, answer_in_own_units, target_range, truth_for_loss
from pipeline.losses import loss_of
from pipeline.picture_loading import Pictures
from pipeline.splitting import Example
from pipeline.thawing import CentredDropout, take_over, thawed
from pipeline.training import build_parts
from pipeline.tuned_layers import layers_to_tune

PX = 24
CONFIG = """
[data]
path = "drawings"
[resize]
width = 24
[backbone]
name = "small.keras"
pixel_scaling = "tf"
cut = "last_relu"
[heads.label]
[training]
epochs = 6
learning_rate = 0.01
[fine_tuning]
layer = "last_conv"
epochs = 2
batch_size = 8
learning_rate = 1e-3
[augmentation]
flip = "horizontal"
brightness = 0.1
"""
TUNED, FROZEN = ("last_conv",), ("first_conv", "first_norm", "last_norm")


def small_backbone() -> keras.Model:
    """Two convolutions, each with BatchNorm, whose statistics are not those that it begins with, and a dropout between."""
    keras.utils.set_random_seed(4)
    image = value = keras.Input((PX, PX, 3))
    for name, width in (("first", 8), ("last", 12)):
        value = keras.layers.Conv2D(width, 3, 2, padding="same", use_bias=False, name=f"{name}_conv")(value)
        value = keras.layers.BatchNormalization(name=f"{name}_norm")(value)
        value = keras.layers.ReLU(6.0, name=f"{name}_relu")(value)
        if name == "first":
            value = keras.layers.Dropout(0.5, name="between")(value)
    model = keras.Model(image, value)
    generator = np.random.default_rng(1)
    for name in ("first_norm", "last_norm"):
        layer = model.get_layer(name)
        layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return model


def write_stripes(root: Path, per_class: int = 40) -> None:
    """Stripes across, down and askew, of any colour, in noise."""
    generator = np.random.default_rng(2)
    rows, columns = np.mgrid[0:PX, 0:PX]
    for label, along in (("across", rows), ("askew", (rows + columns) / 1.4), ("down", columns)):
        for number in range(per_class):
            wave = np.sin(along * 2 + generator.uniform(0, 6))[..., None] * generator.uniform(20, 70, 3)
            pixels = 128 + wave + generator.normal(0, 8, (PX, PX, 3))
            write_picture(root / label / f"{number}.png", np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fine_tuning")
    write_stripes(folder / "drawings")
    small_backbone().save(folder / "small.keras")
    (folder / "tune.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(here: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUTPOINT_CACHE", str(here / "cache"))
        yield here / "cache"


def train(here: Path, name: str, *settings: str) -> tuple[Outcome, Path]:
    flags = [part for setting in settings for part in ("--set", setting)]
    return cutpoint("train", here / "tune.toml", "--out", here / name, *flags), here / name


@pytest.fixture(scope="module")
def done(here: Path) -> tuple[Outcome, Path]:
    return train(here, "done")


def model_of(out: Path) -> keras.Model:
    return keras.models.load_model(out / "model.keras")


def weights_of(out: Path) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in model_of(out).layers if layer.weights}


def same(mine: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(mine, theirs, strict=True))


def state_of(out: Path) -> dict[str, Any]:
    return json.loads((out / ".cutpoint" / "run.json").read_text())


# --- from the command ----------------------------------------------------------------------------------------------


def test_only_what_is_named_is_trained(here: Path, done: tuple[Outcome, Path]) -> None:
    outcome, out = done
    assert outcome.exit_code == 0, outcome.stderr
    loaded = {layer.name: layer.get_weights() for layer in small_backbone().layers if layer.weights}
    trained = weights_of(out)
    assert all(same(trained[name], loaded[name]) for name in FROZEN)
    assert not any(same(trained[name], loaded[name]) for name in TUNED)


def test_it_says_what_it_did_and_reports_the_curves(done: tuple[Outcome, Path]) -> None:
    outcome, out = done
    state = state_of(out)
    assert "fine-tuning: from 'last_conv' on, " in outcome.stderr and " before, " in outcome.stderr
    history = state["training"]["label"]
    tuned = history["fine_tuning"]
    assert len(tuned["loss"]) == len(tuned["val_loss"]) == 2 and tuned["epochs"] == [1, 2]
    assert min(tuned["val_loss"]) < tuned["val_loss_before"]
    # It begins where the first phase ended: the same losses, with dropout of the same effect.
    assert tuned["loss"][0] == pytest.approx(history["loss"][-1], rel=0.15)
    assert tuned["best_epoch"] == 1 + int(np.argmin(tuned["val_loss"]))
    assert tuned["parameters"] == 3 * 3 * 8 * 12 + 12 * 3 + 3 and history["parameters"] == 12 * 3 + 3
    assert [stage["name"] for stage in state["stages"]][-3:] == ["assembly", "fine_tuning", "reference"]
    assert any("'last_conv' on were trained too" in note for note in state["notes"])


def test_augmentation_is_no_part_of_the_model(done: tuple[Outcome, Path]) -> None:
    kinds = {type(layer).__name__ for layer in model_of(done[1]).layers}
    assert kinds == {
        *("InputLayer", "Rescaling", "Conv2D", "BatchNormalization", "ReLU"),
        *("Dropout", "GlobalAveragePooling2D", "Dense"),
    }
    assert {layer.compute_dtype for layer in model_of(done[1]).layers} == {"float32"}


def test_again_it_comes_from_the_cache_and_no_other_settings_do(here: Path, done: tuple[Outcome, Path]) -> None:
    outcome, out = train(here, "again")
    stages = {stage["name"]: stage["cached"] for stage in state_of(out)["stages"]}
    assert stages["fine_tuning"] and stages["heads"]
    assert weights_of(out).keys() == weights_of(done[1]).keys()
    assert all(same(mine, weights_of(done[1])[name]) for name, mine in weights_of(out).items())
    assert state_of(out)["training"] == state_of(done[1])["training"]
    outcome, other = train(here, "other", "augmentation.brightness=0.2")
    stages = {stage["name"]: stage["cached"] for stage in state_of(other)["stages"]}
    assert outcome.exit_code == 0 and stages["heads"] and not stages["fine_tuning"]
    assert not same(weights_of(other)["last_conv"], weights_of(out)["last_conv"])


def test_where_nothing_gets_better_the_model_stays_as_it_was(here: Path, done: tuple[Outcome, Path]) -> None:
    outcome, out = train(here, "worse", "fine_tuning.learning_rate=1.0", "fine_tuning.epochs=1")
    assert outcome.exit_code == 0 and "the model stays as it was" in outcome.stderr
    _, plain = train(here, "plain", 'fine_tuning.layer=""', "augmentation.flip=", "augmentation.brightness=0")
    assert all(same(mine, weights_of(plain)[name]) for name, mine in weights_of(out).items())
    assert state_of(out)["training"]["label"]["fine_tuning"]["best_epoch"] == 0


def test_the_main_head_changes_with_the_auxiliary_loss(here: Path) -> None:
    kept = []
    for weight in (0.2, 5.0):
        settings = (
            "heads.side.auxiliary=true",
            "heads.side.kind=mlp",
            f"heads.side.loss_weight={weight}",
            "fine_tuning.batch_size=32",
        )
        outcome, out = train(here, f"side{weight}", *settings, "fine_tuning.epochs=1")
        assert outcome.exit_code == 0, outcome.stderr
        assert set(model_of(out).output) == {"label"}
        kept.append(weights_of(out))
        tuned = state_of(out)["training"]["label"]["fine_tuning"]
        joint = tuned["joint_val_loss"]
        side = state_of(out)["training"]["side"]["fine_tuning"]
        assert joint[0] == pytest.approx(tuned["val_loss_before"] + weight * side["val_loss_before"], rel=1e-4)
    assert not same(kept[0]["label"], kept[1]["label"])
    assert not same(kept[0]["last_conv"], kept[1]["last_conv"])


def test_views_are_computed_once_and_trained_on(here: Path) -> None:
    settings = ('fine_tuning.layer=""', "augmentation.views=2")
    outcome, out = train(here, "views", *settings)
    assert outcome.exit_code == 0, outcome.stderr
    _, again = train(here, "views2", *settings)
    assert {stage["name"]: stage["cached"] for stage in state_of(again)["stages"]}["views"]
    assert same(weights_of(out)["label"], weights_of(again)["label"])
    _, other = train(here, "views3", 'fine_tuning.layer=""', "augmentation.views=1")
    # One view of the two is there already.
    assert {stage["name"]: stage["cached"] for stage in state_of(other)["stages"]}["views"]
    assert not same(weights_of(out)["label"], weights_of(other)["label"])


# --- what it can be asked for --------------------------------------------------------------------------------------


def backbone() -> LoadedBackbone:
    return LoadedBackbone(small_backbone(), "tf", "", "small", "last_relu", ("last_relu",))


@pytest.mark.parametrize(
    ("layer", "tuned"),
    [
        ("last_conv", ("last_conv", "last_norm", "last_relu")),
        (-3, ("last_conv", "last_norm", "last_relu")),
        ("-1", ("last_relu",)),
        (7, ("last_relu",)),
        ("", ()),
    ],
)
def test_layers_by_name_and_index(layer: str | int, tuned: tuple[str, ...]) -> None:
    config = Config(heads={"label": HeadSection()}, fine_tuning=FineTuningSection(layer=layer))
    one = backbone()
    assert layers_to_tune(config, one, one.model) == tuned


@pytest.mark.parametrize(
    ("layer", "said"), [("last_cnv", "last_conv"), (8, "1 to 7"), (0, "1 to 7"), ("last_norm", "cut at 'first_relu'")]
)
def test_layers_that_are_not_there_or_behind_the_cut(layer: str | int, said: str) -> None:
    config = Config(heads={"label": HeadSection()}, fine_tuning=FineTuningSection(layer=layer))
    one = backbone()
    cut = one.model if said != "cut at 'first_relu'" else keras.Model(one.model.input, one.model.layers[3].output)
    with pytest.raises(InputError) as fault:
        layers_to_tune(config, one, cut)
    assert said in str(fault.value)


def test_a_saved_model_and_heads_that_learn_nothing_are_refused(tmp_path: Path) -> None:
    small_backbone().export(tmp_path / "saved", verbose=False)
    image = keras.Input((PX, PX, 3))
    layer = keras.layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve")
    opaque = keras.Model(image, layer(image))
    tuning = FineTuningSection(layer="last_conv")
    with pytest.raises(InputError, match="stays a SavedModel"):
        layers_to_tune(
            Config(heads={"label": HeadSection()}, fine_tuning=tuning),
            dataclasses.replace(backbone(), model=opaque),
            opaque,
        )
    with pytest.raises(InputError, match="no head that learns"):
        layers_to_tune(
            Config(heads={"near": HeadSection(kind="embedding")}, fine_tuning=tuning), backbone(), small_backbone()
        )


def test_a_head_may_have_its_own_optimizer_before_all_are_tuned_together() -> None:
    heads = {"label": HeadSection(optimizer="sgd", learning_rate=0.1, loss_weight=0.5)}
    check_sharing(Config(heads=heads, fine_tuning=FineTuningSection(layer=1)))


# --- the copy that is trained --------------------------------------------------------------------------------------

SECTIONS = {
    "label": HeadSection(),
    "size": HeadSection(kind="mlp", task="regression", batch_norm=True),
    "rank": HeadSection(task="ordinal"),
}
TRUTHS = {
    "label": np.array([0, 1, 2] * 8),
    "size": np.stack([np.linspace(-3000, 5000, 24), np.linspace(0, 0.01, 24)], -1).astype(np.float32),
    "rank": np.array([0, 1, 2, 3] * 6),
}
UNITS = {"label": 3, "size": 2, "rank": 3}


def whole_and_lessons() -> tuple[keras.Model, dict[str, Lesson]]:
    lessons = {name: Lesson(section, TRUTHS[name], TRUTHS[name][:6], UNITS[name]) for name, section in SECTIONS.items()}
    _, heads = build_parts(lessons, None, 12, 1)
    kernel = heads["rank"].get_layer("rank").get_weights()[0]
    heads["rank"].get_layer("rank").set_weights(
        [np.repeat(kernel[:, :1], 3, 1), np.array([1.0, 0.0, -1.0], np.float32)]
    )
    answer_in_own_units(heads["size"].get_layer("size"), target_range(lessons["size"]))
    parts = {name: Part("average", ("last_relu",), head) for name, head in heads.items()}
    return assemble(small_backbone(), "tf", parts), lessons


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_one_step_of_all_tasks(mixed: bool) -> None:
    whole, lessons = whole_and_lessons()
    truncated = small_backbone()
    frozen, tuned = ("first_conv", "first_norm", "first_relu", "between"), ("last_conv", "last_norm", "last_relu")
    images = np.random.default_rng(0).integers(0, 256, (24, PX, PX, 3), np.uint8)
    before = {name: np.asarray(each) for name, each in whole(images.astype(np.float32), training=False).items()}
    model = thawed(whole, frozen, tuned, lessons, {}, mixed=mixed)
    take_over(model, whole, lessons)
    for name, each in whole(images.astype(np.float32), training=False).items():
        # There and back again, the answers are what they were, up to rounding in units of their targets.
        size = TRUTHS[name].std(0) if name == "size" else 1.0
        np.testing.assert_allclose(np.asarray(each) / size, before[name] / size, atol=1e-6)
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(
        optimizer=keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0) if mixed else optimizer,
        loss={name: loss_of(each.section, TrainingSection()) for name, each in lessons.items()},
    )
    truth = {name: truth_for_loss(each, each.train) for name, each in lessons.items()}
    first = model.evaluate(images, truth, verbose=0, return_dict=True)
    # Targets of thousands would outweigh all else, were they not in units of their spread.
    assert first["size_loss"] < 10
    for _ in range(8):
        model.train_on_batch(images, truth)
    assert model.evaluate(images, truth, verbose=0, return_dict=True)["loss"] < first["loss"]
    take_over(model, whole, lessons)
    check_frozen(whole, truncated, except_for=tuned)
    assert same(whole.get_layer("last_norm").get_weights(), truncated.get_layer("last_norm").get_weights())
    norm, fresh = whole.get_layer("size_batch_norm_1"), build_head("size", SECTIONS["size"], 12, 2, 1)
    assert same(norm.get_weights(), fresh.get_layer("size_batch_norm_1").get_weights())
    kernel, bias = whole.get_layer("rank").get_weights()
    assert np.ptp(kernel, axis=1).max() == 0 and (np.diff(bias) <= 0).all()
    assert {weight.dtype for weight in whole.weights} == {"float32"}
    assert np.ptp(np.asarray(whole(images.astype(np.float32))["size"])[:, 0]) > 0
    with pytest.raises(CutpointError, match="last_conv"):
        check_frozen(whole, truncated)


def test_dropout_inside_the_backbone_is_off_and_in_heads_on() -> None:
    whole, lessons = whole_and_lessons()
    model = thawed(whole, ("between",), ("last_conv",), lessons, {}, mixed=False)
    assert model.get_layer("between").rate == 0 and model.get_layer("label_dropout").rate == 0.2
    assert whole.get_layer("between").rate == 0.5


def test_dropped_features_are_as_always_and_not_0() -> None:
    center = np.array([100.0, -50.0, 3.0], np.float32)
    layer = CentredDropout(center, rate=0.5, seed=1, name="dropout")
    values = np.tile(center + 1, (200, 1))
    assert np.array_equal(np.asarray(layer(values)), values)
    found = np.asarray(layer(values, training=True)) - center
    # What stays counts twice, so that the mean stays too.
    assert set(np.unique(found.round(3))) == {0.0, 2.0}
    assert found.mean() == pytest.approx(1, abs=0.1)


# --- the pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [2**31, 0], ids=["kept", "decoded each time"])
def test_pictures_are_what_features_are_computed_of(here: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.picture_loading.MOST_BYTES_KEPT", most)
    paths = sorted((here / "drawings" / "askew").iterdir())[:5]
    examples = [Example(path, f"{index}", {}) for index, path in enumerate(paths)]
    with Pictures(examples, Resize(10, 8)) as pictures:
        everything = pictures.take(np.arange(5))
        assert everything.shape == (5, 8, 10, 3) and everything.dtype == np.uint8
        some = pictures.take(np.array([3, 1]), lambda picture, sha256: np.full_like(picture, int(sha256)))
        assert some[:, 0, 0, 0].tolist() == [3, 1]
        assert np.array_equal(pictures.take(np.array([3])), everything[3:4])


def test_a_picture_that_went_missing(tmp_path: Path) -> None:
    gone = Example(tmp_path / "gone.png", "0", {})
    with Pictures([gone], Resize(8, 8)) as pictures, pytest.raises(InputError, match="cannot be read any more"):
        pictures.take(np.array([0]))


# --- killed and started again --------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a training between two epochs, as a kill does."""


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on_and_ends_as_the_unbroken_one(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(epochs, "WRITING_SHARE", 1e9)
    settings = ("fine_tuning.epochs=3", "heads.label.dropout=0.4")
    _, unbroken = train(here, "unbroken", *settings)
    monkeypatch.setenv("CUTPOINT_CACHE", str(tmp_path / "cache"))
    keep = epochs._Loop._keep

    def kill(loop: Any) -> None:
        keep(loop)
        if loop.params["epochs"] == 3 and len(loop._course.history["loss"]) == 2:
            raise Killed

    monkeypatch.setattr(epochs._Loop, "_keep", kill)
    with pytest.raises(Killed):
        train(here, "killed", *settings)
    monkeypatch.setattr(epochs._Loop, "_keep", keep)
    assert list((tmp_path / "cache" / "cutpoint-heads").glob("tuned-*.checkpoint.npz"))
    outcome, out = train(here, "killed", *settings)
    assert "fine-tuning: going on after epoch 2" in outcome.stderr
    assert state_of(out)["training"] == state_of(unbroken)["training"]
    assert all(same(mine, weights_of(unbroken)[name]) for name, mine in weights_of(out).items())
    assert not list((tmp_path / "cache").rglob("*.checkpoint.npz"))


def killed_in(phase: str, arguments: list[object], cache: Path) -> None:
    """Start a run in a process of its own, and kill it as soon as a checkpoint of the phase is there."""
    pattern = "tuned-*.checkpoint.npz" if phase == "fine_tuning" else "[0-9a-f]*.checkpoint.npz"
    process = start(*arguments, CUTPOINT_CACHE=str(cache))
    deadline = time.monotonic() + 300
    while not list((cache / "cutpoint-heads").glob(pattern)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["heads", "fine_tuning"])
def test_a_run_killed_with_9_ends_as_the_unbroken_one(phase: str, here: Path, tmp_path: Path) -> None:
    long = ("training.epochs=6000", "training.patience=6000") if phase == "heads" else ("fine_tuning.epochs=12",)
    flags = [part for each in (*long, "fine_tuning.patience=12") for part in ("--set", each)]
    write_drawings(tmp_path / "drawings", per_class=20)
    arguments = ["train", "--data", tmp_path / "drawings", *SMALL, "--set", "heads.label.kind=mlp", *flags]
    arguments += ["--set", "fine_tuning.layer=block_15_project", "--set", "fine_tuning.learning_rate=1e-3"]
    arguments += ["--set", "augmentation.rotation=10", "--set", "augmentation.contrast=0.1"]
    killed_in(phase, [*arguments, "--out", tmp_path / "out"], tmp_path / "cache")
    outs = []
    for out, cache in ((tmp_path / "out", tmp_path / "cache"), (tmp_path / "unbroken", tmp_path / "cache2")):
        process = start(*arguments, "--out", out, CUTPOINT_CACHE=str(cache))
        _, told = process.communicate(timeout=600)
        assert process.returncode == 0, told
        assert ("going on after epoch" in told) == (out.name == "out")
        outs.append(out)
    resumed, unbroken = map(weights_of, outs)
    apart = max(
        float(np.abs(one - other).max())
        for name in unbroken
        for one, other in zip(resumed[name], unbroken[name], strict=True)
    )
    print(f"killed in {phase}: the weights are {apart:g} apart from the unbroken run's")
    assert apart == 0
    assert state_of(outs[0])["training"] == state_of(outs[1])["training"]
