"""The figures of the benchmarks as a table and a plot, in `$CUTPOINT_BENCH`, by default `runs/bench`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

NAME = "exporters"


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: ours and the stock converter's in one unit, and the largest share that ours may be of theirs."""

    name: str
    ours: float
    theirs: float
    unit: str
    most: float

    @property
    def share(self) -> float:
        """Ours in shares of theirs."""
        return self.ours / self.theirs

    def __str__(self) -> str:
        figures = f"{self.ours:.2f} {self.unit}, stock {self.theirs:.2f} {self.unit}"
        return f"{self.name}: {figures}: {self.share:.3f}, at most {self.most:.2f}"


def folder() -> Path:
    """Return the folder of the tables, which is made."""
    found = Path(os.environ.get("CUTPOINT_BENCH", "runs/bench"))
    found.mkdir(parents=True, exist_ok=True)
    return found


def write_row(row: Row) -> None:
    """Put a row into the table, in place of an earlier one of its name, and draw the plot anew."""
    path = folder() / f"{NAME}.json"
    rows = {each["name"]: Row(**each) for each in json.loads(path.read_text())} if path.is_file() else {}
    rows[row.name] = row
    path.write_text(json.dumps([dataclasses.asdict(each) for each in rows.values()], indent=1))
    cells = [
        (
            each.name,
            f"{each.ours:.2f} {each.unit}",
            f"{each.theirs:.2f} {each.unit}",
            f"{each.share:.3f}",
            f"{each.most:.2f}",
        )
        for each in rows.values()
    ]
    write_table(NAME, ("what", "ours", "stock", "ratio", "at most"), cells)
    draw(list(rows.values()), folder() / f"{NAME}.png")


def write_table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a Markdown table, with the plot of its name below it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    text = "\n".join(lines) + f"\n\n![{name}]({name}.png)\n"
    (folder() / f"{name}.md").write_text(text, encoding="utf-8")


def draw(rows: list[Row], path: Path) -> None:
    """Draw every ratio as a bar, and what it may be at most as a mark on it."""
    figure = Figure(figsize=(8, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh(places, [row.share for row in rows], color="#4c78a8", label="ours / stock")
    axes.scatter([row.most for row in rows], places, marker="|", s=300, color="#e45756", label="at most", zorder=3)
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ours in shares of the stock converter's")
    axes.legend()
    figure.savefig(path, dpi=120)
