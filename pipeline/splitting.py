"""Gives every example its split: stratified, seeded, groups and copies of one picture on one side."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from exporters.errors import InputError
from exporters.golden import sha256_of
from pipeline.targets import LABEL, LABELS, MASK, NUMBER, as_readings, labels_of, number, split_labels

SPLITS = ("train", "val", "test")
LEAST_PICTURES_OF_A_CLASS = 2
# Numbers are stratified by so many bins of equally many pictures; of several columns the first ones count as long as every
# stratum holds this many pictures on average.
BINS_OF_NUMBERS = 4
LEAST_PICTURES_OF_A_STRATUM = 10


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture: where it lies, the sha256 of its bytes, its target values, its group, its split, and what stands beside it.

    `split` is empty until it has one; `cells` are those of the tabular columns that the model takes, column -> text.
    """

    path: Path
    sha256: str
    targets: Mapping[str, str]
    group: str = ""
    split: str = ""
    cells: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Split examples.

    `labels` column -> sorted class names, where it holds labels; `skipped` (path, reason) of what could not be used;
    `notes` are sentences for the report; `fingerprint` names the content, labels and splits.
    """

    examples: tuple[Example, ...]
    labels: Mapping[str, tuple[str, ...]]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    fingerprint: str

    def of_split(self, split: str) -> tuple[Example, ...]:
        """Return the examples of `train`, `val` or `test`, in a fixed order."""
        return tuple(example for example in self.examples if example.split == split)


def split_dataset(
    examples: Iterable[Example],
    bad: Mapping[str, str],
    shares: tuple[float, float, float],
    seed: int,
    root: Path,
    readings: Mapping[str, str] | None = None,
) -> Dataset:
    """Leave the unreadable pictures out and give every other example its split.

    Splits that the data name are kept; a split that they do not name is cut out of the training pictures. Pictures
    of one group, and copies of one picture, stay on one side.

    Args:
        examples: as `list_examples` gives them.
        bad: sha256 -> reason, of the pictures that cannot be read.
        shares: of train, val and test.
        seed: of the shuffle.
        root: the data's path, for relative paths in messages.
        readings: column -> how it is read, see `pipeline.targets.READINGS`; None: every one holds one label.

    Raises:
        InputError: a class has fewer than 2 pictures left, or a group straddles splits that the data name.
    """
    examples = list(examples)
    readings = as_readings(tuple(examples[0].targets) if examples else ()) if readings is None else readings
    base = root if root.is_dir() else root.parent
    skipped = [(relative_path(each.path, base), bad[each.sha256]) for each in examples if each.sha256 in bad]
    good = [each for each in examples if each.sha256 not in bad]
    check_class_sizes(good, root, readings)
    good, notes = take_out_copies(with_splits_of_copies(good), base)
    splits = _assign_splits(good, shares, seed, _strata(good, readings))
    good = [dataclasses.replace(each, split=split) for each, split in zip(good, splits, strict=True)]
    check_groups(good)
    _check_split_sizes(good)
    labels = {
        column: labels_of((each.targets[column] for each in good), reading)
        for column, reading in sorted(readings.items())
        if reading in (LABEL, LABELS)
    }
    digest = hashlib.sha256()
    masked = [column for column, reading in readings.items() if reading == MASK]
    for each in sorted(good, key=lambda each: (each.sha256, str(each.path))):
        # A mask counts by what it holds, not by where it lies.
        masks = {column: sha256_of(Path(each.targets[column])) for column in masked}
        beside = f" {sorted(each.cells.items())}" if each.cells else ""
        digest.update(f"{each.sha256} {each.split} {sorted({**each.targets, **masks}.items())}{beside}\n".encode())
    return Dataset(tuple(good), labels, tuple(skipped), tuple(notes), f"sha256:{digest.hexdigest()}")


def check_class_sizes(examples: list[Example], root: Path, readings: Mapping[str, str]) -> None:
    """Raise InputError where fewer than two classes or two numbers are left, or a class has fewer than 2 pictures."""
    for target, reading in readings.items() if examples else ():
        cells = [each.targets[target] for each in examples]
        if reading == NUMBER and len({number(cell) for cell in cells}) < 2:
            raise InputError(
                f"{root}: '{target}' is {cells[0]} for every picture.",
                "numbers that differ",
                "take another column: there is nothing to learn from this one",
            )
        if reading not in (LABEL, LABELS):
            continue
        split = split_labels if reading == LABELS else lambda cell: [cell]
        counts = collections.Counter(label for cell in cells for label in split(cell))
        small = sorted(label for label, count in counts.items() if count < LEAST_PICTURES_OF_A_CLASS)
        # A picture may have several labels, so that one of them alone is something to learn.
        if small or len(counts) < 2 - (reading == LABELS):
            raise InputError(
                f"{root}: "
                + (f"the class {small[0]!r} has {counts[small[0]]} usable picture" if small else "one class is left"),
                f"at least two classes with at least {LEAST_PICTURES_OF_A_CLASS} readable pictures each",
                "add pictures, or take the class out",
            )
    if not examples:
        raise InputError(f"{root} holds no picture that can be read.", "readable pictures", "give another --data")


def with_splits_of_copies(examples: list[Example]) -> list[Example]:
    """Give a picture without a named split the one that the data name for its copy: the latest, where there are two."""
    named: dict[str, str] = {}
    for each in examples:
        if each.split:
            named[each.sha256] = max(each.split, named.get(each.sha256, "train"), key=SPLITS.index)
    return [dataclasses.replace(each, split=each.split or named.get(each.sha256, "")) for each in examples]


def take_out_copies(examples: list[Example], base: Path) -> tuple[list[Example], list[str]]:
    """Drop copies that stand in two named splits from the earlier one, and report copies under two labels."""
    notes, by_content = [], collections.defaultdict(list)
    for each in examples:
        by_content[each.sha256].append(each)
    dropped: set[int] = set()
    for copies in by_content.values():
        names = ", ".join(relative_path(each.path, base) for each in copies[:4])
        # Beside other cells the same picture may well mean something else.
        told = {tuple(sorted(each.cells.items())): each.targets for each in copies}
        if any(dict(each.targets) != dict(told[tuple(sorted(each.cells.items()))]) for each in copies):
            notes.append(f"The same picture stands under different labels: {names}.")
        named = {each.split for each in copies if each.split}
        if len(named) > 1:
            kept = max(named, key=SPLITS.index)
            dropped.update(id(each) for each in copies if each.split and each.split != kept)
            out_of = " and ".join(sorted(named - {kept}))
            notes.append(f"The same picture stood in two splits and was taken out of {out_of}: {names}.")
    return [each for each in examples if id(each) not in dropped], notes


def _assign_splits(
    examples: list[Example], shares: tuple[float, float, float], seed: int, strata: list[tuple]
) -> list[str]:
    named = {each.split for each in examples if each.split}
    # What the data name is kept; only splits that they do not name are cut out of the rest.
    wanted = {
        split: share for split, share in zip(SPLITS, shares, strict=True) if split == "train" or split not in named
    }
    result = [each.split for each in examples]
    free = [
        index for index, each in enumerate(examples) if not each.split or (each.split == "train" and len(wanted) > 1)
    ]
    units = _units(examples, free)
    quotas = _quotas(strata, free, wanted)
    generator = random.Random(seed)
    keys = sorted(units)
    generator.shuffle(keys)
    for key in sorted(keys, key=lambda key: -len(units[key])):
        labels = [strata[index] for index in units[key]]
        best = max(wanted, key=lambda split: (sum(quotas[label][split] for label in labels), -SPLITS.index(split)))
        for index, label in zip(units[key], labels, strict=True):
            result[index] = best
            quotas[label][best] -= 1
    return result


def units_of(examples: Sequence[Example]) -> list[int]:
    """Return for every example the number of what it stays together with: its group, and copies of its pictures."""
    numbers = [0] * len(examples)
    for unit, indices in enumerate(_units(list(examples), list(range(len(examples)))).values()):
        for index in indices:
            numbers[index] = unit
    return numbers


def _units(examples: list[Example], free: list[int]) -> dict[str, list[int]]:
    """Return what has to stay together, by a name of its own: groups, copies, and groups that share a copy."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    for index in free:
        content, group = _keys_of(examples[index])
        first, second = sorted((root(content), root(group)), reverse=True)
        parents[second] = first
    units: dict[str, list[int]] = collections.defaultdict(list)
    for index in free:
        units[root(_keys_of(examples[index])[0])].append(index)
    return units


