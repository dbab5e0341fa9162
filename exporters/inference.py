"""The inference models behind the artifacts: folded once, rounded and corrected once for each width of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.calibration import with_full_range
from exporters.cloning import leaves, set_weights
from exporters.columns_ranges import fit_to_features
from exporters.compiled import batch_of
from exporters.contract import WHOLE_NUMBERS, features_names
from exporters.correction import can_correct, correct_and_measure, working_bytes
from exporters.equalisation import WHOLE_SPLIT, equalise
from exporters.errors import CutpointError, InputError
from exporters.fingerprinting import weight_set
from exporters.fingerprints import WeightSet
from exporters.folding import Folded, fold
from exporters.inputs import Inputs, as_inputs
from exporters.keras_graph import answers_of, walk
from exporters.ladder import Made, Measure, Rung, climb
from exporters.memory import give_back
from exporters.opaque import is_opaque
from exporters.report_ways import CORRECTED, EQUALISED, EXACT_INPUTS, LEVELLED
from exporters.rounding import ACTIVATION_STEPS, GRIDS, PLAIN, rounding_of
from exporters.saved_model import takes_columns, write_saved_model
from exporters.ways import Choice, Gate

# Folding only changes the roundings of float32. Most networks hardly show them; where a BatchNorm divides by next to nothing,
# the unfolded network's own are as large: then the folded one is held to what those are.
LARGEST_FOLDING_DIFFERENCE = 1e-5
MOST_OF_OWN_ROUNDINGS = 4.0
# Where the unfolded network cannot be computed in float64, and what its own roundings are is not known.
LARGEST_UNCERTAIN_DIFFERENCE = 1e-4
CHECKED_IMAGES = 16
# Behind a rounding's name: the encoded columns lie in the range of the features, see `fit_to_features`.
FITTED = "_fitted"


class InferenceModels:
    """SavedModels of one Keras model, made when a precision first asks for one; precisions share them where they can.

    Args:
        model: takes `image`, and `columns` where it has such, gives named outputs.
        cut: the layers that the backbone was cut at, the deepest last, or one of them; none, or None, where there are none.
        calibration_images: uint8 (N, height, width, 3) from the training split, with columns where the model takes them.
        work: a folder for the SavedModels.
        features_everywhere: whether every format gives the features too.
        selection: pictures of the validation split, by which is chosen how a precision is made, where there are ways; without
            any, the first way is taken.
        gate: what answers to these pictures are judged by.
        check: whether the folded model is compared with the given one.
    """

    def __init__(
        self,
        model: keras.Model,
        cut: Sequence[str] | str | None,
        calibration_images: Inputs | np.ndarray,
        work: Path,
        *,
        features_everywhere: bool,
        selection: Inputs | None = None,
        gate: Gate | None = None,
        check: bool = True,
    ) -> None:
        cuts = (cut,) if isinstance(cut, str) else tuple(cut or ())
        inputs = as_inputs(calibration_images)
        check_inputs(model, inputs)
        folded = fold(model, list(cuts))
        if check:
            _check_folding(model, folded, cuts, inputs)
        self._models = {PLAIN: folded.model}
        self._features = {name: folded.layer_name(layer) for layer, name in features_names(cuts).items()}
        self._inputs = inputs
        self._selection = selection
        self._gate = gate or Gate()
        self._work = work
        self._features_everywhere = features_everywhere
        self._made: dict[str, Path] = {}
        self._choices: dict[str, Choice] = {}
        self._seconds: dict[str, dict[str, float]] = {}

    def rounding(self, precision: str) -> str:
        """Return how a precision is rounded: `plain`, or the name of a grid, with `_whole` and `_fitted` behind it."""
        can = len(self._inputs) and can_correct(self._models[PLAIN])
        if not can or precision not in GRIDS:
            return PLAIN
        # Where activations are whole numbers too, what is joined shares one range.
        fitted = precision in WHOLE_NUMBERS and takes_columns(self._models[PLAIN])
        return rounding_of(precision) + (FITTED if fitted else "")

    @property
    def working_bytes(self) -> int:
        """About how many bytes a correction would take with all of its images; 0 where no precision is corrected."""
        can = len(self._inputs) and can_correct(self._models[PLAIN])
        return working_bytes(self._models[PLAIN]) if can else 0

    def model(self, precision: str) -> keras.Model:
        """Return the folded model for a precision, its weights rounded and its biases corrected where that is done."""
        name = self.rounding(precision)
        if name not in self._models:
            if precision in ACTIVATION_STEPS and self._selection is not None and len(self._selection):
                self._choose(name, precision)
            else:
                self._models[name] = self._corrected(self._models[PLAIN], name, precision)[1]
        return self._models[name]

    def choice(self, precision: str) -> Choice | None:
        """Return what was measured and chosen for a precision; None where there was no choice, or the model is not made yet."""
        return self._choices.get(self.rounding(precision))

    def take_seconds(self, precision: str) -> dict[str, float]:
        """Return way -> seconds that making and measuring it took; nothing when it is asked for again."""
        return self._seconds.pop(self.rounding(precision), {})

    def _choose(self, name: str, precision: str) -> None:
        plain, kept = self._models[PLAIN], self._features

        def equalised(**how: float) -> Made:
            return self._corrected(equalise(plain, self._inputs, kept.values(), **how), name, precision)

        usual = (Rung(CORRECTED, lambda: self._corrected(plain, name, precision)), Rung(EQUALISED, equalised))
        further = (
            Rung(LEVELLED, lambda: equalised(split=WHOLE_SPLIT)),
            Rung(EXACT_INPUTS, lambda: self._corrected(plain, name, precision, exact_inputs=True)),
        )
        measure = Measure(plain, self._selection, precision, kept, self._gate)
        self._models[name], self._choices[name], self._seconds[name] = climb(usual, further, measure)

    def _corrected(self, model: keras.Model, name: str, precision: str, **how: bool) -> Made:
        """Return a model before and after its weights are rounded, and the ranges of its activations."""
        if name.endswith(FITTED):
            model = fit_to_features(model, self._inputs)
        # What went before was as large as what comes, and is still held for it otherwise.
        give_back()
        return model, *correct_and_measure(model, precision, self._inputs, **how)

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
    if not len(inputs):
        return
    batch = list(inputs.sample(CHECKED_IMAGES).named().values())
    expected = _answers(model, cuts, batch)
    found = _answers(folded.model, tuple(folded.layer_name(each) for each in cuts), batch)
    differences = [_apart(*each) for each in zip(expected, found, strict=True)]
    if max(differences) <= LARGEST_FOLDING_DIFFERENCE:
        return
    exact = _in_float64(model, cuts, batch)
    if exact is None:
        limits = [LARGEST_UNCERTAIN_DIFFERENCE] * len(differences)
    else:
        differences = [_apart(*each) for each in zip(exact, found, strict=True)]
        own = [_apart(*each) for each in zip(exact, expected, strict=True)]
        limits = [max(LARGEST_FOLDING_DIFFERENCE, MOST_OF_OWN_ROUNDINGS * each) for each in own]
    for difference, limit in zip(differences, limits, strict=True):
        if not difference <= limit:
            raise CutpointError(
                f"Rewriting and folding the layers changed the answers by {difference:.2g} of their range.",
                f"at most {limit:.2g}",
                "report this as a fault of cutpoint",
            )


def _apart(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the largest difference in shares of the largest number, or of 1 where all are smaller; NaN where one is."""
    return float(np.abs(expected - found).max(initial=0.0)) / max(1.0, float(np.abs(expected).max(initial=0.0)))


