"""Two charts of the advice: what a cut gives for its latency, and what it gives for its depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from exporters.report_advice_text import NORMAL_QUANTILE, recommended
from exporters.report_plots import BLUE, FAINT, INK, ORANGE, STYLE, VIOLET, shortened, svg

PARTS = {"early": VIOLET, "middle": ORANGE, "late": BLUE}
LONGEST_NAME = 26


def accuracy_over_speed(advice: Mapping[str, Any]) -> str:
    """Draw accuracy over the latency of each cut, or its multiply-accumulates, with the front of the best as a line.

    Args:
        advice: in the form of advice.json.

    Returns:
        An SVG element.
    """
    rows, timed = advice["cuts"], advice["latency"]["measured"]
    places = [row["latency_ms"] if timed else row["macs"] / 1e6 for row in rows]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        _points(axes, places, rows)
        on_front = sorted(
            (place, row["accuracy"]) for place, row in zip(places, rows, strict=True) if row["on_speed_front"]
        )
        # What is not measured in between is not had: the line goes up only where a cut is.
        axes.step(*zip(*on_front, strict=True), where="post", color=INK, linewidth=1.2, zorder=1, label="front")
        _name(axes, _ring(axes, places, rows, advice), advice)
        limit = advice["budget"]["max_latency_ms"]
        if timed and limit is not None:
            axes.axvline(limit, color=ORANGE, linewidth=1.2, linestyle="--", label="budget")
        axes.set(xlabel="latency of one image, ms" if timed else "multiply-accumulates, million", ylabel="accuracy")
        axes.set_xlim(left=0, right=max(places) * 1.04)
        _finish(figure, axes)
        return svg(figure, "Accuracy over latency of every cut" if timed else "Accuracy over work of every cut")


def accuracy_over_depth(advice: Mapping[str, Any]) -> str:
    """Draw accuracy over depth, with its 95 % interval: as trained, and, as a faint line, with training to its end.

    Args:
        advice: in the form of advice.json.

    Returns:
        An SVG element.
    """
    rows = advice["cuts"]
    places = list(range(1, len(rows) + 1))
    with rc_context(STYLE):
        figure = Figure(figsize=(8.2, 4.8), layout="constrained")
        axes = figure.add_subplot()
        converged = [row["converged_accuracy"] for row in rows]
        axes.plot(places, converged, color=INK, linewidth=1, linestyle=":", zorder=1, label="trained to its end")
        _points(axes, places, rows)
        _ring(axes, places, rows, advice)
        axes.set_xticks(places)
        names = [shortened(row["name"], LONGEST_NAME) for row in rows]
        axes.set_xticklabels(names, rotation=90, fontsize=9, parse_math=False)
        axes.set(ylabel="accuracy")
        axes.set_xlim(0.3, len(rows) + 0.7)
        _finish(figure, axes)
        return svg(figure, "Accuracy over depth of every cut")


def _points(axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    for part, color in PARTS.items():
        found = [(place, row) for place, row in zip(places, rows, strict=True) if row["part"] == part]
        if found:
            axes.errorbar(
                [place for place, _ in found], [row["accuracy"] for _, row in found],
                yerr=[NORMAL_QUANTILE * row["standard_error"] for _, row in found], fmt="o", color=color, ecolor=color,
                markersize=5.5, elinewidth=1, capsize=0, label=part, zorder=3,
            )  # fmt: skip


def _ring(
    axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]], advice: Mapping[str, Any]
) -> list[tuple[float, Mapping[str, Any]]]:
    """Ring the recommended cuts; returns them with their places, the most accurate first."""
    found = [(place, row) for place, row in zip(places, rows, strict=True) if recommended(row["name"], advice)]
    for place, row in found:
        axes.plot([place], [row["accuracy"]], "o", markersize=13, markerfacecolor="none", markeredgecolor=INK, zorder=4)
    return sorted(found, key=lambda each: -each[1]["accuracy"])


def _name(axes: Any, ringed: Sequence[tuple[float, Mapping[str, Any]]], advice: Mapping[str, Any]) -> None:
    """Write the names of ringed cuts where no point can be: above and to the left of the front."""
    for line, (place, row) in enumerate(ringed):
        axes.annotate(
            f"{shortened(row['name'], LONGEST_NAME)}: {', '.join(recommended(row['name'], advice))}",
            (place, row["accuracy"]), (0.02, 0.97 - 0.085 * line), textcoords="axes fraction", fontsize=10,
            ha="left", va="top", parse_math=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.9, "shrinkB": 7, "relpos": (1, 0.5)},
        )  # fmt: skip


def _finish(figure: Figure, axes: Any) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    figure.legend(frameon=False, ncols=5, loc="outside upper left", handlelength=1.5, fontsize=10)
