"""The README's table of backbones, made from the table that the code and the tests use: `python -m pipeline.backbones.table`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.backbones import BACKBONES, BackboneRow, smallest_of_families

BEGIN, END = "<!-- backbones: made by `make readme` -->\n", "<!-- end of backbones -->\n"
_SCALINGS = {
    "none": "none: scales raw pixels itself",
    "tf": "tf: to -1..1",
    "torch": "torch: ImageNet mean and deviation",
    "caffe": "caffe: BGR minus ImageNet means",
    "unit": "unit: to 0..1",
}


def markdown_table() -> str:
    """Return the table as Markdown, a line for each backbone."""
    smallest = set(smallest_of_families().values())
    lines = [
        "| backbone | parameters | input, px (least) | alpha | pixel scaling, inside the model | usual cut points |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(name, row, whole=name in smallest) for name, row in BACKBONES.items()]
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, row: BackboneRow, *, whole: bool) -> str:
    *earlier, last = (f"`{cut}`" for cut in row.usual_cuts)
    alphas = ", ".join(f"{alpha:g}" for alpha in row.alphas)
    cells = (
        f"`{name}`" + (" \\*" if whole else ""),
        f"{row.params / 1e6:.1f} M",
        f"{row.usual_px} ({row.smallest_px})",
        alphas,
        _SCALINGS[row.pixel_scaling],
        ", ".join([*earlier, f"**{last}**"]),
    )
    return f"| {' | '.join(cells)} |"


def with_table(text: str) -> str:
    """Return a text with the table put between its two marks; raises ValueError where it lacks them."""
    before, found, rest = text.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (found and ends):
        raise ValueError(f"no {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{BEGIN}\n{markdown_table()}\n{END}{after}"


if __name__ == "__main__":
    readme = Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
