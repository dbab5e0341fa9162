"""The map of where heavy libraries may live: `exporters` under `pipeline`, lazy at the door, runners without a trainer."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINERS = ("tensorflow", "keras", "tensorflowjs", "tf2onnx")
FRAMEWORKS = (*TRAINERS, "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "jax")
LIGHT = [
    "exporters.contract",
    "exporters.errors",
    "exporters.golden",
    "exporters.parity",
    "exporters.report",
    "exporters.runners",
    "pipeline.cli",
    "pipeline.config",
    "pipeline.dataset",
    "pipeline.shipping",
]
COMMANDS = ["run", "train", "export", "verify", "layers", "predict", "demo", "site", "doctor", "cache"]
RUNNERS = sorted(path.stem for path in ROOT.glob("exporters/runners/*.py") if path.stem not in ("__init__", "keras"))


def sources(*patterns: str) -> list[Path]:
    found = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    assert found, f"no file is called {patterns}"
    return found


def imported(path: Path) -> Iterator[str]:
    """Every module that the file names: in an import, or in a string like `package.module` or `package.module:name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.partition(":")[0]
            if "." in module and module.replace(".", "_").isidentifier():
                yield module


def imports_of(package: str, *patterns: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sources(*patterns)
        for module in imported(path)
        if module.split(".")[0] == package
    ]


def loaded_by(program: str) -> dict | list:
    """What a fresh interpreter prints, as JSON, on the last line of standard output."""
    start = f"import json, sys\ndef loaded():\n    return [name for name in {FRAMEWORKS!r} if name in sys.modules]\n"
    command = [sys.executable, "-c", start + program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_exporters_never_import_pipeline() -> None:
    assert imports_of("pipeline", "exporters/**/*.py") == []


@pytest.mark.parametrize("package", ["tensorflow", "keras", "tf_keras"])
def test_runners_do_without_the_trainer(package: str) -> None:
    assert imports_of(package, *(f"exporters/runners/{name}.py" for name in ("__init__", *RUNNERS))) == []


@pytest.mark.parametrize("runner", RUNNERS)
def test_loading_a_runner_loads_no_trainer(runner: str) -> None:
    loaded = loaded_by(f"import exporters.runners.{runner}\nprint(json.dumps(loaded()))")
    assert not set(TRAINERS) & set(loaded)


def test_training_knows_only_keras() -> None:
    assert imports_of("tensorflow", "pipeline/heads/*.py", "pipeline/training*.py") == []


@pytest.mark.parametrize("module", LIGHT)
def test_the_door_is_light(module: str) -> None:
    assert loaded_by(f"import {module}\nprint(json.dumps(loaded()))") == []


HELP_OF_EVERY_COMMAND = """
import contextlib, io
import typer.main
from pipeline import cli

def helped(command, path, seen):
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        command.main([*path, "--help"], prog_name="cutpoint", standalone_mode=True)
    assert "--help" in text.getvalue(), path
    seen[" ".join(path)] = loaded()

root, seen = typer.main.get_command(cli.app), {}
helped(root, [], seen)
for name in root.commands:
    helped(root, [name], seen)
print(json.dumps(seen))
"""


def test_help_loads_no_framework() -> None:
    seen = loaded_by(HELP_OF_EVERY_COMMAND)
    assert set(COMMANDS) <= set(seen)
    assert {command: loaded for command, loaded in seen.items() if loaded} == {}
