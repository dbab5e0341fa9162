"""The errors that reach a user, each with an exit code.

CutpointError            70, never raised itself
|-- InputError            2, what the user gave is wrong
|-- ParityError           1, a parity or accuracy gate failed
|-- NotVerifiedError      3, something asked for could not be checked
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CutpointError(Exception):
    """An error with the three answers that a user needs.

    Args:
        what: what happened, and where.
        expected: what was expected instead.
        mend: how to mend it, as a command or an edit where there is one.
    """

    exit_code = 70

    def __init__(self, what: str, expected: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.mend = mend

    def __str__(self) -> str:
        lines = [self.what]
        if self.expected:
            lines.append(f"Expected: {self.expected}")
        if self.mend:
            lines.append(f"To mend it: {self.mend}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """Return the error in the form that `--json` prints."""
        return {
            "error": {"what": self.what, "expected": self.expected, "mend": self.mend},
            "exit_code": self.exit_code,
        }


class InputError(CutpointError):
    """What the user gave is wrong: a path, a name, a value, a picture, a device that is not there."""

    exit_code = 2


class ParityError(CutpointError):
    """A parity or accuracy gate failed."""

    exit_code = 1


class NotVerifiedError(CutpointError):
    """Something asked for was not verified: a runtime is missing, or there was nothing to compare."""

    exit_code = 3


class MissingKernelError(NotVerifiedError):
    """A runtime that only checks another one lacks an operator which that one has."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint that names the choices nearest to a mistyped name, or all of them where none is near.

    Args:
        name: what was given.
        choices: the names that would have been right.

    Returns:
        `did you mean 'a' or 'b'?`, or `one of a, b, c` where nothing is near (the first 20).
    """
    known = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"'{choice}'" for choice in near) + "?"
    shown = ", ".join(known[:20])
    return f"one of {shown}" + (f" and {len(known) - 20} more" if len(known) > 20 else "")
