"""Where broken artifacts are made: good ones to copy, damaged models to export, and the golden set of the true model."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporters.contract import CEILINGS, Card, Limits
from exporters.export import artifact_card, export_artifact, write_papers
from exporters.golden import write_manifest
from exporters.inference import InferenceModels
from exporters.saved_model import write_saved_model
from tests import small_models
from tests.faults_rebuilding import Maker
from tests.small_models import EVERY_ARTIFACT

NAMES = {str(name): name for name in EVERY_ARTIFACT}
ALL = tuple(NAMES)
FAST = ("tfjs-node/wasm", "litert/xnnpack", "onnxruntime/cpu")


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Where damaged artifacts are made: `session` is a folder for what is made once."""

    session: Path

    def good(self, name: str, out: Path) -> Path:
        """Copy an undamaged artifact into a result folder; returns its folder there."""
        source = small_models.result_folder(self.session) / "artifacts" / name
        return Path(shutil.copytree(source, out / "artifacts" / name, dirs_exist_ok=True))

    def export(self, name: str, saved_model: Path, out: Path, **instead: Any) -> Path:
        """Export a SavedModel; `instead` may give another `precision` than the name says, or other `images`."""
        one, wanted = small_models.small(), NAMES[name]
        images = instead.get("images", one.calibration_images)
        made = dataclasses.replace(wanted, precision=instead.get("precision", wanted.precision))
        folder = export_artifact(made, saved_model, one.card, out / "made", images)
        target = out / "artifacts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, target)
        # The papers say what was asked for, whatever the model is.
        write_papers(target, artifact_card(one.card, wanted))
        return target

    def golden(
        self, out: Path, damage: Callable[[Path], None] | None = None, limits: Mapping[str, Limits] = CEILINGS
    ) -> None:
        """Give a result folder the true model's golden set, damaged or not, and checksums of whatever is in it now."""
        shutil.rmtree(out / "made", ignore_errors=True)
        true = small_models.result_folder(self.session)
        shutil.copytree(true / "golden", out / "golden", dirs_exist_ok=True)
        shutil.copy(true / "card.json", out / "card.json")
        if damage is not None:
            damage(out)
        write_manifest(out, Card.read(out / "card.json"), limits)

    def models(self) -> InferenceModels:
        """Return the inference models of the true model."""
        small_models.result_folder(self.session)
        return small_models.inference_models(self.session)

    def damaged_folded(self, make: Maker, name: str) -> Path:
        """Return the SavedModel of a folded model with a fault, its weights rounded as an artifact's are."""
        return _damaged_folded(self, make, self._stands_for(name))

    def damaged_before_folding(self, make: Maker, name: str) -> Path:
        """Return the SavedModel for an artifact of a model that was damaged before it was folded."""
        return _damaged_models(self, make).saved_model(NAMES[name].precision)

    def of_another_cut(self, name: str) -> Path:
        """Return the SavedModel of the true model with the features of another layer."""
        return _of_another_cut(self, self._stands_for(name))

    def _stands_for(self, name: str) -> str:
        """Return the one precision that stands for all of the same rounding."""
        models, wanted = self.models(), NAMES[name].precision
        precisions = dict.fromkeys(each.precision for each in NAMES.values())
        return next(each for each in precisions if models.rounding(each) == models.rounding(wanted))


@functools.cache
def _damaged_folded(workshop: Workshop, make: Maker, precision: str) -> Path:
    model = make(workshop.models().model(precision))
    return write_saved_model(model, small_models.CUT, workshop.session / "damaged" / f"{make.__name__} {precision}")


@functools.cache
def _damaged_models(workshop: Workshop, make: Maker) -> InferenceModels:
    work, one = workshop.session / "damaged" / make.__name__, small_models.small()
    work.mkdir(parents=True)
    return InferenceModels(make(one.model), small_models.CUT, one.calibration_images, work, features_everywhere=False)


@functools.cache
def _of_another_cut(workshop: Workshop, precision: str) -> Path:
    folder = workshop.session / "damaged" / f"another cut {precision}"
    return write_saved_model(workshop.models().model(precision), "point_relu", folder)


PATTERNS = {
    "log-probabilities": "the largest difference of log-probabilities",
    "difference": "the largest difference [^o]",
    "confidence": "surer on average",
    "agreement": "top-1 agreement|sampled images get another label",
    "accuracy": "accuracy falls",
    "NaN": "the answer holds NaN or infinity",
    "shape": "has the shape",
    "constant answer": "the answer is the same for all",
    "missing output": "the artifact has no output",
    "extra output": "the artifact has an output",
    "promise": "the card does not promise",
}


def checks_of(report: Mapping[str, Any]) -> set[str]:
    """Return the names of the checks that found something wrong in a report."""
    found = {"checksum"} if report["integrity"]["status"] == "failed" else set()
    found |= {"failed": {"pixels"}, "not_verified": {"no files"}}.get(report["pixels"]["status"], set())
    for artifact in report["artifacts"]:
        audit = artifact.get("audit", {})
        found |= {each["check"] for each in audit.get("faults", [])}
        found |= {"fingerprints missing"} if audit.get("status") == "not_verified" else set()
        for runtime in artifact["runtimes"]:
            found |= set(_checks_of_runtime(runtime))
    return found


def _checks_of_runtime(runtime: Mapping[str, Any]) -> Iterator[str]:
    if runtime["status"] == "failed" and runtime.get("check") in ("card", "checksum", "runtime"):
        labels = runtime["check"] == "card" and runtime["reason"].startswith("labels.")
        yield "labels" if labels else runtime["check"]
    if runtime["status"] == "failed" and runtime.get("features", {}).get("status") == "failed":
        yield "features"
    if runtime["status"] == "not_verified":
        yield "nothing to compare"
    if runtime.get("files", {}).get("status") == "failed":
        yield "files"
    for output in runtime["outputs"].values():
        yield from (check for check, pattern in PATTERNS.items() if re.search(pattern, output["reason"]))
        if output["status"] == "degenerate":
            yield "degenerate"
