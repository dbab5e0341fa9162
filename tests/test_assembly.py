"""The assembled model: raw pixels in, named answers out, the frozen weights untouched, stock layers only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.contract import Resize
from exporters.errors import CutpointError, InputError
from pipeline import assembly
from pipeline.assembly import MODEL_NAME, Part, assemble, feature_extractor, pooled_width, save_model
from pipeline.backbones import PIXEL_SCALINGS
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights, load_backbone
from pipeline.config import BackboneSection, HeadSection
from pipeline.cut import truncate
from pipeline.heads import build_head
from pipeline.scaling import scale_pixels

SIDE_PX = 64
IMAGES = np.random.default_rng(0).integers(0, 256, (6, SIDE_PX, SIDE_PX, 3), np.uint8).astype(np.float32)
CLASSES = {"sign": 3, "age": 4}
CUT = "block_6_expand_relu"
CUTS = ("block_3_expand_relu", "block_5_add", CUT)
STOCK = {
    *("InputLayer", "Rescaling", "ZeroPadding2D", "Conv2D", "BatchNormalization", "ReLU", "DepthwiseConv2D", "Add"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Flatten", "Dropout", "Dense"),
}


@pytest.fixture(scope="module")
def backbone() -> LoadedBackbone:
    return load_backbone(
        BackboneSection(name="mobilenet_v2", alpha=0.35, weights="quickstart"), Resize(SIDE_PX, SIDE_PX)
    )


@pytest.fixture(scope="module")
def truncated(backbone: LoadedBackbone) -> keras.Model:
    return truncate(backbone.model, (CUT,))


def heads_on(truncated: keras.Model, poolings: dict[str, str]) -> dict[str, Part]:
    found = {}
    for name, pooling in poolings.items():
        width = pooled_width(truncated, CUT, pooling)
        section = HeadSection(kind="mlp", hidden=(5,), dropout=0.5)
        found[name] = Part(pooling, (CUT,), build_head(name, section, width, CLASSES.get(name, 2), seed=1))
    return found


@pytest.fixture(scope="module")
def heads(truncated: keras.Model) -> dict[str, Part]:
    return heads_on(truncated, {"sign": "average", "age": "max"})


@pytest.fixture(scope="module")
def model(truncated: keras.Model, heads: dict) -> keras.Model:
    return assemble(truncated, "tf", heads)


def test_the_contract(model: keras.Model) -> None:
    (image,) = model.inputs
    assert image.name == "image"
    assert image.shape == (None, SIDE_PX, SIDE_PX, 3)
    assert image.dtype == "float32"
    answers = model(IMAGES)
    assert {name: value.shape for name, value in answers.items()} == {"age": (6, 4), "sign": (6, 3)}
    assert all(value.dtype == "float32" for value in answers.values())
    assert model.name == MODEL_NAME


def test_the_answers_are_those_of_the_parts(truncated: keras.Model, heads: dict, model: keras.Model) -> None:
    features = np.asarray(truncated(IMAGES / 127.5 - 1))
    pooled = {"average": features.mean((1, 2)), "max": features.max((1, 2))}
    for name, part in heads.items():
        assert np.abs(np.asarray(part.head(pooled[part.pooling])) - np.asarray(model(IMAGES)[name])).max() < 1e-5


@pytest.mark.parametrize("pooling", ["average", "max", "flatten"])
def test_the_extractor_pools(truncated: keras.Model, pooling: str) -> None:
    features = np.asarray(truncated(IMAGES / 127.5 - 1))
    expected = {"average": features.mean((1, 2)), "max": features.max((1, 2)), "flatten": features.reshape(6, -1)}
    found = np.asarray(feature_extractor(truncated, "tf", [(CUT, pooling)])(IMAGES))
    assert found.shape == expected[pooling].shape
    assert np.abs(found - expected[pooling]).max() < 1e-4


def test_the_extractor_lays_all_that_is_wanted_side_by_side(backbone: LoadedBackbone, truncated: keras.Model) -> None:
    wanted = [(CUTS[2], "average"), (CUTS[0], "flatten"), (CUTS[0], "max")]
    found = np.asarray(feature_extractor(truncate(backbone.model, CUTS), "tf", wanted)(IMAGES))
    start = 0
    for cut, pooling in wanted:
        alone = truncate(backbone.model, (cut,))
        expected = np.asarray(feature_extractor(alone, "tf", [(cut, pooling)])(IMAGES))
        assert expected.shape[1] == pooled_width(alone, cut, pooling)
        assert np.abs(found[:, start : start + expected.shape[1]] - expected).max() < 1e-5
        start += expected.shape[1]
    assert start == found.shape[1]


def test_heads_take_the_features_of_their_own_cuts(backbone: LoadedBackbone) -> None:
    truncated = truncate(backbone.model, CUTS)
    maps = {cut: np.asarray(value) for cut, value in truncated(IMAGES / 127.5 - 1).items()}
    taken = {"all": ("average", CUTS), "sign": ("max", (CUTS[1],)), "two": ("flatten", (CUTS[0], CUTS[2]))}
    parts = {}
    for name, (pooling, cuts) in taken.items():
        width = sum(pooled_width(truncated, cut, pooling) for cut in cuts)
        parts[name] = Part(pooling, cuts, build_head(name, HeadSection(), width, 3, seed=1))
    model = assemble(truncated, "tf", parts)
    pool = {"average": lambda each: each.mean((1, 2)), "max": lambda each: each.max((1, 2))}
    for name, (pooling, cuts) in taken.items():
        pooled = [pool.get(pooling, lambda each: each.reshape(len(each), -1))(maps[cut]) for cut in cuts]
        expected = np.asarray(parts[name].head(np.concatenate(pooled, axis=1)))
        assert np.abs(expected - np.asarray(model(IMAGES)[name])).max() < 1e-5
    assert {type(layer).__name__ for layer in model.layers} <= STOCK | {"Concatenate"}


@pytest.mark.parametrize("pixel_scaling", PIXEL_SCALINGS)
def test_pixels_go_in_raw_whatever_the_scaling(truncated: keras.Model, heads: dict, pixel_scaling: str) -> None:
    image = keras.Input((SIDE_PX, SIDE_PX, 3))
    scaled = np.asarray(keras.Model(image, scale_pixels(image, pixel_scaling))(IMAGES))
    expected = heads["sign"].head(np.asarray(truncated(scaled)).mean((1, 2)))
    found = assemble(truncated, pixel_scaling, {"sign": heads["sign"]})(IMAGES)["sign"]
    assert np.abs(np.asarray(found) - np.asarray(expected)).max() < 1e-4


def test_frozen_weights_are_bit_identical(truncated: keras.Model, heads: dict, model: keras.Model) -> None:
    for layer in truncated.layers[1:]:
        mine = model.get_layer(layer.name).get_weights()
        assert len(mine) == len(layer.get_weights())
        assert all(a.tobytes() == b.tobytes() for a, b in zip(mine, layer.get_weights(), strict=True))
    assert model.trainable_weights == []
    # A copy of its own: training it on would not reach into the backbone.
    assert model.get_layer("Conv1") is not truncated.get_layer("Conv1")


def test_weights_that_changed_on_the_way_are_found(
    truncated: keras.Model, heads: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = assembly.clone

    def careless(model: keras.Model) -> keras.Model:
        copy = clone(model)
        layer = copy.get_layer("Conv1")
        layer.set_weights([values * (1 + 1e-6) for values in layer.get_weights()])
        return copy

    monkeypatch.setattr(assembly, "clone", careless)
    with pytest.raises(CutpointError, match="frozen weights of 'Conv1'"):
        assemble(truncated, "tf", heads)


def test_dropout_is_inert(model: keras.Model) -> None:
    assert np.array_equal(model(IMAGES)["sign"], model(IMAGES, training=False)["sign"])


def test_stock_layers_in_a_flat_graph(model: keras.Model) -> None:
    assert {type(layer).__name__ for layer in model.layers} <= STOCK
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("poolings", "pixel_scaling", "clash"),
    [
        ({"Conv1": "average"}, "tf", "Conv1"),
        ({"expanded_conv_project": "max"}, "tf", "expanded_conv_project"),
        ({"pixel_scaling": "average"}, "tf", "pixel_scaling"),
        ({"sign": "average", "sign_average": "max"}, "tf", "sign_average"),
        ({"sign": "average", "sign_hidden_1": "average"}, "tf", "sign_hidden_1"),
    ],
)
def test_names_that_clash(truncated: keras.Model, poolings: dict, pixel_scaling: str, clash: str) -> None:
    with pytest.raises(InputError, match=f"'{clash}'") as caught:
        assemble(truncated, pixel_scaling, heads_on(truncated, poolings))
    assert "rename [heads." in caught.value.mend


def test_the_digest_follows_every_weight(model: keras.Model) -> None:
    before = digest_of_weights(model)
    assert before == digest_of_weights(model)
    layer = model.get_layer("sign")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, np.nextafter(bias, 1, dtype=np.float32)])
    assert digest_of_weights(model) != before
    layer.set_weights([kernel, bias])
    assert digest_of_weights(model) == before


def test_the_same_model_is_saved_as_the_same_bytes(truncated: keras.Model, heads: dict, tmp_path: Path) -> None:
    for name in ("one", "other"):
        save_model(assemble(truncated, "tf", heads), tmp_path / f"{name}.keras")
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "other.keras").read_bytes()
    loaded = keras.models.load_model(tmp_path / "one.keras")
    assert digest_of_weights(loaded) == digest_of_weights(assemble(truncated, "tf", heads))


LOADS_ALONE = """
import json, sys
import numpy as np
import keras
try:
    import pipeline
    raise SystemExit("pipeline can be imported: this proves nothing")
except ImportError:
    pass
model = keras.models.load_model(sys.argv[1], safe_mode=True)
images = np.load(sys.argv[2])
print(json.dumps({name: np.asarray(value).tolist() for name, value in model(images).items()}))
"""


def test_it_loads_where_cutpoint_is_not_installed(truncated: keras.Model, heads: dict, tmp_path: Path) -> None:
    # The caffe way flips channels, which a careless exporter does in a Lambda.
    model = assemble(truncated, "caffe", heads)
    save_model(model, tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # -I, and the project out of the way, also where it is installed in place.
    root = str(Path(__file__).parents[1])
    program = (
        "import sys\n"
        f"sys.path[:] = [p for p in sys.path if not p.startswith({root!r}) or 'site-packages' in p]\n"
        "sys.meta_path[:] = [each for each in sys.meta_path if 'editable' not in repr(each).lower()]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program + LOADS_ALONE, "model.keras", "images.npy"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, answer in json.loads(done.stdout.splitlines()[-1]).items():
        assert np.abs(np.array(answer) - np.asarray(model(IMAGES)[name])).max() < 1e-5
