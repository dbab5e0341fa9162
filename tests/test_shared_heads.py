"""Several heads on one trunk: branches, loss weights, auxiliary heads; and a word where sharing changes nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from exporters.cloning import clone
from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.assembly import Part, assemble, without
from pipeline.backbones.loading import load_backbone
from pipeline.config import (
    BackboneSection,
    Config,
    ExportSection,
    FineTuningSection,
    HeadSection,
    TrainingSection,
    TrunkSection,
)
from pipeline.cut import truncate
from pipeline.heads import check_head
from pipeline.heads.sharing import auxiliary_heads, check_sharing, on_trunk
from pipeline.training import Lesson, Trained, train_heads

COUNT, TRAIN, WIDTH = 600, 450, 24
SETTINGS = TrainingSection(epochs=8, batch_size=32, learning_rate=1e-2, patience=20)
TRUNK = TrunkSection(hidden=(16,), dropout=0.0)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Features (N, width), and four numbers of each that can be learned from them."""
    generator = np.random.default_rng(0)
    features = np.maximum(generator.normal(1, 1, (COUNT, WIDTH)), 0).astype(np.float32)
    return features, features @ generator.normal(size=(WIDTH, 4)).astype(np.float32)


def lesson(section: HeadSection, truth: np.ndarray, units: int) -> Lesson:
    return Lesson(section, truth[:TRAIN], truth[TRAIN:], units)


def taught(
    lessons: dict[str, Lesson], trunk: TrunkSection | None = TRUNK, settings: TrainingSection = SETTINGS
) -> Trained:
    features, _ = pictures()
    return train_heads(lessons, settings, (features[:TRAIN], features[TRAIN:]), 3, trunk)


def two_classes(auxiliary_weight: float) -> dict[str, Lesson]:
    _, values = pictures()
    return {
        "main": lesson(HeadSection(dropout=0.0), (values[:, 0] > np.median(values[:, 0])).astype(int), 2),
        "other": lesson(
            HeadSection(dropout=0.0, auxiliary=True, loss_weight=auxiliary_weight),
            np.digitize(values[:, 1], np.quantile(values[:, 1], [0.33, 0.66])),
            3,
        ),
    }


def test_two_regressions_branch_from_one_trunk() -> None:
    """Not one after the other: neither's answer can be had from the other's."""
    _, values = pictures()
    section = HeadSection(task="regression", target=("x",), dropout=0.0)
    lessons = {"age": lesson(section, values[:, :1] * 10 + 40, 1), "size": lesson(section, values[:, 1:2], 1)}
    done = taught(lessons, settings=TrainingSection(epochs=20, batch_size=32, learning_rate=1e-2, patience=20))
    features, _ = pictures()
    shared = done.trunk(features)
    for name, truth in (("age", values[:, :1] * 10 + 40), ("size", values[:, 1:2])):
        assert done.heads[name].input_shape == (None, 16)
        errors = np.asarray(done.heads[name](shared)) - truth
        # In the targets' own units, and learned.
        assert np.sqrt(np.square(errors).mean()) < 0.4 * truth.std()
    assert {"loss", "mean_absolute_error", "val_loss", "best_epoch"} <= set(done.histories["age"])


def test_the_trunk_takes_the_standardisation() -> None:
    """Trained on standardised features, it answers to the features as they are."""
    lessons = two_classes(1.0)
    done = taught(lessons, settings=TrainingSection(epochs=30, batch_size=32, learning_rate=1e-2, patience=30))
    features, _ = pictures()
    found = np.asarray(done.heads["main"](done.trunk(features[TRAIN:]))).argmax(-1)
    assert (found == lessons["main"].val).mean() > 0.85


def test_an_auxiliary_loss_changes_the_main_head_through_the_trunk() -> None:
    heads = {weight: taught(two_classes(weight)).heads["main"].get_weights()[0] for weight in (0.0, 0.2)}
    again = taught(two_classes(0.2)).heads["main"].get_weights()[0]
    assert np.array_equal(heads[0.2], again)
    assert np.abs(heads[0.0] - heads[0.2]).max() > 1e-3


