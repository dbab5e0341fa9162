"""TFLite metadata: what MediaPipe's tasks and Android's tools read of a model, stored in the model's own file.

Their source is the schema of google-ai-edge/mediapipe, mediapipe/tasks/metadata/metadata_schema.fbs (identifier M001); the
metadata's flatbuffer is the buffer of an entry TFLITE_METADATA of the model, and the label files it names are the members of
a zip archive behind the model. Its writer in MediaPipe's package needs a native module that the package lacks, so the table is
built here, field by field.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.columns import CATEGORY, Column
from exporters.contract import (
    BINARY,
    CLASSIFICATIONS,
    COLUMNS_NAME,
    INPUT_NAME,
    MULTICLASS,
    MULTILABEL,
    SEGMENTATION,
    Card,
    Output,
)
from exporters.tflite_outputs import pack

METADATA = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
# The parser's version from which on it knows every field that is written here.
PARSER_VERSION = "1.0.0"
# The day that every member of the archive has: the same model makes the same bytes.
_NO_DATE = (1980, 1, 1, 0, 0, 0)

# Values of enumerations and unions of the schema.
_AXIS_LABELS = 2
_RGB = 1
_FEATURES, _IMAGE = 1, 2
_NORMALISATION = 1


def with_metadata(content: bytes, card: Card) -> bytes:
    """Return a TFLite model that says of itself what its card says.

    Args:
        content: a model with one signature.
        card: names, labels and what the numbers mean. The pixels' normalisation is 0 and 1, since the model takes raw ones.

    Returns:
        The model, its metadata, and behind it a zip archive with the labels of each output that has some on an axis; of a
        `binary` output the one label whose probability it is.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    signature, graph = model.signatureDefs[0], model.subgraphs[0]
    names = {int(entry.tensorIndex): _text(entry.name) for entry in (*signature.inputs, *signature.outputs)}
    labels = label_files(card)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(
        metadata_of(card, *([names[int(i)] for i in side] for side in (graph.inputs, graph.outputs))), np.uint8
    )
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    return pack(model) + (_archive(labels) if labels else b"")


def label_files(card: Card) -> dict[str, tuple[str, ...]]:
    """Return the archive's members, file -> labels, one for each value that an output gives of a class."""
    return {_file_of(output): _axis_labels(output) for output in _sorted(card) if _axis_labels(output)}


def _sorted(card: Card) -> list[Output]:
    return sorted(card.outputs, key=lambda output: output.name)


def _file_of(output: Output) -> str:
    return f"labels.{output.name}.txt"


def _axis_labels(output: Output) -> tuple[str, ...]:
    """Return one label for each value on an output's last axis; none where values stand for something else."""
    if output.task == BINARY:
        return output.labels[1:]
    return output.labels if output.task in (MULTICLASS, MULTILABEL, SEGMENTATION) else ()


