"""The table of heads. Light: help texts and error messages list it without loading Keras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from exporters.contract import BINARY, EMBEDDING, MULTICLASS, MULTILABEL, ORDINAL, REGRESSION
from exporters.errors import InputError, nearest

if TYPE_CHECKING:
    import keras

    from pipeline.config import HeadSection

HEADS: dict[str, str] = {
    "linear": "pipeline.heads.linear",
    "mlp": "pipeline.heads.mlp",
    "embedding": "pipeline.heads.embedding",
}
POOLINGS = ("average", "max", "both", "flatten")
# Task -> the kinds that answer it; the first task of a kind is its own.
TASKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((MULTICLASS, BINARY, MULTILABEL, ORDINAL, REGRESSION), ("linear", "mlp")),
    EMBEDDING: ("embedding",),
}


def check_head(section: HeadSection) -> None:
    """Raise InputError where a head names a kind, pooling or task that does not exist, or a task that its kind has not."""
    for value, known, key in (
        (section.kind, tuple(HEADS), "kind"),
        (section.pooling, ("", *POOLINGS), "pooling"),
        (section.task, ("", *TASKS), "task"),
    ):
        if value not in known:
            raise InputError(
                f"There is no head {key} '{value}'.",
                nearest(value, [each for each in known if each]),
                f"set heads.NAME.{key}",
            )
    if section.kind not in TASKS[task_of(section)]:
        raise InputError(
            f"A head of the kind '{section.kind}' cannot answer the task '{section.task}'.",
            f"the kind {' or '.join(TASKS[section.task])} for that task, or the task '{_own_task(section.kind)}'",
            "set heads.NAME.kind, or leave heads.NAME.task out",
        )
    if len(section.target) != 1 and not isinstance(section.target, str) and task_of(section) != REGRESSION:
        raise InputError(
            f"The task '{task_of(section)}' learns from one column, not from {len(section.target)}.",
            'one column, such as target = "label"',
            'set heads.NAME.target, or heads.NAME.task = "regression"',
        )


def task_of(section: HeadSection) -> str:
    """Return the task of a head: the one that is set, else its kind's own."""
    return section.task or _own_task(section.kind)


def learns(section: HeadSection) -> bool:
    """Return whether a head is trained, and needs a target for it."""
    return task_of(section) != EMBEDDING or section.dimension > 0


def _own_task(kind: str) -> str:
    return next(task for task, kinds in TASKS.items() if kind in kinds)


def pooling_of(section: HeadSection) -> str:
    """Return `average`, `max`, `both` or `flatten`: what the head begins with, and what is cached of the features."""
    return section.pooling or importlib.import_module(HEADS[section.kind]).POOLING


def build_head(name: str, section: HeadSection, width: int, units: int, seed: int) -> keras.Model:
    """Build a head on pooled features, as it is trained.

    Args:
        name: of the head: the name of its output.
        section: its configuration.
        width: of the pooled features.
        units: how many numbers its answer has; of no use to an embedding.
        seed: of its initial weights and dropout.

    Returns:
        A model from features (N, width) to answers (N, units) as `exporters.contract.TASKS` describes them, but for a
        regression: that is in units of the targets' spread until `pipeline.training` brings it back to their own.
    """
    return importlib.import_module(HEADS[section.kind]).build(name, section, task_of(section), width, units, seed)
