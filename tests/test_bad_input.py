"""Whatever a user may get wrong: one message that answers three questions, exit code 2, nothing left behind.

The rows of `QUICK` fail before any framework is loaded; those of `SLOW` need a network to be built.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from commands import Outcome, cutpoint, in_fresh_process
from pictures import SMALL, write_noise, write_picture, write_truncated, write_without_width

# What a command that failed may leave in its output folder: the mark by which it knows the folder again, and the log.
HARMLESS = {".cutpoint", "log.txt"}
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@dataclasses.dataclass(frozen=True)
class Row:
    """`prepare(here)` makes what is wrong and returns the arguments; `words` must stand in the message."""

    prepare: Callable[[Path], list[object]]
    words: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run_on(data: object, here: Path, *arguments: object) -> list[object]:
    """A `run` that would go well if `data` and `arguments` were right."""
    return ["run", "--data", data, "--out", here / "out", *SMALL, *arguments]


def photos(here: Path) -> Path:
    return write_noise(here / "photos", {"cat": 4, "dog": 4})


def with_good_data(*arguments: object) -> Callable[[Path], list[object]]:
    return lambda here: run_on(photos(here), here, *arguments)


def with_config(text: str) -> Callable[[Path], list[object]]:
    def prepare(here: Path) -> list[object]:
        photos(here)
        (here / "my.toml").write_text(text, encoding="utf-8")
        return ["run", here / "my.toml", "--out", here / "out"]

    return prepare


def with_csv(text: str, *arguments: object) -> Callable[[Path], list[object]]:
    def prepare(here: Path) -> list[object]:
        photos(here)
        (here / "list.csv").write_text(text, encoding="utf-8")
        return run_on(here / "list.csv", here, *arguments)

    return prepare


def with_folder(counts: dict[str, int], suffix: str = ".png") -> Callable[[Path], list[object]]:
    return lambda here: run_on(write_noise(here / "photos", counts, suffix=suffix), here)


def no_pictures(here: Path) -> list[object]:
    for label in ("cat", "dog"):
        (here / "photos" / label).mkdir(parents=True)
        (here / "photos" / label / "notes.txt").write_text("none")
    return run_on(here / "photos", here)


def empty_folder(here: Path) -> list[object]:
    (here / "photos").mkdir()
    return run_on(here / "photos", here)


def label_folder_with_newline(here: Path) -> list[object]:
    return run_on(write_noise(here / "photos", {"cat\nand dog": 3, "dog": 3}), here)


def damaged_weights(here: Path) -> list[object]:
    (here / "weights.h5").write_bytes(b"<html>404 Not Found</html>")
    return run_on(photos(here), here, "--weights", here / "weights.h5")


def out_under_a_file(here: Path) -> list[object]:
    (here / "file").write_text("mine")
    return [*run_on(photos(here), here), "--out", here / "file" / "out"]


def out_is_a_file(here: Path) -> list[object]:
    (here / "file").write_text("mine")
    return [*run_on(photos(here), here), "--out", here / "file"]


def out_is_occupied(here: Path) -> list[object]:
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("mine")
    return run_on(photos(here), here)


def out_was_made_by_hand(here: Path) -> list[object]:
    (here / "out" / "artifacts").mkdir(parents=True)
    (here / "out" / "model.keras").write_text("mine")
    return run_on(photos(here), here)


def out_with_a_file_among_artifacts(here: Path) -> list[object]:
    (here / "out" / ".cutpoint").mkdir(parents=True)
    (here / "out" / "artifacts").mkdir()
    (here / "out" / "artifacts" / "thesis.txt").write_text("mine")
    return run_on(photos(here), here)


def out_with_a_file_in_an_artifact(here: Path) -> list[object]:
    folder = here / "out" / "artifacts" / "tflite-float32"
    folder.mkdir(parents=True)
    (here / "out" / ".cutpoint").mkdir()
    (here / "out" / "golden").mkdir()
    (folder / "model.tflite").write_text("ours")
    (folder / "thesis.txt").write_text("mine")
    manifest = {"schema_version": 1, "files": {"artifacts/tflite-float32/model.tflite": ""}}
    (here / "out" / "golden" / "manifest.json").write_text(json.dumps(manifest))
    return run_on(photos(here), here)


def model_that_is_not_there(here: Path) -> list[object]:
    return ["export", here / "out"]


def picture_to_predict_is_missing(here: Path) -> list[object]:
    return ["predict", here / "out", here / "cat.jpg"]


def folder_to_verify_is_missing(here: Path) -> list[object]:
    return ["verify", here / "out"]


TWO_HEADS = """
[data]
path = "photos"
[backbone]
weights = "none"
[heads.label]
[heads.other]
"""
FIVE = "path,label\n" + "".join(
    f"photos/{label}/{number}.png,{label}\n" for label in ("cat", "dog") for number in (0, 1, 2)
)
STRADDLING = "path,label,group,split\n" + "".join(
    f"photos/{label}/{number}.png,{label},{label}-anna,{split}\n"
    for label in ("cat", "dog")
    for number, split in enumerate(("train", "train", "test", "test"))
)

QUICK = {
    "missing folder": Row(lambda here: run_on(here / "nowhere", here), ("nowhere", "is not there", "--data")),
    "no data": Row(with_config('name = "mine"\n'), ("No data are named", "data.path")),
    "empty folder": Row(empty_folder, ("holds no pictures", ".jpg")),
    "no pictures in it": Row(no_pictures, ("holds no pictures",)),
    "pictures without a class": Row(
        lambda here: run_on(write_picture(here / "photos" / "a.png", _grey()).parent, here),
        ("holds no pictures", "per class"),
    ),
    "one class only": Row(with_folder({"cat": 5}), ("one class only", "'cat'", "two classes")),
    "a class of one picture": Row(with_folder({"cat": 5, "dog": 1}), ("'dog'", "1 usable picture", "at least 2")),
    "a label with a newline, as a folder": Row(label_folder_with_newline, (r"cat\nand dog", "line break", "rename")),
    "a label with a newline, in a CSV": Row(
        with_csv('path,label\nphotos/cat/0.png,"cat\nand dog"\nphotos/dog/0.png,dog\n'), (r"cat\nand dog", "line break")
    ),
    "a label that is empty": Row(
        with_csv("path,label\nphotos/cat/0.png,\nphotos/dog/0.png,dog\n"), ("''", "not empty")
    ),
    "a CSV without the column": Row(with_csv(FIVE.replace("label", "lable", 1)), ("no column 'label'", "'lable'")),
    "a CSV of nothing": Row(with_csv(""), ("no column 'path'", "header")),
    "a CSV that is a picture": Row(
        lambda here: run_on(photos(here) / "cat" / "0.png", here), ("cannot be read", "CSV in UTF-8")
    ),
    "a line that is too short": Row(with_csv(FIVE + "photos/cat/3.png\n"), ("Line 8", "too few values")),
    "a bad split column": Row(
        with_csv("path,label,split\nphotos/cat/0.png,cat,tarin\nphotos/dog/0.png,dog,test\n"),
        ("Line 2", "'tarin'", "'train'"),
    ),
    "a group on both sides": Row(with_csv(STRADDLING), ("-anna'", "test, train", "one side")),
    "a group that is no expression": Row(with_good_data("--set", "data.group=["), ("'['", "regular expression")),
    "a group that matches nothing": Row(with_good_data("--set", "data.group=person"), ("'person'", "matches no path")),
    "a folder has no such target": Row(with_good_data("--set", "heads.label.target=age"), ("'age'", "'label'")),
    "unknown key": Row(with_good_data("--set", "training.epoch=3"), ("'training.epoch'", "did you mean 'epochs'?")),
    "unknown key in a file": Row(
        with_config('[data]\npath = "photos"\nsplitt = [0.7, 0.2, 0.1]\n'), ("'data.splitt'", "did you mean 'split'?")
    ),
    "unknown table in a file": Row(
        with_config("[trainning]\nepochs = 3\n"), ("'trainning'", "did you mean 'training'")
    ),
    "wrong type": Row(with_good_data("--set", 'training.epochs="many"'), ("'training.epochs'", "`int`", "`str`")),
    "wrong type in a head": Row(with_good_data("--set", "heads.label.dropout=2"), ("heads.NAME.dropout", "< 1.0")),
    "negative epochs": Row(with_good_data("--set", "training.epochs=-3"), ("'training.epochs'", ">= 1")),
    "a number that is none": Row(with_good_data("--set", "training.learning_rate=nan"), ("learning_rate",)),
    "shares that are too many": Row(with_good_data("--set", "data.split=[0.7,0.2,0.2]"), ("data.split", "add up to 1")),
    "a setting without a value": Row(with_good_data("--set", "training.epochs"), ("names no value", "KEY=VALUE")),
    "a setting through a value": Row(
        with_good_data("--set", "seed=1", "--set", "seed.x=2"), ("'seed.x'", "is a value")
    ),
    "TOML that is none": Row(with_config("[data\npath = 3\n"), ("is not TOML", "line 1")),
    "a configuration that is not there": Row(
        lambda here: ["run", here / "no.toml"], ("no.toml", "cannot be read", "--data")
    ),
    "a configuration that is a folder": Row(lambda here: ["run", photos(here)], ("cannot be read", "--data")),
    "a name that is no folder's": Row(with_good_data("--set", "name=a/b"), ("'a/b'", "no slash")),
    "unknown backbone": Row(
        with_good_data("--backbone", "mobilnet_v2"), ("no backbone 'mobilnet_v2'", "did you mean 'mobilenet_v2'")
    ),
    "unknown head": Row(with_good_data("--head", "linaer"), ("'linaer'", "did you mean 'linear'")),
    "unknown pooling": Row(
        with_good_data("--set", "heads.label.pooling=averge"), ("'averge'", "did you mean 'average'")
    ),
    "unknown task": Row(with_good_data("--set", "heads.label.task=singing"), ("'singing'", "multiclass")),
    "a head that cannot be called so": Row(with_good_data("--set", "heads.Big.kind=mlp"), ("'Big'", "lower-case")),
    "a head that is called features": Row(with_good_data("--set", "heads.features.kind=mlp"), ("'features'", "rename")),
    "--head for two heads": Row(
        lambda here: [*with_config(TWO_HEADS)(here), "--head", "mlp"], ("label, other", "heads.NAME.kind=mlp")
    ),
    "no head": Row(with_config('[data]\npath = "photos"\n[heads]\n'), ("has no head", "[heads.label]")),
    "unknown format": Row(with_good_data("--formats", "tflight"), ("'tflight'", "did you mean 'tflite'")),
    "unknown precision": Row(with_good_data("--formats", "onnx-float8"), ("'onnx'", "'float8'", "float16")),
    "no format": Row(with_good_data("--formats", ""), ("No format", "tflite")),
    "unknown precision of a limit": Row(
        with_good_data("--set", "parity.limits.int9.agreement=1"), ("'int9'", "'int8'")
    ),
    "unknown device": Row(with_good_data("--device", "gpus"), ("'gpus'", "did you mean 'gpu'")),
    "unknown crop": Row(with_good_data("--set", "resize.crop=centre"), ("'centre'", "did you mean 'center'")),
    "unknown pixel scaling": Row(with_good_data("--set", "backbone.pixel_scaling=tff"), ("'tff'", "did you mean 'tf'")),
    "an input of 8 px": Row(with_good_data("--set", "resize.width=8"), ("8 x 8 px", "at least 32 x 32")),
    "an input of -1 px": Row(with_good_data("--set", "resize.width=-1"), ("'resize.width'", ">= 0")),
    "weights that are not there": Row(
        with_good_data("--weights", "mine.h5"), ("'mine.h5'", "not there", "imagenet, none")
    ),
    "weights that are none": Row(damaged_weights, ("weights.h5", "no weight file")),
    "an alpha without ImageNet weights": Row(
        with_good_data("--weights", "imagenet", "--set", "backbone.alpha=0.4"), ("alpha 0.4", "0.35, 0.5")
    ),
    "an output under a file": Row(out_under_a_file, ("cannot be written", "--out")),
    "an output that is a file": Row(out_is_a_file, ("is a file", "--out")),
    "an output in a place without files": Row(
        lambda here: [*run_on(photos(here), here), "--out", "/proc/cutpoint"], ("/proc/cutpoint", "cannot be written")
    ),
    "a cache that cannot be written": Row(
        with_good_data(), ("/proc/cutpoint", "CUTPOINT_CACHE"), {"CUTPOINT_CACHE": "/proc/cutpoint"}
    ),
    "an output that holds something else": Row(out_is_occupied, ("'thesis.txt'", "did not make")),
    "an output that looks like ours": Row(out_was_made_by_hand, ("did not make",)),
    "an output with a file among artifacts": Row(
        out_with_a_file_among_artifacts, ("'artifacts/thesis.txt'", "did not make")
    ),
    "an output with a file in an artifact": Row(
        out_with_a_file_in_an_artifact, ("tflite-float32/thesis.txt", "did not make")
    ),
    "train: unknown head": Row(lambda here: ["train", *with_good_data("--head", "mpl")(here)[1:]], ("'mpl'", "'mlp'")),
    "export: no trained model": Row(model_that_is_not_there, ("model.keras", "cutpoint run")),
    "verify: no result folder": Row(folder_to_verify_is_missing, ("golden/manifest.json", "cutpoint run")),
    "verify: half of what it needs": Row(lambda here: ["verify", "--data", photos(here)], ("--reference", "all three")),
    "verify: nothing was made yet": Row(lambda here: ["verify"], ("no result folder under runs/", "cutpoint run")),
    "predict: no artifact": Row(picture_to_predict_is_missing, ("is no artifact", "artifacts/")),
    "layers: wrong setting": Row(
        lambda here: ["layers", "mobilenet", "--set", "backbone.alpha=0"], ("'backbone.alpha'", "> 0")
    ),
    "layers: unknown backbone": Row(lambda here: ["layers", "mobilnet"], ("'mobilnet'", "did you mean 'mobilenet'")),
}


def corrupt_above_the_limit(here: Path) -> list[object]:
    data = photos(here)
    write_truncated(data / "cat" / "half.jpg")
    (data / "dog" / "none.png").write_bytes(b"not a picture")
    (data / "dog" / "empty.gif").write_bytes(b"")
    return run_on(data, here)


def too_few_left(here: Path) -> list[object]:
    data = write_noise(here / "photos", {"cat": 5, "dog": 1})
    write_truncated(data / "dog" / "half.jpg")
    return run_on(data, here, "--set", "data.bad_limit=0.5")


def nothing_left(here: Path) -> list[object]:
    data = here / "photos"
    for label in ("cat", "dog"):
        for number in (0, 1):
            write_truncated(data / label / f"{number}.jpg")
    return run_on(data, here, "--set", "data.bad_limit=1.0")


def a_picture_without_width(here: Path) -> list[object]:
    data = photos(here)
    write_without_width(data / "cat" / "thin.png")
    return run_on(data, here)


def weights_that_break_off(here: Path) -> list[object]:
    whole = Path(__file__).parents[1] / "pipeline" / "quickstart" / "backbone.weights.h5"
    (here / "half.weights.h5").write_bytes(whole.read_bytes()[:200_000])
    return run_on(photos(here), here, "--weights", here / "half.weights.h5")


def only_missing_files(here: Path) -> list[object]:
    (here / "list.csv").write_text("path,label\na.png,cat\nb.png,cat\nc.png,dog\nd.png,dog\n")
    return run_on(here / "list.csv", here)


SLOW = {
    "unknown cut": Row(
        with_good_data("--cut", "out_rellu"),
        ("no layer 'out_rellu'", "did you mean 'out_relu'", "cutpoint layers mobilenet_v2"),
    ),
    "a cut past the end": Row(with_good_data("--cut", "999"), ("layer 999", "cutpoint layers mobilenet_v2")),
    "a cut at the input": Row(with_good_data("--cut", "0"), ("layer 0", "from 1 to")),
    "a cut that is no number": Row(with_good_data("--cut", "--5"), ("no layer '--5'", "cutpoint layers")),
    "weights that do not fit": Row(
        with_good_data("--set", "backbone.alpha=0.5"), ("do not fit", "alpha 0.5", "backbone.alpha")
    ),
    "weights of another backbone": Row(with_good_data("--backbone", "mobilenet"), ("do not fit", "'mobilenet'")),
    "weights that break off": Row(weights_that_break_off, ("half.weights.h5", "do not fit")),
    "no network": Row(
        with_good_data("--weights", "imagenet"), ("could not be had", "KERAS_HOME", "--weights"), NO_NETWORK
    ),
    "corrupt pictures above the limit": Row(
        corrupt_above_the_limit,
        ("3 of 11", "half.jpg: damaged", "none.png: not an image", "empty.gif: the file is empty"),
    ),
    "a picture of 0 x 5": Row(a_picture_without_width, ("1 of 9", "thin.png", "5% (data.bad_limit)")),
    "a CSV of missing files": Row(only_missing_files, ("4 of 4", "a.png: cannot be read")),
    "a class of which one is left": Row(too_few_left, ("'dog'", "1 usable picture")),
    "nothing is left": Row(nothing_left, ("no picture that can be read",)),
    "a head called as a layer": Row(
        with_good_data("--set", "heads.out_relu.kind=linear", "--set", "training.epochs=1"), ("'out_relu'", "rename")
    ),
    "layers: an input of 0 px": Row(lambda here: ["layers", "mobilenet", "--input-size", "0"], ("0 x 0 px", "32 x 32")),
}


def _grey():
    import numpy as np

    return np.full((8, 8, 3), 128, "uint8")


def listing(here: Path) -> dict[str, bytes]:
    return {str(path.relative_to(here)): path.read_bytes() for path in sorted(here.rglob("*")) if path.is_file()}


def assert_one_message(outcome: Outcome, words: tuple[str, ...]) -> None:
    assert outcome.exit_code == 2, outcome
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("cutpoint: ") == 1, outcome.stderr
    what, expected, mend = outcome.stderr.partition("cutpoint: ")[2].rstrip("\n").split("\n")
    assert what.strip()
    assert expected.startswith("Expected: ") and expected != "Expected: "
    assert mend.startswith("To mend it: ") and mend != "To mend it: "
    for word in words:
        assert word in f"{what}\n{expected}\n{mend}"


def assert_nothing_half_written(here: Path, before: Mapping[str, bytes]) -> None:
    new = {name for name in listing(here) if name not in before}
    assert {Path(name).parts[1] for name in new if Path(name).parts[0] == "out"} <= HARMLESS
    assert {Path(name).parts[0] for name in new} <= {"out"}
    mark = here / "out" / ".cutpoint"
    assert not mark.is_dir() or not list(mark.iterdir())
    assert {name: data for name, data in listing(here).items() if name in before} == before


def assert_json(outcome: Outcome, words: tuple[str, ...]) -> None:
    assert outcome.exit_code == 2
    answer = outcome.json()
    assert set(answer) == {"error", "exit_code"}
    assert answer["exit_code"] == 2
    assert set(answer["error"]) == {"what", "expected", "mend"}
    assert all(answer["error"].values())
    for word in words:
        assert word in "\n".join(answer["error"].values())
    assert "Traceback" not in outcome.stderr
    assert "cutpoint: " not in outcome.stderr


@pytest.fixture(scope="module")
def quick_outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, bytes], list[Outcome]]]:
    """Every row of QUICK, plain and with --json, in one process that has loaded nothing when it begins."""
    prepared = {}
    for name, row in QUICK.items():
        here = tmp_path_factory.mktemp("row")
        arguments = row.prepare(here)
        prepared[name] = (here, listing(here), arguments)
    rows = [
        {"arguments": [*prepared[name][2], *more], "environment": dict(row.environment), "cwd": prepared[name][0]}
        for name, row in QUICK.items()
        for more in ([], ["--json"])
    ]
    outcomes = iter(in_fresh_process(rows))
    return {name: (here, before, [next(outcomes), next(outcomes)]) for name, (here, before, _) in prepared.items()}


@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str, quick_outcomes: dict) -> None:
    here, before, (plain, as_json) = quick_outcomes[name]
    assert_one_message(plain, QUICK[name].words)
    assert_json(as_json, QUICK[name].words)
    assert_nothing_half_written(here, before)


@pytest.mark.parametrize("name", QUICK)
def test_quick_ones_load_no_framework(name: str, quick_outcomes: dict) -> None:
    # The rows share one process: the first that loads something is the culprit, and later ones show it too.
    assert quick_outcomes[name][2][1].loaded == ()


@pytest.mark.parametrize("name", SLOW)
def test_slow(name: str, tmp_path: Path) -> None:
    arguments = SLOW[name].prepare(tmp_path)
    before = listing(tmp_path)
    plain = cutpoint(*arguments, cwd=tmp_path, environment=SLOW[name].environment)
    assert_one_message(plain, SLOW[name].words)
    assert_nothing_half_written(tmp_path, before)


def test_a_slow_one_as_json(tmp_path: Path) -> None:
    assert_json(cutpoint(*SLOW["unknown cut"].prepare(tmp_path), "--json"), SLOW["unknown cut"].words)


def test_gpu_that_is_not_there(tmp_path: Path) -> None:
    import keras

    if keras.distribution.list_devices("gpu"):
        # Hidden from TensorFlow before it is loaded.
        rows = [{"arguments": with_good_data("--device", "gpu")(tmp_path), "environment": {"CUDA_VISIBLE_DEVICES": ""}}]
        (outcome,) = in_fresh_process(rows)
    else:
        outcome = cutpoint(*with_good_data("--device", "gpu")(tmp_path))
    assert_one_message(outcome, ("--device gpu", "no GPU", "cutpoint[gpu]"))
    assert {path.name for path in (tmp_path / "out").iterdir()} <= HARMLESS


def test_a_run_that_fails_leaves_earlier_results(tmp_path: Path) -> None:
    (tmp_path / "out" / ".cutpoint").mkdir(parents=True)
    (tmp_path / "out" / "model.keras").write_bytes(b"of an earlier run")
    outcome = cutpoint(*with_good_data("--cut", "nowhere")(tmp_path))
    assert outcome.exit_code == 2
    assert (tmp_path / "out" / "model.keras").read_bytes() == b"of an earlier run"


def test_a_message_says_what_an_unknown_fault_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import bundle

    def burst(*_: object) -> None:
        raise ZeroDivisionError("of the cache")

    monkeypatch.setattr(bundle, "cache_folder", burst)
    outcome = cutpoint("cache")
    assert outcome.exit_code == 70
    assert "Traceback" not in outcome.stderr
    assert "ZeroDivisionError: of the cache" in outcome.stderr
    log = Path(outcome.stderr.rpartition("report it with ")[2].strip())
    assert "Traceback" in log.read_text(encoding="utf-8")
    log.unlink()
