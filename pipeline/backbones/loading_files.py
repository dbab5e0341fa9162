"""Loads a Keras model from a file of any age without running anything that stands in it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from exporters.errors import InputError
from pipeline.backbones.legacy_h5 import repair
from pipeline.backbones.model_files import HDF5, KERAS, ModelFile, extract_weights, open_model_file
from pipeline.backbones.nested import flatten
from pipeline.backbones.screening import has_code, refuse_code, screen, without_training


@dataclasses.dataclass(frozen=True)
class FileModel:
    """A model out of a file, as it was saved; `flips` are what `nested.flatten` must know of a repaired description."""

    model: keras.Model
    flips: tuple[str, ...]

    def flat(self, height: int, width: int) -> keras.Model:
        """Return the model laid flat, for pictures of that size in px; see `nested.flatten`."""
        return flatten(self.model, height, width, self.flips)


def load_model_file(path: Path, *, trust: bool = False) -> FileModel:
    """Load a `.keras` or `.h5` model; what Keras 3 refuses of Keras 2 is repaired in memory.

    Args:
        path: the file.
        trust: whether the code of Lambda layers may run; nothing else is let through by it.

    Raises:
        InputError: it cannot be loaded, holds what is not stock Keras, or takes no picture (N, height, width, 3).
    """
    file = open_model_file(path)
    config, flips = without_training(file.config), ()
    trusted = trust and has_code(config)
    if not trusted:
        refuse_code(config, path)
    if file.kind == HDF5:
        repaired = repair(config, path)
        config, flips = repaired.config, tuple(repaired.flips)
    elif _of_keras_2(config):
        raise InputError(
            f"The model {path} was saved as .keras by Keras 2.",
            "a .keras file of Keras 3, or an .h5 file of either",
            "save it as .h5 with the package tf_keras: model.save('model.h5')",
        )
    if not trusted:
        screen(config, path)
    return FileModel(_checked(_load(file, config, trusted), path), flips)


def picture_size(path: Path) -> tuple[int | None, int | None]:
    """Return the height and width in px that a model file's network takes, None where it takes any; loads no layer."""
    waiting = [open_model_file(path).config]
    while waiting:
        config = waiting.pop(0)
        settings = config.get("config") if isinstance(config, dict) else None
        for key in ("batch_shape", "batch_input_shape"):
            shape = settings.get(key) if isinstance(settings, dict) else None
            if isinstance(shape, list) and len(shape) == 4:
                return tuple(each if isinstance(each, int) and each > 0 else None for each in shape[1:3])
        layers = settings.get("layers", []) if isinstance(settings, dict) else settings
        # The first layer of the outermost model is the one that the pictures enter.
        waiting = [*(layers if isinstance(layers, list) else []), *waiting]
    return None, None


def _load(file: ModelFile, config: dict[str, Any], trust: bool) -> keras.Model:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load_keras(file, config, trust) if file.kind == KERAS else _load_h5(file, config, trust)
    except InputError:
        raise
    except Exception as fault:  # Keras and h5py raise ValueError, TypeError, OSError, KeyError and more by turns
        if isinstance(fault, MemoryError):
            raise
        raise InputError(
            f"The model {file.path} cannot be loaded: {first_line(fault)}.",
            "a model of stock layers, as Keras 3 saves it, or Keras 2 as .h5",
            "save it anew with keras.Model.save('model.keras') where it comes from",
        ) from fault


def _load_keras(file: ModelFile, config: dict[str, Any], trust: bool) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        weights = extract_weights(file, Path(folder))
        model = keras.saving.deserialize_keras_object(config, safe_mode=not trust)
        model.load_weights(weights)
    return model


def _of_keras_2(config: Any) -> bool:
    """Tell by the inputs of a layer, or by a name that is gone: Keras 3 lists them otherwise."""
    if isinstance(config, list):
        return any(_of_keras_2(each) for each in config)
    if not isinstance(config, dict):
        return False
    inner = config.get("config")
    return (isinstance(inner, dict) and "batch_input_shape" in inner) or any(_of_keras_2(e) for e in config.values())


def _load_h5(file: ModelFile, config: dict[str, Any], trust: bool) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.h5"
        with h5py.File(file.path, "r") as source, h5py.File(target, "w") as copy:
            for key in ("keras_version", "backend"):
                if key in source.attrs:
                    copy.attrs[key] = source.attrs[key]
            copy.attrs["model_config"] = json.dumps(config)
            source.copy("model_weights", copy)
        model = keras.models.load_model(target, compile=False, safe_mode=not trust)
        _check_names_of_weights(model, target, file.path)
    return model


def _check_names_of_weights(model: keras.Model, weights: Path, shown: Path) -> None:
    """Compare what was loaded in order with what the file calls it; raises InputError where a value stands elsewhere."""
    stored = weights_by_name(weights)
    loaded: dict[tuple[str, str], list[np.ndarray]] = {}
    for layer in leaves(model):
        for weight in layer.weights:
            loaded.setdefault((layer.name, weight.name), []).append(keras.ops.convert_to_numpy(weight))
    for key, values in stored.items():
        mine = loaded.get(key, [])
        if len(mine) == len(values) == 1 and not np.array_equal(mine[0], values[0], equal_nan=True):
            raise InputError(
                f"The weights of {shown} stand in another order than its layers: '{key[0]}' has other values of '{key[1]}'.",
                "weights in the order of the layers",
                "save the model anew as .keras with Keras 3",
            )


def weights_by_name(path: Path) -> dict[tuple[str, str], list[np.ndarray]]:
    """Return (layer, weight) -> the values under that name in an `.h5` file, such as (`Conv1`, `kernel`)."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)

        def visit(name: str, item: Any) -> None:
            parts = name.removesuffix(":0").split("/")
            if isinstance(item, h5py.Dataset) and len(parts) > 1:
                found.setdefault((parts[-2], parts[-1].split(":")[0]), []).append(item[()])

        root.visititems(visit)
    return found


def leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model and of the models inside it, in order."""
    found = []
    for layer in model.layers:
        found += leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _checked(model: keras.Model, path: Path) -> keras.Model:
    shapes = [tuple(each.shape) for each in model.inputs or ()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise InputError(
            f"The model {path} takes {shapes}.",
            "one picture (N, height, width, 3)",
            "take a model of colour pictures"
            + ("; one that was trained with columns is exported in its own folder" if len(shapes) == 2 else ""),
        )
    # A Sequential as a functional model, whose outputs have names.
    return keras.Model(model.inputs, model.outputs, name=model.name) if isinstance(model, keras.Sequential) else model


def first_line(fault: BaseException) -> str:
    """Return the line of what an exception says that tells most, without its full stop."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()] or [type(fault).__name__]
    # TensorFlow and Keras put where it happened before what happened.
    said = lines[-1] if lines[0].startswith("in user code") else lines[0]
    return said.rstrip(".")[:300]
