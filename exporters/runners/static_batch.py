"""Reads what LiteRT.js does not tell of a TFLite model, and gives the model the fixed batch that LiteRT.js wants.

Light: the generated reader of the file format that comes with ai-edge-litert, and numpy; no interpreter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from exporters.errors import ParityError

SIGNATURE = "serving_default"
DYNAMIC = -1
DTYPES = {0: "float32", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 10: "float16"}


@dataclasses.dataclass(frozen=True)
class TensorFacts:
    """One input or output of a signature: `value = scale * (stored - zero_point)` where `dtype` is an integer."""

    dtype: str
    scale: float = 1.0
    zero_point: int = 0


@dataclasses.dataclass(frozen=True)
class SignatureFacts:
    """A model's signature: its key, and its inputs and outputs by name."""

    key: str
    inputs: dict[str, TensorFacts]
    outputs: dict[str, TensorFacts]


def read_signature(model: bytes) -> SignatureFacts:
    """Return the signature `serving_default` of a TFLite model; where there is only one, of whatever name, that one.

    Raises:
        ParityError: the bytes are no TFLite model, or there is no such signature.
    """
    with _reading():
        return _read_signature(_root(model))


def _read_signature(root: Any) -> SignatureFacts:
    signatures = [root.SignatureDefs(index) for index in range(root.SignatureDefsLength())]
    keys = [_text(each.SignatureKey()) for each in signatures]
    if SIGNATURE not in keys and len(keys) != 1:
        raise ParityError(f"The TFLite model has the signatures {keys}.", SIGNATURE, "export the artifact again")
    chosen = signatures[keys.index(SIGNATURE) if SIGNATURE in keys else 0]
    graph = root.Subgraphs(chosen.SubgraphIndex())

    def facts(count: int, at: Any) -> dict[str, TensorFacts]:
        maps = [at(index) for index in range(count)]
        return {_text(each.Name()): _facts(graph.Tensors(each.TensorIndex())) for each in maps}

    return SignatureFacts(
        _text(chosen.SignatureKey()),
        facts(chosen.InputsLength(), chosen.Inputs),
        facts(chosen.OutputsLength(), chosen.Outputs),
    )


def with_static_batch(model: bytes) -> bytes:
    """Return the model with a batch of exactly one image in place of any number.

    A TFLite file notes for each tensor a shape, in which the batch is 1, and beside it a signature of the shape, in
    which a free axis is -1. Only these -1 are overwritten, by 1, where they lie: weights, operators and everything
    else stay as they are, byte for byte.

    Raises:
        ParityError: no TFLite model, or an axis other than the first is free.
    """
    patched = bytearray(model)
    with _reading():
        root = _root(patched)
        for graph in (root.Subgraphs(index) for index in range(root.SubgraphsLength())):
            for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
                _fix_batch(tensor)
    return bytes(patched)


def _fix_batch(tensor: Any) -> None:
    if not tensor.ShapeSignatureLength():
        return
    # A view into the model's bytes, so that writing to it writes there.
    signature, shape = tensor.ShapeSignatureAsNumpy(), tensor.ShapeAsNumpy()
    free = np.flatnonzero(signature == DYNAMIC)
    if len(free) and (free.tolist() != [0] or shape[0] != 1):
        raise ParityError(
            f"The tensor '{_text(tensor.Name())}' of the TFLite model has the shape {signature.tolist()}.",
            "no free axis but the batch",
            "export the artifact again",
        )
    signature[free] = 1


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (struct.error, IndexError, TypeError, ValueError, AttributeError) as fault:
        raise ParityError(
            f"The TFLite model cannot be read: {fault}.", "a file of the format TFL3", "export the artifact again"
        ) from fault


def _root(model: bytes | bytearray) -> Any:
    # Here, so that the module costs nothing where no TFLite model is read.
    from ai_edge_litert import schema_py_generated as schema

    if len(model) < 8 or not schema.Model.ModelBufferHasIdentifier(model, 0):
        raise ParityError("The bytes are no TFLite model.", "a file of the format TFL3", "export the artifact again")
    return schema.Model.GetRootAs(model, 0)


def _facts(tensor: Any) -> TensorFacts:
    quantization = tensor.Quantization()
    dtype = DTYPES.get(tensor.Type(), f"type {tensor.Type()}")
    if dtype == "float32" or quantization is None or quantization.ScaleLength() != 1:
        return TensorFacts(dtype)
    return TensorFacts(dtype, float(quantization.Scale(0)), int(quantization.ZeroPoint(0)))


def _text(name: bytes | None) -> str:
    return (name or b"").decode()
