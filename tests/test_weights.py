"""Where weights come from: Keras's own cache, a file, the embedded ones, none; all without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from commands import cutpoint
from keras.src.legacy.saving import legacy_h5_format
from pictures import write_noise

from exporters.contract import Card, Resize
from exporters.errors import InputError
from pipeline.backbones import EMBEDDED_WEIGHTS
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights, load_backbone
from pipeline.config import BackboneSection

REALDATA = os.environ.get("CUTPOINT_REALDATA", "")
SIZE = Resize(224, 224)
# Backbone, alpha, and the name under which Keras keeps its ImageNet weights.
KEPT_AS = {
    "mobilenet": (0.25, "mobilenet_2_5_224_tf_no_top.h5"),
    "mobilenet_v2": (0.35, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib reads those once and keeps them for the whole process: neither what was kept before may serve here, nor this later.
    monkeypatch.setattr("urllib.request._opener", None)


@pytest.fixture
def models() -> Iterator[Path]:
    """The folder in which Keras keeps weights, empty before and after."""
    folder = Path(os.environ["KERAS_HOME"]) / "models"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def load(name: str, weights: str, alpha: float | None = None) -> LoadedBackbone:
    section = BackboneSection(name=name, alpha=alpha or KEPT_AS[name][0], weights=weights)
    return load_backbone(section, SIZE)


def write_as_keras_keeps_them(model: keras.Model, path: Path) -> None:
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.mark.parametrize("name", KEPT_AS)
def test_weights_in_the_cache_of_keras_are_used(models: Path, name: str) -> None:
    keras.utils.set_random_seed(5)
    kept = load(name, "none").model
    write_as_keras_keeps_them(kept, models / KEPT_AS[name][1])
    loaded = load(name, "imagenet")
    assert loaded.weights_sha256 == digest_of_weights(kept)
    assert loaded.pixel_scaling == "tf"
    assert loaded.model.trainable_weights == []


def test_an_empty_cache_and_no_network(models: Path) -> None:
    with pytest.raises(InputError, match="could not be had") as caught:
        load("mobilenet_v2", "imagenet")
    assert "KERAS_HOME" in caught.value.expected
    assert list(models.iterdir()) == []


def test_a_damaged_file_in_the_cache(models: Path) -> None:
    (models / KEPT_AS["mobilenet"][1]).write_bytes(b"\x89HDF\r\n\x1a\n half a file")
    with pytest.raises(InputError, match="could not be had"):
        load("mobilenet", "imagenet")


def test_embedded_weights_are_those_of_the_file() -> None:
    embedded = load("mobilenet_v2", "quickstart")
    assert embedded.weights_sha256 == load("mobilenet_v2", str(EMBEDDED_WEIGHTS)).weights_sha256
    assert embedded.weights_sha256 != load("mobilenet_v2", "none").weights_sha256


def test_random_weights_are_new_each_time() -> None:
    assert load("mobilenet", "none").weights_sha256 != load("mobilenet", "none").weights_sha256


@pytest.mark.parametrize(
    ("name", "alpha"), [("mobilenet_v2", 0.5), ("mobilenet_v2", 1.0), ("mobilenet", 0.25), ("mobilenet", 0.35)]
)
def test_weights_of_another_network_are_refused(name: str, alpha: float) -> None:
    with pytest.raises(InputError, match="do not fit"):
        load(name, "quickstart", alpha)


def test_a_file_in_which_layers_are_missing_is_refused(tmp_path: Path) -> None:
    # Keras itself loads the rest of such a file, leaves those layers as they were initialised, and warns at most.
    path = shutil.copy(EMBEDDED_WEIGHTS, tmp_path / "less.weights.h5")
    with h5py.File(path, "a") as file:
        holding: list[str] = []
        file.visititems(lambda name, each: holding.append(name) if isinstance(each, h5py.Dataset) else None)
        del file[holding[0].split("/vars/")[0]]
    with pytest.raises(InputError, match="do not fit"):
        load("mobilenet_v2", str(path))


@pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set")
@pytest.mark.parametrize("name", KEPT_AS)
def test_real_weights_under_their_right_name_are_used_offline(models: Path, tmp_path: Path, name: str) -> None:
    alpha, file = KEPT_AS[name]
    shutil.copy(Path(REALDATA) / "weights" / file, models / file)
    write_noise(tmp_path / "photos", {"cat": 3, "dog": 3})
    arguments = ["--data", tmp_path / "photos", "--backbone", name, "--set", f"backbone.alpha={alpha}"]
    arguments += ["--set", "resize.width=64", "--set", "training.epochs=1"]
    digests = []
    for weights in ("imagenet", Path(REALDATA) / "weights" / file):
        outcome = cutpoint("train", *arguments, "--weights", weights, "--out", tmp_path / "out")
        assert outcome.exit_code == 0, outcome.stderr
        digests.append(Card.read(tmp_path / "out" / "card.json").backbone.weights_sha256)
    assert digests[0] == digests[1]
    kernel = load(name, "imagenet").model.layers[1].get_weights()[0]
    assert np.abs(kernel).max() > 0.1
