"""What comes of fine-tuning, in the cache: the trained layers' weights and the curves, under a key of all that they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import Resize
from exporters.export import keep_in_cache
from pipeline import bundle
from pipeline.augmentation import settings_of
from pipeline.backbones.loading import digest_of_weights
from pipeline.learning import Classroom, without_logs
from pipeline.lessons import Lesson

CURVES, _WEIGHTS = "history.json", "tuned.npz"


def folder_of(
    room: Classroom, whole: keras.Model, tuned: tuple[str, ...], how: Resize, lessons: Mapping[str, Lesson]
) -> Path:
    """Return where the result lies, if it is there: named after all that it depends on."""
    config, digest = room.config, hashlib.sha256()
    facts = (
        {name: repr(each.section) for name, each in lessons.items()},
        repr(without_logs(config.training)),
        repr(config.fine_tuning),
        repr(settings_of(config.augmentation)),
        (config.seed, room.device, keras.backend.backend(), keras.__version__),
        (tuned, dataclasses.asdict(how), room.dataset.fingerprint),
        (whole.to_json(), digest_of_weights(whole)),
    )
    digest.update(repr(facts).encode())
    for each in lessons.values():
        for truth in (each.train, each.val):
            digest.update(f"{truth.shape}{truth.dtype}".encode() + np.ascontiguousarray(truth).tobytes())
    return bundle.cache_folder() / "cutpoint-heads" / f"tuned-{digest.hexdigest()[:24]}"


def keep(folder: Path, whole: keras.Model, names: Collection[str], found: Mapping[str, Any]) -> None:
    """Put the named layers' weights and the curves into the cache, whole or not at all."""
    weights = {
        f"{name}/{index}": values
        for name in sorted(names)
        for index, values in enumerate(whole.get_layer(name).get_weights())
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tuning-", dir=folder.parent) as work:
        made = Path(work) / folder.name
        made.mkdir()
        np.savez(made / _WEIGHTS, **weights)
        (made / CURVES).write_text(json.dumps(found), encoding="utf-8")
        keep_in_cache(made, folder)


def curves_in(folder: Path) -> dict[str, Any]:
    """Return the curves and figures of a result in the cache."""
    return json.loads((folder / CURVES).read_text(encoding="utf-8"))


def put_back(folder: Path, whole: keras.Model) -> None:
    """Give the model, in place, the weights of a result in the cache."""
    with np.load(folder / _WEIGHTS, allow_pickle=False) as stored:
        values = {name: stored[name] for name in stored.files}
    for name in {key.rpartition("/")[0] for key in values}:
        layer = whole.get_layer(name)
        layer.set_weights([values[f"{name}/{index}"] for index in range(len(layer.weights))])
