"""The figures of every output in the words of its own task: a table of each output, and a line of each. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporters import report_facts as facts
from exporters import report_numbers as numbers

MOST_NAMES = 12


def _six(value: float | None) -> str:
    return facts.NONE if value is None else f"{value:.6f}"


def _three(value: float | None) -> str:
    return facts.NONE if value is None else f"{value:.3f}"


def _plain(value: float | None) -> str:
    return facts.NONE if value is None else f"{value:g}"


def _percent(value: float | None) -> str:
    return facts.NONE if value is None else f"{100 * value:.2g}%"


# Key of a figure, what it is called where its task has no word of its own, and how it is written.
FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("max_abs", "largest difference", numbers.difference),
    ("log_max_abs", "of logarithms", numbers.difference),
    ("relative_error", "error, of the spread", _percent),
    ("worst_relative_error", "largest error, of the spread", _percent),
    ("agreement", "agreement", numbers.share),
    ("iou", "mean IoU with Keras", _three),
    ("least_iou", "least IoU with Keras", _three),
    ("least_cosine", "least cosine", _six),
    ("neighbours", "same neighbour", numbers.share),
    ("accuracy", "accuracy", numbers.share),
    ("f1", "F1", _three),
    ("f1_of_keras", "F1 in Keras", _three),
    ("mean_rank_error", "ranks off, mean", _three),
    ("mean_rank_error_of_keras", "ranks off in Keras", _three),
    ("mean_absolute_error", "mean error", numbers.difference),
    ("mean_absolute_error_of_keras", "mean error in Keras", numbers.difference),
    ("r2", "R²", _three),
    ("r2_of_keras", "R² in Keras", _three),
    ("truth_iou", "mean IoU with truth", _three),
    ("truth_iou_of_keras", "mean IoU with truth in Keras", _three),
    ("recall_at_1", "nearest of the same label", numbers.share),
    ("recall_at_1_of_keras", "nearest of the same label in Keras", numbers.share),
    ("near_ties", "near-ties", _plain),
    ("top5_agreement", "same top 5", numbers.share),
    ("mean_abs", "mean difference", numbers.difference),
    ("max_relative", "relative difference", numbers.difference),
    ("kl", "divergence, nats", numbers.difference),
    ("cosine", "cosine", _six),
)
# Task -> what a figure is called there.
WORDS: dict[str, dict[str, str]] = {
    "binary": {"agreement": "decisions kept", "log_max_abs": "of log-odds"},
    "multilabel": {"agreement": "decisions kept", "accuracy": "right decisions", "log_max_abs": "of log-odds"},
    "ordinal": {"agreement": "ranks kept", "accuracy": "right ranks", "log_max_abs": "of log-odds"},
    "boxes": {"relative_error": "error, of the picture", "worst_relative_error": "largest error, of the picture"},
    "segmentation": {"agreement": "pixels kept", "accuracy": "right pixels", "iou": "mean IoU of regions"},
}
INTERVALS = (("accuracy_interval", "change of {}, 95 %", "accuracy"), ("truth_iou_interval", "change of IoU, 95 %", ""))
# Task -> the figures that a line tells; the first says which artifact is the farthest from the Keras model.
LINES: dict[str, tuple[str, ...]] = {
    "binary": ("agreement", "accuracy"),
    "multilabel": ("agreement", "accuracy", "f1"),
    "ordinal": ("agreement", "accuracy", "mean_rank_error"),
    "regression": ("relative_error", "mean_absolute_error", "r2"),
    "embedding": ("least_cosine", "neighbours", "recall_at_1"),
    "boxes": ("iou", "relative_error", "truth_iou"),
    "segmentation": ("agreement", "iou", "accuracy", "truth_iou"),
}
LARGE_IS_BAD = frozenset({"relative_error"})
# Measures of the Keras model at the top of a report, and what they are called there: of each head the first that it has.
HEADLINES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("accuracy", "accuracy", numbers.share),
    ("r2", "R²", _three),
    ("mean_iou", "mean IoU", _three),
    ("recall_at_1", "nearest of the same label", numbers.share),
)
MOST_HEADLINES = 6
# How a line says a figure whose name and value do not make a phrase.
PHRASES = {
    ("regression", "relative_error"): "off by {} of the spread",
    ("boxes", "relative_error"): "off by {} of the picture",
    ("ordinal", "mean_rank_error"): "{} ranks off on average",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """The figures of one output: `lines` of (artifact, runtime, cells, limits, limits that would pass).

    The cells belong to `headers`; `numeric` says of each whether it is a number.
    """

    output: str
    task: str
    headers: tuple[str, ...]
    numeric: tuple[bool, ...]
    lines: tuple[tuple[str, str, tuple[str, ...], Mapping[str, Any], Mapping[str, Any]], ...]


def word_of(task: str, key: str) -> str:
    """Return what a figure is called in a task, as in `pixels kept`."""
    plain = next((words for name, words, _ in FIGURES if name == key), key)
    return WORDS.get(task, {}).get(key, plain)


def tables(rows: Sequence[facts.Row]) -> list[Table]:
    """Return a table of each output, with the figures that any of its comparisons has, in the order of the report."""
    outputs: dict[str, list[tuple[facts.Row, Mapping[str, Any]]]] = {}
    for row in rows:
        for name, figures in row.outputs.items():
            outputs.setdefault(name, []).append((row, figures))
    return [_table(name, found) for name, found in outputs.items()]


def _table(name: str, found: list[tuple[facts.Row, Mapping[str, Any]]]) -> Table:
    task = next((str(figures["task"]) for _, figures in found if figures.get("task")), "")
    columns: list[tuple[str, bool, Callable[[Mapping[str, Any]], str]]] = []
    for key, _, form in FIGURES:
        if any(figures.get(key) is not None for _, figures in found):
            columns.append((word_of(task, key), True, lambda figures, key=key, form=form: form(figures.get(key))))
    for key, words, of in INTERVALS:
        if any(figures.get(key) for _, figures in found):
            header = words.format(word_of(task, of))
            columns.append((header, False, lambda figures, key=key: interval(figures.get(key))))
    if any(figures.get("columns") for _, figures in found):
        columns.append(("each column", False, lambda figures: "; ".join(map(_column, figures.get("columns") or []))))
    if any(figures.get("iou_of_classes") for _, figures in found):
        columns.append(("IoU of each class", False, lambda figures: _classes(figures.get("iou_of_classes") or {})))
    if any(figures.get("constant_labels") for _, figures in found):
        columns.append(
            ("same for all images", False, lambda figures: _names(figures.get("constant_labels") or []) or facts.NONE)
        )
    lines = tuple(
        (
            row.artifact,
            row.runner,
            tuple(cell(figures) for _, _, cell in columns),
            figures.get("limits") or {},
            figures.get("smallest_passing_limits") or {},
        )
        for row, figures in found
    )
    return Table(
        name, task, tuple(header for header, _, _ in columns), tuple(number for _, number, _ in columns), lines
    )


def interval(ends: Any) -> str:
    """Return a paired interval of a fall as a change in points, as in `-1.2 to +0.4`; or `-`."""
    if not ends or any(end is None for end in ends):
        return facts.NONE
    return " to ".join(numbers.points(end) for end in reversed(ends))


def _column(figures: Mapping[str, Any]) -> str:
    told = f"{facts.one_line(figures.get('name'))}: off by {_percent(figures.get('relative_error'))}"
    if figures.get("mean_absolute_error") is not None:
        of_keras = numbers.difference(figures.get("mean_absolute_error_of_keras"))
        told += f", mean error {numbers.difference(figures['mean_absolute_error'])} ({of_keras} in Keras)"
    if figures.get("r2") is not None:
        told += f", R² {_three(figures['r2'])} ({_three(figures.get('r2_of_keras'))} in Keras)"
    return told


def _classes(overlaps: Mapping[str, float]) -> str:
    least = sorted(overlaps, key=lambda name: overlaps[name] if overlaps[name] is not None else 0)
    told = ", ".join(f"{facts.one_line(name)} {_three(overlaps[name])}" for name in least[:MOST_NAMES])
    return (told + (f" and {len(least) - MOST_NAMES} more" if len(least) > MOST_NAMES else "")) or facts.NONE


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(facts.one_line(name) for name in names[:MOST_NAMES]) + more


def headlines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (figure, of what) of every head in Keras: accuracy, R² of each column, mean IoU or the share of good neighbours.

    Of more columns than a page's head has room for, only the least R² is told.
    """
    reference = report.get("reference") or {}
    accuracies = {name: {"accuracy": value} for name, value in (reference.get("accuracy") or {}).items()}
    measures = {**accuracies, **(reference.get("measures") or {})}
    found = []
    for name, figures in measures.items():
        for key, words, form in HEADLINES:
            value = (figures or {}).get(key)
            if value is None:
                continue
            of, columns = facts.one_line(name), value if isinstance(value, Mapping) else None
            if columns is None:
                found.append((form(value), f"{words} of {of}"))
            elif len(columns) <= MOST_HEADLINES:
                found += [
                    (form(each), f"{words} of {of}, {facts.one_line(column)}") for column, each in columns.items()
                ]
            else:
                known = [each for each in columns.values() if each is not None]
                found.append((form(min(known, default=None)), f"least {words} of {len(columns)} columns of {of}"))
            break
    return found


