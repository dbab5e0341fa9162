"""The features that heads take: from the cache, or by one pass over the pictures for all cuts and poolings at once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from exporters.contract import Resize
from exporters.errors import InputError
from pipeline import bundle
from pipeline.assembly import feature_extractor, pooled_width
from pipeline.augmentation import augment, settings_of
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights
from pipeline.config import Config, HeadSection, TrunkSection
from pipeline.cut import resolve_cuts, truncate
from pipeline.features import Compute, FeatureStore, JoinedStore, extract_features, fastest_compute
from pipeline.splitting import Example
from pipeline.terminal import Terminal


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The features of all pictures that can be read, (cut, pooling) -> store.

    `bad` is sha256 -> reason of the other pictures; `computed` counts the pictures that were not in the cache.
    """

    stores: Mapping[tuple[str, str], FeatureStore]
    bad: Mapping[str, str]
    computed: int

    def of_head(self, cuts: Sequence[str], pooling: str, examples: Sequence[Example]) -> np.ndarray:
        """Return what a head takes of some pictures, float32 (N, width): the features of its cuts one behind the other."""
        names = [example.sha256 for example in examples]
        return np.concatenate([self.stores[cut, pooling].gather(names) for cut in cuts], axis=1)


def cuts_of_head(
    name: str, section: HeadSection | TrunkSection, backbone: LoadedBackbone, cuts: tuple[str, ...]
) -> tuple[str, ...]:
    """Return which of the cuts reach a head or the trunk, the deepest last; raises InputError for one that is not cut at."""
    if section.features == ():
        return cuts
    taken = resolve_cuts(backbone, section.features)
    strangers = [cut for cut in taken if cut not in cuts]
    of_head = isinstance(section, HeadSection)
    told, key = (f"head '{name}'", f"heads.{name}") if of_head else ("trunk", "trunk")
    if strangers:
        raise InputError(
            f"The {told} takes the features of '{strangers[0]}', which is not cut at.",
            f"of {', '.join(cuts)}",
            f"add it to backbone.cut, or take it out of {key}.features",
        )
    return taken


def extract(
    config: Config,
    backbone: LoadedBackbone,
    wanted: Collection[tuple[str, str]],
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    terminal: Terminal,
) -> Extracted:
    """Compute what is missing of the features that the heads take.

    Args:
        config: how many pictures may be unreadable.
        backbone: the whole backbone.
        wanted: (cut, pooling) of all heads.
        examples: all pictures.
        how: the resize.
        device: `cpu` or `gpu`.
        terminal: where progress goes.

    Raises:
        InputError: too many unreadable pictures, or too little disk.
    """
    with contextlib.ExitStack() as entered:
        stores = {pair: _store(backbone, pair, how) for pair in sorted(set(wanted))}
        # In one order everywhere, so that no two runs wait for each other.
        for store in sorted(stores.values(), key=lambda store: store.folder):
            entered.enter_context(store)
        progress = entered.enter_context(terminal.progress("features"))
        lacking = [pair for pair, store in stores.items() if any(each.sha256 not in store for each in examples)]
        if not lacking:
            return Extracted(stores, {}, 0)

        def compute() -> Compute:
            names = {cut for cut, _ in lacking}
            truncated = truncate(
                backbone.model, tuple(layer.name for layer in backbone.model.layers if layer.name in names)
            )
            extractor = feature_extractor(truncated, backbone.pixel_scaling, lacking)
            return fastest_compute(extractor, len(examples), device, terminal.say)

        joined = JoinedStore([stores[pair] for pair in lacking])
        bad, computed = extract_features(joined, examples, how, compute, config.data.bad_limit, progress)
    return Extracted(stores, bad, computed)


def extract_views(
    config: Config,
    backbone: LoadedBackbone,
    wanted: Collection[tuple[str, str]],
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    terminal: Terminal,
) -> tuple[Extracted, ...]:
    """Compute what is missing of the features of augmented copies, `config.augmentation.views` of each picture.

    Args:
        config: seed and augmentation.
        backbone, wanted, how, device, terminal: as in `extract`.
        examples: the training pictures, all of which can be read.
    """
    section, pairs = config.augmentation, sorted(set(wanted))

    @functools.cache
    def compute() -> Compute:
        names = {cut for cut, _ in pairs}
        truncated = truncate(backbone.model, tuple(each.name for each in backbone.model.layers if each.name in names))
        extractor = feature_extractor(truncated, backbone.pixel_scaling, pairs)
        return fastest_compute(extractor, len(examples) * section.views, device, terminal.say)

    found = []
    for view in range(section.views):
        draw = f"view {view}"

        def change(picture: np.ndarray, sha256: str, draw: str = draw) -> np.ndarray:
            return augment(picture, section, config.seed, draw, sha256)

        with contextlib.ExitStack() as entered:
            facts = {"augmentation": settings_of(section), "seed": config.seed, "draw": draw}
            stores = {pair: _store(backbone, pair, how, facts) for pair in pairs}
            for store in sorted(stores.values(), key=lambda store: store.folder):
                entered.enter_context(store)
            progress = entered.enter_context(terminal.progress(f"features of view {view + 1}"))
            joined = JoinedStore(list(stores.values()))
            bad, computed = extract_features(
                joined, examples, how, compute, config.data.bad_limit, progress, change=change
            )
        found.append(Extracted(stores, bad, computed))
    return tuple(found)


def _store(
    backbone: LoadedBackbone, pair: tuple[str, str], how: Resize, augmented: Mapping[str, object] | None = None
) -> FeatureStore:
    """Return the store of one cut and pooling: another list of cuts takes the same features from it."""
    cut, pooling = pair
    truncated = truncate(backbone.model, (cut,))
    key = {
        "weights": digest_of_weights(truncated),
        # The first is the input, which Keras numbers anew for each network of a process.
        "layers": [layer.name for layer in truncated.layers[1:]],
        "resize": dataclasses.asdict(how),
        "pixel_scaling": backbone.pixel_scaling,
        "pooling": pooling,
        "decoder": 1,
        **(augmented or {}),
    }
    return FeatureStore(bundle.cache_folder(), key, pooled_width(truncated, cut, pooling))
