"""What the page's sections show: pictures where matplotlib is at hand, audits, layers and confusion in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from exporters import report_cells as cells
from exporters import report_checks as checked
from exporters import report_facts as facts
from exporters import report_numbers as numbers
from exporters.contract import QUANTISED

NO_PICTURES = "The pictures are missing: matplotlib is not installed where this report was made."
MOST_MATRICES = 8


def learning_curves(report: Mapping[str, Any]) -> tuple[list[tuple[str, Markup]], str]:
    """Return (title, picture) of every learning curve, and what is missing in a sentence."""
    training = report.get("training") or {}
    wanted = [(output, history, quantity) for output, history in training.items() for quantity in ("loss", "accuracy")]
    plots, missing = _matplotlib("report_plots") if wanted else (None, "")
    drawn = [
        (f"{output}: {quantity} while training", plots.learning_curve(history or {}, quantity))
        for output, history, quantity in wanted
        if plots
    ]
    return _marked(drawn), missing


def tradeoff(report: Mapping[str, Any]) -> tuple[str, Markup | None, str]:
    """Return title and picture of accuracy over size, and what is missing in a sentence.

    Of several outputs, the first by name that has an accuracy is drawn.
    """
    found = [(summary.row, row) for summary in checked.summaries(report) for row in summary.rows]
    outputs = sorted({name for _, row in found for name in row.outputs if _accuracy(row, name) is not None})
    if not outputs:
        return "", None, ""
    charts, missing = _matplotlib("report_charts")
    if not charts:
        return "", None, missing
    name, points, keras = outputs[0], {}, None
    for summary, row in found:
        accuracy = _accuracy(row, name)
        if accuracy is None or not summary.size_bytes or summary.artifact in points:
            continue
        points[summary.artifact] = charts.Point(
            summary.artifact, summary.format, summary.size_bytes, accuracy, summary.latency_ms
        )
        drop = row.outputs[name].get("accuracy_drop")
        keras = accuracy + drop if keras is None and drop is not None else keras
    drawn = charts.tradeoff(list(points.values()), keras)
    title = f"Accuracy of {name} over size; a marker's area is the latency of one image in the fastest runtime"
    return title, Markup(drawn) if drawn else None, ""


def _accuracy(row: facts.Row, name: str) -> float | None:
    return (row.outputs.get(name) or {}).get("accuracy")


def depths(report: Mapping[str, Any]) -> tuple[list[tuple[str, Markup]], list[tuple[str, str]], str]:
    """Return the pictures of difference over depth, (artifact, why) of what was not traced, and what is missing."""
    layered = [(facts.name_of(each), each) for each in report.get("artifacts") or [] if each.get("layers")]
    untraced = [
        (name, facts.one_line(each["layers"].get("reason") or "No reason was given."))
        for name, each in layered
        if each["layers"].get("status") != "traced"
    ]
    traced = [(name, each) for name, each in layered if each["layers"].get("status") == "traced"]
    charts, missing = _matplotlib("report_charts") if traced else (None, "")
    drawn = []
    for name, artifact in traced if charts else []:
        layers, quantised = artifact["layers"], artifact.get("precision") in QUANTISED
        off = f", first off at {facts.one_line(layers['first_off'])}" if layers.get("first_off") else ""
        drawn.append((name + off, charts.depth(layers.get("rows") or [], layers.get("first_off"), quantised)))
    return _marked(drawn), untraced, missing


def confusions(report: Mapping[str, Any]) -> tuple[list[tuple[str, Markup]], str]:
    """Return (title, picture) of confusion matrices, and what is missing in a sentence.

    The Keras model's on all test images; then, on the images that the artifacts answered, its own and those of artifacts
    that are quantised or differ from it. Equal ones are drawn once.
    """
    wanted = _matrices(report)
    plots, missing = _matplotlib("report_plots") if wanted else (None, "")
    labels = (report.get("data") or {}).get("labels") or {}
    drawn = [
        (title, plots.confusion_matrix(counts, labels.get(output) or [])) for output, title, counts in wanted if plots
    ]
    return _marked(drawn), missing


def _matrices(report: Mapping[str, Any]) -> list[tuple[str, str, list]]:
    reference = report.get("reference") or {}
    of_keras, found = reference.get("confusion") or {}, []
    compared: dict[str, dict[str, tuple[list, list[str]]]] = {}
    for artifact in report.get("artifacts") or []:
        for output, figures in _whole_outputs(artifact):
            mine, theirs = figures.get("confusion"), figures.get("confusion_of_keras")
            if mine and theirs and (artifact.get("precision") in QUANTISED or mine != theirs):
                groups = compared.setdefault(output, {})
                groups.setdefault(json.dumps(theirs), (theirs, []))[1].append("Keras")
                groups.setdefault(json.dumps(mine), (mine, []))[1].append(facts.name_of(artifact))
    for output in dict.fromkeys([*of_keras, *compared]):
        if of_keras.get(output):
            images = f" test images ({reference['images']})" if reference.get("images") else " test images"
            found.append((output, f"{output}: Keras, all{images}", of_keras[output]))
        groups = [(counts, dict.fromkeys(names)) for counts, names in compared.get(output, {}).values()]
        # Where the test images are those that were compared, the Keras model's matrix stands there already.
        drawn = of_keras.get(output)
        groups = [(counts, [each for each in names if each != "Keras" or counts != drawn]) for counts, names in groups]
        for counts, names in [group for group in groups if group[1]][:MOST_MATRICES]:
            total = sum(each or 0 for row in counts for each in row)
            found.append((output, f"{output}: {', '.join(names)}, {total} compared images", counts))
    return found


def _whole_outputs(artifact: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the outputs of the first runtime that answered all images."""
    for row in facts.rows({"artifacts": [artifact]}):
        if any(figures.get("confusion") for figures in row.outputs.values()):
            return list(row.outputs.items())
    return []


