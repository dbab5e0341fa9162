"""Advice that was given before: a run that is repeated takes the same cut, though latencies never measure the same."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from exporters.contract import Resize
from exporters.export import keep_in_cache
from pipeline import bundle
from pipeline.backbones.loading import LoadedBackbone
from pipeline.config import Config
from pipeline.run import versions
from pipeline.splitting import Dataset

FILE = "advice.json"


def advice_folder(
    config: Config, backbone: LoadedBackbone, cuts: Sequence[str], how: Resize, dataset: Dataset, precision: str
) -> Path:
    """Return the folder of the cache for one advice, named after all that it depends on."""
    facts = (
        *(backbone.weights_sha256, backbone.name, backbone.pixel_scaling, tuple(cuts), repr(how), dataset.fingerprint),
        *(repr(config.heads), repr(config.training), repr(config.advise), precision, config.seed),
        *(keras.backend.backend(), sorted(versions().items())),
    )
    digest = hashlib.sha256(repr(facts).encode())
    here = Path(__file__).parent
    for source in (*sorted(here.glob("advice*.py")), here / "probe.py", here / "scoring.py", here / "latency.py"):
        # What an older version advised is not what this one does.
        digest.update(source.read_bytes())
    return bundle.cache_folder() / "cutpoint-advice" / digest.hexdigest()[:24]


def read_advice(folder: Path) -> dict[str, Any] | None:
    """Return the advice that lies in a folder of the cache; None where there is none, or it is damaged."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def keep_advice(folder: Path, advice: Mapping[str, Any]) -> None:
    """Put an advice into the cache, whole or not at all, in place of an earlier one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".advising-", dir=folder.parent) as work:
        made = Path(work) / folder.name
        made.mkdir()
        (made / FILE).write_text(json.dumps(advice, ensure_ascii=False), encoding="utf-8")
        keep_in_cache(made, folder)
