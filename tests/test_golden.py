"""The golden set and its manifest: there and back, every damaged file named, nothing of this machine in it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporters.contract import CEILINGS
from exporters.errors import InputError
from exporters.fingerprints import Fingerprint, WeightSet, read_fingerprints, write_fingerprints
from exporters.golden import (
    GoldenSet,
    check_files,
    read_golden,
    read_manifest,
    sha256_of,
    write_golden,
    write_manifest,
)
from exporters.golden_files import (
    LONGEST_SIDE_PX,
    MOST_FILES,
    cells_of_files,
    check_pixels,
    images_of_files,
    prepare_files,
)
from exporters.pixels import read_picture, resize
from exporters.runners.keras import KerasRunner
from tests import small_models

CARD = dataclasses.replace(small_models.CARD, created_from="sha256:golden")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
REFERENCE = {name: np.random.default_rng(1).random((6, 5), np.float32) for name in ("apple", "zebra")}
TRUTH = {"apple": np.arange(6) % 5}
KERNEL = np.random.default_rng(2).normal(size=(3, 3, 4, 5)).astype(np.float32)
LAYERS = (Fingerprint("first", "conv", KERNEL, np.arange(5, dtype=np.float32), "relu6", ((0.0, 6.0), (-1.0, 7.0))),)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A result folder with two artifacts of a few bytes and a whole golden set."""
    result = tmp_path / "result"
    for name, file in (
        ("tfjs-float32", "model.json"),
        ("tfjs-float32", "group1-shard1of1.bin"),
        ("onnx-int8", "model.onnx"),
    ):
        path = result / "artifacts" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name}/{file}".encode())
    files = prepare_files(small_models.write_pictures(tmp_path / "pictures"), result)
    of_files = {name: values[: len(files)] for name, values in REFERENCE.items()}
    sets = {"plain": WeightSet(LAYERS, {"pixel_scaling/offset": np.float32(-1)}, True, True)}
    write_fingerprints(sets, {"float32": "plain"}, result / "golden")
    write_golden(GoldenSet(IMAGES, TRUTH, REFERENCE, CARD, CEILINGS), result, files, of_files)
    write_manifest(result, CARD, CEILINGS)
    CARD.write(result / "card.json")
    return result


def test_a_golden_set_comes_back_as_it_was_written(out: Path) -> None:
    golden = read_golden(out, read_manifest(out))
    np.testing.assert_array_equal(golden.images, IMAGES, strict=True)
    assert golden.card == CARD and golden.limits == CEILINGS
    assert set(golden.reference) == set(REFERENCE) and set(golden.truth) == {"apple"}
    for name, values in REFERENCE.items():
        np.testing.assert_array_equal(golden.reference[name], values, strict=True)
    np.testing.assert_array_equal(golden.truth["apple"], TRUTH["apple"])


def test_the_files_are_those_that_interfaces_names(out: Path) -> None:
    with np.load(out / "golden" / "images.npz") as arrays:
        assert sorted(arrays.files) == ["images", "labels_apple"]
    with np.load(out / "golden" / "reference.npz") as arrays:
        assert sorted(arrays.files) == ["apple", "zebra"]
    manifest = json.loads((out / "golden" / "manifest.json").read_text(encoding="utf-8"))
    present = {path.relative_to(out).as_posix() for top in ("artifacts", "golden") for path in (out / top).rglob("*.*")}
    assert set(manifest["files"]) == present - {"golden/manifest.json"}
    assert manifest["files"]["artifacts/onnx-int8/model.onnx"] == sha256_of(out / "artifacts/onnx-int8/model.onnx")
    assert manifest["limits"]["int8"]["max_abs"] is None
    assert str(out) not in (out / "golden" / "manifest.json").read_text(encoding="utf-8")


def test_the_same_golden_set_has_the_same_manifest(out: Path, tmp_path: Path) -> None:
    before = (out / "golden" / "manifest.json").read_bytes()
    write_manifest(out, CARD, CEILINGS)
    assert (out / "golden" / "manifest.json").read_bytes() == before


