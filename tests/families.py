"""What the tests of whole families of backbones share; the long ones are spread over files, which run side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from commands import ROOT, cutpoint
from onnx_graphs import check_graph
from PIL import Image
from random_backbones import COLORS, pictures, settle

from exporters.contract import FORMATS, every_runtime, parse_formats
from exporters.golden import read_golden, read_manifest
from exporters.measures import spread
from exporters.runtimes import open_runtime
from exporters.verification import judge_answers
from pipeline import side_by_side
from pipeline.backbones import BACKBONES, backbone_row, smallest_of_families
from pipeline.backbones.loading import build_application
from pipeline.scaling import scale_pixels

FAMILIES = tuple(smallest_of_families().values())
# Quick enough to be judged in every runtime.
SMALLEST = ("mobilenet",)
MOBILE = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "nasnet_mobile",
    "inception_v3",
)
RESIDUAL = ("resnet50", "resnet50_v2", "xception")
DEEP = ("inception_resnet_v2",)
WIDE = ("vgg16", "densenet121", "convnext_tiny")
LEAST_PX = 64
# Of every label; with fewer of the test split than 100 in all, the fall of accuracy would be too uncertain.
PICTURES = {"train": 80, "val": 10, "test": 20}
SETTLING_IMAGES = 24
LARGE = ("efficientnet_b0", "efficientnet_v2_b0", "nasnet_mobile", "inception_v3", *RESIDUAL, *DEEP, *WIDE)
# The layers model holds every backbone of the table too; precisions on request are left out.
EVERY_ARTIFACT = {str(name) for name in parse_formats(list(FORMATS))}
# Rounded by the same code in the graph of float32, whatever the network: made of the smaller ones only.
BETWEEN = ("float16", "uint8")
# Rounded by the code that rounds int8, which is the harder case: of large ones only that one gets it whose answers it moved most.
DYNAMIC = ("inception_v3",)
# They take longest. Both formats' int8 is of the same rounded weights, and ONNX's is made of the other large ones.
ONE_INT8 = ("nasnet_mobile", *DEEP, *WIDE)
# What computes in plain loops takes a hundred times as long as what is shipped, for every artifact anew. The kernels are the same
# for all widths of weights: of large networks these artifacts are judged there, on so many pictures.
PLAIN_LOOPS = {"tfjs-node/cpu": ("tfjs-float32",), "litert/reference": ("tflite-float32", "tflite-int8")}
IMAGES_OF_PLAIN_LOOPS = 4
MAIN_RUNTIMES = tuple(str(each) for each in every_runtime() if not each.browser and str(each) not in PLAIN_LOOPS)


def side_of(name: str) -> int:
    """The input size of the tests: small, but not under what the network can take."""
    return max(LEAST_PX, BACKBONES[name].smallest_px)


def alpha_of(name: str) -> float:
    """The narrowest width that has weights of ImageNet; 1 where there is but one."""
    return min(BACKBONES[name].alphas, default=1.0)


def artifacts_of(name: str) -> set[str]:
    """The artifacts that are made of a backbone."""
    if name not in LARGE:
        return EVERY_ARTIFACT
    left_out = BETWEEN if name in DYNAMIC else (*BETWEEN, "dynamic_int8")
    made = {each for each in EVERY_ARTIFACT if each.partition("-")[2] not in left_out}
    return made - {"onnx-int8"} if name in ONE_INT8 else made


def write_settled(name: str, path: Path) -> Path:
    """Save random weights of a backbone that are not tame, as Keras writes them for the network of keras.applications."""
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


def check_the_whole_way(name: str, here: Path, *, everywhere: bool = False) -> None:
    """Train, export and verify a backbone in every format and precision.

    Args:
        name: of the backbone.
        here: an empty folder.
        everywhere: judge every artifact in every runtime but browsers; else as PLAIN_LOOPS says.
    """
    report = report_of(name, write_settled(name, here / "settled.weights.h5"), here, everywhere)
    check_report(report, artifacts_of(name))
    for artifact in sorted((here / "out" / "artifacts").glob("onnx-*")):
        check_graph(artifact / "model.onnx", transposes=1)
    if not everywhere:
        check_in_plain_loops(here / "out")


def check_in_a_process_of_its_own(name: str, here: Path) -> None:
    """Do what `check_the_whole_way` does, and give all of its memory back: two large networks at once take most of a machine."""
    command = [sys.executable, __file__, name, str(here)]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    assert done.returncode == 0, done.stderr[-6000:]


def report_of(name: str, weights: Path, here: Path, everywhere: bool) -> dict[str, Any]:
    """Run `cutpoint run` on a backbone with everything at its default but the sizes; returns report.json's content."""
    side = side_of(name)
    data = write_pictures(here / "pictures", side)
    settings = {
        "backbone.alpha": alpha_of(name),
        "resize.width": side,
        "resize.height": side,
        "export.calibration_images": 64,
        "training.learning_rate": 1e-2,
        "training.patience": 20,
        "heads.label.dropout": 0.0,
    }
    done = cutpoint(
        *("run", "--data", data, "--out", here / "out", "--backbone", name, "--weights", weights, "--head", "linear"),
        *(argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")),
        *("--formats", ",".join(sorted(artifacts_of(name)))),
        *(() if everywhere else ("--runtimes", ",".join(MAIN_RUNTIMES))),
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


def check_report(report: dict[str, Any], artifacts: set[str]) -> None:
    """All of the artifacts are verified, and what was compared could have differed."""
    assert report["verdict"] == "verified"
    assert {each["name"] for each in report["artifacts"]} == artifacts
    assert report["reference"]["accuracy"]["label"] > 0.9
    for artifact in report["artifacts"]:
        audit = artifact["audit"]
        assert audit["status"] == "verified", artifact["name"]
        assert audit["constants"]["layers"] > 0, artifact["name"]
        assert artifact["runtimes"], artifact["name"]
        for runtime in artifact["runtimes"]:
            assert runtime["status"] in ("verified", "not_run"), (artifact["name"], runtime)
        assert max(each["images"] for each in artifact["runtimes"]) == PICTURES["test"] * len(COLORS), artifact["name"]
    ints = [each for each in report["artifacts"] if each["precision"] == "int8"]
    # Kernels of all layers are stored in 8 bits, and their biases make up at most a small rest.
    assert all(each["audit"]["weights"]["int8"] > 0.8 * sum(each["audit"]["weights"].values()) for each in ints)


def check_in_plain_loops(out: Path) -> None:
    """A few pictures are answered within the limits by runtimes that take nothing over from those that are shipped."""
    golden = read_golden(out, read_manifest(out))
    sample = spread(len(golden.images), IMAGES_OF_PLAIN_LOOPS)
    for runtime in every_runtime():
        for name in PLAIN_LOOPS.get(str(runtime), ()):
            if runtime not in FORMATS[name.partition("-")[0]].runtimes:
                continue
            with open_runtime(runtime, out / "artifacts" / name) as runner:
                answers = runner.predict(golden.images[sample], outputs=["label"])
            judged = judge_answers(golden, answers, golden.limits[name.partition("-")[2]], sample)
            assert judged["status"] == "verified", (name, str(runtime), judged)


if __name__ == "__main__":
    # Two of the large networks are made at once by the tests themselves.
    side_by_side.cores = lambda: 1
    check_the_whole_way(sys.argv[1], Path(sys.argv[2]))
