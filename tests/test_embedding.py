"""Judging embeddings: what passes at each precision, and every fault that an artifact's vectors could have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from exporters.contract import CEILINGS, Limits, Output
from exporters.measures import allowed_disagreements, least_cosine, lost_similarity, similarities
from exporters.parity import Comparison, compare_output

WIDTH = 64
OUTPUT = Output("near", "embedding", "embedding", (WIDTH,), activation="unit_length", unit="unit length")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def embeddings(count: int = 120, seed: int = 0) -> np.ndarray:
    """Ten clusters of vectors of unit length without negative numbers, as behind a ReLU."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(0, 1, (10, WIDTH)) ** 3
    return unit(np.maximum(centres[np.arange(count) % 10] + generator.normal(0, 0.15, (count, WIDTH)), 0))


def noisy(vectors: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    """The vectors off by a share of their length across it, and of length 1 again."""
    noise = np.random.default_rng(seed).normal(0, 1, vectors.shape)
    noise -= (noise * vectors).sum(-1, keepdims=True) * vectors
    return unit(vectors + share * unit(noise))


def judged(answer: np.ndarray, precision: str = "float32", limits: Limits | None = None, **options: bool) -> Comparison:
    return compare_output(embeddings(), answer, OUTPUT, limits or CEILINGS[precision], None, **options)


@pytest.mark.parametrize(
    ("precision", "share"),
    [("float32", 1e-5), ("float16", 1e-3), ("uint8", 0.02), ("dynamic_int8", 0.02), ("int8", 0.1)],
)
def test_what_each_precision_brings_passes(precision: str, share: float) -> None:
    found = judged(noisy(embeddings(), share), precision)
    assert (found.status, found.reason) == ("verified", "")
    assert found.figures["least_cosine"] == pytest.approx(1 - share**2 / 2, abs=1e-4)
    assert found.figures["neighbours"] >= CEILINGS[precision].neighbours
    assert "agreement" not in found.figures and "accuracy" not in found.figures
    assert found.figures["smallest_passing_limits"]["least_cosine"] == found.figures["least_cosine"]


@pytest.mark.parametrize(
    ("precision", "share"), [("float32", 3e-3), ("float16", 0.03), ("uint8", 0.3), ("dynamic_int8", 0.3), ("int8", 0.6)]
)
def test_what_no_precision_excuses_fails(precision: str, share: float) -> None:
    found = judged(noisy(embeddings(), share), precision)
    assert found.status == "failed"
    assert "the least cosine" in found.reason


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "those of the next image": lambda vectors: np.roll(vectors, 1, axis=0),
    "channels turned round": lambda vectors: vectors[:, ::-1],
    "neighbouring channels swapped": lambda vectors: vectors.reshape(-1, WIDTH // 2, 2)[:, :, ::-1].reshape(-1, WIDTH),
    "one vector for all": lambda vectors: np.repeat(unit(vectors.mean(0, keepdims=True)), len(vectors), axis=0),
    "signs alone": lambda vectors: unit(np.sign(vectors)),
    "all zeros": np.zeros_like,
    "not brought to length 1": lambda vectors: vectors * 7,
    "a fifth too long": lambda vectors: vectors * 1.2,
    "one of them too long": lambda vectors: vectors * np.where(np.arange(len(vectors)) == 5, 1.3, 1)[:, None],
    "one of them another's": lambda vectors: vectors[
        np.where(np.arange(len(vectors)) == 5, 6, np.arange(len(vectors)))
    ],
    "half of the channels left out": lambda vectors: unit(np.where(np.arange(WIDTH) % 2, vectors, 0)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("precision", CEILINGS)
def test_faults_fail_at_every_precision(fault: str, precision: str) -> None:
    found = judged(FAULTS[fault](embeddings()).astype(np.float32), precision)
    assert found.status == "failed", found


def test_a_sample_fails_only_beyond_chance() -> None:
    limits = dataclasses.replace(CEILINGS["int8"], least_cosine=0.0)
    expected = embeddings(16)
    for wrong in range(16):
        answer = expected.copy()
        # Each of these becomes the copy of an image of another cluster, which is then its nearest.
        answer[:wrong] = expected[(np.arange(wrong) + 5) % 16]
        found = compare_output(expected, answer, OUTPUT, limits, None, sampled=True)
        over = found.figures["disagreements"] > allowed_disagreements(16, limits.neighbours)
        assert (found.status == "failed") == over
    assert over


def test_images_that_are_all_alike_decide_nothing() -> None:
    generator = np.random.default_rng(0)
    alike = unit(1 + generator.normal(0, 0.02, (50, WIDTH)))
    found = compare_output(alike, alike + np.float32(1e-7), OUTPUT, CEILINGS["float32"], None)
    assert found.status == "degenerate"
    assert "as near to most others as to the nearest" in found.reason


def test_without_limits_nothing_is_verified() -> None:
    found = judged(embeddings() + np.float32(1e-7), limits=Limits(1e-4, 1.0))
    assert found.status == "not_verified"
    assert "no cosine" in found.reason


def test_measures_by_hand() -> None:
    expected = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    assert least_cosine(expected, expected * 3) == pytest.approx(1)
    assert least_cosine(expected, np.array([[1.0, 0.0], [0.8, -0.6], [0.0, 2.0]])) == pytest.approx(0.28)
    assert least_cosine(expected, np.zeros((3, 2))) == 0
    found = similarities(expected)
    assert found[0, 1] == pytest.approx(0.8) and found[1, 2] == pytest.approx(0.6) and np.isneginf(found[0, 0])
    # The second image's nearest is the first, by 0.8; an artifact that takes the third for it loses 0.2.
    turned = np.array([[1.0, 0.0], [0.1, 0.995], [0.0, 1.0]])
    assert lost_similarity(expected, turned) == pytest.approx([0, 0.2, 0])
    assert not lost_similarity(expected, expected).any()
