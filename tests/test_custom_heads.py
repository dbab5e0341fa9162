"""Heads that a user wrote: a function, a layer, a model, with Lambdas and layers inside; or a word why they cannot be had."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.errors import InputError
from exporters.folding import fold
from pipeline.config import HeadSection
from pipeline.heads import build_head, check_head, is_custom, task_of
from pipeline.heads.custom import source_digest
from pipeline.training import Lesson, TrainingSection, train_heads

WIDTH, UNITS = 8, 3
SOURCE = """
    import keras
    from keras import layers

    def function(features, units):
        values = layers.Dropout(0.3)(layers.Dense(16, activation="relu")(features))
        return layers.Dense(units, activation="softmax")(values)

    class Layer(layers.Layer):
        def __init__(self, units, **settings):
            super().__init__(**settings)
            self.hidden, self.norm = layers.Dense(16), layers.BatchNormalization()
            self.out = layers.Dense(units, activation="softmax")

        def call(self, values, training=False):
            return self.out(keras.ops.relu(self.norm(self.hidden(values), training=training)))

    class Block(layers.Layer):
        def __init__(self, width, **settings):
            super().__init__(**settings)
            self.dense = layers.Dense(width)

        def call(self, values):
            return values + keras.ops.tanh(self.dense(values))

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.block, self.out = layers.Dense(12, activation="relu"), Block(12), layers.Dense(3)

        def call(self, values):
            return keras.ops.softmax(self.out(self.block(self.first(values))))

    lambda_style = lambda features: layers.Dense(3, activation="softmax")(layers.Lambda(lambda each: each * 2)(features))
    ready_made = keras.Sequential([layers.Input((8,)), layers.Dense(3, activation="softmax")])
    numbers = lambda features: layers.Dense(3)(layers.Dense(8, activation="relu")(features))

    class OwnWeights(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="my_kernel")

        def call(self, values):
            return keras.ops.softmax(values @ self.kernel)

    class InTensorFlow(layers.Layer):
        def call(self, values):
            import tensorflow as tf
            return tf.nn.softmax(values[:, :3])

    too_wide = lambda features: layers.Dense(7)(features)
    nothing = lambda features: None
    failing = lambda features: 1 / 0
    constant = 3
"""
GOOD = ("function", "Layer", "Model", "lambda_style", "ready_made")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_heads.py").write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    yield tmp_path
    for name in ("my_heads", "my_broken", "my_needy"):
        sys.modules.pop(name, None)


def built(name: str, task: str = "", head: str = "mine") -> keras.Model:
    section = HeadSection(kind=f"my_heads:{name}", task=task)
    check_head(section)
    return build_head(head, section, WIDTH, UNITS, seed=0)


def features() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (60, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("name", GOOD)
def test_it_becomes_stock_layers(name: str, tmp_path: Path) -> None:
    """Plain Keras loads it, in safe mode; every format's inference model is made of layers; names begin with the head's."""
    head = built(name)
    head.save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras")
    expected = np.asarray(head(features()))
    assert np.array_equal(loaded(features()), expected)
    assert np.allclose(expected.sum(1), 1, atol=1e-5)
    folded = fold(keras.Model(head.inputs, {"mine": head.output})).model
    assert np.allclose(folded(features())["mine"], expected, atol=1e-5)
    assert all(isinstance(each, keras.layers.Layer) for each in folded.operations)
    assert all(each.name.startswith("mine_") for each in head.operations)
    assert not {type(each).__name__ for each in head.operations} & {"Lambda", "Layer", "Block", "Model", "Sequential"}


def test_two_heads_of_the_same_code_have_different_names() -> None:
    names = [{each.name for each in built("Model", head=head).operations} for head in ("one", "two")]
    assert not names[0] & names[1]
    assert names[0] == {each.name for each in built("Model", head="one").operations}


@pytest.mark.parametrize("name", ["function", "Layer"])
def test_it_learns_from_features_as_they_are(name: str) -> None:
    """Far from 0 and of one scale; dropout and BatchNorm inside do what they do in training."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 300)
    shown = (np.eye(WIDTH)[labels] * 4 + generator.normal(50, 1, (300, WIDTH))).astype(np.float32)
    section = HeadSection(kind=f"my_heads:{name}")
    settings = TrainingSection(epochs=25, batch_size=32, learning_rate=1e-2, patience=25)
    lessons = {"mine": Lesson(section, labels[:200], labels[200:], 3)}
    done = train_heads(lessons, settings, (shown[:200], shown[200:]), 0)
    assert (np.asarray(done.heads["mine"](shown[200:])).argmax(1) == labels[200:]).mean() > 0.9


