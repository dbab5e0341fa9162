"""How long a run waits for its features: LiteRT beside Keras, and the cache beside computing them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from exporters.contract import Resize
from pipeline.assembly import feature_extractor
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.cut import truncate
from pipeline.dataset import list_examples
from pipeline.features import BATCH, FeatureStore, extract_features, fastest_compute, keras_compute
from pipeline.quickstart.drawings import make_drawings
from pipeline.splitting import Example

PX = 96


def seconds(work: Callable[[], object]) -> float:
    """The wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def extractor() -> keras.Model:
    """The embedded backbone with pooling, from raw pixels."""
    section = BackboneSection(name="mobilenet_v2", alpha=0.35, weights="quickstart")
    backbone = load_backbone(section, Resize(PX, PX))
    return feature_extractor(truncate(backbone.model, ("out_relu",)), backbone.pixel_scaling, [("out_relu", "average")])


def test_litert_is_faster_than_keras() -> None:
    model = extractor()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, PX, PX, 3), np.uint8)
    slow, fast = keras_compute(model), fastest_compute(model, 10_000, "cpu", print)
    slow(images), fast(images)
    ratios = [seconds(lambda: slow(images)) / seconds(lambda: fast(images)) for _ in range(10)]
    print(f"features: Keras takes {np.median(ratios):.2f} times as long as LiteRT (median of {len(ratios)} pairs)")
    assert np.median(ratios) > 1


def test_the_cache_is_faster_than_computing(tmp_path: Path) -> None:
    make_drawings(tmp_path / "drawings", per_class=20)
    examples: tuple[Example, ...] = list_examples(tmp_path / "drawings", ("label",), "")
    model = extractor()

    def extract() -> None:
        with FeatureStore(tmp_path, {"benchmark": 1}, model.output_shape[-1]) as store:
            extract_features(store, examples, Resize(PX, PX), lambda: keras_compute(model), 0.05)
            store.gather([example.sha256 for example in examples])

    cold, warm = seconds(extract), min(seconds(extract) for _ in range(3))
    print(f"features of {len(examples)} pictures: computing takes {cold / warm:.0f} times as long as the cache")
    assert cold > 10 * warm
