"""Features of every picture, computed once and cached on disk.

A store is a folder of the cache for one set of weights, cut, preprocessing and pooling; its rows are keyed by the
sha256 of the picture's bytes. It is written row by row, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import keras
import numpy as np

from exporters.contract import Resize
from exporters.errors import InputError
from exporters.pixels import read_picture, resize
from pipeline.costs import multiply_accumulates
from pipeline.splitting import Example

BATCH = 32
# Decoded batches that may wait for the network: enough to keep it busy, few enough to stay small in memory.
BATCHES_AHEAD = 4
# Multiply-accumulates over all pictures; fewer are done by Keras before a conversion to the faster runtime would be: one of
# a small network takes as long as Keras does for some 1e10.
FASTER_RUNTIME_FROM = 1e10
LARGEST_RELATIVE_DIFFERENCE = 1e-4
PICTURES_COMPARED = 8

Compute = Callable[[np.ndarray], np.ndarray]
# What a picture becomes before it is computed with, by its sha256: uint8 (h, w, 3) -> uint8 (h, w, 3).
Change = Callable[[np.ndarray, str], np.ndarray]


class FeatureStore:
    """Rows of float32 features on disk, appended to, read through a memory map; one process writes at a time.

    Args:
        cache: the cache folder.
        key: what the features depend on besides the picture; any JSON.
        width: of a row.
    """

    def __init__(self, cache: Path, key: Mapping[str, Any], width: int) -> None:
        text = json.dumps(key, sort_keys=True)
        self.folder = cache / "cutpoint-features" / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.width = width
        self._key_text = text
        self._lock = filelock.FileLock(str(self.folder) + ".lock")

    def __enter__(self) -> FeatureStore:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        (self.folder / "key.json").write_text(self._key_text, encoding="utf-8")
        self._rows_path, self._index_path = self.folder / "rows.f32", self.folder / "index.txt"
        self._rows_path.touch()
        self._index_path.touch()
        # Whatever a killed run left half-written behind the last whole row is cut off.
        names = [line for line in self._index_path.read_text().splitlines(keepends=True) if len(line) == 65]
        count = min(len(names), self._rows_path.stat().st_size // (4 * self.width))
        self._index = {name[:64]: row for row, name in enumerate(names[:count])}
        os.truncate(self._rows_path, count * 4 * self.width)
        os.truncate(self._index_path, count * 65)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._index

    def append(self, names: list[str], rows: np.ndarray) -> None:
        """Add rows (len(names), width) under the pictures' sha256."""
        with self._rows_path.open("ab") as stream:
            stream.write(np.ascontiguousarray(rows, np.float32).tobytes())
        with self._index_path.open("a") as stream:
            stream.writelines(f"{name}\n" for name in names)
        for name in names:
            self._index[name] = len(self._index)

    def gather(self, names: list[str]) -> np.ndarray:
        """Return the rows of those pictures, float32 (len(names), width)."""
        if not names:
            return np.empty((0, self.width), np.float32)
        rows = np.memmap(self._rows_path, np.float32, mode="r", shape=(len(self._index), self.width))
        return np.array(rows[[self._index[name] for name in names]])


