"""Pictures of a split as arrays, batch by batch: decoded once where all of them fit into memory, else each time."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np

from exporters.contract import Resize
from exporters.errors import InputError
from exporters.pixels import read_picture, resize
from pipeline.splitting import Example

MOST_BYTES_KEPT = 2**31


class Pictures:
    """Resized pictures by their place in a row, decoded by several threads.

    Args:
        examples: in their order.
        how: the resize.
    """

    def __init__(self, examples: Sequence[Example], how: Resize) -> None:
        self._examples, self._how = tuple(examples), how
        self._fit = len(self._examples) * how.width * how.height * 3 <= MOST_BYTES_KEPT
        self._kept: dict[int, np.ndarray] = {}

    def __enter__(self) -> Pictures:
        self._pool = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="pictures")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._examples)

    def take(
        self, indices: np.ndarray, change: Callable[[np.ndarray, str], np.ndarray] = lambda picture, sha256: picture
    ) -> np.ndarray:
        """Return pictures, uint8 (len(indices), height, width, 3), each changed by a function of it and its sha256.

        Raises:
            InputError: a picture that could be read before cannot be read any more.
        """
        return np.stack(
            list(
                self._pool.map(
                    lambda index: change(self._picture(index), self._examples[index].sha256), map(int, indices)
                )
            )
        )

    def _picture(self, index: int) -> np.ndarray:
        if index in self._kept:
            return self._kept[index]
        path = self._examples[index].path
        try:
            picture = resize(read_picture(path), self._how)
        except ValueError as fault:
            raise InputError(
                f"The picture {path} cannot be read any more: {fault}.", "the data as they were listed", "run again"
            ) from fault
        if self._fit:
            self._kept[index] = picture
        return picture
