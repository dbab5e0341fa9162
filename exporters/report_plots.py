"""The pictures of the report: learning curves and confusion matrices, as SVG that takes the page's own colours.

With `report_charts`, which takes the style from here, all of the report that needs matplotlib; imported when a page is made.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Colours that no picture has otherwise, each replaced by a variable of the page: so one picture serves light and dark.
VARIABLES = {
    "#010203": "var(--ink)",
    "#010204": "var(--faint)",
    "#010205": "var(--blue)",
    "#010206": "var(--orange)",
    "#010207": "var(--violet)",
}
INK, FAINT, BLUE, ORANGE, VIOLET = VARIABLES
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cutpoint",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
}
MOST_LABELS = 30
LONGEST_LABEL = 16
WIDE_PX = 400


def learning_curve(training: Mapping[str, Any], quantity: str) -> str | None:
    """Draw a quantity over the epochs, training and validation; where the backbone was trained too, that goes on behind a line.

    Args:
        training: `epochs`, `loss`, `val_loss`, `accuracy`, `val_accuracy`, `best_epoch`, and under `fine_tuning` the same of
            the second phase, whose `best_epoch` is 0 where no epoch of it was kept; each may be absent.
        quantity: `loss` or `accuracy`.

    Returns:
        An SVG element, or None where nothing of it was recorded.
    """
    first, second = training, training.get("fine_tuning") or {}
    head_epochs = _epochs_of(first)
    phases = [(first, 0), (second, head_epochs)]
    curves = [
        (validation, _points(phase, f"val_{quantity}" if validation else quantity, offset))
        for validation in (False, True)
        for phase, offset in phases
    ]
    curves = [(validation, points) for validation, points in curves if points]
    if not curves:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        told: set[str] = set()
        for validation, points in curves:
            name = "validation" if validation else "training"
            axes.plot(
                *zip(*points, strict=True), color=ORANGE if validation else BLUE, linestyle="--" if validation else "-",
                linewidth=2, marker="o" if len(points) < 3 else "", label="_" + name if name in told else name,
            )  # fmt: skip
            told.add(name)
        kept = head_epochs + second["best_epoch"] if second.get("best_epoch") else first.get("best_epoch")
        if kept is not None:
            axes.axvline(kept, color=INK, linewidth=1, linestyle=":", label="weights kept")
        if second:
            _mark_second_phase(axes, head_epochs + 0.5, short=_epochs_of(second) < head_epochs / 2)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if quantity == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
        else:
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.grid(axis="y")
        figure.legend(frameon=False, ncols=3, loc="outside upper left", handlelength=1.7, fontsize=10)
        return svg(figure, f"Learning curve: {quantity} over epochs")


def _epochs_of(phase: Mapping[str, Any]) -> int:
    """Return how many epochs a phase took; 0 where nothing was recorded."""
    epochs = phase.get("epochs") or range(1, len(phase.get("loss") or []) + 1)
    return int(max((each for each in epochs if each is not None), default=0))


def _points(phase: Mapping[str, Any], key: str, offset: int) -> list[tuple[float, float]]:
    """Return (epoch, value) of one curve; a value that was no finite number leaves a gap."""
    values = phase.get(key) or []
    if all(value is None for value in values):
        return []
    epochs = (phase.get("epochs") or list(range(1, len(values) + 1)))[: len(values)]
    return [
        (epoch + offset, float("nan") if value is None else value) for epoch, value in zip(epochs, values, strict=False)
    ]


def _mark_second_phase(axes: Any, epoch: float, *, short: bool) -> None:
    axes.axvline(epoch, color=FAINT, linewidth=1)
    axes.annotate(
        "fine-tuning", (epoch, 1), (-4 if short else 4, -2), va="top", ha="right" if short else "left",
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=10, color=INK,
    )  # fmt: skip


def confusion_matrix(counts: Sequence[Sequence[float]], labels: Sequence[str]) -> str | None:
    """Draw a confusion matrix: rows are the truth, columns the answer; right answers blue, wrong ones orange.

    Args:
        counts: images per truth and answer, square.
        labels: in index order; numbers stand in where they are not as many as the rows.

    Returns:
        An SVG element, or None where there is no square matrix.
    """
    total = len(counts)
    if not total or any(len(row) != total for row in counts):
        return None
    names = [shortened(label) for label in labels] if len(labels) == total else [str(each) for each in range(total)]
    small = total <= MOST_LABELS
    with rc_context(STYLE):
        side = max(4.4, 1.3 + 0.36 * total) if small else 5.0
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot(aspect="equal", xlim=(-0.5, total - 0.5), ylim=(total - 0.5, -0.5))
        (_draw_cells if small else _draw_picture)(axes, counts)
        if small:
            axes.set_xticks(range(total))
            axes.set_xticklabels(names, rotation=90 if max(map(len, names)) > 2 else 0, parse_math=False)
            axes.set_yticks(range(total))
            axes.set_yticklabels(names, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="answer", ylabel="truth")
        return svg(figure, "Confusion matrix: rows are the truth, columns the answer")


def _strength(count: float | None, row: Sequence[float]) -> float:
    # Never opaque, so that the page's own ink is readable on it in both colour schemes; a single error can be seen.
    share = (count or 0) / (sum(each or 0 for each in row) or 1)
    return 0.2 + 0.52 * min(share, 1.0) if count else 0.0


def _draw_cells(axes: Any, counts: Sequence[Sequence[float]]) -> None:
    for truth, row in enumerate(counts):
        for answer, count in enumerate(row):
            place, hue = (answer - 0.47, truth - 0.47), BLUE if truth == answer else ORANGE
            axes.add_patch(Rectangle(place, 0.94, 0.94, facecolor=FAINT, alpha=0.25, linewidth=0))
            axes.add_patch(Rectangle(place, 0.94, 0.94, facecolor=hue, alpha=_strength(count, row), linewidth=0))
            if count:
                axes.text(answer, truth, f"{count:g}", ha="center", va="center", fontsize=10)


def _draw_picture(axes: Any, counts: Sequence[Sequence[float]]) -> None:
    # Thousands of rectangles would make the page heavy; the picture's colours are those that suit both schemes.
    blue, orange = (0.23, 0.51, 0.96), (0.92, 0.42, 0.1)
    pixels = [
        [(*(blue if truth == answer else orange), _strength(count, row) ** 0.5) for answer, count in enumerate(row)]
        for truth, row in enumerate(counts)
    ]
    axes.imshow(pixels, interpolation="nearest")


def shortened(label: Any, longest: int = LONGEST_LABEL) -> str:
    """Return a label as one that a picture has room for."""
    text = "".join(each if each.isprintable() else " " for each in str(label)) or "-"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def svg(figure: Figure, title: str) -> str:
    """Return a figure as an SVG element whose colours are the page's variables; `title` is what a screen reader says."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page's font draws the letters that matplotlib's own font lacks
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("xlink:href", "href")
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    # Inside a page these names are known without their addresses, and two pictures must not share an id.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"|(?<=<g) id="[^"]*"', "", text)
    # The page names its font once.
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    # On a small screen a large picture scrolls in its own box, where shrinking would make its words too small.
    width_px = 72 * figure.get_figwidth()
    wide = f' class="wide" style="min-width:{0.85 * width_px:.0f}px"' if width_px > WIDE_PX else ""
    opening = f'<svg role="img" aria-label="{title}"{wide}'
    return re.sub(r'<svg width="[\d.]+pt" height="[\d.]+pt"', opening, text, count=1)
