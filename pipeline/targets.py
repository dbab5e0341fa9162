"""What heads learn from: how the cells of the data become arrays of truth. Light: numpy and Pillow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporters.contract import (
    BINARY,
    BOXES,
    CLASSIFICATIONS,
    EMBEDDING,
    MULTICLASS,
    MULTILABEL,
    ORDINAL,
    REGRESSION,
    SEGMENTATION,
)
from exporters.errors import InputError, nearest
from pipeline.geometry import Grid, label_map_shape

if TYPE_CHECKING:
    from exporters.contract import Resize
    from pipeline.config import Config, HeadSection
    from pipeline.splitting import Dataset, Example

# How the cells of a column are read: one label, labels with | between them, a number, the side of a box
# in px, the path of a mask.
LABEL, LABELS, NUMBER, SIDE, MASK = "label", "labels", "number", "side", "mask"
BETWEEN_LABELS = "|"
READINGS = {
    **dict.fromkeys((MULTICLASS, BINARY, ORDINAL, EMBEDDING), LABEL),
    REGRESSION: NUMBER,
    MULTILABEL: LABELS,
    BOXES: SIDE,
    SEGMENTATION: MASK,
}
BOX_UNIT = "share of the picture"
USUAL_COLUMNS = {BOXES: ("x_min", "y_min", "x_max", "y_max"), SEGMENTATION: ("mask",)}


@dataclasses.dataclass(frozen=True)
class Target:
    """What one head learns.

    `columns` of the data; `labels` in index order, empty where the task has none; `unit` of a regression's numbers. `how`
    pictures are resized, which boxes and masks follow; `grid` of a head that takes feature maps and answers with label maps.
    """

    task: str
    columns: tuple[str, ...]
    labels: tuple[str, ...] = ()
    unit: str = ""
    how: Resize | None = None
    grid: Grid | None = None

    @property
    def units(self) -> int:
        """How many numbers an answer of a dense head has; 0 for a task that does not come from one."""
        if self.task == BINARY:
            return 1
        if self.task == ORDINAL:
            return len(self.labels) - 1
        return len(self.columns) if self.task in (REGRESSION, BOXES) else len(self.labels)

    def truth(self, examples: Sequence[Example]) -> np.ndarray:
        """Return the truth of the examples, as `exporters.contract.TASKS` describes it: int64, uint8 or float32 (N, ...)."""
        if self.task in (BOXES, SEGMENTATION):
            return self._places(examples)
        if self.task == REGRESSION:
            rows = [[number(each.targets[column]) for column in self.columns] for each in examples]
            return np.array(rows, np.float32).reshape(len(examples), len(self.columns))
        positions = {label: index for index, label in enumerate(self.labels)}
        cells = [each.targets[self.columns[0]] for each in examples]
        if self.task == MULTILABEL:
            found = np.zeros((len(examples), len(self.labels)), np.int64)
            for row, cell in enumerate(cells):
                found[row, [positions[label] for label in split_labels(cell)]] = 1
            return found
        return np.array([positions[cell] for cell in cells], np.int64)

    def _places(self, examples: Sequence[Example]) -> np.ndarray:
        # Reads files, which the targets of other heads do without.
        from pipeline.places import boxes_of, label_maps_of

        if self.task == BOXES:
            return boxes_of(examples, self.columns, self.how)
        return label_maps_of(examples, self.columns[0], self.labels, self.how)


def columns_of(section: HeadSection, task: str) -> tuple[str, ...]:
    """Return the columns that a head learns from: those that are named, else what is usual for the task."""
    if section.target:
        return (section.target,) if isinstance(section.target, str) else section.target
    return USUAL_COLUMNS.get(task, ("label",))


def readings_of(config: Config) -> dict[str, str]:
    """Return column -> how it is read, for all heads that learn; raises InputError where two heads read one otherwise."""
    from pipeline.heads import learns, task_of

    found: dict[str, str] = {}
    for name, section in sorted(config.heads.items()):
        if not learns(section):
            continue
        task = task_of(section)
        for column in columns_of(section, task):
            reading = READINGS[task]
            if found.setdefault(column, reading) != reading:
                raise InputError(
                    f"The head '{name}' reads the column '{column}' as {reading}, and another one as {found[column]}.",
                    "one way to read a column",
                    "give the column twice in the CSV, under two names",
                )
    return found


def as_readings(targets: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return column -> reading; plain names of columns hold one label each."""
    return dict(targets) if isinstance(targets, Mapping) else dict.fromkeys(targets, LABEL)


