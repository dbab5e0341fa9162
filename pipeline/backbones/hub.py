"""Fetches a backbone from TensorFlow Hub or Kaggle by the hub's own library, which caches it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from exporters.errors import InputError
from pipeline.backbones.loading_files import first_line


def resolved(source: Path | str) -> Path:
    """Return the folder of a SavedModel; a hub handle is fetched by the hub's own library, which caches it.

    Raises:
        InputError: the library is missing, or the model cannot be had.
    """
    if isinstance(source, Path):
        return source
    kaggle = re.sub(r"^https?://(www\.)?kaggle\.com/models/", "", source)
    tensorflow_hub = re.match(r"https?://(www\.)?tfhub\.dev/", source)
    if "://" in kaggle and not tensorflow_hub:
        raise InputError(
            f"The backbone {source} is of no hub that is known.",
            "a handle such as google/mobilenet-v2/tensorFlow2/100-224-feature-vector/2, or an address of tfhub.dev or "
            "kaggle.com/models",
            "fetch the SavedModel yourself, and give its folder",
        )
    package = "tensorflow_hub" if tensorflow_hub else "kagglehub"
    try:
        library = importlib.import_module(package)
        folder = Path(library.resolve(source) if tensorflow_hub else library.model_download(_handle(kaggle)))
    except ImportError as fault:
        raise InputError(
            f"The package that fetches {source} is missing: {fault}.",
            "tensorflow_hub for tfhub.dev, kagglehub for Kaggle",
            "pip install 'cutpoint[hub]', or fetch the SavedModel yourself and give its folder",
        ) from fault
    except Exception as fault:  # the libraries raise OSError, ValueError, HTTP errors and their own by turns
        raise InputError(
            f"The backbone {source} could not be fetched: {first_line(fault)}.",
            "a network that reaches the hub, or the model in the hub library's cache",
            "check the handle and the network, or fetch the SavedModel elsewhere and give its folder",
        ) from fault
    if not (folder / "saved_model.pb").is_file():
        raise InputError(
            f"The model {source} is no SavedModel.", "TensorFlow's SavedModel", "name another variation of it"
        )
    return folder


def _handle(kaggle: str) -> str:
    # As the site writes it, with the frameworks' names in small letters and a word before a version.
    return re.sub(r"/(frameworks|variations|versions)/", "/", "/" + kaggle.strip("/")).strip("/")


def shown_name(source: Path | str) -> str:
    """Return what messages and cards call a SavedModel: its folder's name, or its handle."""
    if isinstance(source, Path):
        return source.resolve().name
    return re.sub(r"^https?://(www\.)?", "", source).strip("/")