def test_resnet50_with_a_main_and_an_auxiliary_head_of_1000_classes() -> None:
    """GlobalAveragePooling, Dense(1024), two heads of 1000 classes at the weights 1 and 0.2."""
    backbone = load_backbone(BackboneSection(name="resnet50", weights="none"), Resize(32, 32))
    truncated = truncate(backbone.model, ("conv5_block3_out",))
    generator = np.random.default_rng(0)
    features = generator.random((64, 2048)).astype(np.float32)
    lessons = {
        name: Lesson(HeadSection(loss_weight=weight, auxiliary=weight < 1), labels, labels[:0], 1000)
        for name, weight, labels in (
            ("main", 1.0, generator.integers(0, 1000, 64)),
            ("extra", 0.2, generator.integers(0, 1000, 64)),
        )
    }
    settings = TrainingSection(epochs=1, batch_size=32)
    done = train_heads(lessons, settings, (features, features[:0]), 0, TrunkSection(hidden=(1024,)))
    parts = {name: Part("", (), head, on_trunk=True) for name, head in done.heads.items()}
    trunk = Part("average", ("conv5_block3_out",), done.trunk)
    model = assemble(truncated, backbone.pixel_scaling, parts, trunk)
    assert {name: value.shape for name, value in model.output.items()} == {"main": (None, 1000), "extra": (None, 1000)}
    own = 2048 * 1024 + 1024 + 2 * (1024 * 1000 + 1000)
    assert model.count_params() - truncated.count_params() - 12 == own
    image = generator.integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    alone = without(model, ("extra",))
    assert list(alone.output) == ["main"]
    assert np.array_equal(alone(image)["main"], model(image)["main"])
    assert not [layer.name for layer in alone.layers if layer.name.startswith("extra")]


def test_two_heads_of_three_classes_share_the_input_and_are_not_swapped() -> None:
    _, values = pictures()
    bins = [np.digitize(values[:, index], np.quantile(values[:, index], [0.33, 0.66])) for index in (0, 1)]
    lessons = {
        name: lesson(HeadSection(dropout=0.0), truth, 3) for name, truth in zip(("zeta", "alpha"), bins, strict=True)
    }
    settings = TrainingSection(epochs=20, batch_size=32, learning_rate=1e-2, patience=20)
    done = taught(lessons, settings=settings)
    features, _ = pictures()
    shared = done.trunk(features[TRAIN:])
    for name, other in (("zeta", "alpha"), ("alpha", "zeta")):
        found = np.asarray(done.heads[name](shared)).argmax(-1)
        assert (found == lessons[name].val).mean() > 0.7 > 0.6 > (found == lessons[other].val).mean()


def test_ordinal_probabilities_fall_and_nothing_of_training_is_left() -> None:
    _, values = pictures()
    truth = np.digitize(values[:, 0], np.quantile(values[:, 0], [0.25, 0.5, 0.75]))
    settings = TrainingSection(epochs=20, batch_size=32, learning_rate=1e-2, patience=20)
    done = taught({"level": lesson(HeadSection(task="ordinal", dropout=0.0, l2=1e-4), truth, 3)}, None, settings)
    features, _ = pictures()
    answers = np.asarray(done.heads["level"](features))
    assert (np.diff(answers, axis=1) <= 1e-6).all()
    assert ((answers[TRAIN:] > 0.5).sum(1) == truth[TRAIN:]).mean() > 0.6
    # What only training needs would have to be loaded by whoever opens the model.
    config = done.heads["level"].get_layer("level").get_config()
    assert config["kernel_constraint"] is config["bias_constraint"] is config["kernel_regularizer"] is None
    assert np.array_equal(np.asarray(clone(done.heads["level"])(features)), answers)


