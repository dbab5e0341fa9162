"""The inference models behind the artifacts: folded once, rounded and corrected once for each width of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from exporters.calibration import with_full_range
from exporters.contract import WHOLE_NUMBERS, features_names
from exporters.correction import GRIDS, can_correct, correct
from exporters.errors import CutpointError
from exporters.fingerprinting import weight_set
from exporters.fingerprints import WeightSet
from exporters.folding import Folded, fold
from exporters.saved_model import write_saved_model

# Folding only changes the order of roundings in float32.
LARGEST_FOLDING_DIFFERENCE = 1e-4
CHECKED_IMAGES = 16
PLAIN = "plain"


class InferenceModels:
    """SavedModels of one Keras model, made when a precision first asks for one; precisions share them where they can.

    Args:
        model: takes `image`, gives named outputs.
        cut: the layers that the backbone was cut at, the deepest last, or one of them; none, or None, where there are none.
        calibration_images: uint8 (N, height, width, 3) from the training split.
        work: a folder for the SavedModels.
        features_everywhere: whether every format gives the features too.
    """

    def __init__(
        self,
        model: keras.Model,
        cut: Sequence[str] | str | None,
        calibration_images: np.ndarray,
        work: Path,
        *,
        features_everywhere: bool,
    ) -> None:
        cuts = (cut,) if isinstance(cut, str) else tuple(cut or ())
        folded = fold(model, list(cuts))
        _check_folding(model, folded, cuts, calibration_images)
        self._models = {PLAIN: folded.model}
        self._features = {name: folded.layer_name(layer) for layer, name in features_names(cuts).items()}
        self._images = calibration_images
        self._work = work
        self._features_everywhere = features_everywhere
        self._made: dict[str, Path] = {}

    def rounding(self, precision: str) -> str:
        """Return how the weights are rounded for a precision: `plain`, or the name of a grid."""
        can = len(self._images) and can_correct(self._models[PLAIN])
        return GRIDS[precision].__name__ if can and precision in GRIDS else PLAIN

    def model(self, precision: str) -> keras.Model:
        """Return the folded model for a precision, its weights rounded and its biases corrected where that is done."""
        name = self.rounding(precision)
        if name not in self._models:
            self._models[name] = correct(self._models[PLAIN], precision, self._images)
        return self._models[name]

    def saved_model(self, precision: str) -> Path:
        """Return the SavedModel of the model for a precision."""
        name = self.rounding(precision)
        if name not in self._made:
            folder, everywhere = self._work / name, self._features_everywhere
            self._made[name] = write_saved_model(
                self.model(precision), self._features, folder, features_everywhere=everywhere
            )
        return self._made[name]

    def weight_set(self, precision: str) -> WeightSet:
        """Return what an artifact of a precision must hold; spans of activations only where it computes in whole numbers."""
        whole = precision in WHOLE_NUMBERS and len(self._images)
        return weight_set(self.model(precision), with_full_range(self._images) if whole else None)


def _check_folding(model: keras.Model, folded: Folded, cuts: tuple[str, ...], images: np.ndarray) -> None:
    """Raise CutpointError where answers or features are not what they were before folding."""
    batch = images[:CHECKED_IMAGES].astype(np.float32)
    if not len(batch):
        return
    for expected, found in zip(
        _answers(model, cuts, batch),
        _answers(folded.model, tuple(folded.layer_name(each) for each in cuts), batch),
        strict=True,
    ):
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        difference = float(np.abs(expected - found).max(initial=0.0)) / scale
        if not difference <= LARGEST_FOLDING_DIFFERENCE:
            raise CutpointError(
                f"Rewriting and folding the layers changed the answers by {difference:.2g} of their range.",
                f"at most {LARGEST_FOLDING_DIFFERENCE:g}",
                "report this as a fault of cutpoint",
            )


def _answers(model: keras.Model, cuts: tuple[str, ...], batch: np.ndarray) -> list[np.ndarray]:
    wanted = [*model.outputs, *(model.get_layer(each).output for each in cuts)]
    found = keras.Model(model.inputs, wanted)(batch, training=False)
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(found)]
