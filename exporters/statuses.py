"""The five ways in which a comparison can end."""

from __future__ import annotations

VERIFIED = "verified"
FAILED = "failed"
NOT_VERIFIED = "not_verified"
NOT_ENOUGH_IMAGES = "not_enough_images"
DEGENERATE = "degenerate"

# The worst status of several is the one that is told.
SEVERITY = (VERIFIED, NOT_ENOUGH_IMAGES, DEGENERATE, NOT_VERIFIED, FAILED)

# A status, and in words why it is not `verified`.
Ending = tuple[str, str]
FINE: Ending = (VERIFIED, "")


def worst(statuses: list[str]) -> str:
    """Return the worst of some statuses; `not_verified` where there is none."""
    return max(statuses, key=SEVERITY.index) if statuses else NOT_VERIFIED
