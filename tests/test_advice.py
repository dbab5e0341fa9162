"""`cutpoint advise` and `cut = "auto"` as their user meets them, with real features, conversions and measurements."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import Outcome, cutpoint
from pictures import ACTIVE, SMALL, write_drawings, write_noise, write_picture

from exporters.contract import Resize
from pipeline import bundle
from pipeline.advice.measuring import measure_costs, thinned
from pipeline.backbones.loading import LoadedBackbone, load_backbone
from pipeline.config import BackboneSection
from pipeline.costs import layer_costs
from pipeline.cut import candidate_cuts
from pipeline.splitting import Example, units_of

FEW = ("--set", "advise.most_cuts=4")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings of three classes in named splits, test with broken and strange pictures too."""
    root = tmp_path_factory.mktemp("photos")
    drawn = write_drawings(root / "all", per_class=26, size_px=96)
    for index, path in enumerate(sorted(drawn.rglob("*.png"))):
        split = ("train", "train", "train", "val", "test")[index % 5]
        target = root / "data" / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root / "data"


@pytest.fixture(scope="module")
def configuration(photos: Path) -> Path:
    """A configuration of two heads on the same pictures, with comments."""
    table = photos.parent / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "first", "split"])
        for path in sorted(photos.rglob("*.png")):
            split, label = path.relative_to(photos).parts[:2]
            writer.writerow([path.relative_to(photos.parent), label, "yes" if label == ACTIVE[0] else "no", split])
    toml = photos.parent / "signs.toml"
    toml.write_text(
        '# two heads\nname = "signs"\n[data]\npath = "table.csv"\n[backbone]\nweights = "quickstart"\nalpha = 0.35\n'
        'cut = "out_relu"  # to be advised\n[resize]\nwidth = 96\n[heads.label]\n[heads.first]\ntarget = "first"\n',
        encoding="utf-8",
    )
    return toml


@pytest.fixture(scope="module")
def advised(configuration: Path) -> Iterator[tuple[Outcome, Path]]:
    """The command with all that it can do, once."""
    out = configuration.parent / "advice"
    flags = ("--max-size", "10MB", "--out", out, "--apply", "--json", *FEW)
    return cutpoint("advise", configuration, *flags), out


def test_the_json_tells_what_each_cut_is_worth_and_costs(advised: tuple[Outcome, Path]) -> None:
    outcome, _ = advised
    assert outcome.exit_code == 0, outcome.stderr
    told = outcome.json()
    rows = told["cuts"]
    assert [row["name"] for row in rows] == [row.name for row in layers_in_order([row["name"] for row in rows])]
    assert {"block_6_expand_relu", "block_13_expand_relu", "out_relu"} <= {row["name"] for row in rows}
    for earlier, later in itertools.pairwise(rows):
        assert earlier["macs"] < later["macs"]
        assert earlier["float32_bytes"] < later["float32_bytes"]
    for row in rows:
        assert 0 < row["int8_bytes"] < row["float32_bytes"] * 1.2
        assert row["latency_ms"] > 0
        assert set(row["heads"]) == {"label", "first"}
        for head in row["heads"].values():
            assert 0 <= head["predicted_test"]["low"] <= head["accuracy"] + 1e-9
        assert row["accuracy"] == pytest.approx(
            np.mean([judged(told, name, head) for name, head in row["heads"].items()])
        )
    assert rows[-1]["latency_ms"] > rows[0]["latency_ms"]
    assert told["pictures"]["probed"] == told["pictures"]["train"] + told["pictures"]["val"]
    assert told["chosen"] == told["recommended"]["budget"] == told["recommended"]["most_accurate"]
    assert any(row["on_speed_front"] for row in rows)


def judged(told: dict[str, Any], name: str, head: dict[str, Any]) -> float:
    """What one head counts for."""
    balanced = told["heads"][name]["judged_by"] == "balanced accuracy"
    return head["balanced_accuracy" if balanced else "accuracy"]


def layers_in_order(names: list[str]) -> list[Any]:
    """Rows of these layers in the network's order."""
    section = BackboneSection(name="mobilenet_v2", alpha=0.35, weights="none")
    return [row for row in layer_costs(load_backbone(section, Resize(96, 96)).model) if row.name in names]