def split_labels(cell: str) -> list[str]:
    """Return the labels of a cell such as `red|round`; an empty cell has none."""
    return sorted({part.strip() for part in cell.split(BETWEEN_LABELS)} - {""})


def number(cell: str) -> float:
    """Return the number in a cell; raises ValueError where there is none, or none that can be learned."""
    found = float(cell.strip().replace("\u2212", "-"))
    if not math.isfinite(found):
        raise ValueError(cell)
    return found


def target_of(
    name: str,
    section: HeadSection,
    dataset: Dataset,
    how: Resize | None = None,
    maps: Sequence[tuple[int, int, int]] = (),
) -> Target:
    """Return what a head learns from a dataset.

    Args:
        name, section: of the head.
        dataset: the data.
        how: the resize, for boxes and label maps.
        maps: (height, width, channels) of each cut that reaches the head, for one that takes feature maps.

    Raises:
        InputError: the labels do not suit the task, or are not those that the configuration lists.
    """
    from pipeline.heads import learns, task_of

    task = task_of(section)
    if not learns(section):
        return Target(task, ())
    columns = columns_of(section, task)
    if task == REGRESSION:
        return Target(task, columns, unit=section.unit)
    if task == BOXES:
        return Target(task, columns, unit=BOX_UNIT, how=how)
    if task == SEGMENTATION:
        from pipeline.places import labels_of_map

        grid = Grid(tuple(maps), label_map_shape(how))
        return Target(task, columns, labels_of_map(name, section), how=how, grid=grid)
    found = _labels_in(dataset, columns[0])
    labels = _in_order(name, section, task, found)
    if task == BINARY and len(labels) != 2:
        raise InputError(
            f"The column '{columns[0]}' of the head '{name}' has {len(labels)} labels, {_listed(labels)}.",
            "two labels for the task binary",
            f'set heads.{name}.task = "multiclass"',
        )
    return Target(task, columns, labels)


def listed_target(name: str, section: HeadSection, examples: Sequence[Example]) -> Target:
    """Return what a head of labels or numbers learns if every listed picture can be read; raises as `target_of` does."""
    from pipeline.heads import task_of
    from pipeline.splitting import Dataset

    task = task_of(section)
    column = columns_of(section, task)[0]
    labels = labels_of((each.targets[column] for each in examples), READINGS[task])
    return target_of(name, section, Dataset(tuple(examples), {column: labels}, (), (), ""))


def check_labels(config: Config, examples: Sequence[Example]) -> None:
    """Raise InputError where labels do not suit a head's task, or are not those that it lists: before pictures are decoded."""
    from pipeline.heads import learns, task_of

    for name, section in sorted(config.heads.items()):
        if learns(section) and READINGS[task_of(section)] in (LABEL, LABELS):
            listed_target(name, section, examples)


def labels_of(cells: Iterable[str], reading: str) -> tuple[str, ...]:
    """Return the labels in cells of a column, sorted; none for numbers and masks."""
    if reading not in (LABEL, LABELS):
        return ()
    split = split_labels if reading == LABELS else lambda cell: [cell]
    return tuple(sorted({label for cell in set(cells) for label in split(cell)}))


def _labels_in(dataset: Dataset, column: str) -> tuple[str, ...]:
    return dataset.labels[column]


def _in_order(name: str, section: HeadSection, task: str, found: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels in the order that is configured, else sorted; those of an ordinal task as numbers."""
    if section.labels:
        strangers = sorted(set(found) - set(section.labels))
        if strangers or len(set(section.labels)) != len(section.labels):
            what = f"does not list {strangers[0]!r}, which the data hold" if strangers else "lists a label twice"
            raise InputError(
                f"heads.{name}.labels {what}.",
                f"each of {_listed(found)} once, in their order",
                "correct the list, or leave it out",
            )
        unused = [label for label in section.labels if label not in found]
        if unused:
            raise InputError(
                f"heads.{name}.labels lists {unused[0]!r}, and no picture has it.",
                nearest(unused[0], found),
                "take it out: what was never shown cannot be learned",
            )
        return section.labels
    if task != ORDINAL:
        return found
    try:
        return tuple(sorted(found, key=number))
    except ValueError:
        raise InputError(
            f"The order of the labels {_listed(found)} of the head '{name}' is not known.",
            "numbers, or a list of the labels from the lowest to the highest",
            f'set heads.{name}.labels = ["low", "middle", "high"], with your labels',
        ) from None


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:6]))
    return f"{shown}, ..." if len(labels) > 6 else shown


def is_classification(task: str) -> bool:
    """Tell whether a task's answers are probabilities of labels of the whole picture."""
    return task in CLASSIFICATIONS
