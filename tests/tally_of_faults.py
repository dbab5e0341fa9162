"""Prints which check catches which kind of broken artifact, as a Markdown table: `python -m tests.tally_of_faults [kind ...]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.faults import FAULTS, judge
from tests.faults_workshop import Workshop, checks_of

FORMATS = ("tfjs", "tflite", "onnx")


def main(kinds: list[str]) -> int:
    """Make and judge every broken artifact, print a row for each kind, and return how many were not caught."""
    missed = 0
    print("| kind | TF.js | TFLite | ONNX | caught by |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        workshop = Workshop(Path(work) / "session")
        workshop.session.mkdir()
        for kind in kinds or FAULTS:
            caught: dict[str, set[str]] = {}
            for name in FAULTS[kind].caught:
                report = judge(FAULTS[kind], workshop, name, Path(work) / kind / name)
                caught[name] = checks_of(report) if report["exit_code"] == FAULTS[kind].exit_code else set()
            missed += sum(not checks for checks in caught.values())
            print(row(kind, caught), flush=True)
    print(f"\n{missed} not caught")
    return missed


def row(kind: str, caught: dict[str, set[str]]) -> str:
    """Return one row: for each format its precisions, those that were not caught in bold, and all checks by how often."""
    cells = []
    for each in FORMATS:
        names = [name for name in caught if name.startswith(f"{each}-")]
        shown = [name.removeprefix(f"{each}-") for name in names]
        cells.append(
            ", ".join(part if caught[name] else f"**{part}: no**" for part, name in zip(shown, names, strict=True))
        )
    checks = sorted({check for found in caught.values() for check in found})
    counts = {check: sum(check in found for found in caught.values()) for check in checks}
    ordered = sorted(checks, key=lambda check: -counts[check])
    told = ", ".join(f"{check} {counts[check]}" if counts[check] < len(caught) else check for check in ordered)
    return f"| {kind} | {' | '.join(cell or '-' for cell in cells)} | {told} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
