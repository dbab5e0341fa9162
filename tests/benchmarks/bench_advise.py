"""How long advice takes: features at every cut beside a plain pass, and the probe of seventeen cuts."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from exporters.contract import Resize
from pipeline.advice.probe import hold_out
from pipeline.assembly import feature_extractor
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.cut import candidate_cuts, truncate
from pipeline.features import BATCH, fastest_compute

PX = 224
# MobileNetV2 1.0 after each of its blocks, and its last layer.
WIDTHS = (96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960, 1280)


def seconds(work: Callable[[], object]) -> float:
    """The wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_features_at_every_cut_cost_little_more_than_a_plain_pass() -> None:
    backbone = load_backbone(BackboneSection(name="mobilenet_v2", alpha=1.0, weights="none"), Resize(PX, PX))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, PX, PX, 3), np.uint8)
    passes = []
    for cuts in ((backbone.usual_cut,), candidate_cuts(backbone.model)):
        truncated = truncate(backbone.model, cuts)
        wanted = [(cut, "average") for cut in cuts]
        extractor = feature_extractor(truncated, backbone.pixel_scaling, wanted)
        passes.append(fastest_compute(extractor, 10_000, "cpu", print))
        # The first batch is computed with Keras too, to see whether both agree.
        passes[-1](images)
    plain, everywhere = passes
    ratios = [seconds(lambda: everywhere(images)) / seconds(lambda: plain(images)) for _ in range(12)]
    print(f"advise: features at {len(cuts)} cuts take {np.median(ratios):.2f} times a plain pass (median of 12 pairs)")
    assert np.median(ratios) <= 1.5


def test_probing_seventeen_cuts_takes_seconds() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(1000) % 10
    taken = 0.0
    for width in WIDTHS:
        features = np.maximum(generator.normal(0, 1, (10, width))[labels] + generator.normal(0, 2, (1000, width)), 0)
        taken += seconds(
            lambda features=features: hold_out(
                features, np.eye(10)[labels], np.arange(1000), least_shrinkages=(0.03, 0.0)
            )
        )
    print(f"advise: probing {len(WIDTHS)} cuts of 1000 pictures takes {taken:.1f} s")
    assert taken <= 10
