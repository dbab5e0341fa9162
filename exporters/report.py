"""The report of a run: report.json, report.md, report.html, report.xml (JUnit) and the terminal's table.

A report is a dict in the form of report.json. Beside its fixed keys, it may have these, each of which may be absent:

    name         the model's name
    training     {output: {"epochs", "loss", "val_loss", "accuracy", "val_accuracy": lists of equal length,
                 "best_epoch", "parameters"}}
    reference    {"accuracy": {output: share}, "images": count, "confusion": {output: rows truth, columns answer}}
    card         the content of card.json
    advice       of a run whose cut was chosen by measuring: in the form of `pipeline.advice.form`
    notes        sentences: limits that were loosened, duplicates that were removed
    integrity    {"status", "changed": [path], "missing": [path], "unexpected": [path]}: the checksums of a verify run
    image_files  [{"where", "decoder", "files", "largest_decode_difference", "largest_resize_difference", "status",
                 "reason"}]: decoding and resizing apart from any model, differences in levels 0..255
    not_run      [{"runtime", "reason", "mend"}]: runtimes that nobody asked for and that were not there

Every artifact may have

    audit        {"status", "reason", "operators": {name: count}, "custom_operators": [name], "opset", "inputs", "outputs":
                 [{"name", "dtype", "shape", "scale", "zero_point"}], "weights": {dtype: values}, "activations": {dtype:
                 tensors}, "constants": {"layers", "compared", "largest_steps", "largest_relative", "worst", "uncompared"}}
    layers       {"status": "traced" | "not_traced", "reason", "images", "first_off", "rows": [{"name", "kind", "max_abs",
                 "relative", "snr_db", "cosine"}]}
    made         of a precision whose weights can be made in several ways: {"taken": name, "images": how many validation
                 pictures they were measured on, "ways": [{"name", "error", "status", "reason", "outputs": {output: figures},
                 "features_snr_db": {output: ratio}, "worst_layers": [{"name", "snr_db"}], "wall_s"}]}, see
                 `exporters.ways`; `wall_s` only where this folder's run made it
    instead      of one whose answers fail: {"name", "size_bytes", "latency_ms"}, the smallest of its format that is verified

every runtime `where` ("this machine" or a browser), `of_images` (more than `images`: it answered a sample), `inference_s`
and `files` ({"images", "max_abs", "status", "reason"}: its answers to the golden image files), and every output of a
runtime `status` and the figures of `exporters.parity`. Figures that do not apply are None or absent. Every form shows a
verdict that is never better than what stands in the checks: a report that compared nothing is not verified.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.report_facts import plain
from exporters.report_junit import to_junit
from exporters.report_markdown import to_markdown
from exporters.report_text import print_table

if TYPE_CHECKING:
    import numpy as np

__all__ = ["print_table", "to_html", "to_json", "to_junit", "to_markdown", "write_reports"]


def write_reports(report: Mapping[str, Any], out: Path, images: np.ndarray | None = None) -> tuple[Path, ...]:
    """Write report.json, report.md, report.html and report.xml into a folder.

    Args:
        report: in the form of report.json, with the keys above.
        out: the folder; it is made where it is not there.
        images: the golden images, uint8 (N, height, width, 3); a few of them are shown in the page; None: none is.

    Returns:
        The paths written. All four forms are made before the first is written, and each is moved into place whole.

    Raises:
        OSError: the folder cannot be written.
    """
    texts = {
        "report.json": to_json(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report, images),
        "report.xml": to_junit(report),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        _write_whole(out / name, text)
    return tuple(out / name for name in texts)


def to_json(report: Mapping[str, Any]) -> str:
    """Return the report as strict JSON, keys in the order given; see `report_facts.plain` for NaN and infinity.

    A list of numbers stands on one line: a confusion matrix is then as wide as it is high.
    """
    text = json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False)
    # A string holds no line break as it is, so what is matched is always a list.
    return re.sub(r"\[\n\s+(?:-?[\d.eE+-]+,\n\s+)*-?[\d.eE+-]+\n\s+\]", _on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    return "[" + ", ".join(found[0][1:-1].replace(",", " ").split()) + "]"


def to_html(report: Mapping[str, Any], images: np.ndarray | None = None) -> str:
    """Return the report as one page that needs nothing beside itself; see `report_html.to_html`."""
    from exporters.report_html import to_html as render

    return render(report, images)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