def _matplotlib(module: str) -> tuple[Any, str]:
    try:
        if module == "report_plots":
            from exporters import report_plots as found
        else:
            from exporters import report_charts as found
    except ImportError:
        return None, NO_PICTURES
    return found, ""


def _marked(drawn: list[tuple[str, str | None]]) -> list[tuple[str, Markup]]:
    # matplotlib has escaped the labels already.
    return [(title, Markup(picture)) for title, picture in drawn if picture]


def audits(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the table of audits shows of each artifact that has one."""
    return [
        {
            "artifact": facts.name_of(artifact),
            "status": facts.status_of(artifact["audit"].get("status")),
            "operators": cells.counted(artifact["audit"].get("operators")),
            "custom": ", ".join(map(facts.one_line, artifact["audit"].get("custom_operators") or [])),
            "opset": artifact["audit"].get("opset"),
            "inputs": [_port(port) for port in artifact["audit"].get("inputs") or []],
            "outputs": [_port(port) for port in artifact["audit"].get("outputs") or []],
            "weights": cells.counted(artifact["audit"].get("weights")),
            "activations": cells.counted(artifact["audit"].get("activations")),
            "constants": cells.constants(artifact["audit"].get("constants")),
            "worst": facts.one_line((artifact["audit"].get("constants") or {}).get("worst") or ""),
        }
        for artifact in report.get("artifacts") or []
        if artifact.get("audit")
    ]


def _port(port: Mapping[str, Any]) -> str:
    shape = "x".join("N" if each is None else str(each) for each in port.get("shape") or [])
    text = f"{port.get('name') or facts.NONE}: {port.get('dtype') or facts.NONE} {shape}".strip()
    if port.get("scale") is not None and "float" not in str(port.get("dtype")):
        text += f", scale {numbers.exact(port['scale'])}, zero point {port.get('zero_point')}"
    return facts.one_line(text)
