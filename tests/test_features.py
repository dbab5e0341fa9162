"""The feature store survives what may happen to it, computes what is missing and no more, and trusts no runtime unseen."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from pictures import write_noise, write_truncated, write_without_width

from exporters.contract import Resize
from exporters.errors import InputError
from exporters.pixels import read_picture, resize
from pipeline import features
from pipeline.dataset import list_examples
from pipeline.features import FeatureStore, extract_features, fastest_compute, keras_compute
from pipeline.splitting import Example

ROOT = Path(__file__).parents[1]
KEY = {"weights": "abc", "cut": "out_relu"}
SMALL = Resize(4, 4)
WIDTH = 5


def name_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=WIDTH).astype(np.float32)


def fill(cache: Path, numbers: range) -> Path:
    with FeatureStore(cache, KEY, WIDTH) as store:
        store.append([name_of(each) for each in numbers], np.stack([row_of(each) for each in numbers]))
        return store.folder


def assert_holds(store: FeatureStore, numbers: range) -> None:
    assert all(name_of(each) in store for each in numbers)
    expected = np.stack([row_of(each) for each in numbers]) if numbers else np.empty((0, WIDTH), np.float32)
    assert np.array_equal(store.gather([name_of(each) for each in numbers]), expected)


# --- the store -----------------------------------------------------------------------------------------------------


def test_rows_come_back_in_any_order(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    with FeatureStore(tmp_path, KEY, WIDTH) as store:
        assert_holds(store, range(10))
        assert np.array_equal(
            store.gather([name_of(7), name_of(2), name_of(7)]), np.stack([row_of(7), row_of(2), row_of(7)])
        )
        assert name_of(10) not in store
        assert store.gather([]).shape == (0, WIDTH)


def test_another_key_is_another_store(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    with FeatureStore(tmp_path, {**KEY, "cut": "conv1"}, WIDTH) as store:
        assert name_of(0) not in store


@pytest.mark.parametrize("lost", [0, 1, 3, 4 * WIDTH - 1, 4 * WIDTH, 4 * WIDTH + 1, 7 * WIDTH, 4 * WIDTH * 10])
def test_killed_while_rows_were_written(tmp_path: Path, lost: int) -> None:
    folder = fill(tmp_path, range(10))
    data = (folder / "rows.f32").read_bytes()
    (folder / "rows.f32").write_bytes(data[: len(data) - lost])
    whole = (len(data) - lost) // (4 * WIDTH)
    with FeatureStore(tmp_path, KEY, WIDTH) as store:
        assert_holds(store, range(whole))
        assert name_of(whole) not in store
        store.append(
            [name_of(each) for each in range(whole, 12)], np.stack([row_of(each) for each in range(whole, 12)])
        )
        assert_holds(store, range(12))
    with FeatureStore(tmp_path, KEY, WIDTH) as store:
        assert_holds(store, range(12))


@pytest.mark.parametrize("lost", [0, 1, 64, 65, 66, 130, 65 * 10])
def test_killed_while_names_were_written(tmp_path: Path, lost: int) -> None:
    folder = fill(tmp_path, range(10))
    data = (folder / "index.txt").read_bytes()
    (folder / "index.txt").write_bytes(data[: len(data) - lost])
    whole = (len(data) - lost) // 65
    with FeatureStore(tmp_path, KEY, WIDTH) as store:
        assert_holds(store, range(whole))
        assert whole == 10 or name_of(whole) not in store
        store.append(
            [name_of(each) for each in range(whole, 12)], np.stack([row_of(each) for each in range(whole, 12)])
        )
        assert_holds(store, range(12))


def test_two_processes_write_one_after_the_other(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, KEY, WIDTH) as store:
        folder = store.folder
    lock = str(folder) + ".lock"
    program = (
        "import filelock, sys, time\n"
        f"with filelock.FileLock({lock!r}):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(1.0)\n"
        f"    open({str(folder / 'released')!r}, 'w').close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        assert not (folder / "released").exists()
        with FeatureStore(tmp_path, KEY, WIDTH):
            assert (folder / "released").exists()


def test_the_lock_is_given_back_when_computing_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FeatureStore(tmp_path, KEY, WIDTH):
        raise ZeroDivisionError
    start = time.monotonic()
    fill(tmp_path, range(1))
    assert time.monotonic() - start < 5


# --- extracting ----------------------------------------------------------------------------------------------------


class Network:
    """Stands for a network: the means of each picture; counts what it was given."""

    def __init__(self) -> None:
        self.loaded = 0
        self.pictures = 0

    def __call__(self) -> features.Compute:
        self.loaded += 1

        def compute(images: np.ndarray) -> np.ndarray:
            assert images.dtype == np.uint8
            assert images.shape[1:] == (4, 4, 3)
            self.pictures += len(images)
            return expected_of(images)

        return compute


def expected_of(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return np.stack([flat.mean(1), flat[:, 0], flat[:, 7], flat[:, 11], flat.max(1)], 1)


@pytest.fixture
def examples(tmp_path: Path) -> tuple[Example, ...]:
    return list_examples(write_noise(tmp_path / "photos", {"cat": 50, "dog": 45}), ("label",), "")


def extract(cache: Path, examples: tuple[Example, ...], network: Network, bad_limit: float = 0.05, key: dict = KEY):
    with FeatureStore(cache, key, WIDTH) as store:
        bad, computed = extract_features(store, examples, SMALL, network, bad_limit)
    return store, bad, computed


def test_each_picture_once_and_never_again(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    network = Network()
    store, bad, computed = extract(tmp_path, examples, network)
    assert (bad, computed, network.loaded, network.pictures) == ({}, 95, 1, 95)
    images = np.stack([resize(read_picture(each.path), SMALL) for each in examples])
    assert np.array_equal(store.gather([each.sha256 for each in examples]), expected_of(images))
    _, bad, computed = extract(tmp_path, examples, network)
    assert (bad, computed, network.loaded, network.pictures) == ({}, 0, 1, 95)


def test_only_what_is_missing(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    network = Network()
    extract(tmp_path, examples[:60], network)
    _, _, computed = extract(tmp_path, examples, network)
    assert (computed, network.pictures) == (35, 95)


def test_the_content_counts_and_not_the_name(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    network = Network()
    extract(tmp_path, examples, network)
    renamed = tuple(
        dataclasses.replace(each, path=each.path.rename(each.path.with_name(f"new-{each.path.name}")))
        for each in examples
    )
    copies = tuple(dataclasses.replace(each, path=each.path.with_name("elsewhere.png")) for each in renamed)
    _, _, computed = extract(tmp_path, renamed + copies, network)
    assert computed == 0


def test_copies_are_computed_once(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    network = Network()
    _, _, computed = extract(tmp_path, examples + examples, network)
    assert (computed, network.pictures) == (95, 95)


def test_interrupted_and_taken_up_again(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    network = Network()

    def interrupted() -> features.Compute:
        compute = network()

        def run(images: np.ndarray) -> np.ndarray:
            if network.pictures >= 64:
                raise KeyboardInterrupt
            return compute(images)

        return run

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, examples, interrupted)
    assert network.pictures == 64
    store, _, computed = extract(tmp_path, examples, network)
    assert (computed, network.pictures) == (31, 95)
    images = np.stack([resize(read_picture(each.path), SMALL) for each in examples])
    assert np.array_equal(store.gather([each.sha256 for each in examples]), expected_of(images))


def with_broken_ones(root: Path) -> tuple[Example, ...]:
    write_noise(root, {"cat": 40, "dog": 40})
    write_truncated(root / "cat" / "half.jpg")
    write_without_width(root / "dog" / "thin.png")
    (root / "dog" / "empty.webp").write_bytes(b"")
    return list_examples(root, ("label",), "")


def test_unreadable_ones_are_named_with_their_reason(tmp_path: Path) -> None:
    network = Network()
    examples = with_broken_ones(tmp_path / "photos")
    _, bad, computed = extract(tmp_path, examples, network, bad_limit=0.05)
    reasons = {each.path.name: bad[each.sha256] for each in examples if each.sha256 in bad}
    assert set(reasons) == {"half.jpg", "thin.png", "empty.webp"}
    assert reasons["half.jpg"].startswith("damaged: ")
    assert reasons["empty.webp"] == "the file is empty"
    assert computed == 80
    # A picture that could not be read is looked at again, as it may have been mended.
    _, again, computed = extract(tmp_path, examples, network, bad_limit=0.05)
    assert (again, computed) == (bad, 0)


def test_too_many_unreadable_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 of 83 pictures cannot be read: .*half\.jpg: damaged") as caught:
        extract(tmp_path, with_broken_ones(tmp_path / "photos"), Network(), bad_limit=0.03)
    assert "3% (data.bad_limit)" in caught.value.expected


def test_a_limit_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        extract(tmp_path, with_broken_ones(tmp_path / "photos"), Network(), bad_limit=0.0)


def test_a_file_that_vanished(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    examples[3].path.unlink()
    _, bad, computed = extract(tmp_path, examples, Network())
    assert list(bad) == [examples[3].sha256]
    assert "No such file" in bad[examples[3].sha256]
    assert computed == 94


def test_the_disk_is_looked_at_first(
    tmp_path: Path, examples: tuple[Example, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = features.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage._replace(free=2**28 + 100))
    network = Network()
    with pytest.raises(InputError, match="256 MiB are free at") as caught:
        extract(tmp_path, examples, network)
    assert "CUTPOINT_CACHE" in caught.value.mend
    assert network.loaded == 0
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage._replace(free=2**28 + 95 * 4 * WIDTH))
    assert extract(tmp_path, examples, network)[2] == 95


def test_progress_counts_all_and_ends_at_the_end(tmp_path: Path, examples: tuple[Example, ...]) -> None:
    seen: list[tuple[int, int]] = []
    with FeatureStore(tmp_path, KEY, WIDTH) as store:
        extract_features(store, examples, SMALL, Network(), 0.05, lambda done, total: seen.append((done, total)))
    assert seen == [(32, 95), (64, 95), (95, 95)]


# --- Keras and LiteRT ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extractor() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    value = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    value = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(value)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(value))


# So many pictures of the extractor above are worth a conversion.
MANY = 10**8
IMAGES = np.random.default_rng(3).integers(0, 256, (40, 16, 16, 3), np.uint8)


def test_keras_computes_what_the_network_answers(extractor: keras.Model) -> None:
    compute = keras_compute(extractor)
    expected = np.asarray(extractor(IMAGES[:32].astype(np.float32)))
    assert np.allclose(compute(IMAGES[:32]), expected, atol=1e-6)
    # A last batch that is not full is answered without what it was filled up with.
    assert compute(IMAGES[:5]).shape == (5, 8)
    assert np.allclose(compute(IMAGES[:5]), expected[:5], atol=1e-6)


def test_litert_agrees_and_is_taken(extractor: keras.Model) -> None:
    notes: list[str] = []
    compute = fastest_compute(extractor, MANY, "cpu", notes.append)
    slow = keras_compute(extractor)
    assert np.abs(compute(IMAGES[:32]) - slow(IMAGES[:32])).max() < 1e-4
    assert np.abs(compute(IMAGES[:7]) - slow(IMAGES[:7])).max() < 1e-4
    assert len(notes) == 1
    assert "features through LiteRT, which agrees" in notes[0]


@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_litert_that_differs_is_refused(extractor: keras.Model, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    slow = keras_compute(extractor)
    monkeypatch.setattr(
        features, "_litert_compute", lambda model, note: lambda images: slow(images) + np.float32(wrong)
    )
    notes: list[str] = []
    compute = fastest_compute(extractor, MANY, "cpu", notes.append)
    assert np.array_equal(compute(IMAGES[:32]), slow(IMAGES[:32]))
    assert np.array_equal(compute(IMAGES[32:]), slow(IMAGES[32:]))
    assert len(notes) == 1
    assert "features through Keras: LiteRT differs" in notes[0]


@pytest.mark.parametrize(("pictures", "device"), [(MANY, "gpu"), (1000, "cpu")])
def test_keras_on_a_gpu_and_for_a_few(
    extractor: keras.Model, monkeypatch: pytest.MonkeyPatch, pictures: int, device: str
) -> None:
    monkeypatch.setattr(features, "_litert_compute", lambda model, note: pytest.fail("converted"))
    notes: list[str] = []
    compute = fastest_compute(extractor, pictures, device, notes.append)
    assert np.array_equal(compute(IMAGES[:3]), keras_compute(extractor)(IMAGES[:3]))
    assert "features through Keras" in notes[0]
