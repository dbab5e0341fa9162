"""Keeps numpy's linear algebra to one thread where its threads would wait for each other.

OpenBLAS's threads spin while they wait: on cores that other processes use too, a decomposition of a thousand rows takes ten
to thirty times as long with two threads as with one, and hardly less time with two where nobody else is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

# Where the wheels of numpy keep their libraries, on Linux and Windows, and on macOS.
_FOLDERS = ("../numpy.libs", ".dylibs")
_SPELLINGS = [(prefix, suffix) for prefix in ("scipy_", "") for suffix in ("64_", "")]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run a block with one thread of OpenBLAS; does nothing where numpy was built with another library."""
    switches = _switches()
    if switches is None:
        yield
        return
    count, set_count = switches
    before = count()
    set_count(1)
    try:
        yield
    finally:
        set_count(before)


@functools.cache
def _switches() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Return how to ask for OpenBLAS's number of threads, and how to set it; None where it is not there."""
    for folder in _FOLDERS:
        for path in sorted((Path(np.__file__).parent / folder).glob("*openblas*")):
            with contextlib.suppress(OSError):
                # Numpy has loaded it already: this is the same one.
                library = ctypes.CDLL(str(path.resolve()))
                for prefix, suffix in _SPELLINGS:
                    with contextlib.suppress(AttributeError):
                        return (
                            getattr(library, f"{prefix}openblas_get_num_threads{suffix}"),
                            getattr(library, f"{prefix}openblas_set_num_threads{suffix}"),
                        )
    return None