def test_expected_answers_belong_to_their_files(tmp_path: Path) -> None:
    one = small_models.small()
    small_models.write_golden_of(tmp_path, one)
    expected = json.loads((tmp_path / "golden" / "files" / "expected.json").read_text(encoding="utf-8"))
    paths = [tmp_path / "golden" / "files" / each["file"] for each in expected["files"]]
    assert [path.name for path in paths] == [f"{index:04d}.{kind}" for kind in ("png", "jpg") for index in range(3)]
    images = images_of_files(paths, one.card)
    np.testing.assert_array_equal(images[1], resize(read_picture(paths[1]), one.card.resize))
    with KerasRunner(one.model) as runner:
        answers = runner.predict(images)
    for index, each in enumerate(expected["files"]):
        assert set(each["outputs"]) == {"apple", "zebra"}
        for name, values in each["outputs"].items():
            np.testing.assert_allclose(values, answers[name][index], atol=1e-6)


def test_pictures_are_copied_upright_small_and_not_too_many(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1200, 300), "red").save(tmp_path / "wide.jpg", exif=exif)
    written = prepare_files([tmp_path / "wide.jpg"] * (MOST_FILES + 3), tmp_path)
    copies = [path for path in written if path.suffix == ".png"]
    assert len(copies) == MOST_FILES and written[0].name == "0000.png" and len(written) == MOST_FILES + 4
    with Image.open(copies[0]) as copy:
        assert copy.size == (LONGEST_SIDE_PX // 4, LONGEST_SIDE_PX) and copy.mode == "RGB" and not copy.getexif()
    assert prepare_files([], tmp_path / "none") == []
    assert images_of_files([], CARD).shape == (0, 32, 32, 3)


def test_the_files_are_spread_over_all_pictures_and_keep_their_cells(tmp_path: Path) -> None:
    # As test pictures often lie: label after label.
    pictures, cells = [tmp_path / f"{place}.png" for place in range(100)], [{"age": str(i)} for i in range(100)]
    for place, path in enumerate(pictures):
        Image.new("L", (4, 4), place).save(path)
    written = prepare_files(pictures, tmp_path / "out")
    copies = [path for path in written if path.suffix == ".png"]
    places = [int(read_picture(path)[0, 0, 0]) for path in copies]
    assert places == [int(path.stem) for path in copies] and len(places) == MOST_FILES
    assert places[0] == 0 and places[-1] == 99 and max(np.diff(places)) <= 5
    assert [int(each["age"]) for each in cells_of_files(written, cells)] == [int(path.stem) for path in written]
    assert [path.stem for path in written[MOST_FILES:]] == [path.stem for path in copies[:4]]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


FAULTS: dict[str, tuple[Callable[[Path], object], dict[str, list[str]]]] = {
    "nothing": (lambda out: None, {}),
    "one changed bit in an artifact": (
        lambda out: flip_a_byte(out / "artifacts/onnx-int8/model.onnx"),
        {"changed": ["artifacts/onnx-int8/model.onnx"]},
    ),
    "one changed bit in the reference": (
        lambda out: flip_a_byte(out / "golden/reference.npz"),
        {"changed": ["golden/reference.npz"]},
    ),
    "a missing shard": (
        lambda out: (out / "artifacts/tfjs-float32/group1-shard1of1.bin").unlink(),
        {"missing": ["artifacts/tfjs-float32/group1-shard1of1.bin"]},
    ),
    "an emptied file": (
        lambda out: (out / "artifacts/tfjs-float32/model.json").write_bytes(b""),
        {"changed": ["artifacts/tfjs-float32/model.json"]},
    ),
    "a file that does not belong there": (
        lambda out: (out / "artifacts/tfjs-float32/group1-shard2of2.bin").write_bytes(b"1"),
        {"unexpected": ["artifacts/tfjs-float32/group1-shard2of2.bin"]},
    ),
    "a hidden file": (
        lambda out: (out / "golden/files/.hidden").write_bytes(b"1"),
        {"unexpected": ["golden/files/.hidden"]},
    ),
    "an artifact taken away": (
        lambda out: shutil.rmtree(out / "artifacts/onnx-int8"),
        {"missing": ["artifacts/onnx-int8/model.onnx"]},
    ),
    "two files exchanged": (
        lambda out: shutil.copy(out / "golden/files/0000.png", out / "golden/files/0001.png"),
        {"changed": ["golden/files/0001.png"]},
    ),
    "a card of another run": (
        lambda out: dataclasses.replace(CARD, created_from="sha256:other").write(out / "card.json"),
        {"changed": ["card.json"]},
    ),
    "other labels in the model's card": (
        lambda out: (out / "card.json").write_text((out / "card.json").read_text().replace("plain", "plane")),
        {"changed": ["card.json"]},
    ),
    "no card": (lambda out: (out / "card.json").unlink(), {}),
}


@pytest.mark.parametrize(("damage", "found"), FAULTS.values(), ids=FAULTS)
def test_every_file_that_is_not_as_it_was_is_named(
    damage: Callable[[Path], object], found: dict[str, list[str]], out: Path
) -> None:
    damage(out)
    checked = check_files(out, read_manifest(out))
    expected = {"changed": [], "missing": [], "unexpected": []} | found
    assert checked == {"status": "failed" if found else "verified", **expected}


def edit_manifest(out: Path, **changes: object) -> None:
    path = out / "golden" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BROKEN_MANIFESTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "no JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[]"),
    "no files": lambda path: path.write_text('{"schema_version": 1}'),
    "files is a list": lambda path: path.write_text('{"schema_version": 1, "files": []}'),
    "another schema": lambda path: path.write_text('{"schema_version": 2, "files": {}}'),
    "not UTF-8": lambda path: path.write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", BROKEN_MANIFESTS.values(), ids=BROKEN_MANIFESTS)
