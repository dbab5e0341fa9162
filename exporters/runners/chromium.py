"""Runs artifacts in a real Chromium: TF.js, onnxruntime-web and LiteRT.js, all in the page web_demo/parity.js.

Each runner has a page of its own in the browser that they share (`exporters.runners.chromium.session`). One thread
computes, unless more are asked for: browsers differ in how many they give.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from exporters.errors import ParityError
from exporters.inputs import Inputs, as_inputs, input_names, one_of
from exporters.runners.chromium_artifact import PageArtifact, check_backend
from exporters.runners.chromium_session import ChromiumSession, close_session, session
from exporters.runners.static_batch import TensorFacts, read_signature, with_static_batch

__all__ = [
    "ChromiumSession",
    "LitertWebRunner",
    "OnnxWebRunner",
    "TfjsChromiumRunner",
    "close_session",
    "session",
]

TFLITE_FILE = "model.tflite"


class TfjsChromiumRunner:
    """Answers of one TF.js model in Chromium, as a context manager.

    Args:
        folder: the artifact's folder, which holds `model.json` and its weight files.
        backend: `wasm`, or `webgl`, which is computed in software.
        threads: how many the backend `wasm` may use; None: one.
        page_format: which of the page's openers loads it, `tfjs` for a graph model or `tfjs_layers`.

    Attributes:
        name: `tfjs-chromium`.
        version: TF.js's, known inside the context.
        where: `Chromium <version>`.
        output_names: all outputs that the model has, sorted, `features` included.
    """

    name = "tfjs-chromium"
    input_dtype, input_scale = "float32", (1.0, 0)

    def __init__(
        self, folder: Path, *, backend: str = "wasm", threads: int | None = None, page_format: str = "tfjs"
    ) -> None:
        self.backend = check_backend("TF.js", backend, ("wasm", "webgl"))
        self.version = self.where = ""
        self._artifact = PageArtifact(
            Path(folder), {"format": page_format, "backend": backend, "threads": threads or 1}
        )

    def __enter__(self) -> TfjsChromiumRunner:
        """Load the model; raises NotVerifiedError without a browser, ParityError where TF.js cannot load it."""
        facts = self._artifact.open()
        self.version, self.where = facts["version"], self._artifact.where
        self.input_name, self.output_names = self._artifact.input_name, self._artifact.output_names
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._artifact.close()

    def predict(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the answers to pictures (N, height, width, 3), 0..255, and columns: output name -> float32 (N, ...)."""
        return self._artifact.predict(given)

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Return the latency of one picture, (height, width, 3) or as `Inputs`, in ms, `repeats` times, after a warm-up."""
        return self._artifact.time_one(one, repeats)


def layers_chromium_runner(folder: Path, **options: Any) -> TfjsChromiumRunner:
    """Return the runner of a TF.js layers model, not yet entered; `options` as `TfjsChromiumRunner` takes them."""
    return TfjsChromiumRunner(folder, page_format="tfjs_layers", **options)


class OnnxWebRunner:
    """Answers of one ONNX artifact in onnxruntime-web, as a context manager.

    Args:
        folder: the artifact's folder, which holds `model.onnx`.
        backend: `wasm`.
        threads: how many one operator may use; None: one.

    Attributes: as `TfjsChromiumRunner` has them; `version` is onnxruntime-web's.
    """

    name = "onnxruntime-web"
    input_scale = (1.0, 0)

    def __init__(self, folder: Path, *, backend: str = "wasm", threads: int | None = None) -> None:
        self.backend = check_backend("onnxruntime-web", backend, ("wasm",))
        self.version = self.where = ""
        self._artifact = PageArtifact(Path(folder), {"format": "onnx", "backend": backend, "threads": threads or 1})

    def __enter__(self) -> OnnxWebRunner:
        """Load the model; raises NotVerifiedError without a browser, ParityError where it cannot be loaded."""
        facts = self._artifact.open()
        self.version, self.where = facts["version"], self._artifact.where
        self.input_name = self._artifact.input_name
        self.input_dtype = {each["name"]: each["dtype"] for each in facts["inputs"]}[self.input_name]
        self.output_names = self._artifact.output_names
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._artifact.close()

    def predict(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the answers to pictures (N, height, width, 3), 0..255, and columns: output name -> float32 (N, ...)."""
        return {name: answer.astype(np.float32) for name, answer in self._artifact.predict(given).items()}

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Return the latency of one picture, (height, width, 3) or as `Inputs`, in ms, `repeats` times, after a warm-up."""
        return self._artifact.time_one(one, repeats)


class LitertWebRunner:
    """Answers of one TFLite artifact in LiteRT.js, as a context manager.

    LiteRT.js wants a fixed batch, so it is given the artifact with its batch fixed to one image
    (`exporters.runners.static_batch.with_static_batch`); and it tells no scales, so they are read from the file.

    Args:
        folder: the artifact's folder, which holds `model.tflite`.
        backend: `wasm`.
        threads: LiteRT.js uses one, whatever the number: the build with threads is not carried.

    Attributes: as `TfjsChromiumRunner` has them; `version` is LiteRT.js's.
    """

    name = "litert-js"

    def __init__(self, folder: Path, *, backend: str = "wasm", threads: int | None = None) -> None:
        self.backend = check_backend("LiteRT.js", backend, ("wasm",))
        self.version = self.where = ""
        self._folder = Path(folder)
        self._artifact: PageArtifact | None = None

    def __enter__(self) -> LitertWebRunner:
        """Load the model; raises NotVerifiedError without a browser, ParityError where it cannot be loaded."""
        try:
            model = (self._folder / TFLITE_FILE).read_bytes()
        except OSError as fault:
            raise ParityError(
                f"{self._folder / TFLITE_FILE} cannot be read: {fault.strerror}.",
                "the model's file",
                "export the artifact again",
            ) from fault
        signature = read_signature(model)
        self.input_name, _ = input_names(list(signature.inputs), "The TFLite model")
        self._input = signature.inputs[self.input_name]
        self._outputs = signature.outputs
        request = {"format": "tflite", "backend": self.backend, "signature": signature.key}
        self._artifact = PageArtifact(self._folder, request, {TFLITE_FILE: with_static_batch(model)})
        facts = self._artifact.open()
        self.version, self.where = facts["version"], self._artifact.where
        self.input_dtype = self._input.dtype
        self.input_scale = (self._input.scale, self._input.zero_point)
        self.output_names = self._artifact.output_names
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._artifact is not None:
            self._artifact.close()

    def predict(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the answers to pictures (N, height, width, 3), 0..255, and columns: output name -> float32 (N, ...)."""
        answers = self._artifact.predict(_quantised(as_inputs(given), self._input))
        return {name: _dequantised(answer, self._outputs[name]) for name, answer in answers.items()}

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Return the latency of one picture, (height, width, 3) or as `Inputs`, in ms, `repeats` times, after a warm-up."""
        return self._artifact.time_one(_quantised(one_of(one), self._input), repeats)


def _quantised(inputs: Inputs, facts: TensorFacts) -> Inputs:
    """Return the pictures in the model's own dtype; columns stay as they are, in float32."""
    if facts.dtype != "uint8":
        return inputs
    steps = np.rint(inputs.images.astype(np.float64) / facts.scale) + facts.zero_point
    return Inputs(np.clip(steps, 0, 255).astype(np.uint8), inputs.columns)


def _dequantised(answer: np.ndarray, facts: TensorFacts) -> np.ndarray:
    if facts.dtype == "float32":
        return answer
    return ((answer.astype(np.float32) - facts.zero_point) * facts.scale).astype(np.float32)