def test_the_classes_of_unequal_size_are_judged_alike(advised: tuple[Outcome, Path]) -> None:
    told = advised[0].json()
    assert told["heads"]["first"]["judged_by"] == "balanced accuracy"
    assert told["heads"]["label"]["judged_by"] == "accuracy"
    assert any("unequal in size" in note for note in told["notes"])


def test_apply_writes_the_cut_and_leaves_the_rest(advised: tuple[Outcome, Path], configuration: Path) -> None:
    text = configuration.read_text(encoding="utf-8")
    assert f'cut = "{advised[0].json()["chosen"]}"  # to be advised\n' in text
    assert text.startswith('# two heads\nname = "signs"\n')


def test_the_files_hold_table_pictures_and_reasons(advised: tuple[Outcome, Path]) -> None:
    outcome, out = advised
    assert json.loads((out / "advice.json").read_text(encoding="utf-8"))["chosen"] == outcome.json()["chosen"]
    page, text = (out / "advice.html").read_text(encoding="utf-8"), (out / "advice.md").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "Accuracy over latency of every cut" in page
    assert "http" not in re.sub(r"http-equiv", "", page)
    for row in outcome.json()["cuts"]:
        assert row["name"] in page
        assert f"| {row['name']} |" in text
    assert "training pictures a class" in text
    assert "| cut | first | label |" in text


@pytest.fixture
def unconverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are estimated, as with another Keras backend: spares a test, which is not about them, a conversion."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")


