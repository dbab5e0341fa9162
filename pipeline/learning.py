"""Teaches all heads of a run: each by itself, those on the trunk together, from the cache where it was done before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.export import keep_in_cache
from pipeline import bundle
from pipeline.assembly import Part
from pipeline.config import Config
from pipeline.extraction import Extracted
from pipeline.heads import build_head, learns, pooling_of
from pipeline.heads.sharing import on_trunk
from pipeline.losses import loss_of, metrics_of, optimizer_of
from pipeline.reference import Taught
from pipeline.scores import score, told
from pipeline.splitting import Dataset
from pipeline.targets import Target
from pipeline.terminal import Terminal
from pipeline.training import Lesson, Trained, build_parts, train_heads

TRUNK = "trunk"


@dataclasses.dataclass(frozen=True)
class Classroom:
    """What all heads of a run are taught with.

    `taken` are the cuts that reach each head, and the trunk under its own name; `targets` what each head learns.
    """

    config: Config
    dataset: Dataset
    taken: Mapping[str, tuple[str, ...]]
    found: Extracted
    targets: Mapping[str, Target]
    device: str
    terminal: Terminal

    def features(self, name: str, pooling: str, split: str) -> np.ndarray:
        """Return what a head or the trunk takes of a split's pictures, float32 (N, width)."""
        return self.found.of_head(self.taken[name], pooling, self.dataset.of_split(split))

    def truth(self, name: str, split: str) -> np.ndarray:
        """Return what is true of a split's pictures for a head; see `exporters.contract.TASKS`."""
        return self.targets[name].truth(self.dataset.of_split(split))


def check_names(config: Config) -> None:
    """Raise InputError for a loss, metric or optimizer that does not exist."""
    for section in config.heads.values():
        if learns(section):
            loss_of(section, config.training)
            metrics_of(section)
            optimizer_of(section.optimizer or config.training.optimizer, 1e-3)


def wanted_features(config: Config, taken: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """Return (cut, pooling) of everything that a head or the trunk takes."""
    wanted = {(cut, config.trunk.pooling) for cut in taken.get(TRUNK, ())}
    for name, section in config.heads.items():
        if not on_trunk(config, section):
            wanted |= {(cut, pooling_of(section)) for cut in taken[name]}
    return wanted


def teach_heads(room: Classroom) -> tuple[dict[str, Taught], Part | None, bool]:
    """Train every head that learns, or take it from the cache.

    Returns:
        Head -> what came of it; the trunk, where there is one; whether all of it was in the cache.
    """
    config, taught, cached, shared = room.config, {}, True, None
    together = [name for name, section in sorted(config.heads.items()) if on_trunk(config, section)]
    if together:
        trained, was_cached = _train(room, together, TRUNK, config.trunk.pooling)
        cached = cached and was_cached
        shared = Part(config.trunk.pooling, room.taken[TRUNK], trained.trunk)
        values = _answers(trained.trunk, room.features(TRUNK, config.trunk.pooling, "test"))
        for name in together:
            part = Part("", (), trained.heads[name], on_trunk=True)
            taught[name] = _judged(room, name, part, trained.histories[name], values)
    for name, section in sorted(config.heads.items()):
        if name in together:
            continue
        pooling = pooling_of(section)
        if learns(section):
            trained, was_cached = _train(room, [name], name, pooling)
            cached = cached and was_cached
            head, history = trained.heads[name], trained.histories[name]
        else:
            width = room.features(name, pooling, "test").shape[1]
            head, history = build_head(name, section, width, 0, config.seed), {}
        part = Part(pooling, room.taken[name], head)
        taught[name] = _judged(room, name, part, history, room.features(name, pooling, "test"))
    return dict(sorted(taught.items())), shared, cached


def _judged(room: Classroom, name: str, part: Part, history: Mapping[str, Any], features: np.ndarray) -> Taught:
    answers = _answers(part.head, features)
    target = room.targets[name]
    if not target.columns:
        room.terminal.say(f"heads: {name}: {answers.shape[-1]} numbers of unit length; nothing to train")
        return Taught(part, dict(history), answers)
    figures = score(target, room.truth(name, "test"), answers)
    room.terminal.say(f"heads: {name}: {told(figures)} on {len(answers)} test pictures")
    return Taught(part, dict(history), answers)


def _answers(model: keras.Model, features: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(features, batch_size=256, verbose=0), np.float32)


def _train(room: Classroom, names: Sequence[str], source: str, pooling: str) -> tuple[Trained, bool]:
    """Train the heads that take the same features, or take them from the cache."""
    config = room.config
    features = tuple(room.features(source, pooling, split) for split in ("train", "val"))
    lessons = {
        name: Lesson(config.heads[name], room.truth(name, "train"), room.truth(name, "val"), room.targets[name].units)
        for name in names
    }
    trunk = config.trunk if source == TRUNK else None
    folder = bundle.cache_folder() / "cutpoint-heads" / _key(room, lessons, features)
    curves = folder / "history.json"
    if curves.is_file():
        shared, heads = build_parts(lessons, trunk, features[0].shape[1], config.seed)
        for name, model in _models(shared, heads).items():
            model.load_weights(folder / f"{name}.weights.h5")
        return Trained(heads, json.loads(curves.read_text(encoding="utf-8")), shared), True
    with room.terminal.progress(f"head {', '.join(names)}") as progress:
        trained = train_heads(
            lessons,
            config.training,
            features,
            config.seed,
            trunk,
            lambda epoch, epochs, figures: progress(epoch, epochs),
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=folder.parent) as work:
        made = Path(work) / folder.name
        made.mkdir()
        for name, model in _models(trained.trunk, trained.heads).items():
            model.save_weights(made / f"{name}.weights.h5")
        (made / curves.name).write_text(json.dumps(trained.histories), encoding="utf-8")
        keep_in_cache(made, folder)
    return trained, False


def _models(trunk: keras.Model | None, heads: Mapping[str, keras.Model]) -> dict[str, keras.Model]:
    # No head can be called so: a name begins with a letter.
    return {**heads, **({"_trunk": trunk} if trunk else {})}


def _key(room: Classroom, lessons: Mapping[str, Lesson], features: tuple[np.ndarray, ...]) -> str:
    config = room.config
    digest = hashlib.sha256()
    sections = {name: repr(each.section) for name, each in lessons.items()}
    facts = (sections, repr(config.trunk), repr(config.training), config.seed, room.device)
    digest.update(repr((*facts, keras.backend.backend(), keras.__version__)).encode())
    arrays = [*features, *(values for each in lessons.values() for values in (each.train, each.val))]
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    digest.update(repr([each.units for each in lessons.values()]).encode())
    return digest.hexdigest()[:24]
