"""Runs ONNX artifacts in onnxruntime, by the names of inputs and outputs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime

from exporters.contract import is_features_name
from exporters.errors import ParityError
from exporters.inputs import Inputs, as_inputs, check_columns, fill_up, input_names, one_of

MODEL_FILE = "model.onnx"
BATCH = 16
WHAT = "The ONNX model"


class OnnxRunner:
    """Answers of one ONNX artifact.

    Args:
        folder: the artifact's folder, which holds `model.onnx`.
        backend: `cpu`, onnxruntime's CPUExecutionProvider.
        threads: how many threads one operator may use; None: onnxruntime's own choice.
    """

    name = "onnxruntime"

    def __init__(self, folder: Path, *, backend: str = "cpu", threads: int | None = None) -> None:
        self.backend = backend
        self.version = onnxruntime.__version__
        self._path = Path(folder) / MODEL_FILE
        self._threads = threads

    def __enter__(self) -> OnnxRunner:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self._threads:
            options.intra_op_num_threads = self._threads
        try:
            # From bytes, so that a model with external data outside its folder is refused, not followed.
            self._session = onnxruntime.InferenceSession(
                # Without the fallback, which prints to stdout and tries the same provider again.
                self._path.read_bytes(),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,
            )
        except Exception as fault:  # onnxruntime's exceptions share no base class but Exception
            raise ParityError(
                f"onnxruntime cannot load the model: {fault}.",
                "an ONNX model",
                "export the artifact again",
            ) from fault
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        self.input_name, self.columns_name = input_names(list(self._inputs), WHAT)
        self.input_dtype, self.input_scale = "float32", (1.0, 0)
        self.output_names = tuple(sorted(each.name for each in self._session.get_outputs()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def predict(self, given: np.ndarray | Inputs, *, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return the answers to raw pixels.

        Args:
            given: pictures (N, height, width, 3), 0..255, uint8 or float32, with columns for a model that takes such.
            outputs: names of the outputs wanted; all by default.

        Returns:
            output name -> float32 (N, ...).

        Raises:
            InputError: columns are missing, or there is no place for them.
            ParityError: onnxruntime cannot run the model.
        """
        inputs = as_inputs(given)
        check_columns(inputs, self.columns_name, WHAT)
        if not len(inputs):
            return {name: np.empty((0,), np.float32) for name in self.output_names}
        # A model made elsewhere may have a fixed batch: the last one is then filled up, and cut off again.
        fixed = self._inputs[self.input_name].shape[0]
        size = fixed if isinstance(fixed, int) and fixed > 0 else BATCH
        filled = fill_up(inputs, size) if size == fixed else inputs
        names = tuple(outputs) if outputs is not None else self.output_names
        parts = [self._invoke(filled[start : start + size], names) for start in range(0, len(filled), size)]
        return {name: np.concatenate([part[name] for part in parts])[: len(inputs)] for name in names}

    def features(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the feature maps that an artifact gives of raw pixels: output name -> float32 (N, height, width, channels)."""
        names = [name for name in self.output_names if is_features_name(name)]
        return self.predict(given, outputs=names) if names else {}

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Return the latency of one picture, (height, width, 3) or as `Inputs`, in ms, `repeats` times, after a warm-up."""
        times, inputs = [], one_of(one)
        check_columns(inputs, self.columns_name, WHAT)
        for _ in range(repeats + 2):
            start = time.perf_counter()
            self._invoke(inputs, self.output_names)
            times.append((time.perf_counter() - start) * 1000)
        return times[2:]

    def _invoke(self, batch: Inputs, names: Sequence[str]) -> dict[str, np.ndarray]:
        fed = {self.input_name: np.ascontiguousarray(batch.images, dtype=np.float32)}
        if self.columns_name:
            fed[self.columns_name] = np.ascontiguousarray(batch.columns, dtype=np.float32)
        try:
            answers = self._session.run(list(names), fed)
        except Exception as fault:  # onnxruntime's exceptions share no base class but Exception
            raise ParityError(
                f"onnxruntime cannot run the model: {fault}.", "an answer to one image", "export the artifact again"
            ) from fault
        return {name: np.asarray(answer, dtype=np.float32) for name, answer in zip(names, answers, strict=True)}
