"""Teaches all heads of a run: each by itself, those on the trunk together, from the cache where it was done before."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

from exporters.columns import Column
from exporters.export import keep_in_cache
from exporters.inputs import Inputs
from pipeline import bundle
from pipeline.assembly import MAPS, Part
from pipeline.column_checks import takes_columns, trunk_takes_columns
from pipeline.columns import raw_columns
from pipeline.config import Config, TrainingSection
from pipeline.encoding import encode
from pipeline.epochs import Keeping
from pipeline.extraction import Extracted
from pipeline.heads import build_head, is_custom, learns, pooling_of, takes_maps
from pipeline.heads.custom import source_digest
from pipeline.heads.sharing import on_trunk
from pipeline.lessons import Lesson
from pipeline.losses import loss_of, metrics_of, optimizer_of
from pipeline.memory import check_memory
from pipeline.reference import Taught
from pipeline.scores import score, told
from pipeline.splitting import Dataset, Example
from pipeline.targets import Target
from pipeline.tensorboard import check_tensorboard, write_logs
from pipeline.terminal import Terminal
from pipeline.training import Trained, build_parts, train_heads

TRUNK = "trunk"
TRAINING_SOURCES = ("batches", "epochs", "lessons", "losses", "region_losses", "training")
CHECKPOINT = ".checkpoint.npz"


@dataclasses.dataclass(frozen=True)
class Classroom:
    """What all heads of a run are taught with.

    `taken` are the cuts that reach each head, and the trunk under its own name; `targets` what each head learns; `views` the
    features of augmented copies of the training pictures; `logs` the folder of TensorBoard's logs, where they are asked for;
    `columns` the tabular columns beside the pictures, as the training split taught them.
    """

    config: Config
    dataset: Dataset
    taken: Mapping[str, tuple[str, ...]]
    found: Extracted
    targets: Mapping[str, Target]
    device: str
    terminal: Terminal
    views: tuple[Extracted, ...] = ()
    logs: Path | None = None
    columns: tuple[Column, ...] = ()

    def features(self, name: str, pooling: str, split: str) -> np.ndarray:
        """Return what a head or the trunk takes of a split's pictures, float32 (N, width); of `train` with their views.

        Behind the features stand the encoded columns, where they are taken: those of a view are those of its picture.
        """
        sources = (self.found, *self.views) if split == "train" else (self.found,)
        rows = [each.of_head(self.taken[name], pooling, self.dataset.of_split(split)) for each in sources]
        features = np.concatenate(rows) if len(rows) > 1 else rows[0]
        if not self.takes_columns(name):
            return features
        beside = encode(self.columns, raw_columns(self.columns, self.dataset.of_split(split)))
        return np.concatenate([features, np.tile(beside, (len(sources), 1))], axis=1)

    def takes_columns(self, name: str) -> bool:
        """Tell whether a head, or the trunk under its name, takes the tabular columns."""
        if not self.columns:
            return False
        return (
            trunk_takes_columns(self.config) if name == TRUNK else takes_columns(self.config, self.config.heads[name])
        )

    def inputs(self, images: np.ndarray, examples: Sequence[Example]) -> np.ndarray | Inputs:
        """Return what the whole model takes of examples: their pictures, with their columns where there are such."""
        return Inputs(images, raw_columns(self.columns, examples)) if self.columns else images

    def truth(self, name: str, split: str) -> np.ndarray:
        """Return what is true of a split's pictures for a head; see `exporters.contract.TASKS`."""
        truth = self.targets[name].truth(self.dataset.of_split(split))
        return np.concatenate([truth] * (1 + len(self.views))) if split == "train" and self.views else truth

    def lessons(self, names: Sequence[str]) -> dict[str, Lesson]:
        """Return what the named heads are taught."""
        return {
            name: Lesson(
                self.config.heads[name], self.truth(name, "train"), self.truth(name, "val"), target.units, target.grid
            )
            for name, target in self.targets.items()
            if name in names
        }


def check_names(config: Config) -> None:
    """Raise InputError for a loss, metric or optimizer that does not exist, and for logs that nothing can write."""
    if config.training.tensorboard:
        check_tensorboard()
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
        shared = Part(config.trunk.pooling, room.taken[TRUNK], trained.trunk, columns=room.takes_columns(TRUNK))
        values = answers_of(trained.trunk, room.features(TRUNK, config.trunk.pooling, "test"))
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
        part = Part(MAPS if takes_maps(section) else pooling, room.taken[name], head, columns=room.takes_columns(name))
        taught[name] = _judged(room, name, part, history, room.features(name, pooling, "test"))
    return dict(sorted(taught.items())), shared, cached


def _judged(room: Classroom, name: str, part: Part, history: Mapping[str, Any], features: np.ndarray) -> Taught:
    answers = answers_of(part.head, features)
    tell(room, name, answers)
    return Taught(part, dict(history), answers)


