"""Heads that the user wrote, tried before anything is computed for them: a wrong name or shape costs no minutes of waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from pipeline.assembly import pooled_width
from pipeline.config import Config
from pipeline.heads import build_head, is_custom, pooling_of
from pipeline.heads.custom import load
from pipeline.heads.sharing import on_trunk
from pipeline.splitting import Example
from pipeline.targets import listed_target


def find_own_heads(config: Config) -> None:
    """Import every `module:object`; raises InputError where there is none, its code fails, or it cannot be called."""
    for section in config.heads.values():
        if is_custom(section.kind):
            load(section.kind)


def try_own_heads(
    config: Config, truncated: keras.Model, taken: Mapping[str, Sequence[str]], examples: Sequence[Example]
) -> None:
    """Build every head of the user's own once, as it will be built for training.

    Args:
        config: of the run.
        truncated: the backbone up to the cuts.
        taken: head -> the cuts that reach it.
        examples: all pictures, which tell how many labels there are.

    Raises:
        InputError: one cannot be called, cannot be laid flat, or answers with another shape.
    """
    for name, section in sorted(config.heads.items()):
        if not is_custom(section.kind):
            continue
        if on_trunk(config, section):
            width = config.trunk.hidden[-1]
        else:
            width = sum(pooled_width(truncated, cut, pooling_of(section)) for cut in taken[name])
        build_head(name, section, width, listed_target(name, section, examples).units, config.seed)
