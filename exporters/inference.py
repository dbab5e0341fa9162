"""The inference models behind the artifacts: folded once, rounded and corrected once for each width of weights."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from exporters.correction import GRIDS, can_correct, correct
from exporters.errors import CutpointError
from exporters.folding import fold
from exporters.saved_model import write_saved_model

# Folding only changes the order of roundings in float32.
LARGEST_FOLDING_DIFFERENCE = 1e-4
CHECKED_IMAGES = 16


class InferenceModels:
    """SavedModels of one Keras model, made when a precision first asks for one; precisions share them where they can.

    Args:
        model: takes `image`, gives named outputs.
        cut: the layer whose output is `features`; None where there is none.
        calibration_images: uint8 (N, height, width, 3) from the training split.
        work: a folder for the SavedModels.
        features_everywhere: whether every format gives the features too.
    """

    def __init__(
        self,
        model: keras.Model,
        cut: str | None,
        calibration_images: np.ndarray,
        work: Path,
        *,
        features_everywhere: bool,
    ) -> None:
        folded = fold(model)
        _check_folding(model, folded.model, calibration_images)
        self._model = folded.model
        self._cut = folded.layer_name(cut) if cut else None
        self._images = calibration_images
        self._work = work
        self._features_everywhere = features_everywhere
        self._made: dict[str, Path] = {}

    def saved_model(self, precision: str) -> Path:
        """Return the SavedModel for a precision: the folded model, or one with weights rounded and biases corrected."""
        grid = GRIDS.get(precision) if len(self._images) and can_correct(self._model) else None
        name = grid.__name__ if grid else "plain"
        if name not in self._made:
            model = correct(self._model, precision, self._images) if grid else self._model
            folder = self._work / name
            self._made[name] = write_saved_model(
                model, self._cut, folder, features_everywhere=self._features_everywhere
            )
        return self._made[name]


def _check_folding(model: keras.Model, folded: keras.Model, images: np.ndarray) -> None:
    batch = images[:CHECKED_IMAGES].astype(np.float32)
    for expected, found in zip(
        keras.tree.flatten(model(batch, training=False)),
        keras.tree.flatten(folded(batch, training=False)),
        strict=True,
    ):
        expected, found = (keras.ops.convert_to_numpy(each) for each in (expected, found))
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        difference = float(np.abs(expected - found).max(initial=0.0)) / scale
        if not difference <= LARGEST_FOLDING_DIFFERENCE:
            raise CutpointError(
                f"Folding BatchNorm changed the answers by {difference:.2g} of their range.",
                f"at most {LARGEST_FOLDING_DIFFERENCE:g}",
                "report this as a fault of cutpoint",
            )
