"""What heads share: which of them stand on the trunk, and where a loss weight or an auxiliary head can change anything. Light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.contract import BOXES
from exporters.errors import InputError, nearest
from pipeline.heads import POOLINGS, learns, takes_maps, task_of

if TYPE_CHECKING:
    from pipeline.config import Config, HeadSection


def on_trunk(config: Config, section: HeadSection) -> bool:
    """Tell whether a head takes what the trunk makes of the features; whole feature maps never go through it."""
    return bool(config.trunk.hidden) and section.trunk and learns(section) and not takes_maps(section)


def auxiliary_heads(config: Config) -> tuple[str, ...]:
    """Return the heads that are trained and not exported."""
    if config.export.auxiliary:
        return ()
    return tuple(name for name, section in sorted(config.heads.items()) if section.auxiliary)


def notes_on_boxes(config: Config) -> tuple[str, ...]:
    """Return a sentence for each head of boxes whose features were averaged or the like over the picture, and what mends it."""
    found = []
    for name, section in sorted(config.heads.items()):
        shared = on_trunk(config, section)
        pooling = config.trunk.pooling if shared else section.pooling
        if task_of(section) != BOXES or pooling in ("", "flatten"):
            continue
        of = "trunk" if shared else f"heads.{name}"
        mend = f'heads.{name}.trunk = false, or trunk.pooling = "flatten"' if shared else f"no heads.{name}.pooling"
        found.append(
            f"The head '{name}' looks for boxes in features of {of}.pooling = \"{pooling}\", which tell what is there and hardly "
            f"where: it will learn badly. Better: {mend}."
        )
    return tuple(found)


def check_sharing(config: Config) -> None:
    """Raise InputError for a trunk without heads, and for what can change nothing because nothing is shared."""
    trunk = config.trunk
    if trunk.pooling not in POOLINGS:
        raise InputError(
            f"There is no pooling '{trunk.pooling}' of the trunk.",
            nearest(trunk.pooling, POOLINGS),
            "set trunk.pooling",
        )
    if trunk.hidden and not any(on_trunk(config, section) for section in config.heads.values()):
        raise InputError(
            "No head stands on the trunk.", "at least one head that learns", "take [trunk] out, or trunk = false"
        )
    for name, section in sorted(config.heads.items()):
        if on_trunk(config, section):
            _check_own(name, section)
        if config.fine_tuning.layer != "" or on_trunk(config, section):
            continue
        what = "is auxiliary" if section.auxiliary else f"has the loss weight {section.loss_weight:g}"
        if section.auxiliary or section.loss_weight != 1.0:
            raise InputError(
                f"The head '{name}' {what}, and shares nothing that is trained with another head: that changes nothing.",
                "a trunk of dense layers that heads share, or fine-tuning of the backbone",
                f"add [trunk] hidden = [256] or [fine_tuning], or take it out of heads.{name}",
            )
    if config.heads and all(section.auxiliary for section in config.heads.values()) and not config.export.auxiliary:
        raise InputError(
            "Every head is auxiliary, so that nothing would be exported.",
            "at least one head without auxiliary = true",
            "take it out of one head, or set export.auxiliary = true",
        )


def _check_own(name: str, section: HeadSection) -> None:
    for key in ("optimizer", "learning_rate"):
        if getattr(section, key) and section.trunk:
            raise InputError(
                f"The head '{name}' has its own {key}, and is trained together with others.",
                "one optimizer for all that share a trunk",
                f"set training.{key}, or heads.{name}.trunk = false",
            )
