"""Runs a TF.js artifact in TF.js itself, in a Node process of its own."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import shutil
import struct
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from exporters.contract import is_features_name
from exporters.errors import InputError, NotVerifiedError, ParityError
from exporters.inputs import Inputs, as_inputs, check_columns, input_names, one_of, to_bytes

BUNDLE = Path(__file__).parents[1] / "javascript" / "runner.mjs"
OLDEST_NODE = 20
BACKENDS = ("wasm", "cpu")
GRAPH_MODEL, LAYERS_MODEL = "graph-model", "layers-model"
BATCH = 16
STOP_SECONDS = 5.0


@functools.cache
def check_node(node: str) -> str:
    """Return the version of Node, such as `20.20.2`.

    Args:
        node: the command, a name on PATH or a path.

    Raises:
        NotVerifiedError: there is none, or it is older than Node 20.
    """
    expected = f"Node {OLDEST_NODE} or later as '{node}'"
    mend = f"install Node {OLDEST_NODE} or later from your system's packages or nodejs.org"
    path = shutil.which(node)
    if path is None:
        raise NotVerifiedError(f"TF.js cannot be run: there is no '{node}' on this machine.", expected, mend)
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
        version = answer.stdout.strip().removeprefix("v")
        major = int(version.split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError) as fault:
        raise NotVerifiedError(f"TF.js cannot be run: '{path} --version' failed: {fault}.", expected, mend) from fault
    if major < OLDEST_NODE:
        raise NotVerifiedError(f"TF.js cannot be run: '{path}' is Node {version}.", expected, mend)
    return version


class TfjsRunner:
    """A TF.js model that answers, as a context manager.

    Args:
        folder: holds model.json and its weight files.
        backend: `wasm` or `cpu`.
        threads: how many it may use; TF.js under Node uses one, whatever the number.
        node: the command that starts Node.
        model_format: what model.json must hold, `graph-model` or `layers-model`.

    Attributes:
        name: `tfjs-node`.
        version: TF.js's version, known inside the context.
        backend: the backend that computes.
        input_name: what the model calls its input, known inside the context.
        output_names: all outputs that the model has, sorted, `features` included.
    """

    name = "tfjs-node"

    def __init__(
        self,
        folder: Path,
        *,
        backend: str = "wasm",
        threads: int | None = None,
        node: str = "node",
        model_format: str = GRAPH_MODEL,
    ) -> None:
        if backend not in BACKENDS:
            raise InputError(f"TF.js under Node has no backend '{backend}'.", f"one of {', '.join(BACKENDS)}")
        self.folder = Path(folder)
        self.backend = backend
        self.version = ""
        self.input_name = ""
        self.columns_name: str | None = None
        self.output_names: tuple[str, ...] = ()
        self._node = node
        self._model_format = model_format
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: collections.deque[str] = collections.deque(maxlen=20)
        self._listener: threading.Thread | None = None

    def __enter__(self) -> TfjsRunner:
        """Start Node and load the model.

        Raises:
            NotVerifiedError: Node is missing or too old, or the runner was not built.
            ParityError: TF.js cannot load the model.
        """
        check_node(self._node)
        if not BUNDLE.is_file():
            raise NotVerifiedError(f"TF.js cannot be run: {BUNDLE} is missing.", "the built Node runner", "make setup")
        self._process = subprocess.Popen(
            [
                shutil.which(self._node) or self._node,
                str(BUNDLE),
                str(self.folder.resolve()),
                self.backend,
                self._model_format,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        # Node would stop at a full pipe if nobody read what it complains of.
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()
        try:
            hello, _ = self._receive("could not be loaded")
        except BaseException:
            self._stop(patience=0)
            raise
        self.version = hello["version"]
        self.backend = hello["backend"]
        try:
            self.input_name, self.columns_name = input_names(hello["input_names"], self._what)
        except ParityError:
            self._stop(patience=0)
            raise
        self.input_dtype, self.input_scale = "float32", (1.0, 0)
        self.output_names = tuple(hello["output_names"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop Node; at once where something failed, since it may still be computing."""
        self._stop(patience=STOP_SECONDS if kind is None else 0)

    def predict(self, given: np.ndarray | Inputs, *, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Answer for a batch of any size.

        Args:
            given: pictures (N, H, W, 3), uint8 or float32, RGB 0..255, with columns for a model that takes such.
            outputs: names of the outputs to compute; all heads by default, thus no features.

        Returns:
            float32 (N, ...) by output name.

        Raises:
            InputError: the images are not such an array, columns are missing, or there is no place for them.
            ParityError: TF.js fails, or its process died.
        """
        wanted = self._wanted(outputs)
        return self._in_batches(self._checked(given), {"command": "predict", "outputs": wanted})

    def values_of(self, given: np.ndarray | Inputs, nodes: Sequence[str]) -> dict[str, np.ndarray]:
        """Return what nodes of the graph, or layers of the layers model, give, inner ones too.

        Args:
            given: as `predict` takes it.
            nodes: their names, as model.json has them.

        Returns:
            float32 (N, ...) by name.

        Raises:
            InputError: as `predict` raises it.
            ParityError: there is no such node, TF.js fails, or its process died.
        """
        return self._in_batches(self._checked(given), {"command": "nodes", "nodes": list(nodes)})

    def features(self, given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
        """Return the feature maps that an artifact gives of raw pixels: output name -> float32 (N, height, width, channels)."""
        names = [name for name in self.output_names if is_features_name(name)]
        return self.predict(given, outputs=names) if names else {}

    def time_one(self, one: np.ndarray | Inputs, repeats: int) -> list[float]:
        """Measure single answers, heads only, inside Node and after warming up.

        Args:
            one: (H, W, 3) or (1, H, W, 3), uint8 or float32, 0..255; or `Inputs` of length 1.
            repeats: how many to measure.

        Returns:
            Milliseconds from array to downloaded answer, one for each repeat.
        """
        inputs = self._checked(one_of(one))
        header, _ = self._ask(inputs[:1], {"command": "time", "outputs": self._wanted(None), "repeats": repeats})
        return [float(each) for each in header["times_ms"]]

    def _wanted(self, outputs: Sequence[str] | None) -> list[str]:
        return (
            list(outputs) if outputs is not None else [each for each in self.output_names if not is_features_name(each)]
        )

    @property
    def _what(self) -> str:
        return f"The TF.js model in {self.folder}"

    def _checked(self, given: np.ndarray | Inputs) -> Inputs:
        inputs = as_inputs(given)
        images = inputs.images
        if images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0 or images.dtype not in (np.uint8, np.float32):
            raise InputError(
                f"TF.js was given images of shape {images.shape} and type {images.dtype}.",
                "(N, H, W, 3) with N of at least 1, uint8 or float32",
                "convert the images first",
            )
        check_columns(inputs, self.columns_name, self._what)
        return inputs

    def _in_batches(self, inputs: Inputs, request: Mapping[str, Any]) -> dict[str, np.ndarray]:
        batches = [self._ask_values(inputs[at : at + BATCH], request) for at in range(0, len(inputs), BATCH)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _ask_values(self, inputs: Inputs, request: Mapping[str, Any]) -> dict[str, np.ndarray]:
        header, payload = self._ask(inputs, request)
        answers: dict[str, np.ndarray] = {}
        at = 0
        for output in header["outputs"]:
            count = int(np.prod(output["shape"]))
            values = np.frombuffer(payload, dtype="<f4", count=count, offset=at)
            answers[output["name"]] = values.astype(np.float32).reshape(output["shape"])
            at += 4 * count
        return answers

    def _ask(self, inputs: Inputs, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("a TfjsRunner answers only inside its with statement")
        told, payload = to_bytes(inputs)
        text = json.dumps({**request, **told, "bytes": len(payload)}).encode()
        try:
            self._process.stdin.write(struct.pack("<I", len(text)) + text)
            self._process.stdin.write(payload)
            self._process.stdin.flush()
        except OSError as fault:
            raise self._died("did not take the images") from fault
        return self._receive("failed to answer")

    def _receive(self, what: str) -> tuple[dict[str, Any], bytes]:
        header = json.loads(self._read(struct.unpack("<I", self._read(4, what))[0], what))
        if "error" in header:
            raise ParityError(
                f"The TF.js model in {self.folder} {what} ({self.backend}): {header['error']}",
                f"a {self._model_format.replace('-', ' ')} that TF.js loads and runs",
                "export it again",
            )
        return header, self._read(header["bytes"], what)

    def _read(self, count: int, what: str) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise self._died(what)
        return data

    def _died(self, what: str) -> ParityError:
        assert self._process is not None and self._listener is not None
        self._process.kill()
        code = self._process.wait()
        self._listener.join()
        said = " | ".join(self._complaints) or "nothing"
        return ParityError(
            f"The TF.js model in {self.folder} {what}: Node ended (status {code}) and said {said}.",
            "a Node process that stays alive",
            "look at the message; where memory ran out, free some",
        )

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._complaints.append(line.decode(errors="replace").strip()[:400])

    def _stop(self, patience: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._listener.join()  # type: ignore[union-attr]
        for stream in (process.stdout, process.stderr):
            stream.close()  # type: ignore[union-attr]


def layers_runner(folder: Path, **options: Any) -> TfjsRunner:
    """Return the runner of a TF.js layers model, not yet entered; `options` as `TfjsRunner` takes them."""
    return TfjsRunner(folder, model_format=LAYERS_MODEL, **options)
