"""Heads: every row of the table builds, says how it pools, and answers with probabilities."""

from __future__ import annotations

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.errors import InputError
from pipeline.config import HeadSection
from pipeline.heads import HEADS, POOLINGS, TASKS, build_head, check_head, learns, pooling_of, task_of

FEATURES = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
ROOT = Path(__file__).parents[1]


@pytest.fixture(params=TASKS["multiclass"])
def section(request: pytest.FixtureRequest) -> HeadSection:
    return HeadSection(kind=request.param, hidden=(5, 4), dropout=0.5)


def test_probabilities(section: HeadSection) -> None:
    head = build_head("sign", section, width=6, units=3, seed=0)
    answers = np.asarray(head(FEATURES))
    assert answers.shape == (4, 3)
    assert answers.dtype == np.float32
    assert np.allclose(answers.sum(1), 1, atol=1e-6)
    assert head.layers[-1].name == "sign"


def test_dropout_is_inert_but_in_training(section: HeadSection) -> None:
    head = build_head("sign", section, width=6, units=3, seed=0)
    assert np.array_equal(head(FEATURES), head(FEATURES))
    assert not np.array_equal(head(FEATURES, training=True), head(FEATURES))


def test_the_seed_makes_the_weights(section: HeadSection) -> None:
    def weights(seed: int) -> list[np.ndarray]:
        return build_head("sign", section, width=6, units=3, seed=seed).get_weights()

    assert all(np.array_equal(mine, again) for mine, again in zip(weights(1), weights(1), strict=True))
    assert not np.array_equal(weights(1)[0], weights(2)[0])


def test_the_greatest_seed(section: HeadSection) -> None:
    assert np.isfinite(build_head("sign", section, width=6, units=3, seed=2**32 - 1)(FEATURES)).all()


def test_layers_of_two_heads_have_different_names(section: HeadSection) -> None:
    one, other = (build_head(name, section, width=6, units=3, seed=0) for name in ("one", "other"))
    assert not {layer.name for layer in one.layers} & {layer.name for layer in other.layers}


def test_mlp_has_the_hidden_layers_that_were_asked_for() -> None:
    head = build_head("sign", HeadSection(kind="mlp", hidden=(7, 5)), width=6, units=3, seed=0)
    dense = [layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    assert dense == [7, 5, 3]
    assert build_head("sign", HeadSection(kind="mlp", hidden=()), 6, 3, 0).count_params() == 6 * 3 + 3


def test_pooling(section: HeadSection) -> None:
    assert pooling_of(section) == "average"
    for pooling in POOLINGS:
        assert pooling_of(HeadSection(kind=section.kind, pooling=pooling)) == pooling


def test_every_kind_has_a_task_of_its_own() -> None:
    assert sorted(HEADS) == sorted({kind for kinds in TASKS.values() for kind in kinds})
    for task, kinds in TASKS.items():
        for kind in kinds:
            section = HeadSection(kind=kind, task=task)
            check_head(section)
            assert task_of(section) == task
            assert learns(section) == (task != "embedding")
    own = {kind: task_of(HeadSection(kind=kind)) for kind in HEADS}
    own_kinds = {each: each for each in ("embedding", "boxes", "segmentation")}
    assert own == {"linear": "multiclass", "mlp": "multiclass", **own_kinds}
    assert learns(HeadSection(kind="embedding", dimension=8))


@pytest.mark.parametrize(("kind", "task"), [("embedding", "multiclass"), ("linear", "embedding")])
def test_a_kind_that_cannot_answer_the_task(kind: str, task: str) -> None:
    with pytest.raises(InputError, match=f"'{kind}' cannot answer the task '{task}'"):
        check_head(HeadSection(kind=kind, task=task))


def test_an_embedding_is_the_features_at_length_1() -> None:
    head = build_head("near", HeadSection(kind="embedding"), width=6, units=0, seed=0)
    answers = np.asarray(head(FEATURES))
    assert answers.shape == FEATURES.shape and answers.dtype == np.float32
    assert np.allclose(answers, FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True), atol=1e-6)
    assert head.layers[-1].name == "near" and head.count_params() == 0
    assert np.array_equal(head(np.zeros((1, 6), np.float32)), np.zeros((1, 6)))


@pytest.mark.parametrize("wrong", [{"kind": "linea"}, {"pooling": "averag"}, {"task": "multiclas"}])
def test_what_does_not_exist(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        check_head(HeadSection(**wrong))
    (key, value) = next(iter(wrong.items()))
    assert f"head {key} '{value}'" in caught.value.what
    assert "did you mean" in caught.value.expected


@pytest.mark.parametrize(
    "path",
    ["pipeline/training.py", *(f"pipeline/heads/{name}.py" for name in ("__init__", "embedding", "linear", "mlp"))],
)
def test_training_and_heads_know_only_keras(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {
        "__future__",
        "collections",
        "dataclasses",
        "importlib",
        "typing",
        "keras",
        "numpy",
        "exporters",
        "pipeline",
    }
