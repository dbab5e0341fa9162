"""The configuration: what INTERFACES shows can be read, wrong keys and values are named, flags go over files."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.contract import CEILINGS, Resize
from exporters.errors import InputError
from pipeline.config import Config, limits_of, read_config, resize_of

WHOLE = """
name = "signs"
seed = 3
device = "cpu"
[data]
path = "photos/"
split = [0.6, 0.2, 0.2]
group = "person"
bad_limit = 0.1
[resize]
width = 160
height = 128
method = "bilinear"
crop = "center"
[backbone]
name = "mobilenet_v2"
alpha = 0.35
weights = "mine.h5"
pixel_scaling = "auto"
cut = "out_relu"
[heads.label]
kind = "linear"
task = "multiclass"
target = "label"
dropout = 0.2
loss_weight = 1.0
[training]
epochs = 50
batch_size = 64
learning_rate = 1e-3
patience = 5
[export]
formats = ["tfjs", "tflite", "onnx-float32"]
calibration_images = 200
[parity]
images = 200
[parity.limits.int8]
accuracy_drop = 0.01
agreement = 0.95
"""


def read(text: str, here: Path, *settings: str, head: str | None = None, **flags: object) -> Config:
    (here / "my.toml").write_text(text, encoding="utf-8")
    return read_config(
        here / "my.toml", {key.replace("__", "."): value for key, value in flags.items()}, settings, head=head
    )


def test_every_key_of_the_example(tmp_path: Path) -> None:
    config = read(WHOLE, tmp_path)
    assert (config.name, config.seed, config.device) == ("signs", 3, "cpu")
    assert config.data.split == (0.6, 0.2, 0.2)
    assert config.heads["label"].dropout == 0.2
    assert config.export.formats == ("tfjs", "tflite", "onnx-float32")
    assert resize_of(config, 224) == Resize(160, 128, "bilinear", "center")


def test_defaults_are_those_of_the_example() -> None:
    config = read_config(None, {"data.path": "photos"})
    assert config.data.split == (0.7, 0.15, 0.15)
    assert config.data.bad_limit == 0.05
    assert (config.training.epochs, config.training.batch_size, config.training.patience) == (50, 64, 5)
    assert (config.parity.images, config.export.calibration_images) == (200, 200)
    assert list(config.heads) == ["label"]
    assert limits_of(config) == CEILINGS


def test_paths_of_a_file_are_taken_from_its_folder_and_those_of_flags_are_not(tmp_path: Path) -> None:
    config = read(WHOLE, tmp_path)
    assert Path(config.data.path) == tmp_path / "photos"
    assert Path(config.backbone.weights) == tmp_path / "mine.h5"
    config = read(WHOLE, tmp_path, data__path="elsewhere")
    assert config.data.path == "elsewhere"


@pytest.mark.parametrize("word", ["imagenet", "none", "quickstart"])
def test_words_are_no_paths(tmp_path: Path, word: str) -> None:
    assert read(f'[backbone]\nweights = "{word}"\n', tmp_path).backbone.weights == word


def test_flags_go_over_the_file_and_settings_over_flags(tmp_path: Path) -> None:
    config = read(WHOLE, tmp_path, seed=4, backbone__name="mobilenet", backbone__cut=None)
    assert (config.seed, config.backbone.name, config.backbone.cut) == (4, "mobilenet", "out_relu")
    config = read(WHOLE, tmp_path, "seed=5", "backbone.cut=-3", "backbone.name = mobilenet", seed=4)
    assert (config.seed, config.backbone.cut, config.backbone.name) == (5, -3, "mobilenet")


def test_settings_are_toml_or_else_words(tmp_path: Path) -> None:
    config = read(
        WHOLE,
        tmp_path,
        "export.formats=['tfjs-float16']",
        "heads.label.hidden=[64, 32]",
        'name="a b"',
        "data.group=(\\w+)_[0-9]",
        "training.class_weights=false",
    )
    assert config.export.formats == ("tfjs-float16",)
    assert config.heads["label"].hidden == (64, 32)
    assert (config.name, config.data.group, config.training.class_weights) == ("a b", "(\\w+)_[0-9]", False)


def test_head_changes_the_kind_of_the_one_head(tmp_path: Path) -> None:
    assert read(WHOLE, tmp_path, head="mlp").heads["label"].kind == "mlp"
    assert read("[heads.sign]\ndropout = 0.5\n", tmp_path, head="mlp").heads["sign"].kind == "mlp"
    assert read_config(None, {}, head="mlp").heads["label"].kind == "mlp"


def test_one_side_gives_the_other() -> None:
    assert resize_of(read_config(None, {"resize.width": 96}), 224) == Resize(96, 96)
    assert resize_of(read_config(None, {"resize.height": 64}), 224) == Resize(64, 64)
    assert resize_of(read_config(None, {}), 160) == Resize(160, 160)


def test_limits_are_laid_over_the_ceilings(tmp_path: Path) -> None:
    limits = limits_of(
        read(WHOLE, tmp_path, "parity.limits.float16.max_abs=0.001", "parity.limits.int8.agreement=0.99")
    )
    assert limits["float16"].max_abs == 0.001
    assert limits["float16"].agreement == CEILINGS["float16"].agreement
    assert limits["int8"].agreement == 0.99
    assert limits["int8"].max_abs is None
    assert limits["float32"] == CEILINGS["float32"]


KEYS = [
    "name", "seed", "device", "data.path", "data.split", "data.bad_limit", "resize.width", "resize.crop", "backbone.alpha",
    "backbone.pixel_scaling", "training.learning_rate", "training.patience", "export.calibration_images", "parity.images",
    "heads.label.dropout", "heads.label.kind", "parity.limits.int8.agreement",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_mistyped_key_is_answered_with_the_right_one(key: str) -> None:
    wrong = f"{key[:-2]}{key[-1]}{key[-2]}" if key[-1] != key[-2] else key[:-1]
    with pytest.raises(InputError) as caught:
        read_config(None, {}, (f"{wrong}=1",))
    assert f"'{wrong}'" in caught.value.what
    assert f"'{key.rpartition('.')[2]}'" in caught.value.expected


WRONG_VALUES = [
    *(
        "seed=-1",
        "seed=4294967296",
        "seed=true",
        "seed=1.5",
        "device=1",
        "data=3",
        "data.split=[1.0]",
        "data.bad_limit=1.5",
    ),
    *("data.split=[0.5,0.5,0.0]", "data.split=[nan,0.5,0.5]", "resize.width=5000", "resize.method=lanczos"),
    *(
        "backbone.alpha=0",
        "backbone.alpha=nan",
        "backbone.cut=1.5",
        "heads=3",
        "heads.label=3",
        "heads.label.dropout=1",
    ),
    *("heads.label.hidden=[0]", "heads.label.loss_weight=-1", "training.epochs=0", "training.batch_size=0.5"),
    *("training.learning_rate=0", "training.learning_rate=inf", "training.patience=0", "training.class_weights=1"),
    *("export.formats=tfjs", "export.formats=[]", "export.calibration_images=0", "parity.images=0"),
    *("parity.limits.int8.agreement=1.01", "parity.limits.int8=1", "name=..", 'name="a\\nb"'),
]


@pytest.mark.parametrize("setting", WRONG_VALUES)
def test_wrong_values(setting: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(None, {"data.path": "photos"}, (setting,))
    assert caught.value.expected
    assert caught.value.mend
    assert "..." not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "label", "is_it_9", "z" * 60])
def test_names_of_heads(name: str) -> None:
    assert list(read_config(None, {f"heads.{name}.kind": "linear"}).heads) == [name]


@pytest.mark.parametrize("name", ["A", "9a", "_a", "a-b", "é", "image", "features", "a b"])
def test_names_that_no_head_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be called"):
        read(f'[heads."{name}"]\n', tmp_path)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "my.toml", {})
