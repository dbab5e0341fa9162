"""A backbone that stays a SavedModel: one layer of a Keras model, with its folder beside the model's file.

Keras refuses to load such a layer in safe mode, since a SavedModel is a program. Here it is let through in one case alone:
the layer names the folder `backbone`, and that folder lies beside the file and is what cutpoint wrote.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from exporters.errors import InputError

FOLDER = "backbone"
ENDPOINT = "serve"
KIND = "TFSMLayer"
_CONFIG = "config.json"


def is_opaque(layer: Any) -> bool:
    """Tell whether a layer is a SavedModel."""
    return type(layer).__name__ == KIND


def has_opaque(model: keras.Model) -> bool:
    """Tell whether a layer of a model is a SavedModel."""
    return any(is_opaque(layer) for layer in model.layers)


def folder_of(model: keras.Model) -> Path | None:
    """Return where the SavedModel lies that is a layer of a model; None where there is none."""
    return next((Path(layer.filepath) for layer in model.layers if is_opaque(layer)), None)


def freeze(layer: keras.layers.Layer) -> None:
    """Let a SavedModel's layer compute with constants: no converter then has to find variables that were loaded and saved again.

    Its weights stay, to be counted and told apart.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = layer.call_endpoint_fn
    concrete = function.get_concrete_function() if hasattr(function, "get_concrete_function") else function
    frozen = convert_variables_to_constants_v2(concrete)
    layer.call_endpoint_fn = lambda pixels: frozen(pixels)[0]
    # What was loaded would be saved again beside what is computed with.
    layer._reloaded_obj = None


def load_model(path: Path) -> keras.Model:
    """Load a `.keras` file that cutpoint wrote, in safe mode; its SavedModel is taken from the folder beside it.

    Raises:
        InputError: the file names another SavedModel, or the folder is not there.
        Exception: whatever `keras.models.load_model` raises.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(_CONFIG))
    named = _opaque_layers(config)
    if not named:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    folder = path.resolve().parent / FOLDER
    if any(each["config"].get("filepath") != FOLDER for each in named) or not (folder / "saved_model.pb").is_file():
        raise InputError(
            f"The model {path} needs the SavedModel of its backbone, and {folder} holds none.",
            f"the folder '{FOLDER}' beside it, as the run left it",
            "copy the whole result folder, or run again",
        )
    if _other_code(config):
        raise InputError(f"The model {path} holds code.", "what cutpoint wrote", "run again")
    for each in named:
        each["config"]["filepath"] = str(folder)
    with tempfile.TemporaryDirectory() as work:
        changed = Path(work) / path.name
        rewrite(path, changed, lambda text: json.dumps(config))
        model = keras.models.load_model(changed, compile=False, safe_mode=False)
    for layer in filter(is_opaque, model.layers):
        freeze(layer)
    return model


def keep_beside(model: keras.Model, path: Path) -> None:
    """Put the SavedModel of a model beside the file that it was saved as, and let the file name it by that folder."""
    source = folder_of(model)
    if source is None:
        return
    target = path.parent / FOLDER
    if target.resolve() != source.resolve():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)

    def portable(text: str) -> str:
        config = json.loads(text)
        for each in _opaque_layers(config):
            each["config"]["filepath"] = FOLDER
        return json.dumps(config)

    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        changed = Path(work) / path.name
        rewrite(path, changed, portable)
        changed.replace(path)


def rewrite(path: Path, target: Path, change: Callable[[str], str]) -> None:
    """Copy a `.keras` file with another description of its network; everything else stays as it is."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for member in source.infolist():
            data = source.read(member)
            copy.writestr(member, change(data.decode()).encode() if member.filename == _CONFIG else data)


def _opaque_layers(config: Any) -> list[dict[str, Any]]:
    if isinstance(config, list):
        return [found for each in config for found in _opaque_layers(each)]
    if not isinstance(config, dict):
        return []
    inner = [found for each in config.values() for found in _opaque_layers(each)]
    return [config, *inner] if config.get("class_name") == KIND else inner


def _other_code(config: Any) -> bool:
    if isinstance(config, list):
        return any(_other_code(each) for each in config)
    if not isinstance(config, dict):
        return False
    return config.get("class_name") in ("Lambda", "__lambda__") or any(_other_code(each) for each in config.values())
