"""Listing and splitting: folder layouts, CSVs, groups, copies, and what must hold for any data at all."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import random
from pathlib import Path

import pytest
from pictures import write_noise

from exporters.errors import InputError
from pipeline.dataset import list_examples
from pipeline.splitting import SPLITS, Dataset, Example, split_dataset

SHARES = (0.7, 0.15, 0.15)
ROOT = Path("/data")


def listed(root: Path, group: str = "", targets: tuple[str, ...] = ("label",)) -> tuple[Example, ...]:
    return list_examples(root, targets, group)


def split(examples, shares=SHARES, seed: int = 0, bad=None, root: Path = ROOT) -> Dataset:
    return split_dataset(examples, bad or {}, shares, seed, root)


def example(name: str, label: str, group: str = "", split: str = "", content: str | None = None) -> Example:
    sha256 = hashlib.sha256((name if content is None else content).encode()).hexdigest()
    return Example(ROOT / label / f"{name}.png", sha256, {"label": label}, group, split)


def many(counts: dict[str, int]) -> list[Example]:
    return [example(f"{label}{number}", label) for label, count in counts.items() for number in range(count)]


def counted(dataset: Dataset) -> dict[str, dict[str, int]]:
    """label -> split -> how many."""
    found: dict[str, dict[str, int]] = collections.defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for each in dataset.examples:
        found[each.targets["label"]][each.split] += 1
    return dict(found)


def names(examples) -> set[str]:
    return {each.path.stem for each in examples}


# --- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_per_class(tmp_path: Path) -> None:
    write_noise(tmp_path, {"dog": 3, "ant": 2, "Cat": 2})
    examples = listed(tmp_path)
    assert [each.targets["label"] for each in examples] == ["Cat"] * 2 + ["ant"] * 2 + ["dog"] * 3
    assert {each.split for each in examples} == {""}
    assert all(each.sha256 == hashlib.sha256(each.path.read_bytes()).hexdigest() for each in examples)


def test_label_order_is_sorted_whatever_the_listing_says(tmp_path: Path) -> None:
    write_noise(tmp_path, {"b": 4, "a": 4, "10": 4, "9": 4, "é": 4})
    assert split(listed(tmp_path)).labels == {"label": ("10", "9", "a", "b", "é")}


def test_nested_files_upper_case_and_what_is_hidden(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 2, "b": 2})
    picture = (tmp_path / "a" / "0.png").read_bytes()
    for name in (
        "a/deep/er/NESTED.PNG",
        "a/.hidden.png",
        "a/.thumbnails/x.png",
        ".git/y.png",
        "b/notes.txt",
        "b/._z.JPG",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture + name.encode())
    assert {each.path.relative_to(tmp_path).as_posix() for each in listed(tmp_path)} == {
        "a/0.png",
        "a/1.png",
        "a/deep/er/NESTED.PNG",
        "b/0.png",
        "b/1.png",
    }


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".PnG", ".bmp", ".gif", ".webp"])
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    write_noise(tmp_path, {"a": 2, "b": 2}, suffix=suffix)
    assert len(listed(tmp_path)) == 4


def test_results_of_earlier_runs_are_no_class(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "runs" / "mine" / ".cutpoint").mkdir(parents=True)
    write_noise(tmp_path / "runs" / "mine" / "golden", {"files": 3})
    assert {each.targets["label"] for each in listed(tmp_path)} == {"a", "b"}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), {"train", "val", "test"}),
        (("Training", "Validation", "Testing"), {"train", "val", "test"}),
        (("train", "valid"), {"train", "val", "test"}),
        (("train", "test"), {"train", "val", "test"}),
        (("train",), {"train", "val", "test"}),
    ],
)
def test_split_folders_are_honoured(tmp_path: Path, folders: tuple[str, ...], expected: set[str]) -> None:
    for number, folder in enumerate(folders):
        write_noise(tmp_path / folder, {"a": 10, "b": 10}, seed=number)
    dataset = split(listed(tmp_path))
    assert {each.split for each in dataset.examples} == expected
    known = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
    for each in dataset.examples:
        named = each.path.parts[len(tmp_path.parts)].lower()
        if known.get(named, named) != "train":
            assert each.split == known.get(named, named)


def test_a_class_called_test_is_a_class_where_there_is_no_train(tmp_path: Path) -> None:
    write_noise(tmp_path, {"test": 3, "other": 3})
    assert {each.targets["label"] for each in listed(tmp_path)} == {"test", "other"}


def test_only_the_training_part_is_shared_out_again(tmp_path: Path) -> None:
    write_noise(tmp_path / "train", {"a": 85, "b": 85})
    write_noise(tmp_path / "test", {"a": 7, "b": 7}, seed=1)
    # val is 0.15 of 0.85: the share that it would have of train and val together.
    assert counted(split(listed(tmp_path))) == {label: {"train": 70, "val": 15, "test": 7} for label in "ab"}


# --- CSV -----------------------------------------------------------------------------------------------------------


def write_csv(here: Path, text: str) -> Path:
    write_noise(here, {"p": 8})
    (here / "list.csv").write_text(text, encoding="utf-8")
    return here / "list.csv"


def rows(columns: str, *values: str) -> str:
    return "\n".join([columns, *values]) + "\n"


def test_csv_with_every_column_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = rows(
        "\ufeffpath,age,label,group,split,remark",
        'p/0.png,old,"cat, or so",anna,Train,x',
        "p/1.png,new,dog,anna,training,y",
        "p/2.png,old,dog,ben,TEST,",
        f'{tmp_path}/p/3.png,new,"cat, or so",ben,test,',
    )
    found = list_examples(write_csv(tmp_path, text), ("age", "label"), "")
    assert [dict(each.targets) for each in found] == [
        {"age": "old", "label": "cat, or so"},
        {"age": "new", "label": "dog"},
        {"age": "old", "label": "dog"},
        {"age": "new", "label": "cat, or so"},
    ]
    assert [each.group for each in found] == ["anna", "anna", "ben", "ben"]
    assert [each.split for each in found] == ["train", "train", "test", "test"]
    assert all(each.path.is_file() for each in found)


def test_csv_with_windows_line_ends(tmp_path: Path) -> None:
    text = rows("path,label", "p/0.png,a", "p/1.png,b", "p/2.png,a", "p/3.png,b").replace("\n", "\r\n")
    assert [each.targets["label"] for each in listed(write_csv(tmp_path, text))] == ["a", "b", "a", "b"]


def test_csv_group_column_of_another_name(tmp_path: Path) -> None:
    lines = [f"p/{number}.png,{'ab'[number % 2]},{number // 4}" for number in range(8)]
    found = listed(write_csv(tmp_path, rows("path,label,person", *lines)), "person")
    assert [each.group for each in found] == ["0"] * 4 + ["1"] * 4


def test_missing_files_of_a_csv_are_skipped_with_their_reason(tmp_path: Path) -> None:
    lines = [f"p/{number}.png,{'ab'[number % 2]}" for number in range(8)]
    examples = listed(write_csv(tmp_path, rows("path,label", *lines, "gone.png,a")))
    gone = examples[-1]
    dataset = split(examples, bad={gone.sha256: "cannot be read"}, root=tmp_path / "list.csv")
    assert dataset.skipped == (("gone.png", "cannot be read"),)
    assert len(dataset.examples) == 8


def test_group_by_expression(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 2, "b": 2})
    for label in "ab":
        for number in (0, 1):
            (tmp_path / label / f"{number}.png").rename(tmp_path / label / f"anna_{number}.png")
            (tmp_path / label / f"ben_{number}.png").write_bytes(f"{label}{number}".encode())
    assert {each.group for each in listed(tmp_path, r"([a-z]+)_\d")} == {"anna", "ben"}
    assert {each.group for each in listed(tmp_path, r"(?:anna|ben)_\d")} == {"anna_0", "anna_1", "ben_0", "ben_1"}
    # Searched in the path from the data's folder on: the folders above it say nothing.
    assert {each.group for each in listed(tmp_path, r"^\w")} == {"a", "b"}


# --- splitting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "shares", "expected"),
    [
        ({"a": 100, "b": 20}, SHARES, {"a": (70, 15, 15), "b": (14, 3, 3)}),
        ({"a": 2, "b": 2}, SHARES, {"a": (1, 0, 1), "b": (1, 0, 1)}),
        ({"a": 3, "b": 4}, SHARES, {"a": (1, 1, 1), "b": (2, 1, 1)}),
        ({"a": 10, "b": 10}, (0.5, 0.25, 0.25), {"a": (6, 2, 2), "b": (6, 2, 2)}),
        ({"a": 2, "b": 3}, (0.2, 0.4, 0.4), {"a": (1, 0, 1), "b": (1, 1, 1)}),
    ],
)
def test_stratification_is_exact(counts: dict, shares: tuple, expected: dict) -> None:
    for seed in range(5):
        assert counted(split(many(counts), shares, seed)) == {
            label: dict(zip(SPLITS, each, strict=True)) for label, each in expected.items()
        }


def test_the_order_of_the_listing_changes_nothing_and_the_seed_does() -> None:
    examples = many({"a": 40, "b": 30})
    first = split(examples)
    shuffled = random.Random(1).sample(examples, len(examples))
    again = split(shuffled)
    assert {each.path: each.split for each in first.examples} == {each.path: each.split for each in again.examples}
    assert first.fingerprint == again.fingerprint
    other = split(examples, seed=1)
    assert names(other.of_split("test")) != names(first.of_split("test"))
    assert other.fingerprint != first.fingerprint


def test_the_name_of_a_file_changes_nothing() -> None:
    examples = many({"a": 40, "b": 30})
    renamed = [dataclasses.replace(each, path=each.path.with_name(f"x{each.path.name}")) for each in examples]
    first = {each.sha256: each.split for each in split(examples).examples}
    assert {each.sha256: each.split for each in split(renamed).examples} == first


def test_a_class_of_two_is_learnt_and_tested() -> None:
    found = counted(split(many({"a": 2, "b": 50})))
    assert found["a"] == {"train": 1, "val": 0, "test": 1}


def test_bad_pictures_are_left_out_before_they_are_counted() -> None:
    examples = many({"a": 5, "b": 2})
    with pytest.raises(InputError, match="'b' has 1 usable picture"):
        split(examples, bad={examples[-1].sha256: "damaged"})
    dataset = split(examples, bad={examples[0].sha256: "damaged"})
    assert dataset.skipped == (("data/a/a0.png", "damaged"),)
    assert "a0" not in names(dataset.examples)


def test_copies_in_two_named_splits_leave_training() -> None:
    examples = many({"a": 6, "b": 6})
    examples = [dataclasses.replace(each, split="train" if int(each.path.stem[1]) < 4 else "test") for each in examples]
    copy = example("copy", "a", split="test", content="a0")
    dataset = split([*examples, copy], shares=SHARES)
    assert "a0" not in names(dataset.examples)
    assert "copy" in names(dataset.of_split("test"))
    assert [
        note for note in dataset.notes if "taken out of train" in note and "a/a0.png" in note and "a/copy.png" in note
    ]


def test_a_copy_in_val_and_test_stays_in_test() -> None:
    examples = many({"a": 6, "b": 6})
    part = {0: "test", 1: "val"}
    examples = [dataclasses.replace(each, split=part.get(int(each.path.stem[1]), "train")) for each in examples]
    dataset = split([*examples, example("copy", "b", split="val", content="b0")])
    assert "copy" not in names(dataset.examples)
    assert any("taken out of val" in note for note in dataset.notes)


def test_a_copy_without_a_split_goes_where_its_copy_is() -> None:
    examples = many({"a": 30, "b": 30})
    for seed in range(10):
        held = example("held", "a", split="test", content="a3")
        dataset = split([*examples, held], seed=seed)
        assert {each.split for each in dataset.examples if each.sha256 == held.sha256} == {"test"}


def test_copies_without_named_splits_stay_together() -> None:
    examples = many({"a": 20, "b": 20}) + [example(f"copy{number}", "a", content=f"a{number}") for number in range(10)]
    for seed in range(10):
        assert_no_content_straddles(split(examples, seed=seed))


def test_the_same_picture_under_two_labels_is_reported() -> None:
    dataset = split([*many({"a": 4, "b": 4}), example("odd", "b", content="a0")])
    assert any("different labels" in note and "a/a0.png" in note and "b/odd.png" in note for note in dataset.notes)
    assert len(dataset.examples) == 9


def test_groups_that_share_a_copy_stay_together() -> None:
    examples = [
        example(f"{group}{number}", "ab"[number % 2], group)
        for group in ("anna", "ben", "eve", "jo")
        for number in range(4)
    ]
    examples.append(example("shared", "a", "ben", content="anna0"))
    for seed in range(20):
        dataset = split(examples, (0.4, 0.3, 0.3), seed)
        assert_no_content_straddles(dataset)
        assert_no_group_straddles(dataset)


def test_a_group_on_both_sides_of_named_splits_is_refused() -> None:
    examples = [dataclasses.replace(each, split="train") for each in many({"a": 5, "b": 5})]
    straddling = [example("x", "a", "anna", "train"), example("y", "b", "anna", "test"), example("z", "a", "", "test")]
    with pytest.raises(InputError, match=r"group 'anna' stands in the splits test, (train|val)"):
        split([*examples, *straddling])


def test_one_group_only_leaves_nothing_to_test_with() -> None:
    with pytest.raises(InputError, match="No picture is left for the split 'test'"):
        split([dataclasses.replace(each, group="anna") for each in many({"a": 5, "b": 5})])


def test_the_fingerprint_follows_labels_and_content() -> None:
    examples = many({"a": 5, "b": 5})
    first = split(examples).fingerprint
    assert first.startswith("sha256:")
    assert split([*examples[:-1], example("new", "b")]).fingerprint != first
    assert split([dataclasses.replace(examples[0], targets={"label": "b"}), *examples[1:]]).fingerprint != first


# --- what must hold for any data ----------------------------------------------------------------------------------


def assert_no_group_straddles(dataset: Dataset) -> None:
    splits = collections.defaultdict(set)
    for each in dataset.examples:
        if each.group:
            splits[each.group].add(each.split)
    assert all(len(found) == 1 for found in splits.values()), splits


def assert_no_content_straddles(dataset: Dataset) -> None:
    splits = collections.defaultdict(set)
    for each in dataset.examples:
        splits[each.sha256].add(each.split)
    assert all(len(found) == 1 for found in splits.values()), splits


def random_examples(generator: random.Random) -> list[Example]:
    """Some classes, copies, groups and named splits, of any sizes."""
    labels = [f"class{number}" for number in range(generator.randint(2, 6))]
    examples = [example(f"{label}-{number}", label) for label in labels for number in range(generator.randint(2, 30))]
    groups = generator.choice([0, 0, len(examples) // 3, 5])
    if groups:
        examples = [dataclasses.replace(each, group=f"g{generator.randrange(groups)}") for each in examples]
    for number in range(generator.choice([0, 0, 3])):
        original = generator.choice(examples)
        examples.append(dataclasses.replace(original, path=original.path.with_name(f"copy{number}.png")))
    if not groups and generator.random() < 0.3:
        named = generator.choice([("train", "test"), ("train", "val", "test", ""), ("train",), ("", "test")])
        examples = [dataclasses.replace(each, split=generator.choice(named)) for each in examples]
    return examples


def test_anything_at_all() -> None:
    refused = 0
    for seed in range(600):
        generator = random.Random(seed)
        examples = random_examples(generator)
        train = generator.uniform(0.2, 0.9)
        val = generator.uniform(0.05, 0.95) * (1 - train)
        try:
            dataset = split(examples, (train, val, 1 - train - val), seed)
        except InputError as fault:
            assert "No picture is left" in fault.what, fault
            refused += 1
            continue
        check_invariants(examples, dataset)
    assert refused < 60


def check_invariants(examples: list[Example], dataset: Dataset) -> None:
    assert_no_group_straddles(dataset)
    assert_no_content_straddles(dataset)
    assert {each.split for each in dataset.examples} <= set(SPLITS)
    assert dataset.of_split("train") and dataset.of_split("test")
    by_path = {each.path: each for each in examples}
    contents = {each.sha256 for each in examples}
    assert {each.sha256 for each in dataset.examples} == contents
    for each in dataset.examples:
        before = by_path[each.path]
        assert (before.targets, before.sha256, before.group) == (each.targets, each.sha256, each.group)
        if before.split in ("val", "test"):
            assert each.split == before.split
    if not any(each.group or each.split for each in examples) and len(contents) == len(examples):
        for label, found in counted(dataset).items():
            assert found["train"] >= 1, label
            assert found["test"] >= 1, label


def test_a_class_that_is_called_train(tmp_path: Path) -> None:
    write_noise(tmp_path, {"bus": 3, "car": 3, "train": 3})
    assert {each.targets["label"] for each in listed(tmp_path)} == {"bus", "car", "train"}


def test_a_stranger_beside_split_folders_is_named(tmp_path: Path) -> None:
    for folder in ("train", "vall", "test"):
        write_noise(tmp_path / folder, {"a": 3, "b": 3})
    with pytest.raises(InputError, match="'vall'") as caught:
        listed(tmp_path)
    assert "'val'" in caught.value.expected


def test_paths_outside_the_data_are_not_told_whole(tmp_path: Path) -> None:
    write_noise(tmp_path / "elsewhere", {"a": 3, "b": 3})
    (tmp_path / "data").mkdir()
    rows = [f"{path},{path.parent.name}" for path in sorted((tmp_path / "elsewhere").rglob("*.png"))]
    (tmp_path / "data" / "all.csv").write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    examples = listed(tmp_path / "data" / "all.csv")
    dataset = split(examples, bad={examples[0].sha256: "damaged"}, root=tmp_path / "data" / "all.csv")
    assert [path for path, _ in dataset.skipped] == [examples[0].path.name]