def told(rows: Sequence[facts.Row]) -> list[str]:
    """Return a sentence of each output that is no multiclass one, by the artifact that is farthest from the Keras model."""
    found = []
    for name in dict.fromkeys(name for row in rows for name in row.outputs):
        ours = [(row, row.outputs[name]) for row in rows if name in row.outputs]
        task = next((str(figures["task"]) for _, figures in ours if figures.get("task")), "")
        keys = LINES.get(task, ())
        ours = [(row, figures) for row, figures in ours if keys and figures.get(keys[0]) is not None]
        if not ours:
            continue
        sign = -1 if keys[0] in LARGE_IS_BAD else 1
        row, figures = min(ours, key=lambda each: (sign * each[1][keys[0]], -(each[1].get("max_abs") or 0)))
        parts = [_part(task, key, figures) for key in keys if figures.get(key) is not None]
        parts += [_column(column) for column in (figures.get("columns") or [])[:MOST_NAMES]]
        of = f"farthest of {len(ours)}, {row.place}" if len(ours) > 1 else row.place
        found.append(f"{facts.one_line(name)} ({task}; {of}): {', '.join(parts)}.")
    return found


def _part(task: str, key: str, figures: Mapping[str, Any]) -> str:
    form = next(form for name, _, form in FIGURES if name == key)
    text = PHRASES.get((task, key), f"{word_of(task, key)} {{}}").format(form(figures[key]))
    if key in ("accuracy", "truth_iou") and figures.get(f"{key}_drop") is not None:
        return f"{text} ({numbers.points(figures[f'{key}_drop'])})"
    of_keras = figures.get(f"{key}_of_keras")
    return text if of_keras is None else f"{text} ({form(of_keras)} in Keras)"
