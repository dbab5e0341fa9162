"""Keeps the converters' memory in bounds: they leave copies of whole graphs behind that hold one another."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collecting_often() -> Iterator[None]:
    """Let Python look for garbage often inside the block, and give what is freed back to the system behind it.

    Python looks by how many objects there are, not by how large they are: a few thousand nodes may hold gigabytes of
    constants. With everything older set aside a whole look is cheap, and is taken far more often (`gc.freeze`). Inside
    another such block there is nothing older that is worth it.
    """
    inside = gc.get_freeze_count() > 0
    if not inside:
        gc.collect()
        gc.freeze()
        gc.collect()
    try:
        yield
    finally:
        if not inside:
            gc.unfreeze()
        give_back()


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Let Python not look for garbage inside the block: while TensorFlow is loaded, looking takes a third of the time."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.enable()


def give_back() -> None:
    """Collect garbage and hand freed memory back to the system, where its C library can (`malloc_trim`, glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