@pytest.mark.usefixtures("unconverted")
def test_test_pictures_have_no_say(photos: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "data"
    shutil.copytree(photos, spoilt)
    generator = np.random.default_rng(0)
    for path in spoilt.glob("test/*/*.png"):
        write_picture(path, generator.integers(0, 256, (96, 96, 3), np.uint8))
    told = [cutpoint("advise", "--data", data, *SMALL, *FEW, "--json").json() for data in (photos, spoilt)]
    assert told[0]["cuts"] == told[1]["cuts"]
    assert told[0]["recommended"] == told[1]["recommended"]
    assert told[0]["rule"] == told[1]["rule"]


@pytest.mark.slow
def test_a_run_chooses_its_cut_tells_of_it_and_takes_it_from_the_cache(photos: Path, tmp_path: Path) -> None:
    flags = ("train", "--data", photos, *SMALL, *FEW, "--cut", "auto", "--out", tmp_path / "out")
    first = cutpoint(*flags)
    assert first.exit_code == 0, first.stderr
    state = bundle.read_state(tmp_path / "out")
    chosen = state["advice"]["chosen"]
    assert bundle.read_card(tmp_path / "out").cut == (chosen,)
    assert any(f"The cut '{chosen}' was chosen out of" in note for note in state["notes"])
    second = cutpoint(*flags, "--json").json()
    cached = {stage["name"]: stage["cached"] for stage in second["stages"]}
    assert cached["advise"]
    assert cached["features"]
    assert bundle.read_state(tmp_path / "out")["advice"] == state["advice"]


@pytest.mark.usefixtures("unconverted")
def test_a_budget_that_nothing_fits_into_ends_a_run(photos: Path, tmp_path: Path) -> None:
    outcome = cutpoint(
        *("train", "--data", photos, *SMALL, *FEW, "--cut", "auto", "--out", tmp_path / "out"),
        *("--set", 'advise.max_size="1kB"', "--json"),
    )
    assert outcome.exit_code == 2
    assert "No cut fits into 1.0 kB: the nearest, '" in outcome.json()["error"]["what"]


@pytest.mark.slow
def test_the_report_of_a_run_shows_the_advice(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("--data", photos, *SMALL, *FEW, "--cut", "auto", "--out", out, "--formats", "tflite-float32")
    outcome = cutpoint("run", *flags, "--runtimes", "local", "--json")
    told = outcome.json()
    assert told["artifacts"][0]["runtimes"][0]["status"] == "verified"
    chosen = told["advice"]["chosen"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Accuracy over latency of every cut" in page
    assert f"The cut '{chosen}' was chosen" in (out / "report.md").read_text(encoding="utf-8")
    assert "### Where to cut mobilenet_v2 0.35 at 96 x 96 px" in (out / "report.md").read_text(encoding="utf-8")
    size = next(row["float32_bytes"] for row in told["advice"]["cuts"] if row["name"] == chosen)
    assert size == pytest.approx(told["artifacts"][0]["size_bytes"], rel=0.05)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--apply",), "--apply was given no configuration"),
        (("--max-size", "large"), "'large' is no size"),
        (("--max-latency", "5"), "'5' is no latency"),
        (("--set", "heads.label.kind=embedding"), "No head learns to tell labels apart"),
        (("--set", "advise.choose=best"), "advise.choose is 'best'"),
        (("--set", "advise.most_cuts=1"), "wrong value at 'advise.most_cuts'"),
    ],
)
def test_wrong_input_is_one_message(flags: tuple[str, ...], said: str, photos: Path) -> None:
    outcome = cutpoint("advise", "--data", photos, *SMALL, *flags)
    assert outcome.exit_code == 2
    assert said in outcome.stderr
    assert "To mend it" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_too_few_pictures_are_told(tmp_path: Path) -> None:
    two = cutpoint("advise", "--data", write_noise(tmp_path / "two", {"a": 2, "b": 2}), *SMALL)
    assert two.exit_code == 2
    assert "of the class 'a' of 'label' train and val hold 1 picture(s)" in two.stderr
    one = cutpoint("advise", "--data", write_noise(tmp_path / "one", {"a": 9}), *SMALL)
    assert one.exit_code == 2
    assert "one class only" in one.stderr


def test_unreadable_pictures_are_left_out_and_too_many_end_it(photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    paths = sorted(data.rglob("*.png"))
    for path in paths[::4]:
        path.write_bytes(b"no picture")
    outcome = cutpoint("advise", "--data", data, *SMALL, *FEW)
    assert outcome.exit_code == 2
    assert f"{len(paths[::4])} of {len(paths)} pictures cannot be read" in outcome.stderr


def test_files_of_others_are_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    outcome = cutpoint("advise", "--data", photos, *SMALL, "--out", tmp_path)
    assert outcome.exit_code == 2
    assert "holds 'mine.txt'" in outcome.stderr


def embedded() -> LoadedBackbone:
    """The embedded backbone at 96 px."""
    return load_backbone(BackboneSection(name="mobilenet_v2", alpha=0.35, weights="quickstart"), Resize(96, 96))


def test_without_tensorflow_sizes_are_estimated_and_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = embedded()
    rows = {row.name: row for row in layer_costs(backbone.model)}
    cuts = ["block_6_expand_relu", "out_relu"]
    measured, how = measure_costs(backbone, rows, cuts, [10], 0.1)
    assert how["measured"]
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    estimated, how = measure_costs(backbone, rows, cuts, [10], 0.1)
    assert not how["measured"]
    for cut in cuts:
        assert estimated[cut].latency_ms is None
        assert estimated[cut].float32_bytes == pytest.approx(measured[cut].float32_bytes, rel=0.1)
        assert estimated[cut].int8_bytes == pytest.approx(measured[cut].int8_bytes, rel=0.1)


def test_many_candidates_are_thinned_evenly_and_the_usual_ones_stay() -> None:
    backbone = embedded()
    rows, cuts = {row.name: row for row in layer_costs(backbone.model)}, candidate_cuts(backbone.model)
    few, left_out = thinned(cuts, backbone.usual_cuts, rows, 8)
    assert len(few) <= 8
    assert len(few) + left_out == len(cuts)
    assert {cuts[0], cuts[-1], *backbone.usual_cuts} <= set(few)
    assert list(few) == [cut for cut in cuts if cut in few]
    assert thinned(cuts, backbone.usual_cuts, rows, 100) == (cuts, 0)


def test_groups_and_copies_stay_together() -> None:
    examples = [
        Example(Path(name), content, {"label": "a"}, group)
        for name, content, group in (
            *(("1", "x", "anna"), ("2", "y", "anna"), ("3", "y", ""), ("4", "z", "")),
            *(("5", "z", "berta"), ("6", "w", "")),
        )
    ]
    first, second, third, fourth, fifth, sixth = units_of(examples)
    assert first == second == third
    assert fourth == fifth
    assert len({first, fourth, sixth}) == 3