def _in_float64(model: keras.Model, cuts: tuple[str, ...], batch: list[np.ndarray]) -> list[np.ndarray] | None:
    """Return the answers computed in float64, None where a layer cannot."""
    if any(is_opaque(layer) for layer in leaves(model)):
        return None
    try:
        twin = type(model).from_config(_widened(model.get_config()))
        set_weights(twin, model.get_weights())
        return _answers(twin, cuts, [each.astype(np.float64) for each in batch])
    except Exception:  # whatever a layer of the user's own, or a backend, raises that insists on float32
        return None


def _widened(config: Any) -> Any:
    """Return a configuration with float64 wherever it says float32."""
    if isinstance(config, Mapping):
        return {key: _widened(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_widened(each) for each in config)
    return "float64" if isinstance(config, str) and config == "float32" else config


def _answers(model: keras.Model, cuts: tuple[str, ...], batch: list[np.ndarray]) -> list[np.ndarray]:
    wanted = [*model.outputs, *(model.get_layer(each).output for each in cuts)]
    kept = {id(tensor): [] for tensor in wanted}

    def keep(tensor: Any, value: Any) -> Any:
        if id(tensor) in kept:
            kept[id(tensor)].append(keras.ops.convert_to_numpy(value))
        return value

    size = batch_of(model)
    for start in range(0, len(batch[0]), size):
        walk(model, [keras.ops.convert_to_tensor(each[start : start + size]) for each in batch], answers_of, keep)
    return [np.concatenate(kept[id(tensor)]) for tensor in wanted]
