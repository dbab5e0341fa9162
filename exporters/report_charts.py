"""Two charts of the report: what each artifact costs and gives, and where in its depth it leaves the Keras model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from exporters.report_plots import BLUE, FAINT, INK, ORANGE, STYLE, VIOLET, shortened, svg

COLORS = {"tfjs": BLUE, "tflite": ORANGE, "onnx": VIOLET}
MARKERS = {"tfjs": "o", "tflite": "s", "onnx": "^"}
SMALLEST_AREA, LARGEST_AREA = 36, 420
# Where a label may stand about its marker: to the right, the left, above, below, then farther and farther off, in points.
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225)
DISTANCES = (4, 14, 26, 40, 56, 74)


@dataclasses.dataclass(frozen=True)
class Point:
    """An artifact in the chart: `accuracy` a share 0..1; `latency_ms` None where it was not measured."""

    name: str
    format: str
    size_bytes: float
    accuracy: float
    latency_ms: float | None


def tradeoff(points: Sequence[Point], keras_accuracy: float | None) -> str | None:
    """Draw accuracy over size; the area of a marker is the artifact's latency, which its label tells too.

    Args:
        points: the artifacts.
        keras_accuracy: on the same images; a line across; None: no line.

    Returns:
        An SVG element, or None where there are fewer than two artifacts to compare.
    """
    if len(points) < 2:
        return None
    with rc_context(STYLE):
        # As many dots to the inch as SVG has: a place that is found is a place in the picture.
        figure = Figure(figsize=(8.2, 4.6), layout="constrained", dpi=72)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(xscale="log")
        slowest = max((point.latency_ms or 0 for point in points), default=0) or 1
        areas = [max(SMALLEST_AREA, LARGEST_AREA * (point.latency_ms or 0) / slowest) for point in points]
        for point, area in zip(points, areas, strict=True):
            axes.scatter(
                point.size_bytes, point.accuracy, s=area, marker=MARKERS.get(point.format, "D"),
                color=COLORS.get(point.format, INK), alpha=0.55, linewidths=0, zorder=3,
            )  # fmt: skip
        if keras_accuracy is not None:
            axes.axhline(keras_accuracy, color=INK, linewidth=1, linestyle=":", zorder=1)
        _frame(axes, points, keras_accuracy)
        figure.draw_without_rendering()
        # Fixed from here on: labels are placed in the frame as it is now.
        figure.set_layout_engine("none")
        _place_labels(figure, axes, points, areas, keras_accuracy)
        return svg(figure, "Accuracy over size of every artifact, the area of a marker being its latency")


def _frame(axes: Any, points: Sequence[Point], keras_accuracy: float | None) -> None:
    heights = [point.accuracy for point in points] + ([] if keras_accuracy is None else [keras_accuracy])
    sizes = [point.size_bytes for point in points]
    room = max(0.5 * (max(heights) - min(heights)), 0.002)
    axes.set_ylim(min(heights) - room, max(heights) + room)
    axes.set_xlim(min(sizes) / 1.35, max(sizes) * 1.35)
    ticks = [mantissa * 10**power for power in range(2, 11) for mantissa in (1, 1.5, 2, 3, 5, 7)]
    ticks = [tick for tick in ticks if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [_bytes(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.set(xlabel="size", ylabel="accuracy")
    axes.grid()
    axes.set_axisbelow(True)


def _bytes(count: float) -> str:
    unit, factor = next((pair for pair in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= pair[1]), ("B", 1))
    return f"{count / factor:g} {unit}"


def _place_labels(
    figure: Any, axes: Any, points: Sequence[Point], areas: Sequence[float], keras_accuracy: float | None
) -> None:
    """Put each label at the nearest place where it lies over no marker, no other label and not outside the frame."""
    renderer, frame = figure.canvas.get_renderer(), axes.get_window_extent()
    centers = [axes.transData.transform((point.size_bytes, point.accuracy)) for point in points]
    taken = [_around(center, math.sqrt(area)) for center, area in zip(centers, areas, strict=True)]
    if keras_accuracy is not None:
        words = axes.annotate(
            "Keras", (1, keras_accuracy), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=10, ha="right",
        )  # fmt: skip
        taken.append(_box(words.get_window_extent(renderer)))
        height = axes.transData.transform((1, keras_accuracy))[1]
        taken.append((frame.x0, height - 1, frame.x1, height + 1))
    for index, point in enumerate(points):
        text = axes.annotate(_label(point), centers[index], xycoords="figure pixels", fontsize=10, va="center")
        width, height = text.get_window_extent(renderer).width, text.get_window_extent(renderer).height
        radius = math.sqrt(areas[index]) / 2
        places = [
            (_beside(centers[index], angle, radius + distance, width, height), distance)
            for distance in DISTANCES for angle in ANGLES
        ]  # fmt: skip
        inside = [each for each in places if _within(each[0], frame)] or places
        place, distance = min(inside, key=lambda each: (sum(_overlap(each[0], other) for other in taken), each[1]))
        text.set_position(place[:2])
        text.set_verticalalignment("bottom")
        text.xyann = place[:2]
        text.anncoords = "figure pixels"
        taken.append(place)
        if distance > DISTANCES[0]:
            end = (min(max(centers[index][0], place[0]), place[2]), min(max(centers[index][1], place[1]), place[3]))
            axes.annotate(
                "", centers[index], end, xycoords="figure pixels", textcoords="figure pixels",
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8}, zorder=2,
            )  # fmt: skip


def _label(point: Point) -> str:
    latency = "" if point.latency_ms is None else f", {point.latency_ms:.2g} ms"
    return shortened(point.name, 28) + latency


def _around(center: Any, side: float) -> tuple[float, float, float, float]:
    return center[0] - side / 2, center[1] - side / 2, center[0] + side / 2, center[1] + side / 2


def _box(extent: Any) -> tuple[float, float, float, float]:
    return extent.x0, extent.y0, extent.x1, extent.y1


def _beside(
    center: Any, angle: float, distance: float, width: float, height: float
) -> tuple[float, float, float, float]:
    across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle = center[0] + across * (distance + width / 2), center[1] + up * (distance + height / 2)
    return middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2


def _within(box: tuple[float, float, float, float], frame: Any) -> bool:
    return box[0] > frame.x0 and box[1] > frame.y0 and box[2] < frame.x1 and box[3] < frame.y1


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(up, 0)


def depth(rows: Sequence[Mapping[str, Any]], first_off: str | None, in_decibels: bool) -> str | None:
    """Draw how far each layer is from the Keras model's, in the order in which they run.

    Args:
        rows: `name`, and `relative` (the difference in shares of the layer itself) or `snr_db`.
        first_off: the layer at which the artifact first leaves the model; it is marked; None: none is.
        in_decibels: draw the ratio of signal to noise, as suits rounded arithmetic, and not the relative difference.

    Returns:
        An SVG element, or None where no row holds a figure that can be drawn.
    """
    key = "snr_db" if in_decibels else "relative"
    values = [row.get(key) for row in rows]
    # A logarithmic axis has no place for 0: a layer that is equal leaves a gap.
    heights = [math.nan if value is None or (not in_decibels and value <= 0) else value for value in values]
    if all(math.isnan(height) for height in heights):
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.add_subplot(yscale="linear" if in_decibels else "log")
        places = range(1, len(rows) + 1)
        axes.plot(places, heights, color=BLUE, linewidth=1.6, marker="o", markersize=3)
        names = [row.get("name") for row in rows]
        if first_off in names:
            off = names.index(first_off)
            axes.axvline(off + 1, color=ORANGE, linewidth=1.4, linestyle="--")
            left = off > len(rows) / 2
            axes.annotate(
                shortened(str(first_off), 24), (off + 1, 1), (-4 if left else 4, -2), va="top", ha="right" if left else "left",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=10, color=ORANGE, parse_math=False,
            )  # fmt: skip
        axes.set(xlabel="layer", ylabel="signal to noise, dB" if in_decibels else "relative difference")
        axes.set_xlim(0, len(rows) + 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if not in_decibels:
            drawn = [math.log10(height) for height in heights if not math.isnan(height)]
            lowest, highest = math.floor(min(drawn)), math.ceil(max(drawn))
            step = math.ceil((highest - lowest) / 6) or 1
            powers = range(lowest, max(highest, lowest + 1) + 1, step)
            axes.set_ylim(10**lowest, 10 ** max(highest, lowest + 1))
            axes.set_yticks([10**power for power in powers], [f"1e{power}" for power in powers])
            axes.set_yticks([], minor=True)
        axes.grid(axis="y")
        what = "Ratio of signal to noise" if in_decibels else "Relative difference"
        return svg(figure, f"{what} over depth")
