"""What the configuration says of tabular columns: which heads take them, and whether it can be meant so. Light."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import numpy as np

from exporters.columns import BUCKET, CATEGORY, KINDS, NUMBER
from exporters.contract import EMBEDDING
from exporters.errors import InputError, nearest
from pipeline.heads import HEADS, is_custom, learns, task_of
from pipeline.heads.sharing import on_trunk
from pipeline.targets import columns_of

if TYPE_CHECKING:
    from pipeline.config import ColumnSection, Config, HeadSection

# What takes tabular columns behind its features; other kinds look at pictures alone.
TAKING_KINDS = ("linear", "mlp")
KEYS = {NUMBER: (), CATEGORY: ("categories", "min_count"), BUCKET: ("boundaries", "buckets")}
MOST_CATEGORIES = 500


def takes_columns(config: Config, section: HeadSection) -> bool:
    """Tell whether a head takes the tabular columns itself: one on the trunk takes what the trunk makes of them."""
    if not config.columns or on_trunk(config, section):
        return False
    return section.kind in TAKING_KINDS if section.columns is None else section.columns


def trunk_takes_columns(config: Config) -> bool:
    """Tell whether there is a trunk that takes the tabular columns."""
    return bool(config.columns) and bool(config.trunk.hidden) and config.trunk.columns is not False


def sees_columns(config: Config, section: HeadSection) -> bool:
    """Tell whether a head's answer depends on the tabular columns."""
    return takes_columns(config, section) or (on_trunk(config, section) and trunk_takes_columns(config))


def check_columns(config: Config) -> None:
    """Raise InputError for columns that cannot be what the configuration says, and for heads that take none."""
    for name, section in config.columns.items():
        _check_name(name)
        _check_section(name, section)
    targets = {
        column: head
        for head, section in sorted(config.heads.items())
        if learns(section)
        for column in columns_of(section, task_of(section))
    }
    for name in config.columns:
        if name in targets:
            raise InputError(
                f"The column '{name}' is what the head '{targets[name]}' learns, and [columns.{name}] gives it away.",
                "columns that are known before the answer is",
                f"take [columns.{name}] out",
            )
    for name, section in sorted(config.heads.items()):
        _check_head(config, name, section)
    if config.trunk.columns and not config.columns:
        raise InputError(*_no_columns("[trunk]", "trunk.columns"))
    if config.columns and not any(sees_columns(config, section) for section in config.heads.values()):
        raise InputError(
            f"There are columns ({', '.join(config.columns)}), and no head takes them.",
            f"a head of the kind {' or '.join(TAKING_KINDS)}, or heads on a [trunk]",
            "add such a head, take columns = false out, or take [columns] out",
        )


def _check_name(name: str) -> None:
    from pipeline.config import HEAD_NAME

    if not HEAD_NAME.fullmatch(name) or name == "path":
        raise InputError(
            f"A column cannot be called '{name}'.",
            "a lower-case letter, then letters, digits and _; not 'path'",
            f"rename it in the CSV, and [columns.{name}] with it",
        )


def _check_section(name: str, section: ColumnSection) -> None:
    where = f"columns.{name}"
    if section.kind not in KINDS:
        raise InputError(
            f"There is no column kind '{section.kind}'.", nearest(section.kind, KINDS), f"set {where}.kind"
        )
    given = {key: getattr(section, key) for keys in KEYS.values() for key in keys}
    for key, value in given.items():
        if value not in ((), None) and key not in KEYS[section.kind]:
            kind = next(kind for kind, keys in KEYS.items() if key in keys)
            raise InputError(
                f"The column '{name}' is a {section.kind}, which has no '{key}'.",
                f"{', '.join(KEYS[section.kind]) or 'no further key'} with the kind {section.kind}",
                f'take {where}.{key} out, or set {where}.kind = "{kind}"',
            )
    if section.kind == BUCKET:
        _check_boundaries(where, section)
    if section.kind == CATEGORY and section.categories:
        _check_categories(where, section)


def _check_boundaries(where: str, section: ColumnSection) -> None:
    if bool(section.boundaries) == (section.buckets is not None):
        raise InputError(
            f"{where} has {'both boundaries and buckets' if section.boundaries else 'neither boundaries nor buckets'}.",
            "boundaries = [10, 20], or buckets = 4 for ranges of equally many training pictures",
            f"set one of {where}.boundaries and {where}.buckets",
        )
    with np.errstate(over="ignore"):
        bounds = np.array(section.boundaries, np.float32)
    if not np.isfinite(bounds).all() or (np.diff(bounds) <= 0).any():
        raise InputError(
            f"{where}.boundaries is {list(section.boundaries)}.",
            "numbers in ascending order, each once, apart in float32",
            f"for example {where}.boundaries = [10, 20]",
        )
    if len(bounds) >= MOST_CATEGORIES:
        raise InputError(
            f"{where} has {len(bounds)} boundaries.", f"less than {MOST_CATEGORIES}", f'set {where}.kind = "{NUMBER}"'
        )


def _check_categories(where: str, section: ColumnSection) -> None:
    listed = section.categories
    wrong = [each for each in listed if not each or each != each.strip()]
    twice = [each for each, count in collections.Counter(listed).items() if count > 1]
    if wrong or twice or section.min_count is not None or len(listed) > MOST_CATEGORIES:
        what = (
            f"lists {twice[0]!r} twice"
            if twice
            else f"lists {wrong[0]!r}"
            if wrong
            else f"lists {len(listed)} categories"
            if len(listed) > MOST_CATEGORIES
            else "is given, and min_count too, which counts where it is not"
        )
        raise InputError(
            f"{where}.categories {what}.",
            f"each category once, without blanks around it, at most {MOST_CATEGORIES} of them; or min_count",
            "correct the list; an empty cell, and whatever is not listed, is unknown",
        )


def _check_head(config: Config, name: str, section: HeadSection) -> None:
    where = f"heads.{name}.columns"
    shares = on_trunk(config, section)
    if section.columns and not config.columns:
        raise InputError(*_no_columns(f"The head '{name}'", where))
    if not config.columns:
        return
    if shares and trunk_takes_columns(config):
        if section.columns is False or task_of(section) == EMBEDDING:
            what = "is to take no columns" if section.columns is False else "compares pictures"
            raise InputError(
                f"The head '{name}' {what}, and stands on the trunk, which takes them.",
                "a trunk without columns, or a head beside it",
                f"set trunk.columns = false, or heads.{name}.trunk = false",
            )
    elif shares and section.columns:
        raise InputError(
            f"The head '{name}' is to take columns, and stands on the trunk, which takes none.",
            "a trunk with columns, or a head beside it",
            f"take trunk.columns = false out, or set heads.{name}.trunk = false",
        )
    elif section.columns and section.kind not in TAKING_KINDS:
        kind = "of your own" if is_custom(section.kind) else f"of the kind '{section.kind}'"
        raise InputError(
            f"A head {kind} takes no columns, and {where} is true.",
            f"the kind {' or '.join(each for each in HEADS if each in TAKING_KINDS)}",
            f"take {where} out, or set heads.{name}.kind; any head that stands on a [trunk] takes what that makes of them",
        )


def _no_columns(who: str, where: str) -> tuple[str, str, str]:
    return (
        f"{who} is to take columns, and there are none.",
        "a table [columns.NAME] for each tabular column of the CSV",
        f"add one, or take {where} out",
    )
