"""The table of heads. Light: help texts and error messages list it without loading Keras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from exporters.errors import InputError, nearest

if TYPE_CHECKING:
    import keras

    from pipeline.config import HeadSection

HEADS: dict[str, str] = {
    "linear": "pipeline.heads.linear",
    "mlp": "pipeline.heads.mlp",
}
POOLINGS = ("average", "max", "flatten")
TASKS = ("multiclass",)


def check_head(section: HeadSection) -> None:
    """Raise InputError where a head names a kind, pooling or task that does not exist."""
    for value, known, key in (
        (section.kind, tuple(HEADS), "kind"),
        (section.pooling, ("", *POOLINGS), "pooling"),
        (section.task, TASKS, "task"),
    ):
        if value not in known:
            raise InputError(
                f"There is no head {key} '{value}'.",
                nearest(value, [each for each in known if each]),
                f"set heads.NAME.{key}",
            )


def pooling_of(section: HeadSection) -> str:
    """Return `average`, `max` or `flatten`: what the head begins with, and what is cached of the features."""
    return section.pooling or importlib.import_module(HEADS[section.kind]).POOLING


def build_head(name: str, section: HeadSection, width: int, classes: int, seed: int) -> keras.Model:
    """Build a head on pooled features.

    Args:
        name: of the head: the name of its output.
        section: its configuration.
        width: of the pooled features.
        classes: how many it tells apart.
        seed: of its initial weights and dropout.

    Returns:
        A model from features (N, width) to probabilities (N, classes).
    """
    return importlib.import_module(HEADS[section.kind]).build(name, section, width, classes, seed)
