"""The table of heads. Light: help texts and error messages list it without loading Keras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from exporters.contract import (
    BINARY,
    BOXES,
    EMBEDDING,
    MULTICLASS,
    MULTILABEL,
    ORDINAL,
    REGRESSION,
    SEGMENTATION,
)
from exporters.errors import InputError, nearest

if TYPE_CHECKING:
    import keras

    from pipeline.config import HeadSection
    from pipeline.geometry import Grid

HEADS: dict[str, str] = {
    "linear": "pipeline.heads.linear",
    "mlp": "pipeline.heads.mlp",
    "embedding": "pipeline.heads.embedding",
    "boxes": "pipeline.heads.boxes",
    "segmentation": "pipeline.heads.segmentation",
}
POOLINGS = ("average", "max", "both", "flatten")
# Task -> the kinds that answer it; the first task of a kind is its own.
TASKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((MULTICLASS, BINARY, MULTILABEL, ORDINAL, REGRESSION), ("linear", "mlp")),
    EMBEDDING: ("embedding",),
    BOXES: ("boxes",),
    SEGMENTATION: ("segmentation",),
}
# What a head that the user wrote may answer: `module:object`.
CUSTOM_TASKS = (MULTICLASS, BINARY, MULTILABEL, ORDINAL, REGRESSION)


def check_head(section: HeadSection) -> None:
    """Raise InputError where a head names a kind, pooling or task that does not exist, or a task that its kind has not."""
    kinds = (section.kind,) if is_custom(section.kind) else tuple(HEADS)
    for value, known, key in (
        (section.kind, kinds, "kind"),
        (section.pooling, ("", *POOLINGS), "pooling"),
        (section.task, ("", *TASKS), "task"),
    ):
        if value not in known:
            raise InputError(
                f"There is no head {key} '{value}'.",
                nearest(value, [each for each in known if each]),
                f"set heads.NAME.{key}",
            )
    if is_custom(section.kind) and task_of(section) not in CUSTOM_TASKS:
        raise InputError(
            f"A head of your own cannot answer the task '{section.task}'.",
            f"one of {', '.join(CUSTOM_TASKS)}",
            "set heads.NAME.task",
        )
    if not is_custom(section.kind) and section.kind not in TASKS[task_of(section)]:
        raise InputError(
            f"A head of the kind '{section.kind}' cannot answer the task '{section.task}'.",
            f"the kind {' or '.join(TASKS[section.task])} for that task, or the task '{_own_task(section.kind)}'",
            "set heads.NAME.kind, or leave heads.NAME.task out",
        )
    _check_boxes_and_maps(section)
    several = not isinstance(section.target, str) and len(section.target) != 1
    if several and task_of(section) not in (REGRESSION, BOXES):
        raise InputError(
            f"The task '{task_of(section)}' learns from one column, not from {len(section.target)}.",
            'one column, such as target = "label"',
            'set heads.NAME.target, or heads.NAME.task = "regression"',
        )


def _check_boxes_and_maps(section: HeadSection) -> None:
    """Raise InputError where a head of boxes has not the columns of one, or one of label maps pools its maps."""
    task, columns = task_of(section), section.target
    if task == BOXES and columns and (isinstance(columns, str) or len(columns) != 4):
        raise InputError(
            f"The task '{task}' learns from four columns, not from {1 if isinstance(columns, str) else len(columns)}.",
            'the sides of one box, in this order: target = ["x_min", "y_min", "x_max", "y_max"]',
            "set heads.NAME.target, or leave it out where the columns are called so",
        )
    if task == SEGMENTATION and section.pooling:
        raise InputError(
            f"A head of the task '{task}' takes whole feature maps, and its pooling is '{section.pooling}'.",
            "no pooling: where things are would be lost",
            "take heads.NAME.pooling out",
        )


def is_custom(kind: str) -> bool:
    """Tell whether a kind is `module:object`: a head that the user wrote."""
    module, colon, attribute = kind.partition(":")
    return bool(colon) and all(part.isidentifier() for part in module.split(".")) and attribute.isidentifier()


def task_of(section: HeadSection) -> str:
    """Return the task of a head: the one that is set, else its kind's own."""
    return section.task or _own_task(section.kind)


def learns(section: HeadSection) -> bool:
    """Return whether a head is trained, and needs a target for it."""
    return task_of(section) != EMBEDDING or section.dimension > 0


def _own_task(kind: str) -> str:
    if is_custom(kind):
        return MULTICLASS
    return next(task for task, kinds in TASKS.items() if kind in kinds)


def _module(kind: str) -> Any:
    return importlib.import_module("pipeline.heads.custom" if is_custom(kind) else HEADS[kind])


def pooling_of(section: HeadSection) -> str:
    """Return `average`, `max`, `both` or `flatten`: what the head begins with, and what is cached of the features."""
    return section.pooling or _module(section.kind).POOLING


def takes_maps(section: HeadSection) -> bool:
    """Tell whether a head takes whole feature maps, which reach it flattened while it is trained."""
    return task_of(section) == SEGMENTATION


def build_head(
    name: str, section: HeadSection, width: int, units: int, seed: int, grid: Grid | None = None
) -> keras.Model:
    """Build a head on pooled features, as it is trained.

    Args:
        name: of the head: the name of its output.
        section: its configuration.
        width: of the pooled features.
        units: how many numbers its answer has; of no use to an embedding.
        seed: of its initial weights and dropout.
        grid: the shapes of the maps of a head that takes them.

    Returns:
        A model from features (N, width) to answers (N, units) as `exporters.contract.TASKS` describes them, but for a
        regression: that is in units of the targets' spread until `pipeline.training` brings it back to their own.
    """
    shapes = {"grid": grid} if takes_maps(section) else {}
    return _module(section.kind).build(name, section, task_of(section), width, units, seed, **shapes)