def test_a_broken_manifest_is_an_input_error(damage: Callable[[Path], object], out: Path) -> None:
    damage(out / "golden" / "manifest.json")
    with pytest.raises(InputError, match="no golden set that can be read"):
        read_manifest(out)


def save(out: Path, name: str, **arrays: np.ndarray) -> None:
    np.savez_compressed(out / "golden" / name, **arrays)


BROKEN_SETS: dict[str, Callable[[Path], object]] = {
    "no images": lambda out: (out / "golden/images.npz").unlink(),
    "no reference": lambda out: (out / "golden/reference.npz").unlink(),
    "empty images": lambda out: (out / "golden/images.npz").write_bytes(b""),
    "half of the images": lambda out: (out / "golden/images.npz").write_bytes(
        (out / "golden/images.npz").read_bytes()[:3000]
    ),
    "a changed bit": lambda out: flip_a_byte(out / "golden/images.npz"),
    "text": lambda out: (out / "golden/reference.npz").write_text("text"),
    "no array of images": lambda out: save(out, "images.npz", pictures=IMAGES),
    "pickled objects": lambda out: save(out, "images.npz", images=np.array([{"a": 1}] * 6, dtype=object)),
    "fewer answers than images": lambda out: save(out, "reference.npz", apple=REFERENCE["apple"][:5]),
    "more labels than images": lambda out: save(out, "images.npz", images=IMAGES, labels_apple=np.zeros(7, int)),
    "an answer that is no array": lambda out: save(out, "reference.npz", apple=np.float32(1)),
    "images of another size": lambda out: save(out, "images.npz", images=IMAGES[:, :16]),
    "images that are no bytes": lambda out: save(out, "images.npz", images=IMAGES / 255),
    "unknown limits": lambda out: edit_manifest(out, limits={"int8": {"largest": 1}}),
    "limits that are no table": lambda out: edit_manifest(out, limits=[]),
    "a limit that nothing is over": lambda out: edit_manifest(
        out, limits={"int8": {"max_abs": float("nan"), "agreement": 0.9}}
    ),
    "an infinite limit": lambda out: edit_manifest(out, limits={"int8": {"max_abs": float("inf"), "agreement": 0.9}}),
    "a card that is none": lambda out: edit_manifest(out, card={"schema_version": 1}),
    "a card that is text": lambda out: edit_manifest(out, card="card"),
}


@pytest.mark.parametrize("damage", BROKEN_SETS.values(), ids=BROKEN_SETS)
def test_a_broken_golden_set_is_an_input_error(damage: Callable[[Path], object], out: Path) -> None:
    damage(out)
    with pytest.raises(InputError) as caught:
        read_golden(out, read_manifest(out))
    assert caught.value.expected and caught.value.mend


@pytest.mark.parametrize("key", ["card", "limits"])
def test_a_manifest_without_a_card_or_limits_is_an_input_error(key: str, out: Path) -> None:
    path = out / "golden" / "manifest.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    with pytest.raises(InputError):
        read_golden(out, read_manifest(out))


def test_noise_in_the_arrays_is_an_input_error_or_harmless(out: Path) -> None:
    path, generator = out / "golden" / "reference.npz", np.random.default_rng(3)
    whole = path.read_bytes()
    for _ in range(120):
        noisy = bytearray(whole)
        noisy[generator.integers(len(noisy))] ^= 1 << generator.integers(8)
        path.write_bytes(bytes(noisy))
        try:
            read_golden(out, read_manifest(out))
        except InputError:
            continue