def test_a_regression_comes_back_in_its_own_units(tmp_path: Path) -> None:
    shown = features()
    truth = (shown[:, :3] * [1, 100, 0.01] + [0, 5000, 7]).astype(np.float32)
    section = HeadSection(kind="my_heads:numbers", task="regression", target=("a", "b", "c"))
    settings = TrainingSection(epochs=150, batch_size=32, learning_rate=1e-2, patience=150)
    done = train_heads({"mine": Lesson(section, truth, truth, 3)}, settings, (shown, shown), 0)
    head = done.heads["mine"]
    answers = np.asarray(head(shown))
    assert (np.sqrt(np.square(answers - truth).mean(0)) < 0.3 * truth.std(0)).all()
    folded = fold(keras.Model(head.inputs, {"mine": head.output})).model
    assert [type(each).__name__ for each in folded.layers] == ["InputLayer", "Dense", "Dense"]
    assert np.allclose(folded(shown)["mine"], answers, rtol=1e-5, atol=1e-3)
    head.save(tmp_path / "head.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "head.keras")(shown), answers)


@pytest.mark.parametrize(
    ("kind", "what", "mend"),
    [
        ("my_heads:OwnWeights", "weights of its own, my_kernel", r"keras\.layers\.Dense"),
        ("my_heads:InTensorFlow", "cannot be (called|followed)", r"tf\.nn\.relu by keras\.ops\.relu"),
        ("my_heads:too_wide", r"answers with \(N, 7\)", "units"),
        ("my_heads:nothing", "answers with NoneType", "return"),
        ("my_heads:failing", "ZeroDivisionError", ""),
        ("my_heads:constant", "is int", "one of these"),
        ("my_heads:functio", "has no 'functio'", "behind the colon"),
        ("my_heds:function", "no module 'my_heds'", "start cutpoint where the file is"),
        ("my_broken:function", "cannot be imported: NameError", "mend it"),
        ("my_needy:function", "needs the module 'not_installed'", "install it"),
    ],
)
def test_what_cannot_be_had_is_told(kind: str, what: str, mend: str, here: Path) -> None:
    (here / "my_broken.py").write_text("unknown\n", encoding="utf-8")
    (here / "my_needy.py").write_text("import not_installed\n", encoding="utf-8")
    with pytest.raises(InputError, match=what) as caught:
        build_head("mine", HeadSection(kind=kind), WIDTH, UNITS, seed=0)
    assert re.search(mend, caught.value.mend)


def test_the_current_folder_is_searched_last(here: Path) -> None:
    """A user's own `pipeline` must not hide ours, nor anything that is installed."""
    (here / "json.py").write_text("raise RuntimeError('mine')\n", encoding="utf-8")
    with pytest.raises(InputError, match="The module 'json' has no 'head'"):
        build_head("mine", HeadSection(kind="json:head"), WIDTH, UNITS, seed=0)
    assert sys.path[-1] == str(here)


def test_changed_code_is_another_head(here: Path) -> None:
    before = source_digest("my_heads:function")
    path = here / "my_heads.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert source_digest("my_heads:function") != before


def test_kinds() -> None:
    assert is_custom("my_heads:Layer") and is_custom("a.b:c")
    assert not any(map(is_custom, ("linear", "my heads:Layer", "my_heads:", ":Layer", "a/b:c")))
    assert task_of(HeadSection(kind="my_heads:Layer")) == "multiclass"
    with pytest.raises(InputError, match="cannot answer the task 'embedding'"):
        check_head(HeadSection(kind="my_heads:Layer", task="embedding"))
    with pytest.raises(InputError, match="no head kind 'my heads:Layer'"):
        check_head(HeadSection(kind="my heads:Layer"))
