"""`cutpoint doctor`: what is installed, what is missing and how to get it. Loads no framework."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

LIGHT = ("numpy", "pillow", "onnxruntime", "onnx", "ai-edge-litert", "typer", "rich", "msgspec", "jinja2")
TRAIN = (
    "tensorflow",
    "keras",
    "tensorflowjs",
    "tf2onnx",
    "h5py",
    "matplotlib",
    "filelock",
    "starlette",
    "uvicorn",
)
LEAST_NODE = 20


def examine() -> list[dict[str, str]]:
    """Return a row `{"name", "state", "detail"}` for everything that a command may need.

    `state` is `ok`, `optional` (missing, and only some commands need it) or `missing`.
    """
    rows = [{"name": "python", "state": "ok", "detail": sys.version.split()[0]}]
    rows += [_package(name, "missing", "pip install cutpoint") for name in LIGHT]
    rows += [_package(name, "optional", _how_to_get(name)) for name in TRAIN]
    driver = _package("playwright", "optional", "pip install 'cutpoint[browser]' (to verify artifacts in a Chromium)")
    return [*rows, _node(), _javascript(), _browser(), driver, _cache()]


def _how_to_get(name: str) -> str:
    if name == "tensorflowjs":
        return "pip install --no-deps tensorflowjs==4.22.0 (to export TF.js)"
    return "pip install 'cutpoint[train]' (to train and export)"


def _package(name: str, state: str, mend: str) -> dict[str, str]:
    try:
        return {"name": name, "state": "ok", "detail": importlib.metadata.version(name)}
    except importlib.metadata.PackageNotFoundError:
        return {"name": name, "state": state, "detail": mend}


def _node() -> dict[str, str]:
    path = shutil.which("node")
    mend = f"Node {LEAST_NODE} or later verifies TF.js artifacts: apt-get install nodejs, or nodejs.org"
    if path is None:
        return {"name": "node", "state": "optional", "detail": mend}
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"v(\d+)", version)
    good = found is not None and int(found.group(1)) >= LEAST_NODE
    return {"name": "node", "state": "ok" if good else "optional", "detail": version if good else f"{version}: {mend}"}


def _javascript() -> dict[str, str]:
    bundle = Path(__file__).parent.parent / "exporters" / "javascript" / "runner.mjs"
    if bundle.is_file():
        return {"name": "tfjs", "state": "ok", "detail": "the bundle of TF.js and predict.js is built"}
    return {"name": "tfjs", "state": "missing", "detail": "make setup (it builds the bundle from web_demo/)"}


def _browser() -> dict[str, str]:
    from exporters.runners.chromium_session import find_chromium

    path = find_chromium()
    if path:
        return {"name": "chromium", "state": "ok", "detail": path}
    return {"name": "chromium", "state": "optional", "detail": "make setup-browser (to verify artifacts in it)"}


def _cache() -> dict[str, str]:
    from exporters.errors import InputError
    from pipeline.bundle import cache_folder

    try:
        folder = cache_folder()
    except InputError as fault:
        return {"name": "cache", "state": "missing", "detail": fault.what}
    return {
        "name": "cache",
        "state": "ok",
        "detail": f"{folder}, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free",
    }
