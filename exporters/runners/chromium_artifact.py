"""One artifact loaded in a page of the shared Chromium session: images in, answers by output name out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import is_features_name
from exporters.errors import InputError, NotVerifiedError, ParityError
from exporters.inputs import Inputs, as_inputs, check_columns, input_names, one_of, to_bytes
from exporters.runners import chromium_session
from exporters.runners.chromium_page import ParityPage

# How many bytes of images go to the page at once; a page holds them several times over.
CHUNK_BYTES = 16 * 2**20
# A multiple of the batch that the page uses, so that only the last batch is a short one.
BATCH = 16


class PageArtifact:
    """An artifact that answers in a page; `open` it before, and `close` it after.

    Args:
        folder: the artifact's.
        request: what `open` of web_demo/parity.js takes: `format`, `backend`, `threads`, `signature`.
        changed: contents that stand in for those of the folder's files, by name.

    Attributes:
        where: `Chromium <version>`.
        input_name, columns_name: of the picture and of the columns, None without; known once it is open.
        start_s: how long the page, the library and the model took to load, in seconds.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], changed: Mapping[str, bytes] | None = None) -> None:
        self._folder = folder
        self._request = request
        self._changed = changed or {}
        self._page: ParityPage | None = None
        self.where = ""
        self.start_s = 0.0
        self.input_name = ""
        self.columns_name: str | None = None
        self.output_names: tuple[str, ...] = ()

    def open(self) -> dict[str, Any]:
        """Load the artifact; returns `version`, `backend`, `inputs` and `outputs` as the page tells them.

        Raises:
            NotVerifiedError: there is no browser, or it lacks the backend.
            ParityError: the library cannot load the model, another backend computes, or the model takes something else.
        """
        browser = chromium_session.session()
        self.where = browser.name
        begun = time.perf_counter()
        files = {f"artifact/{path.relative_to(self._folder).as_posix()}": path for path in _files(self._folder)}
        changed = {f"artifact/{name}": contents for name, contents in self._changed.items()}
        self._page = browser.page({**files, **changed}, f"The model in {self._folder}").__enter__()
        try:
            facts = self._page.call("open", self._request)
            self._check(facts)
        except BaseException:
            self.close()
            raise
        self.start_s = time.perf_counter() - begun
        self.output_names = tuple(sorted(facts["outputs"]))
        return facts

    def close(self) -> None:
        """Close the page; does nothing where it is closed."""
        page, self._page = self._page, None
        if page is not None:
            page.__exit__(None, None, None)

    def predict(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the answers as the artifact stores them, by output name, all but `features`.

        Args:
            given: pictures (N, height, width, 3), uint8 or float32, with columns for a model that takes such.

        Raises:
            InputError: no such array, columns are missing, or there is no place for them.
            ParityError: the library fails.
        """
        heads = [name for name in self.output_names if not is_features_name(name)]
        if not len(given):
            return {name: np.empty((0,), np.float32) for name in heads}
        inputs = self._checked(as_inputs(given))
        size = max(1, CHUNK_BYTES // inputs.images[0].nbytes // BATCH) * BATCH
        parts: dict[str, list[np.ndarray]] = {name: [] for name in heads}
        for start in range(0, len(inputs), size):
            some = inputs[start : start + size]
            answers: dict[str, list[np.ndarray]] = {name: [] for name in heads}
            for name, array in self._opened().arrays("predict", *to_bytes(some)):
                answers[name].append(array)
            for name in heads:
                # A model with a fixed batch answers the fill of its last batch too.
                parts[name].append(np.concatenate(answers[name])[: len(some)])
        return {name: np.concatenate(each) for name, each in parts.items()}

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Return the latency of one picture, as the runners take it, in ms, `repeats` times, measured in the page, warm."""
        told, payload = to_bytes(self._checked(one_of(one)))
        return [float(each) for each in self._opened().call("time", {**told, "repeats": repeats}, payload)]

    def _checked(self, inputs: Inputs) -> Inputs:
        images = inputs.images
        if images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(
                f"Images of shape {images.shape} were given.", "(N, height, width, 3)", "convert them first"
            )
        check_columns(inputs, self.columns_name, f"The model in {self._folder}")
        dtype = np.uint8 if images.dtype == np.uint8 else np.float32
        return Inputs(np.ascontiguousarray(images, dtype), inputs.columns)

    def _opened(self) -> ParityPage:
        if self._page is None:
            raise RuntimeError("a runner answers only inside its with statement")
        return self._page

    def _check(self, facts: Mapping[str, Any]) -> None:
        if "missing" in facts:
            raise NotVerifiedError(
                f"The model in {self._folder} was not run in {self.where}: {facts['missing']}.",
                f"a Chromium that has {self._request['backend']}",
                "make setup-browser, or ask for another backend",
            )
        if facts["backend"] != self._request["backend"]:
            raise ParityError(
                f"The model in {self._folder} is computed by {facts['backend']} in {self.where}.",
                self._request["backend"],
                "choose a backend that this browser has",
            )
        names = [each["name"] for each in facts["inputs"]]
        self.input_name, self.columns_name = input_names(names, f"The model in {self._folder}")


def check_backend(library: str, backend: str, known: tuple[str, ...]) -> str:
    """Return the backend; raises InputError where the library is not run with it."""
    if backend not in known:
        raise InputError(f"{library} in Chromium has no backend '{backend}'.", f"one of {', '.join(known)}")
    return backend


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
