"""The smallest member of every family of backbones, the whole way to every format: trained, exported, verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import cutpoint
from PIL import Image
from random_backbones import COLORS, pictures, settle

from exporters.contract import FORMATS, Resize
from exporters.folding import fold
from pipeline.backbones import BACKBONES, backbone_row, smallest_of_families
from pipeline.backbones.loading import build_application, load_backbone
from pipeline.config import BackboneSection
from pipeline.scaling import scale_pixels

FAMILIES = smallest_of_families()
# Quick enough for every run of the tests; all others are `slow`.
QUICK = ("mobilenet",)
LEAST_PX = 64
PICTURES = {"train": 80, "val": 20, "test": 40}
SETTLING_IMAGES = 24
EVERY_ARTIFACT = {f"{name}-{precision}" for name, row in FORMATS.items() for precision in row.precisions}
# Of float32's rounding, relative to the largest value.
LARGEST_FOLDING_DIFFERENCE = 3e-5


def side_of(name: str) -> int:
    """The input size of the tests: small, but not under what the network can take."""
    return max(LEAST_PX, BACKBONES[name].smallest_px)


def alpha_of(name: str) -> float:
    """The narrowest width that has weights of ImageNet; 1 where there is but one."""
    return min(BACKBONES[name].alphas, default=1.0)


@pytest.fixture(scope="session")
def settled_weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name of a backbone -> a file of random weights that are not tame, made once."""
    folder, made = tmp_path_factory.mktemp("settled"), {}

    def weights(name: str) -> Path:
        if name not in made:
            made[name] = write_settled(name, folder / f"{name}.weights.h5")
        return made[name]

    return weights


def write_settled(name: str, path: Path) -> Path:
    """Save a backbone's weights, as Keras writes them for the network of keras.applications."""
    row, side = backbone_row(name), side_of(name)
    keras.utils.set_random_seed(0)
    network = build_application(row, alpha_of(name), None, side, side)
    image = keras.Input((side, side, 3))
    scaled = keras.Model(image, scale_pixels(image, row.pixel_scaling))
    shown, _ = pictures(SETTLING_IMAGES, side, 1)
    settle(network, keras.ops.convert_to_numpy(scaled(shown.astype(np.float32))))
    network.save_weights(path)
    return path


def write_pictures(root: Path, side: int) -> Path:
    """Write pictures as `root/<split>/<label>/<n>.png`."""
    for seed, (split, count) in enumerate(PICTURES.items()):
        # Twice as many as are kept, so that every label has enough of them.
        images, truth = pictures(count * len(COLORS) * 2, side, 10 + seed)
        for index, label in enumerate(COLORS):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(images[truth == index][:count]):
                Image.fromarray(image).save(root / split / label / f"{number}.png")
    return root


def report_of(name: str, weights: Path, here: Path, cut: str = "") -> dict[str, Any]:
    """Run `cutpoint run` on a backbone with everything at its default but the sizes; returns report.json's content."""
    side = side_of(name)
    data = write_pictures(here / "pictures", side)
    done = cutpoint(
        *("run", "--data", data, "--out", here / "out", "--backbone", name, "--weights", weights, "--head", "linear"),
        *(
            "--set",
            f"backbone.alpha={alpha_of(name)}",
            "--set",
            f"resize.width={side}",
            "--set",
            f"resize.height={side}",
        ),
        *("--set", "export.calibration_images=64", "--set", "training.learning_rate=1e-2"),
        *("--set", "training.patience=20", "--set", "heads.label.dropout=0.0"),
        *(("--cut", cut) if cut else ()),
        "--json",
    )
    assert done.exit_code == 0, done.stderr[-3000:] + "".join(_reasons(done.stdout))
    return done.json()


def _reasons(text: str) -> list[str]:
    if not text.startswith("{") or "artifacts" not in json.loads(text):
        return [text]
    judged = json.loads(text)["artifacts"]
    faults = [(each["name"], each.get("audit", {}).get("reason")) for each in judged]
    faults += [(each["name"], run["runner"], run["reason"]) for each in judged for run in each["runtimes"]]
    return [f"\n{fault}" for fault in faults if fault[-1]]


def check_report(report: dict[str, Any]) -> None:
    """Every artifact is verified, nothing was left out, and what was compared could have differed."""
    assert report["verdict"] == "verified"
    assert {each["name"] for each in report["artifacts"]} == EVERY_ARTIFACT
    assert report["reference"]["accuracy"]["label"] > 0.9
    for artifact in report["artifacts"]:
        audit = artifact["audit"]
        assert audit["status"] == "verified", artifact["name"]
        assert audit["constants"]["layers"] > 0, artifact["name"]
        for runtime in artifact["runtimes"]:
            assert runtime["status"] in ("verified", "not_run"), (artifact["name"], runtime)
    ints = [each for each in report["artifacts"] if each["precision"] == "int8"]
    # Kernels of all layers are stored in 8 bits, and their biases make up at most a small rest.
    assert all(each["audit"]["weights"]["int8"] > 0.8 * sum(each["audit"]["weights"].values()) for each in ints)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES.values()],
)
def test_the_whole_way_to_every_format(name: str, settled_weights: Any, tmp_path: Path) -> None:
    report = report_of(name, settled_weights(name), tmp_path)
    check_report(report)


@pytest.mark.parametrize("name", FAMILIES.values())
def test_rewriting_and_folding_change_no_answer_and_no_cut(name: str) -> None:
    """At the first usual cut, where all of a family's kinds of layers have been met; the features too are compared."""
    side, row = side_of(name), backbone_row(name)
    keras.utils.set_random_seed(0)
    section = BackboneSection(name=name, alpha=alpha_of(name), weights="none")
    network = load_backbone(section, Resize(side, side)).model
    cut = row.usual_cuts[0]
    inner = [each for each in network.layers if each.name == cut]
    model = keras.Model(network.inputs, {"label": inner[0].output})
    shown, _ = pictures(8, side, 2)
    image = keras.Input((side, side, 3))
    scaled = keras.Model(image, scale_pixels(image, row.pixel_scaling))(shown.astype(np.float32))
    settle(model, keras.ops.convert_to_numpy(scaled))
    folded = fold(model, [cut])
    expected = keras.ops.convert_to_numpy(model(scaled)["label"])
    at_cut = keras.Model(folded.model.inputs, folded.model.get_layer(folded.layer_name(cut)).output)
    for found in (folded.model(scaled)["label"], at_cut(scaled)):
        difference = np.abs(keras.ops.convert_to_numpy(found) - expected).max() / np.abs(expected).max()
        assert np.ptp(expected) > 0
        assert difference < LARGEST_FOLDING_DIFFERENCE
    left = {type(each).__name__ for each in folded.model.operations}
    assert not left & {"SeparableConv2D", "Normalization", "Dropout", "Sequential", "Functional"}
