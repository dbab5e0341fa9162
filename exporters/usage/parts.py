"""What the code of every language is made from: placeholders that are filled, and how each output's numbers are read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping

from exporters.columns import CATEGORY
from exporters.contract import BINARY, BOXES, EMBEDDING, MULTILABEL, ORDINAL, SEGMENTATION, ArtifactName, Card, Output
from exporters.papers import labels_files

SIDES = ("x_min", "y_min", "x_max", "y_max")
# How an output's numbers are read, where its task alone tells; else `RANKED` with labels, `NAMED` without.
RANKED, NAMED = "ranked", "named"
_KNOWN = (BINARY, MULTILABEL, ORDINAL, EMBEDDING, SEGMENTATION)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the numbers of one output become an answer.

    `way` is RANKED, NAMED or one of the tasks; `labels` is the file with its labels, empty without; `names` are those of its
    numbers where `way` is NAMED.
    """

    output: Output
    way: str
    labels: str
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Language:
    """The parts of a language's code, with placeholders; a value of several lines is put in as it stands, indented as its place.

    `template` is the whole; `fits` crop -> how a picture is brought to the model's size; `labels` and `classes` what reading
    labels and segmentations takes; `reads` way of reading -> expression; `entry` joins an output's name and its expression;
    `runtimes` format -> what differs by it; `runs` format -> the lines that give an output's numbers; `columns` what stands
    for unknown columns; `beside` the parameter of columns and how it is passed on; `literal` quotes a text; `one_at_a_time` the
    formats whose runtime wants a model of one picture at a time.
    """

    template: str
    fits: Mapping[str, str]
    labels: str
    classes: str
    reads: Mapping[str, str]
    entry: str
    runtimes: Mapping[str, Mapping[str, str]]
    runs: Mapping[str, Callable[[Card], str]]
    columns: Callable[[Card], str]
    beside: tuple[str, str]
    literal: Callable[[str], str]
    one_at_a_time: frozenset[str] = frozenset()

    def wants_another_batch(self, name: ArtifactName, card: Card) -> bool:
        """Tell whether the language could run the format, were it not for the model's batch."""
        return name.format in self.one_at_a_time and card.batch is None

    def code(self, name: ArtifactName, card: Card) -> str:
        """Return code with `pixels`, `numbers` and `answer`; empty where the language has no runtime for the artifact."""
        if name.format not in self.runtimes or self.wants_another_batch(name, card):
            return ""
        told = readings(card)
        size = {"WIDTH": card.resize.width, "HEIGHT": card.resize.height}
        helpers = [self.labels] * any(each.labels and each.way != SEGMENTATION for each in told)
        helpers += [self.classes] * any(each.way == SEGMENTATION for each in told)
        parameter, argument = self.beside if card.columns else ("", "")
        values = {
            **size,
            **self.runtimes[name.format],
            "FOLDER": str(name),
            "COLUMNS": self.columns(card) if card.columns else "",
            "PARAMETER": parameter,
            "ARGUMENT": argument,
            "FIT": fill(self.fits[card.resize.crop], size),
            "RUN": self.runs[name.format](card),
            "READ": ",\n".join(fill(self.entry, self._read(each)) for each in told),
            "LABELS": "\n\n".join(helpers),
        }
        return fill(self.template, values)

    def _read(self, reading: Reading) -> dict[str, object]:
        output = reading.output
        values = {"FILE": self.literal(reading.labels), "NAME": self.literal(output.name)}
        values |= {
            "NAMES": ", ".join(map(self.literal, reading.names)),
            "COUNT": output.shape[-1] if output.shape else 1,
        }
        return {**values, "READ": fill(self.reads[reading.way], values)}


def readings(card: Card) -> tuple[Reading, ...]:
    """Return how each output of a card is read, in the order of their names."""
    files = labels_files(card)
    found = []
    for output in sorted(card.outputs, key=lambda each: each.name):
        own = f"labels.{output.name}.txt"
        labels = own if own in files else next(iter(files)) if output.labels and len(files) == 1 else ""
        found.append(Reading(output, _way(output, labels), labels, _names(output)))
    return tuple(found)


def _way(output: Output, labels: str) -> str:
    if output.task in _KNOWN and (labels or output.task in (EMBEDDING, SEGMENTATION)):
        return output.task
    return RANKED if labels else NAMED


def _names(output: Output) -> tuple[str, ...]:
    if output.task == BOXES:
        return SIDES
    count = output.shape[-1] if output.shape else 1
    if len(output.columns) == count:
        return output.columns
    return (output.name,) if count == 1 else tuple(map(str, range(count)))


def fill(template: str, values: Mapping[str, object]) -> str:
    """Return a template with each `«NAME»` replaced by the value of that name; a line that is nothing but an empty one goes."""

    def put(found: re.Match) -> str:
        indent, name = found[1], found[2]
        if name is None:
            return str(values[found[3]])
        value = str(values[name])
        return "".join(f"{indent}{each}\n" if each else "\n" for each in value.split("\n")) if value else ""

    # In one pass: what is put in may hold such marks of its own.
    return re.sub(r"^( *)«(\w+)»\n|«(\w+)»", put, template, flags=re.M)


def quoted(text: str) -> str:
    """Return a text as a literal that Python, JavaScript and Swift read alike."""
    return json.dumps(text, ensure_ascii=False)


def listed(texts: Iterable[str]) -> str:
    """Return literals with commas between them."""
    return ", ".join(map(quoted, texts))


def names_of(card: Card) -> list[str]:
    """Return the names of the outputs, sorted."""
    return sorted(output.name for output in card.outputs)


def defaults(card: Card) -> list[tuple[str, str]]:
    """Return, for each column beside the picture, the number that stands for an unknown value, and the column's name."""
    return [("0.0" if each.kind == CATEGORY else repr(float(each.default)), each.name) for each in card.columns]