def tell(room: Classroom, name: str, answers: np.ndarray) -> None:
    """Say how well a head answers to the test pictures."""
    target = room.targets[name]
    if not target.columns:
        room.terminal.say(f"heads: {name}: {answers.shape[-1]} numbers of unit length; nothing to train")
        return
    figures = score(target, room.truth(name, "test"), answers)
    room.terminal.say(f"heads: {name}: {told(figures)} on {len(answers)} test pictures")


def answers_of(model: keras.Model, features: np.ndarray) -> np.ndarray:
    """Return a head's answers to features (N, width), float32 (N, ...)."""
    return np.asarray(model.predict(features, batch_size=256, verbose=0), np.float32)


def _train(room: Classroom, names: Sequence[str], source: str, pooling: str) -> tuple[Trained, bool]:
    """Train the heads that take the same features, or take them from the cache."""
    config = room.config
    _check_size(room, names, source, pooling)
    features = tuple(room.features(source, pooling, split) for split in ("train", "val"))
    lessons = room.lessons(names)
    trunk = config.trunk if source == TRUNK else None
    beside = sum(each.width for each in room.columns) if room.takes_columns(source) else 0
    folder = bundle.cache_folder() / "cutpoint-heads" / _key(room, lessons, features, beside)
    curves, logs = folder / "history.json", room.logs / source if room.logs else None
    if curves.is_file():
        shared, heads = build_parts(lessons, trunk, features[0].shape[1], config.seed)
        for name, model in _models(shared, heads).items():
            model.load_weights(folder / f"{name}.weights.h5")
        histories = json.loads(curves.read_text(encoding="utf-8"))
        if logs:
            write_logs(logs, histories)
        return Trained(heads, histories, shared), True
    checkpoint = folder.with_suffix(CHECKPOINT)
    with room.terminal.progress(f"head {', '.join(names)}") as progress:
        keeping = Keeping(
            lambda epoch, epochs, figures: progress(epoch, epochs),
            checkpoint,
            logs,
            lambda text: room.terminal.say(f"heads: {', '.join(names)}: {text}"),
        )
        trained = train_heads(lessons, config.training, features, config.seed, trunk, keeping, beside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=folder.parent) as work:
        made = Path(work) / folder.name
        made.mkdir()
        for name, model in _models(trained.trunk, trained.heads).items():
            model.save_weights(made / f"{name}.weights.h5")
        (made / curves.name).write_text(json.dumps(trained.histories), encoding="utf-8")
        keep_in_cache(made, folder)
    checkpoint.unlink(missing_ok=True)
    return trained, False


def _check_size(room: Classroom, names: Sequence[str], source: str, pooling: str) -> None:
    """Say how large whole feature maps are; raises InputError where features do not fit into memory."""
    train, val = (len(room.dataset.of_split(split)) for split in ("train", "val"))
    pictures = train * (1 + len(room.views)) + val
    numbers = pictures * sum(room.found.stores[cut, pooling].width for cut in room.taken[source])
    if any(takes_maps(room.config.heads[name]) for name in names):
        size = f"{4 * numbers / 2**20:,.0f} MiB"
        room.terminal.say(f"heads: {', '.join(names)}: whole feature maps of {pictures} pictures, {size}")
    check_memory(f"head{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}", numbers)


def _models(trunk: keras.Model | None, heads: Mapping[str, keras.Model]) -> dict[str, keras.Model]:
    # No head can be called so: a name begins with a letter.
    return {**heads, **({"_trunk": trunk} if trunk else {})}


def _key(room: Classroom, lessons: Mapping[str, Lesson], features: tuple[np.ndarray, ...], beside: int) -> str:
    config = room.config
    digest = hashlib.sha256()
    sections = {name: repr(each.section) for name, each in lessons.items()}
    own = {name: source_digest(each.section.kind) for name, each in lessons.items() if is_custom(each.section.kind)}
    facts = (sections, own, _code(), repr(config.trunk), repr(without_logs(config.training)), config.seed, room.device)
    digest.update(repr((*facts, keras.backend.backend(), keras.__version__)).encode())
    arrays = [*features, *(values for each in lessons.values() for values in (each.train, each.val))]
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    digest.update(repr(([each.units for each in lessons.values()], beside)).encode())
    return digest.hexdigest()[:24]


@functools.cache
def _code() -> str:
    """Return the sha256 of the sources that build and train heads: changed ones make others."""
    folder = Path(__file__).parent
    sources = [*sorted((folder / "heads").glob("*.py")), *(folder / f"{name}.py" for name in TRAINING_SOURCES)]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def without_logs(section: TrainingSection) -> TrainingSection:
    """Return the settings that change what comes of a training."""
    return msgspec.structs.replace(section, tensorboard=False)
