"""What our exporters make of a model beside what the stock converters make of it, run in turn: latency, size, time, memory.

Every figure goes to a table with a plot in `$CUTPOINT_BENCH`, by default `runs/bench`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.contract import FORMATS, ArtifactName, parse_formats
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.runners.onnx import OnnxRunner
from exporters.runners.tfjs import TfjsRunner, layers_runner
from exporters.runners.tflite import TfliteRunner
from pipeline import bundle
from pipeline.assembly import save_model
from pipeline.reference import SELECTION_IMAGES
from pipeline.terminal import Terminal
from tests.benchmarks import stock
from tests.benchmarks.networks import V2, WIDE_V2, Network, Watched, card, images, watch, with_head
from tests.benchmarks.table import Row, write_row

# Short turns: what else the machine does meets both alike.
ROUNDS, REPEATS = 30, 5
CALIBRATION_IMAGES = 200
# The units that Teachable Machine's classifier of pictures has before its last layer.
HIDDEN = 100
HERE = Path(__file__).parent
EVERY = parse_formats(tuple(FORMATS))
BOTH = tuple(name for name in EVERY if stock.can_make(name.format))


def judge(name: str, ours: float, theirs: float, unit: str, most: float) -> None:
    """Print a ratio, put it into the table, and hold it to its bar."""
    row = Row(name, ours, theirs, unit, most)
    print(row)
    write_row(row)
    assert row.share <= most, row


def export(
    network: Network, names: list[str], work: Path, calibration: np.ndarray, model: keras.Model | None = None
) -> dict[str, Path]:
    model = with_head(network) if model is None else model
    models = InferenceModels(model, network.cut, calibration, work, features_everywhere=False)
    wanted = [ArtifactName(*name.split("-")) for name in names]
    return {
        str(name): export_artifact(
            name, models.saved_model(name.precision), card(network), work / "artifacts", calibration
        )
        for name in wanted
    }


@contextlib.contextmanager
def in_turn(runners: list[contextlib.AbstractContextManager]) -> Iterator[list[float]]:
    """The medians of the latencies of runners, of one picture in ms, of rounds in turn."""
    image = images(1)[0]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(runner) for runner in runners]
        times: list[list[float]] = [[] for _ in opened]
        for _ in range(ROUNDS):
            for place, runner in enumerate(opened):
                times[place] += runner.time_one(image, REPEATS)
        yield [float(np.median(each)) for each in times]


def size_of(folder: Path) -> int:
    """The bytes of the model itself, without its papers."""
    papers = ("card.json", "labels.json")
    return sum(
        each.stat().st_size
        for each in folder.iterdir()
        if each.suffix in (".tflite", ".onnx", ".json", ".bin") and each.name not in papers
    )


@pytest.mark.parametrize(
    ("format_name", "runner", "most"),
    [("tfjs", TfjsRunner, 0.80), ("tflite", TfliteRunner, 1.0), ("onnx", OnnxRunner, 1.0)],
)
def test_float32_is_faster_and_smaller(format_name: str, runner: Callable, most: float, tmp_path: Path) -> None:
    name, given = f"{format_name}-float32", images(2)
    with Terminal().logging_to(tmp_path / "log.txt"):
        theirs = stock.make(with_head(V2), format_name, "float32", tmp_path / "stock", given)
        ours = export(V2, [name], tmp_path / "ours", given)[name]
    shutil.rmtree(theirs / "saved_model", ignore_errors=True)
    with in_turn([runner(ours), runner(theirs)]) as (my_ms, their_ms):
        pass
    judge(f"{name}, size", size_of(ours) / 1e6, size_of(theirs) / 1e6, "MB", 1.0)
    judge(f"{name}, latency", my_ms, their_ms, "ms", most)


def test_the_graph_is_faster_than_what_teachable_machine_exports(tmp_path: Path) -> None:
    name, given, model = "tfjs-float32", images(4), with_head(V2, hidden=HIDDEN)
    with Terminal().logging_to(tmp_path / "log.txt"):
        theirs = stock.make_layers(model, card(V2), tmp_path / "layers")
        ours = export(V2, [name], tmp_path / "ours", given, model)[name]
    with TfjsRunner(ours) as mine, layers_runner(theirs) as other:
        # They answer alike, so that it is one network that is timed.
        np.testing.assert_allclose(mine.predict(given)["label"], other.predict(given)["label"], atol=1e-5)
    with in_turn([TfjsRunner(ours), layers_runner(theirs)]) as (my_ms, their_ms):
        pass
    judge(f"{name}, latency beside layers as Teachable Machine has them", my_ms, their_ms, "ms", 0.35)


@pytest.mark.parametrize("format_name", ["tflite", "onnx"])
def test_int8_is_small(format_name: str, tmp_path: Path) -> None:
    given = images(8)
    with Terminal().logging_to(tmp_path / "log.txt"):
        theirs = stock.make(with_head(WIDE_V2), format_name, "int8", tmp_path / "stock", given)
        ours = export(WIDE_V2, [f"{format_name}-{each}" for each in ("float32", "int8")], tmp_path / "ours", given)
    plain, small = (size_of(folder) / 1e6 for folder in ours.values())
    judge(f"{format_name}-int8, size", small, size_of(theirs) / 1e6, "MB", 1.0)
    judge(f"{format_name}-int8, size beside our float32", small, plain, "MB", 0.30)


def result_folder(network: Network, out: Path) -> Path:
    """As much of a result folder as exporting needs."""
    staged = out / bundle.MARK
    staged.mkdir(parents=True)
    pictures = images(CALIBRATION_IMAGES + SELECTION_IMAGES)
    bundle.write_inputs(staged, bundle.CALIBRATION, Inputs(pictures[:CALIBRATION_IMAGES]))
    bundle.write_inputs(staged, bundle.SELECTION, Inputs(pictures[CALIBRATION_IMAGES:]))
    save_model(with_head(network), out / bundle.MODEL)
    card(network).write(out / bundle.CARD)
    return out


def ship(out: Path, names: tuple[ArtifactName, ...], *, memory: bool = False) -> Watched:
    """Export in a process of its own, and with a cache of its own, which is empty."""
    cache = out.with_name(f"{out.name}-cache")
    shutil.rmtree(cache, ignore_errors=True)
    formats = ",".join(map(str, names))
    return watch("-m", "tests.benchmarks.shipped", out, formats, memory=memory, CUTPOINT_CACHE=str(cache))


def test_exporting_is_faster_than_the_stock_converters(tmp_path: Path) -> None:
    out = result_folder(V2, tmp_path / "run")
    calibration = out / bundle.MARK / bundle.CALIBRATION
    ours, theirs = [], []
    for turn in range(3):
        ours.append(ship(out, BOTH).wall_s)
        command = ("-m", "tests.benchmarks.stock", out / bundle.MODEL, calibration, tmp_path / f"stock-{turn}")
        theirs.append(watch(*command, ",".join(map(str, BOTH))).wall_s)
    judge("all artifacts exported", float(np.median(ours)), float(np.median(theirs)), "s", 0.60)


def test_int8_adds_little_time(tmp_path: Path) -> None:
    out = result_folder(V2, tmp_path / "run")
    others = tuple(name for name in EVERY if name.precision != "int8")
    with_int8, without = ship(out, EVERY), ship(out, others)
    judge("seconds that int8 adds to an export, beside 60", with_int8.wall_s - without.wall_s, 60.0, "s", 1.0)


def test_exporting_takes_little_memory(tmp_path: Path) -> None:
    most = ship(result_folder(WIDE_V2, tmp_path / "run"), EVERY, memory=True).memory_bytes
    assert most > 0
    judge("peak memory of exporting MobileNetV2 1.0, beside 2.5 GB", most / 1e9, 2.5, "GB", 1.0)