def _keys_of(example: Example) -> tuple[str, str]:
    content = f"content {example.sha256}"
    return content, f"group {example.group}" if example.group else content


def _strata(examples: list[Example], readings: Mapping[str, str]) -> list[tuple]:
    """Return for every example what shall be as frequent in every split: its labels, and roughly its numbers.

    Of many columns only the first ones count, labels before numbers: a picture that is alone in its stratum cannot be split.
    """
    strata: list[tuple] = [()] * len(examples)
    order = sorted(column for column in readings if readings[column] in (LABEL, LABELS, NUMBER))
    for column in sorted(order, key=lambda column: readings[column] == NUMBER):
        finer = [
            (*stratum, key)
            for stratum, key in zip(strata, _keys_of_column(examples, column, readings[column]), strict=True)
        ]
        if strata and strata[0] and len(examples) < LEAST_PICTURES_OF_A_STRATUM * len(set(finer)):
            continue
        strata = finer
    return strata


def _keys_of_column(examples: list[Example], column: str, reading: str) -> list[str | int]:
    cells = [each.targets[column] for each in examples]
    if reading == LABEL:
        return cells
    if reading == LABELS:
        joined = ["|".join(split_labels(cell)) for cell in cells]
        sizes = collections.Counter(joined)
        # A combination that is rare counts as its rarest label does.
        counts = collections.Counter(label for cell in cells for label in split_labels(cell))
        rare = LEAST_PICTURES_OF_A_STRATUM
        return [
            each if sizes[each] >= rare or not each else min(each.split("|"), key=lambda label: (counts[label], label))
            for each in joined
        ]
    values = np.array([number(cell) for cell in cells])
    edges = np.quantile(values, np.linspace(0, 1, BINS_OF_NUMBERS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").tolist()


def _quotas(strata: list[tuple], free: list[int], wanted: Mapping[str, float]) -> dict[tuple, dict[str, int]]:
    """Share every stratum's pictures out in whole numbers, with at least one for train and, from two on, for test."""
    counts = collections.Counter(strata[index] for index in free)
    total = sum(wanted.values())
    quotas = {}
    for stratum, count in counts.items():
        held_out = [split for split in ("test", "val") if split in wanted]
        least = {split: int(count > rank) for rank, split in enumerate(held_out, 1)}
        quota = {split: max(least[split], round(count * wanted[split] / total)) for split in held_out}
        while quota and sum(quota.values()) >= count:
            quota[max((quota[split] - least[split], split) for split in held_out)[1]] -= 1
        quota["train"] = count - sum(quota.values())
        quotas[stratum] = quota
    return quotas


def check_groups(examples: list[Example]) -> None:
    """Raise InputError where a group stands in two splits."""
    splits = collections.defaultdict(set)
    for each in examples:
        if each.group:
            splits[each.group].add(each.split)
    straddling = sorted(group for group, found in splits.items() if len(found) > 1)
    if straddling:
        raise InputError(
            f"The group '{straddling[0]}' stands in the splits {', '.join(sorted(splits[straddling[0]]))}.",
            "every group on one side",
            "change the split column or folders, or leave data.group empty",
        )


def _check_split_sizes(examples: list[Example]) -> None:
    counts = collections.Counter(each.split for each in examples)
    for split in ("train", "test"):
        if not counts[split]:
            raise InputError(
                f"No picture is left for the split '{split}'.",
                "pictures for train and test",
                "add pictures, change data.split, or use smaller groups",
            )


def relative_path(path: Path, base: Path) -> str:
    """Return a picture's path as messages show it: below the data's folder where it lies there."""
    # Outside the data's folder the name has to do: a report travels, and whole paths tell of the machine it was made on.
    shown = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")
