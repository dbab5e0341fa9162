"""Runs TFLite artifacts in LiteRT (ai-edge-litert), by the names of the `serving_default` signature."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from exporters.contract import is_features_name
from exporters.errors import MissingKernelError, ParityError
from exporters.inputs import Inputs, as_inputs, check_columns, input_names, one_of

MODEL_FILE = "model.tflite"
SIGNATURE = "serving_default"
BATCH = 16
WHAT = "The TFLite model"
NO_KERNEL = "Didn't find op for builtin opcode"
_RESOLVERS = {"xnnpack": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}


class TfliteRunner:
    """Answers of one TFLite artifact.

    Args:
        model: the artifact's folder, which holds `model.tflite`; or the model's bytes.
        backend: `xnnpack`, or `reference` for the reference kernels (exact, and many times slower).
        threads: how many threads XNNPACK may use; None: one for each core.
        batch: how many images it is given at once, where its batch is open: what looks past its own image is found out.
    """

    name = "litert"

    def __init__(
        self, model: Path | bytes, *, backend: str = "xnnpack", threads: int | None = None, batch: int = BATCH
    ) -> None:
        self.backend = backend
        self.version = importlib.metadata.version("ai-edge-litert")
        self._model = model
        self._batch = batch
        self._threads = threads or os.cpu_count() or 1

    def __enter__(self) -> TfliteRunner:
        try:
            self._interpreter = Interpreter(
                model_content=self._model
                if isinstance(self._model, bytes)
                else (self._model / MODEL_FILE).read_bytes(),
                num_threads=self._threads,
                experimental_op_resolver_type=_RESOLVERS[self.backend],
            )
            # A model made elsewhere may hold one signature of another name; with None LiteRT takes that one.
            known = self._interpreter.get_signature_list()
            self._signature = self._interpreter.get_signature_runner(SIGNATURE if SIGNATURE in known else None)
            inputs, outputs = self._signature.get_input_details(), self._signature.get_output_details()
        except (OSError, ValueError, RuntimeError, KeyError) as fault:
            if self.backend == "reference" and NO_KERNEL in str(fault):
                # They are there to check XNNPACK, which no device lacks; that they are fewer is no fault of a model.
                raise MissingKernelError(
                    f"LiteRT's reference kernels lack an operator: {str(fault).splitlines()[0]}",
                    "an operator that they have",
                    "nothing: XNNPACK runs it",
                ) from fault
            raise ParityError(
                f"LiteRT cannot load the model: {fault}.",
                f"a TFLite model with the signature {SIGNATURE}",
                "export the artifact again",
            ) from fault
        self.input_name, self.columns_name = input_names(list(inputs), WHAT)
        self._inputs, self._input = inputs, inputs[self.input_name]
        # LiteRT would take another number of columns too, and read past what the model knows of.
        self._columns_count = int(inputs[self.columns_name]["shape_signature"][1]) if self.columns_name else None
        self._outputs = outputs
        self.input_dtype = np.dtype(self._input["dtype"]).name
        self.input_scale = tuple(self._input["quantization"]) if self.input_dtype == "uint8" else (1.0, 0)
        self.output_names = tuple(sorted(outputs))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signature = self._interpreter = None

    def predict(self, given: np.ndarray | Inputs, *, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return the answers to raw pixels.

        Args:
            given: pictures (N, height, width, 3), 0..255, uint8 or float32, with columns for a model that takes such.
            outputs: names of the outputs wanted; all by default.

        Returns:
            output name -> float32 (N, ...), dequantised where the artifact answers in integers.

        Raises:
            InputError: columns are missing, or there is no place for them.
            ParityError: LiteRT cannot run the model.
        """
        inputs = as_inputs(given)
        check_columns(inputs, self.columns_name, WHAT, self._columns_count)
        names = tuple(outputs) if outputs is not None else self.output_names
        rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
        size = self._batch if self._input["shape_signature"][0] == -1 else 1
        for start in range(0, len(inputs), size):
            answers = self._invoke(inputs[start : start + size])
            for name in names:
                rows[name].append(_dequantise(answers[name], self._outputs[name]))
        return {name: np.concatenate(parts) if parts else np.empty((0,), np.float32) for name, parts in rows.items()}

    def features(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the feature maps that an artifact gives of raw pixels: output name -> float32 (N, height, width, channels)."""
        names = [name for name in self.output_names if is_features_name(name)]
        return self.predict(given, outputs=names) if names else {}

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Return the latency of one picture, (height, width, 3) or as `Inputs`, in ms, `repeats` times, after a warm-up."""
        times, inputs = [], one_of(one)
        check_columns(inputs, self.columns_name, WHAT, self._columns_count)
        for _ in range(repeats + 2):
            start = time.perf_counter()
            self._invoke(inputs)
            times.append((time.perf_counter() - start) * 1000)
        return times[2:]

    def _invoke(self, batch: Inputs) -> dict[str, np.ndarray]:
        fed = {self.input_name: _quantise(batch.images, self._input)}
        if self.columns_name:
            fed[self.columns_name] = _quantise(batch.columns, self._inputs[self.columns_name])
        try:
            return self._signature(**fed)
        except (ValueError, RuntimeError) as fault:
            raise ParityError(
                f"LiteRT cannot run the model: {fault}.",
                "an answer to one image",
                "export the artifact again; `tflite-float32` tells whether the precision is the cause",
            ) from fault


def _quantise(batch: np.ndarray, details: dict) -> np.ndarray:
    if details["dtype"] == np.float32:
        return np.ascontiguousarray(batch, np.float32)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    steps = np.rint(batch.astype(np.float64) / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(details["dtype"])


def _dequantise(answer: np.ndarray, details: dict) -> np.ndarray:
    if details["dtype"] == np.float32:
        return np.array(answer)
    scale, zero_point = details["quantization"]
    return ((answer.astype(np.float32) - zero_point) * scale).astype(np.float32)
