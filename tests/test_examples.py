"""Every example of examples/: on figures that it draws, with the embedded backbone, the whole way to verified artifacts."""

from __future__ import annotations

import importlib.util
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from commands import NO_BROWSER, ROOT, cutpoint

EXAMPLES = ROOT / "examples"
CONFIGS = tuple(sorted(path.stem for path in EXAMPLES.glob("*.toml")))
FORMATS = "tfjs-float32,tflite-float32,tflite-int8,onnx-float32,onnx-int8"
# The least that each head's first measure has to come to: far above chance, so that what is compared says something.
LEAST = {
    "binary": {"large": 0.85},
    "boxes": {"figure": 0.85, "place": 0.5},
    "columns": {"bin": 0.8},
    "embedding": {"near": 0.85},
    "fine_tuning": {"figure": 0.85},
    "linear": {"figure": 0.85},
    "mlp": {"figure": 0.85},
    "multilabel": {"traits": 0.9},
    "ordinal": {"level": 0.75},
    "own_head": {"figure": 0.85},
    "regression": {"measures": 0.5},
    "segmentation": {"shape": 0.85},
    "several": {"figure": 0.8, "level": 0.6, "measures": 0.3, "traits": 0.9},
}
# Of a regression, R2 tells how much was learned.
FIRST = {"regression": "r2"}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples with their pictures, in which they are started as their user would."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("figures", "__pycache__"))
    spec = importlib.util.spec_from_file_location("make_figures", folder / "make_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make_figures(folder / "figures")
    return folder


def measures_of(report: dict[str, Any], tasks: dict[str, str]) -> dict[str, float]:
    """Head -> its first measure, of all heads that were trained; the least of several columns."""
    found = {}
    for name, figures in report["reference"]["measures"].items():
        value = figures[FIRST.get(tasks.get(name, ""), next(iter(figures)))]
        found[name] = min(value.values()) if isinstance(value, dict) else value
    return found


def test_every_example_is_judged() -> None:
    assert set(LEAST) == set(CONFIGS)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_learned_and_verified(name: str, drawn: Path, tmp_path: Path) -> None:
    config = tomllib.loads((drawn / f"{name}.toml").read_text(encoding="utf-8"))
    tasks = {head: each.get("task", "") for head, each in config["heads"].items()}
    done = cutpoint(
        *("run", f"{name}.toml", "--formats", FORMATS, "--out", tmp_path / "out", "--json"),
        cwd=drawn,
        environment=NO_BROWSER,
    )
    assert done.exit_code == 0, done.stderr[-3000:]
    report = done.json()
    found = measures_of(report, tasks)
    assert set(found) == set(LEAST[name])
    assert all(found[head] >= least for head, least in LEAST[name].items()), found
    exported = {head for head, each in config["heads"].items() if not each.get("auxiliary")}
    assert {each["name"] for each in report["artifacts"]} == set(FORMATS.split(","))
    for artifact in report["artifacts"]:
        assert artifact["audit"]["status"] == "verified"
        for runtime in artifact["runtimes"]:
            assert set(runtime["outputs"]) == exported
            assert {each["status"] for each in runtime["outputs"].values()} == {"verified"}