def test_an_embedding_is_learned() -> None:
    """Pictures of one label are nearest to each other, where in the features alone they are not."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, COUNT)
    # What all pictures differ in hides what their labels differ in.
    features = generator.normal(0, 4, (COUNT, WIDTH)).astype(np.float32)
    features[:, :4] = np.eye(4)[labels] * 4 + generator.normal(0, 0.7, (COUNT, 4))
    section = HeadSection(kind="embedding", dimension=8, dropout=0.0)
    settings = TrainingSection(epochs=20, batch_size=64, learning_rate=1e-2, patience=20)
    done = train_heads({"near": lesson(section, labels, 0)}, settings, (features[:TRAIN], features[TRAIN:]), 0)
    vectors = np.asarray(done.heads["near"](features[TRAIN:]))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def recall(values: np.ndarray) -> float:
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
        likeness = values @ values.T - 9 * np.eye(len(values))
        return float((labels[TRAIN:][likeness.argmax(1)] == labels[TRAIN:]).mean())

    assert recall(vectors) > recall(features[TRAIN:]) + 0.2


def test_own_optimizers_and_rates_make_other_heads() -> None:
    lessons = {"main": two_classes(1.0)["main"]}
    found = []
    for section in (HeadSection(), HeadSection(optimizer="sgd"), HeadSection(learning_rate=0.1)):
        own = {"main": Lesson(section, lessons["main"].train, lessons["main"].val, 2)}
        found.append(taught(own, None, TrainingSection(epochs=2, batch_size=64)).heads["main"].get_weights()[0])
    assert not np.allclose(found[0], found[1]) and not np.allclose(found[0], found[2])


def config(trunk: tuple[int, ...] = (), layer: str = "", **heads: HeadSection) -> Config:
    return Config(heads=heads, trunk=TrunkSection(hidden=trunk), fine_tuning=FineTuningSection(layer=layer))


def test_what_shares_nothing_is_told() -> None:
    plain, weighted = HeadSection(), HeadSection(loss_weight=0.2)
    for alone in (weighted, HeadSection(auxiliary=True)):
        with pytest.raises(InputError, match="that changes nothing") as caught:
            check_sharing(config(main=plain, other=alone))
        assert "[trunk]" in caught.value.mend
        check_sharing(config((8,), main=plain, other=alone))
        check_sharing(config(layer="conv_pw_13", main=plain, other=alone))
    off = HeadSection(loss_weight=0.2, trunk=False)
    with pytest.raises(InputError, match=r"'other' has the loss weight 0\.2"):
        check_sharing(config((8,), main=plain, other=off))
    with pytest.raises(InputError, match="has its own optimizer"):
        check_sharing(config((8,), main=plain, other=HeadSection(optimizer="sgd")))
    with pytest.raises(InputError, match="Every head is auxiliary"):
        check_sharing(config((8,), main=HeadSection(auxiliary=True)))
    with pytest.raises(InputError, match="No head stands on the trunk"):
        check_sharing(config((8,), main=HeadSection(trunk=False)))
    with pytest.raises(InputError, match="no pooling 'averag' of the trunk"):
        check_sharing(Config(heads={"main": plain}, trunk=TrunkSection(pooling="averag")))


def test_auxiliary_heads_are_left_out_unless_asked_for() -> None:
    heads = {"main": HeadSection(), "other": HeadSection(auxiliary=True)}
    assert auxiliary_heads(Config(heads=heads)) == ("other",)
    assert auxiliary_heads(Config(heads=heads, export=ExportSection(auxiliary=True))) == ()
    assert on_trunk(config((4,)), HeadSection()) and not on_trunk(config((4,)), HeadSection(kind="embedding"))


def test_only_a_regression_learns_from_several_columns() -> None:
    check_head(HeadSection(task="regression", target=("a", "b")))
    with pytest.raises(InputError, match="learns from one column, not from 2"):
        check_head(HeadSection(target=("a", "b")))


def test_batch_norm_between_hidden_layers() -> None:
    _, values = pictures()
    section = HeadSection(kind="mlp", hidden=(32, 16), batch_norm=True, dropout=0.2, l2=1e-3)
    done = taught({"main": lesson(section, (values[:, 0] > values[:, 0].mean()).astype(int), 2)}, None)
    kinds = [type(layer).__name__ for layer in done.heads["main"].layers[1:]]
    assert kinds == ["Dense", "BatchNormalization", "ReLU", "Dropout"] * 2 + ["Dense"]
    moved = done.heads["main"].get_layer("main_batch_norm_1").moving_mean
    assert np.abs(keras.ops.convert_to_numpy(moved)).max() > 0