def test_the_golden_files_give_the_same_pixels_here(out: Path) -> None:
    found = check_pixels(out, CARD)
    assert found == {"files": 6, "largest_difference": 0, "status": "verified", "reason": ""}


def test_some_files_are_there_as_turned_jpeg_too(out: Path) -> None:
    """A decoder that forgets the orientation gives other pixels, one that rounds otherwise nearly the same ones."""
    folder = out / "golden" / "files"
    orientations = []
    for index in range(3):
        with Image.open(folder / f"{index:04d}.jpg") as stored:
            orientations.append(stored.getexif()[0x0112])
        upright = read_picture(folder / f"{index:04d}.png").astype(np.int16)
        assert np.abs(upright - read_picture(folder / f"{index:04d}.jpg")).mean() < 6
    assert orientations == [1, 3, 6]


@pytest.mark.parametrize(("levels", "status"), [(1, "verified"), (2, "verified"), (3, "failed")])
def test_a_jpeg_may_be_decoded_two_levels_apart(
    levels: int, status: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_otherwise(path: Path) -> np.ndarray:
        pixels = read_picture(path)
        return np.where(pixels > 127, pixels - levels, pixels + levels) if path.suffix == ".jpg" else pixels

    monkeypatch.setattr("exporters.golden_files.read_picture", read_otherwise)
    monkeypatch.setattr("exporters.golden_files.resize", lambda rgb, how: resize(rgb.astype(np.uint8), how))
    found = check_pixels(out, CARD)
    assert (found["status"], found["largest_difference"]) == (status, levels)


def test_a_png_must_be_decoded_to_the_same_pixels(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.golden_files.read_picture", lambda path: read_picture(path) ^ np.uint8(1))
    assert check_pixels(out, CARD)["status"] == "failed"


def test_fingerprints_come_back_as_they_were_written(out: Path) -> None:
    found = read_golden(out, read_manifest(out)).fingerprints
    assert set(found) == {"float32"} and found["float32"].complete and found["float32"].closed
    (layer,) = found["float32"].layers
    np.testing.assert_array_equal(layer.kernel, KERNEL, strict=True)
    np.testing.assert_array_equal(layer.bias, np.arange(5, dtype=np.float32), strict=True)
    assert (layer.name, layer.kind, layer.activation, layer.spans) == (*("first", "conv", "relu6"), LAYERS[0].spans)
    np.testing.assert_array_equal(found["float32"].others["pixel_scaling/offset"], -1)


@pytest.mark.parametrize(("kind", "shape"), [("conv", (3, 3, 4, 5)), ("depthwise", (3, 3, 6, 2)), ("dense", (7, 5))])
def test_rounded_kernels_are_kept_narrow_and_exactly(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    axes = (0, 1) if kind == "depthwise" else tuple(range(len(shape) - 1))
    whole = generator.integers(-127, 128, shape).astype(np.float64)
    np.put(whole, 0, 127)
    peak = np.abs(whole).max(axes, keepdims=True)
    scale = generator.uniform(0.01, 0.3, peak.shape) / np.where(peak > 0, peak, 1)
    eight = (whole * 127 / np.where(peak > 0, peak, 1)).round() * scale
    half = generator.normal(size=shape).astype(np.float16).astype(np.float32)
    for name, kernel, dtype in (("eight", eight.astype(np.float32), "int8"), ("half", half, "float16")):
        layer = Fingerprint("layer", kind, kernel, None, "linear")
        write_fingerprints({name: WeightSet((layer,), {}, True, True)}, {"int8": name}, tmp_path / name)
        with np.load(tmp_path / name / "weights.npz") as stored:
            assert stored[f"{name}.0.kernel"].dtype == dtype
        (found,) = read_fingerprints(tmp_path / name)["int8"].layers
        np.testing.assert_allclose(found.kernel, kernel, rtol=0, atol=2e-6 * np.abs(kernel).max())
        assert found.bias is None and found.spans == ()


def test_another_resize_is_found_out_by_the_golden_files(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "exporters.golden_files.resize", lambda rgb, how: np.array(Image.fromarray(rgb).resize((32, 32), 0))
    )
    found = check_pixels(out, CARD)
    assert found["status"] == "failed" and "other pixels" in str(found["reason"])


def test_a_missing_golden_file_is_a_failure(out: Path) -> None:
    (out / "golden" / "files" / "0000.png").unlink()
    assert check_pixels(out, CARD)["status"] == "failed"