def _archive(files: Mapping[str, Sequence[str]]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, labels in files.items():
            # Stored as they are: readers map the file and look inside.
            archive.writestr(zipfile.ZipInfo(name, _NO_DATE), "".join(f"{label}\n" for label in labels).encode())
    return written.getvalue()


class _Tables:
    """Writes tables of a flatbuffer whose code was never generated: each is a list of its fields, None for none."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, fields: Sequence[Callable[[int], None] | None]) -> int:
        """Write a table; each field is called with its place and adds itself."""
        self.builder.StartObject(len(fields))
        for place, field in enumerate(fields):
            if field is not None:
                field(place)
        return self.builder.EndObject()

    def offset(self, value: int | None) -> Callable[[int], None] | None:
        """Return a field that refers to a string, a vector or a table."""
        if value is None:
            return None
        return lambda place: self.builder.PrependUOffsetTRelativeSlot(place, value, 0)

    def text(self, value: str) -> Callable[[int], None] | None:
        """Return a field with a string; none for an empty one."""
        return self.offset(self.builder.CreateString(value)) if value else None

    def byte(self, value: int) -> Callable[[int], None]:
        """Return a field with a byte, such as an enumeration's."""
        return lambda place: self.builder.PrependInt8Slot(place, value, 0)

    def number(self, value: int) -> Callable[[int], None]:
        """Return a field with an unsigned number of 32 bits."""
        return lambda place: self.builder.PrependUint32Slot(place, value, 0)

    def whole(self, value: int) -> Callable[[int], None]:
        """Return a field with a signed number of 32 bits."""
        return lambda place: self.builder.PrependInt32Slot(place, value, 0)

    def tables(self, values: Sequence[int]) -> Callable[[int], None] | None:
        """Return a field with a vector of tables or strings; none for an empty one."""
        if not values:
            return None
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        return self.offset(self.builder.EndVector())

    def floats(self, values: Sequence[float]) -> Callable[[int], None] | None:
        """Return a field with a vector of float32."""
        return self.offset(self.builder.CreateNumpyVector(np.asarray(values, np.float32)))


def metadata_of(card: Card, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Return the metadata's flatbuffer; `inputs`, `outputs` are the signature's names in the order of the graph's tensors."""
    tables = _Tables()
    of_inputs = {INPUT_NAME: _image(tables, card), COLUMNS_NAME: _columns(tables, card.columns)}
    by_name = {output.name: output for output in card.outputs}
    described_inputs = tables.tables([of_inputs[name] for name in inputs])
    described_outputs = tables.tables([_output(tables, name, by_name.get(name)) for name in outputs])
    subgraph = tables.table([None, None, described_inputs, described_outputs])
    description = f"{card.backbone.name} cut at {', '.join(card.cut)}" if card.cut else card.backbone.name
    fields = [tables.text(card.name), tables.text(description), tables.text(card.created_from)]
    fields += [tables.tables([subgraph]), None, None, None, tables.text(PARSER_VERSION)]
    tables.builder.Finish(tables.table(fields), IDENTIFIER)
    return bytes(tables.builder.Output())


def _tensor(tables: _Tables, name: str, said: str, content: int | None, units: int | None, files: Sequence[int]) -> int:
    fields = [tables.text(name), tables.text(said), None, tables.offset(content)]
    fields += [tables.tables([units] if units is not None else []), None, tables.tables(files)]
    return tables.table(fields)


def _image(tables: _Tables, card: Card) -> int:
    size = tables.table([tables.number(card.resize.width), tables.number(card.resize.height)])
    properties = tables.table([tables.byte(_RGB), tables.offset(size)])
    span = tables.table([tables.whole(0), tables.whole(255)])
    content = tables.table([tables.byte(_IMAGE), tables.offset(properties), tables.offset(span)])
    options = tables.table([tables.floats([0.0]), tables.floats([1.0])])
    unit = tables.table([tables.byte(_NORMALISATION), tables.offset(options)])
    return _tensor(tables, INPUT_NAME, "RGB, raw values 0..255; pixel scaling is inside the model", content, unit, ())


def _columns(tables: _Tables, columns: Sequence[Column]) -> int:
    said = "; ".join(
        f"{column.name}: 0 for unknown, {', '.join(f'{place} {each}' for place, each in enumerate(column.categories, 1))}"
        if column.kind == CATEGORY
        else f"{column.name}: a number, {column.default:g} where it is unknown"
        for column in columns
    )
    return _tensor(tables, COLUMNS_NAME, said, _plain(tables), None, ())


def _output(tables: _Tables, name: str, output: Output | None) -> int:
    if output is None:
        return _tensor(tables, name, "feature map", _plain(tables), None, ())
    files = []
    if _axis_labels(output):
        files = [tables.table([tables.text(_file_of(output)), tables.text("labels"), tables.byte(_AXIS_LABELS)])]
    said = "probabilities of the labels" if output.task in CLASSIFICATIONS else output.unit
    return _tensor(tables, name, f"{output.task}: {said}" if said else output.task, _plain(tables), None, files)


def _plain(tables: _Tables) -> int:
    return tables.table([tables.byte(_FEATURES), tables.offset(tables.table([]))])


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name
