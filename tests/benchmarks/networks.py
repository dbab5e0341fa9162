"""The real networks on which exporters are measured, with photographs where there are any, and how their making is watched."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from exporters.cloning import clone
from exporters.contract import Backbone, Card, Output, Resize
from exporters.pixels import load_images
from pipeline.assembly import lay_flat
from tests.random_backbones import pictures, settle

REALDATA = os.environ.get("CUTPOINT_REALDATA", "")
ROOT = Path(__file__).parents[2]
SIZE_PX = 224
CLASSES = 10
RESIZE = Resize(SIZE_PX, SIZE_PX)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of Keras: what builds it, its width, where it is cut, and its file under `weights` of the real data."""

    name: str
    builder: str
    alpha: float
    cut: str
    file: str = ""

    @property
    def weights(self) -> Path | None:
        """The file of its weights, where there is one."""
        return Path(REALDATA) / "weights" / self.file if REALDATA and self.file else None


V1 = Network("mobilenet", "MobileNet", 0.25, "conv_pw_13_relu", "mobilenet_2_5_224_tf_no_top.h5")
V2 = Network(
    *("mobilenet_v2", "MobileNetV2", 0.35, "out_relu"),
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
)
WIDE_V2 = dataclasses.replace(V2, alpha=1.0, file="")


def backbone(network: Network) -> keras.Model:
    """The network without its top, with its trained weights or with random ones that suit pictures."""
    built = getattr(keras.applications, network.builder)(
        (SIZE_PX, SIZE_PX, 3), alpha=network.alpha, include_top=False, weights=network.weights
    )
    return built if network.weights else settle(built, pictures(20, SIZE_PX, 0)[0] / 127.5 - 1)


def with_head(network: Network, weights: list[np.ndarray] | None = None, hidden: int = 0) -> keras.Model:
    """Raw pixels in, `label` out: nothing folded, every layer in one graph.

    Args:
        network: what is built below the head.
        weights: the head's kernel and bias.
        hidden: the units of a layer before the head, which then has no bias, as in Teachable Machine's classifiers; 0 for none.
    """
    image = keras.Input((SIZE_PX, SIZE_PX, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0, name="pixel_scaling")(image)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(lay_flat(backbone(network), scaled))
    if hidden:
        pooled = keras.layers.Dense(hidden, "relu", name="hidden")(pooled)
    head = keras.layers.Dense(CLASSES, "softmax", use_bias=not hidden, name="label")
    model = keras.Model(image, {"label": head(pooled)}, name="cutpoint")
    if weights is not None:
        head.set_weights(weights)
    model.trainable = False
    # A layer that stands in one graph only gives its output by its name.
    return clone(model)


def card(network: Network) -> Card:
    """What a run would write beside the model."""
    output = Output("label", "linear", "multiclass", (CLASSES,), labels=tuple(map(str, range(CLASSES))))
    return Card("bench", RESIZE, (output,), Backbone(network.name, network.alpha, "", "tf"), (network.cut,))


def photographs() -> list[Path]:
    """Every photograph of the real data, in the order of their paths."""
    return sorted(Path(REALDATA).glob("datasets/sign_language_digits/*/*.JPG")) if REALDATA else []


def images(count: int) -> np.ndarray:
    """Photographs where there are any, else drawn pictures: uint8 (count, 224, 224, 3)."""
    found = photographs()
    drawn = np.random.default_rng(0).permutation(len(found))[:count]
    return load_images([found[index] for index in drawn], RESIZE) if found else pictures(count, SIZE_PX, 1)[0]


@dataclasses.dataclass(frozen=True)
class Watched:
    """How a process went: the wall time in s, and the most memory at once in bytes, all that it started together.

    `memory_bytes` is 0 where nobody looked: looking through the pages of two processes ten times a second takes a quarter of a
    core from them, which nothing that is timed may lose.
    """

    wall_s: float
    memory_bytes: int


def watch(*command: object, memory: bool = False, **environment: str) -> Watched:
    """Run a command of this Python in the repository's root to its end; `memory`: look how much it takes."""
    surroundings: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    started, most = time.perf_counter(), 0
    arguments = [sys.executable, *map(str, command)]
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=surroundings
    ) as process:
        while memory and process.poll() is None:
            most = max(most, proportional_bytes(process.pid))
            time.sleep(0.1)
        process.wait()
        wall_s = time.perf_counter() - started
    assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
    return Watched(wall_s, most)


def proportional_bytes(process: int) -> int:
    """The memory of a process and of all that it started; what several share counts once."""
    try:
        rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        own = next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) * 1024
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, StopIteration):
        return 0
    return own + sum(proportional_bytes(int(child)) for child in children)
