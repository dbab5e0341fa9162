"""Whether what is trained on fits into memory: whole feature maps of many pictures may not. Standard library only."""

from __future__ import annotations

from pathlib import Path

from exporters.errors import InputError

# Features as they are read, standardised, shuffled and handed to Keras; 2.7 were measured with maps of 1,600 pictures.
COPIES = 3
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def check_memory(what: str, numbers: int, free: int | None = None) -> None:
    """Raise InputError where training on so many float32 numbers would need more memory than is free.

    Args:
        what: whose features they are, such as `head 'label'`.
        numbers: pictures times the width of their features.
        free: bytes; None: what the system says, and where it says nothing, nothing is checked.
    """
    free = free_memory() if free is None else free
    needed = COPIES * 4 * numbers
    if free is not None and needed > free:
        raise InputError(
            f"Training the {what} needs {needed / 2**30:.1f} GiB of memory for features, and {free / 2**30:.1f} GiB are free.",
            "features that fit",
            "cut deeper or at fewer layers (backbone.cut, heads.NAME.features), make resize.width and height smaller, or pool",
        )


def free_memory() -> int | None:
    """Return how many bytes a process may still take, on Linux, inside a container too; None where it cannot be told."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = (int((_CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        # What is kept of files goes when something else needs the room.
        found.append(limit - used + int(cache["inactive_file"]))
    except (OSError, KeyError, ValueError):
        pass
    return min(found, default=None)