class JoinedStore:
    """Stores that one pass fills: a row of it holds a row of each, side by side.

    Args:
        stores: entered ones, for the same pictures.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self._stores = tuple(stores)
        self.folder = self._stores[0].folder
        self.width = sum(store.width for store in self._stores)

    def __contains__(self, sha256: str) -> bool:
        return all(sha256 in store for store in self._stores)

    def append(self, names: list[str], rows: np.ndarray) -> None:
        """Add rows (len(names), width) to each store that lacks them."""
        start = 0
        for store in self._stores:
            part = rows[:, start : start + store.width]
            start += store.width
            lacking = [index for index, name in enumerate(names) if name not in store]
            if lacking:
                store.append([names[index] for index in lacking], part[lacking])


def extract_features(
    store: FeatureStore | JoinedStore,
    examples: tuple[Example, ...],
    how: Resize,
    compute: Callable[[], Compute],
    bad_limit: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    change: Change = lambda picture, sha256: picture,
) -> tuple[dict[str, str], int]:
    """Fill the store with the features of every picture that it lacks; decoding overlaps with computing.

    Args:
        store: an entered store, or several joined.
        examples: all pictures.
        how: the resize.
        compute: called once if anything is missing; returns images uint8 (n, h, w, 3) -> features (n, width).
        bad_limit: the share of unreadable pictures above which the run stops.
        progress: called with pictures done and to be done.
        change: what is done to a resized picture first.

    Returns:
        sha256 -> reason of the pictures that cannot be read, and how many features were computed.

    Raises:
        InputError: too many unreadable pictures, or too little disk.
    """
    missing = {example.sha256: example for example in examples if example.sha256 not in store}
    bad: dict[str, str] = {}
    if not missing:
        return bad, 0
    _check_disk(store.folder, len(missing) * store.width * 4)
    run: Compute | None = None
    done = 0
    for names, images, reasons in decoded_batches(list(missing.values()), how, change):
        bad |= reasons
        check_unreadable(bad, examples, bad_limit, last=done + len(names) + len(reasons) >= len(missing))
        if names:
            run = run or compute()
            store.append(names, run(images))
        done += len(names) + len(reasons)
        progress(done, len(missing))
    return bad, len(missing) - len(bad)


def find_unreadable(examples: tuple[Example, ...], how: Resize, bad_limit: float) -> dict[str, str]:
    """Decode every picture and return sha256 -> reason of those that cannot be read; raises InputError above the limit."""
    bad: dict[str, str] = {}
    for _, _, reasons in decoded_batches(list(examples), how):
        bad |= reasons
    check_unreadable(bad, examples, bad_limit, last=True)
    return bad


def decoded_batches(
    examples: Sequence[Example], how: Resize, change: Change = lambda picture, sha256: picture
) -> Iterator[tuple[list[str], np.ndarray, dict[str, str]]]:
    """Decode and resize pictures, some batches ahead of whoever takes them.

    Yields:
        sha256 of the pictures that can be read, the pictures uint8 (n, h, w, 3), sha256 -> reason of the others.
    """

    def decode(example: Example) -> np.ndarray | str:
        try:
            return change(resize(read_picture(example.path), how), example.sha256)
        except ValueError as fault:
            return str(fault)

    with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        batches = [examples[start : start + BATCH] for start in range(0, len(examples), BATCH)]
        waiting: list[list[concurrent.futures.Future]] = []
        try:
            for index, batch in enumerate(batches):
                while len(waiting) < min(BATCHES_AHEAD, len(batches) - index):
                    waiting.append([pool.submit(decode, each) for each in batches[index + len(waiting)]])
                results = [future.result() for future in waiting.pop(0)]
                good = [
                    (each.sha256, got) for each, got in zip(batch, results, strict=True) if not isinstance(got, str)
                ]
                reasons = {each.sha256: got for each, got in zip(batch, results, strict=True) if isinstance(got, str)}
                images = (
                    np.stack([got for _, got in good]) if good else np.empty((0, how.height, how.width, 3), np.uint8)
                )
                yield [name for name, _ in good], images, reasons
        finally:
            pool.shutdown(cancel_futures=True)


def check_unreadable(bad: Mapping[str, str], examples: tuple[Example, ...], bad_limit: float, *, last: bool) -> None:
    """Raise InputError where more than that share of the pictures cannot be read; `last`: no more can be found out."""
    unreadable = [example for example in examples if example.sha256 in bad]
    if len(unreadable) <= bad_limit * len(examples):
        return
    listed = "; ".join(f"{example.path}: {bad[example.sha256]}" for example in unreadable[:5])
    counted = f"{len(unreadable)} of {len(examples)}" if last else f"At least {len(unreadable)} of {len(examples)}"
    raise InputError(
        f"{counted} pictures cannot be read: {listed}" + ("; ..." if len(unreadable) > 5 else "."),
        f"at most {bad_limit:.0%} (data.bad_limit)",
        "mend or remove them, or raise data.bad_limit",
    )


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free - 2**28:
        raise InputError(
            f"The features need {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free at {folder}.",
            "that much, and 256 MiB to spare",
            "free some space, set CUTPOINT_CACHE to another disk, or choose a head that begins with pooling",
        )


def keras_compute(extractor: keras.Model) -> Compute:
    """Return a function that computes features with Keras itself."""

    def compute(images: np.ndarray) -> np.ndarray:
        # A whole batch each time, the last one filled up, so that nothing is traced or compiled twice.
        batch = np.zeros((BATCH, *images.shape[1:]), np.float32)
        batch[: len(images)] = images
        return np.asarray(extractor.predict_on_batch(batch))[: len(images)]

    return compute


def fastest_compute(extractor: keras.Model, pictures: int, device: str, note: Callable[[str], None]) -> Compute:
    """Return the fastest function that computes the same features.

    On a CPU LiteRT runs these networks several times faster than Keras; it is taken where TensorFlow can convert the
    extractor, and only after its first batch agreed with Keras's.

    Args:
        extractor: raw pixels -> pooled features.
        pictures: how many there are in all; a few are not worth a conversion.
        device: `cpu` or `gpu`.
        note: called with a sentence that says what was taken.
    """
    slow = keras_compute(extractor)
    work = pictures * sum(map(multiply_accumulates, extractor.operations))
    if device == "gpu" or work < FASTER_RUNTIME_FROM or keras.backend.backend() != "tensorflow":
        note(f"features through Keras ({keras.backend.backend()}, {device})")
        return slow
    fast = _litert_compute(extractor, note)
    agreed = False

    def compute(images: np.ndarray) -> np.ndarray:
        nonlocal agreed, fast
        if fast is None:
            return slow(images)
        got = fast(images)
        if not agreed:
            # Not through `slow`, which would be compiled for nothing else.
            shown = images[:PICTURES_COMPARED].astype(np.float32)
            expected = keras.ops.convert_to_numpy(extractor(shown, training=False))
            difference = float(np.abs(got[: len(shown)] - expected).max() / max(float(np.abs(expected).max()), 1e-6))
            agreed = difference <= LARGEST_RELATIVE_DIFFERENCE
            note(
                f"features through LiteRT, which agrees with Keras to {difference:.1e}"
                if agreed
                else f"features through Keras: LiteRT differs from it by {difference:.1e}"
            )
            if not agreed:
                fast = None
                return slow(images)
        return got

    return compute


def _litert_compute(extractor: keras.Model, note: Callable[[str], None]) -> Compute | None:
    # Imported here: under another Keras backend there may be no TensorFlow to convert with.
    from exporters.tflite_in_memory import fast_answers

    try:
        return fast_answers(extractor)
    except Exception as fault:  # whatever a converter raises at a layer of somebody else's that it cannot hold
        note(f"features through Keras: LiteRT cannot hold the network ({type(fault).__name__})")
        return None
