"""The inference models behind the artifacts: folded once, rounded and corrected once for each width of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from exporters.calibration import with_full_range
from exporters.columns_ranges import fit_to_features
from exporters.contract import WHOLE_NUMBERS, features_names
from exporters.correction import GRIDS, can_correct, correct
from exporters.errors import CutpointError, InputError
from exporters.fingerprinting import weight_set
from exporters.fingerprints import WeightSet
from exporters.folding import Folded, fold
from exporters.inputs import Inputs, as_inputs
from exporters.saved_model import takes_columns, write_saved_model

# Folding only changes the order of roundings in float32.
LARGEST_FOLDING_DIFFERENCE = 1e-4
CHECKED_IMAGES = 16
PLAIN = "plain"
# Behind the name of a grid: the encoded columns lie in the range of the features, see `fit_to_features`.
FITTED = "_fitted"


class InferenceModels:
    """SavedModels of one Keras model, made when a precision first asks for one; precisions share them where they can.

    Args:
        model: takes `image`, and `columns` where it has such, gives named outputs.
        cut: the layers that the backbone was cut at, the deepest last, or one of them; none, or None, where there are none.
        calibration_images: uint8 (N, height, width, 3) from the training split, with columns where the model takes them.
        work: a folder for the SavedModels.
        features_everywhere: whether every format gives the features too.
    """

    def __init__(
        self,
        model: keras.Model,
        cut: Sequence[str] | str | None,
        calibration_images: Inputs | np.ndarray,
        work: Path,
        *,
        features_everywhere: bool,
    ) -> None:
        cuts = (cut,) if isinstance(cut, str) else tuple(cut or ())
        inputs = as_inputs(calibration_images)
        check_inputs(model, inputs)
        folded = fold(model, list(cuts))
        _check_folding(model, folded, cuts, inputs)
        self._models = {PLAIN: folded.model}
        self._features = {name: folded.layer_name(layer) for layer, name in features_names(cuts).items()}
        self._inputs = inputs
        self._work = work
        self._features_everywhere = features_everywhere
        self._made: dict[str, Path] = {}

    def rounding(self, precision: str) -> str:
        """Return how the weights are rounded for a precision: `plain`, or the name of a grid, with `_fitted` behind it."""
        can = len(self._inputs) and can_correct(self._models[PLAIN])
        if not can or precision not in GRIDS:
            return PLAIN
        # Where activations are whole numbers too, what is joined shares one range.
        fitted = precision in WHOLE_NUMBERS and takes_columns(self._models[PLAIN])
        return GRIDS[precision].__name__ + (FITTED if fitted else "")

    def model(self, precision: str) -> keras.Model:
        """Return the folded model for a precision, its weights rounded and its biases corrected where that is done."""
        name = self.rounding(precision)
        if name not in self._models:
            folded = self._models[PLAIN]
            ranged = fit_to_features(folded, self._inputs) if name.endswith(FITTED) else folded
            self._models[name] = correct(ranged, precision, self._inputs)
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
        whole = precision in WHOLE_NUMBERS and len(self._inputs)
        return weight_set(self.model(precision), with_full_range(self._inputs) if whole else None)


def check_inputs(model: keras.Model, inputs: Inputs) -> None:
    """Raise InputError where pictures come without the columns that a model takes, or with columns that it does not."""
    wanted = model.inputs[1].shape[-1] if takes_columns(model) else None
    given = None if inputs.columns is None else inputs.columns.shape[-1]
    if len(inputs) and wanted != given:
        columns = {None: "no columns"}
        raise InputError(
            f"The calibration images come with {columns.get(given, f'{given} columns')}.",
            columns.get(wanted, f"{wanted} columns, as the model takes"),
            "give it the columns of the same pictures, as the training split has them",
        )


def _check_folding(model: keras.Model, folded: Folded, cuts: tuple[str, ...], inputs: Inputs) -> None:
    """Raise CutpointError where answers or features are not what they were before folding."""
    batch = list(inputs[:CHECKED_IMAGES].named().values())
    if not len(inputs):
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


def _answers(model: keras.Model, cuts: tuple[str, ...], batch: list[np.ndarray]) -> list[np.ndarray]:
    wanted = [*model.outputs, *(model.get_layer(each).output for each in cuts)]
    found = keras.Model(model.inputs, wanted)(batch if len(batch) > 1 else batch[0], training=False)
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(found)]
