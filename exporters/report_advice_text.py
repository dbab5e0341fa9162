"""Which cut, in words: the cells of the table, the sentences, and Markdown.

The form of the advice is told in `pipeline.advice.form`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporters import report_numbers as numbers
from exporters.report_markdown import escape

NORMAL_QUANTILE = 1.959964
# Accuracies of heads trained to their end are shown where they differ by as much anywhere.
WORTH_SHOWING = 0.005
Row = Mapping[str, Any]


def columns_of(advice: Mapping[str, Any]) -> list[tuple[str, bool, Callable[[Row], str], int]]:
    """Return header, whether it is a number, content, and when it goes as a console gets narrow: the highest first, 0 never."""
    longer = any(abs(row["converged_accuracy"] - row["accuracy"]) >= WORTH_SHOWING for row in advice["cuts"])
    timed = advice["latency"]["measured"]
    found = [
        ("cut", False, lambda row: row["name"], 0),
        ("part", False, lambda row: row["part"], 7),
        ("stride", True, lambda row: numbers.count(row["reduction"]), 8),
        ("accuracy", True, accuracy, 0),
        ("trained out", True, lambda row: numbers.share(row["converged_accuracy"]), 5) if longer else None,
        ("params", True, lambda row: numbers.count(row["params"]), 6),
        ("MACs", True, lambda row: macs(row["macs"]), 4 if timed else 0),
        ("float32", True, lambda row: numbers.size(row["float32_bytes"]), 3),
        ("int8", True, lambda row: numbers.size(row["int8_bytes"]), 2),
        ("ms", True, lambda row: numbers.milliseconds(row["latency_ms"]), 1) if timed else None,
        ("front", False, fronts, 1),
        ("recommended", False, lambda row: ", ".join(recommended(row["name"], advice)), 0),
    ]
    return [each for each in found if each]


def accuracy(row: Row) -> str:
    """Return a cut's accuracy with half the width of its 95 % interval, as in `93.4% ± 1.1`."""
    return f"{numbers.share(row['accuracy'])} ± {row['standard_error'] * NORMAL_QUANTILE * 100:.1f}"


def macs(count: float) -> str:
    """Return multiply-accumulates as `812 k`, `58 M`, `4.1 G`."""
    unit, factor = next((pair for pair in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if count >= pair[1]), ("", 1))
    value = count / factor
    return f"{value:.1f} {unit}".strip() if value < 10 else f"{value:.0f} {unit}".strip()


def fronts(row: Row) -> str:
    """Return on which fronts a cut lies: no other is as accurate for less time, or for fewer bytes."""
    return ", ".join(word for key, word in (("on_speed_front", "speed"), ("on_size_front", "size")) if row[key])


def recommended(cut: str, advice: Mapping[str, Any]) -> list[str]:
    """Return for which wishes a cut is recommended."""
    words = {
        "most_accurate": "most accurate",
        "smallest_within_a_point": "smallest within a point",
        "budget": "in the budget",
    }
    return [words[wish] for wish, name in advice["recommended"].items() if name == cut]


def legend(advice: Mapping[str, Any]) -> str:
    """Return what the columns mean, in a sentence or two."""
    latency = advice["latency"]
    speed = (
        f"ms: one image in LiteRT with XNNPACK, {latency['threads']} threads, median of at least {latency['rounds']} rounds over "
        "all cuts in turn"
        if latency["measured"]
        else "speed is judged by MACs"
    )
    judged = sorted({head["judged_by"] for head in advice["heads"].values()})
    heads = f" (mean over {', '.join(advice['heads'])})" if len(advice["heads"]) > 1 else ""
    probed = advice["pictures"]["probed"]
    way = "by leaving out whole groups" if advice["grouped"] else "by leaving out one at a time"
    return (
        f"{' / '.join(judged)}{heads} of a linear probe on {numbers.count(probed)} pictures of train and val, {way}, ± 95 %; "
        f"trained out: with training to its end; float32, int8: size of the TFLite file with its heads (int8 estimated); "
        f"{speed}; front: as accurate for less speed or size is no other."
    ).replace("\u202f", " ")


def sentences_of(advice: Mapping[str, Any]) -> list[str]:
    """Return the recommendations, what the guides say, and the notes, a sentence or two each."""
    rows = {row["name"]: row for row in advice["cuts"]}
    named, budget = advice["recommended"], advice["budget"]
    told = [
        f"Most accurate: {_of(rows[named['most_accurate']], advice)}.",
        f"Smallest within a point: {_of(rows[named['smallest_within_a_point']], advice)}"
        f"{_behind(rows[named['smallest_within_a_point']])}.",
    ]
    if named["budget"]:
        told.append(f"Within {budget['asked']} ({advice['precision']}): {_of(rows[named['budget']], advice)}.")
    elif budget["nearest"]:
        told.append(f"Nothing fits into {budget['asked']}; the nearest: {_of(rows[budget['nearest']], advice)}.")
    return [
        *told,
        *(f"The guides: {line}." for line in advice["rule"]["rule"]),
        *advice["rule"]["sentences"],
        *advice["notes"],
    ]


def _of(row: Row, advice: Mapping[str, Any]) -> str:
    costs = [numbers.size(row[f"{advice['precision']}_bytes"]) + f" as {advice['precision']}"]
    costs.append(
        f"{numbers.milliseconds(row['latency_ms'])} ms"
        if advice["latency"]["measured"]
        else macs(row["macs"]) + " MACs"
    )
    expected = ", ".join(
        f"{name + ' ' if len(row['heads']) > 1 else ''}{numbers.share(head['predicted_test']['low'])} to "
        f"{numbers.share(head['predicted_test']['high'])}"
        for name, head in row["heads"].items()
    )
    return f"'{row['name']}', {accuracy(row)}, {', '.join(costs)}; expected on the test split: {expected}"


def _behind(row: Row) -> str:
    gap = row["difference_to_best"]
    if not gap["value"] and not gap["low"]:
        return " (the most accurate itself)"
    value, low, high = (f"{gap[key] * 100:+.1f}" for key in ("value", "low", "high"))
    return f" ({value} points from the most accurate, 95 %: {low} to {high})"


def to_markdown(advice: Mapping[str, Any], level: int = 1) -> str:
    """Return the advice as GitHub's Markdown under a heading of that level, without a newline at its end."""
    columns = columns_of(advice)
    head = "| " + " | ".join(title for title, _, _, _ in columns) + " |"
    rule = "| " + " | ".join("---:" if number else "---" for _, number, _, _ in columns) + " |"
    lines = ["| " + " | ".join(escape(content(row)) for _, _, content, _ in columns) + " |" for row in advice["cuts"]]
    told = "\n".join(f"- {escape(line)}" for line in sentences_of(advice))
    parts = [f"{'#' * level} {escape(title_of(advice))}", told, "\n".join([head, rule, *lines]), escape(legend(advice))]
    return "\n\n".join([*parts, *_heads(advice)])


def _heads(advice: Mapping[str, Any]) -> list[str]:
    if len(advice["heads"]) < 2:
        return []
    names = list(advice["heads"])
    lines = [
        "| "
        + " | ".join([escape(row["name"]), *(numbers.share(row["heads"][name]["accuracy"]) for name in names)])
        + " |"
        for row in advice["cuts"]
    ]
    return ["\n".join(["| cut | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names), *lines])]


def title_of(advice: Mapping[str, Any]) -> str:
    """Return the heading: which backbone, at which size of pictures."""
    backbone, size = advice["backbone"], advice["input"]
    return f"Where to cut {backbone['name']} {backbone['alpha']:g} at {size['width']} x {size['height']} px"
