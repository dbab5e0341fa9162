"""Makes the weights of a precision in every way there is, measures each on validation pictures and takes the best.

What more costs more is only tried where nothing before it passes the gate.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np

from exporters.inputs import Inputs
from exporters.saved_model import named_outputs
from exporters.simulation import Ranges, answers_in_steps, ratios_in_steps
from exporters.ways import MOST_LAYERS, Choice, Gate, Way, best_of, judged

# Enough for the ratios of signal to noise, which hardly vary from picture to picture.
PICTURES_OF_LAYERS = 16
EXACT = "float32"


Made = tuple[keras.Model, keras.Model, Ranges | None]


@dataclasses.dataclass(frozen=True)
class Rung:
    """A way of making the weights: `make` gives the model before rounding, which answers as the folded one, and rounded.

    Last come the ranges of its activations, see `simulation.Ranges`; None: those of the pictures that it is measured on.
    """

    name: str
    make: Callable[[], Made]


@dataclasses.dataclass(frozen=True)
class Measure:
    """What rungs are measured by.

    `folded` is the model that they stand for, `selection` the validation pictures, `precision` what they are made for,
    `features` name of an output -> the layer that it carries.
    """

    folded: keras.Model
    selection: Inputs
    precision: str
    features: Mapping[str, str]
    gate: Gate

    def worth(self, name: str, made: Made, expected: Mapping[str, np.ndarray]) -> Way:
        """Return what a rung's models are worth; `expected` is what should be answered."""
        exact, rounded, ranges = made
        found = self.answers(rounded, self.precision, ranges)
        shown = self.selection.sample(PICTURES_OF_LAYERS)
        ratios = ratios_in_steps(exact, rounded, shown, self.precision, ranges)
        known = sorted((each for each in ratios.items() if each[1] is not None), key=lambda each: each[1])
        carried = {output: ratios.get(layer) for output, layer in self.features.items()}
        way = judged(name, expected, found, self.precision, self.gate)
        return dataclasses.replace(way, features_snr_db=carried, worst_layers=tuple(known[:MOST_LAYERS]))

    def answers(self, model: keras.Model, precision: str, ranges: Ranges | None = None) -> dict[str, np.ndarray]:
        """Return output -> what a model answers to the validation pictures in a precision."""
        names = {id(tensor): name for name, tensor in named_outputs(model).items()}
        answers = answers_in_steps(model, self.selection, precision, ranges)
        return {names[id(tensor)]: each for tensor, each in zip(model.outputs, answers, strict=True)}


def climb(
    usual: Iterable[Rung], further: Iterable[Rung], measure: Measure
) -> tuple[keras.Model, Choice, dict[str, float]]:
    """Try rungs and take one.

    Args:
        usual: all of them are tried.
        further: tried one after another until one passes the gate, where none of the usual ones does.
        measure: what they are measured by.

    Returns:
        The rounded model that was taken, what was measured, and way -> seconds that making and measuring it took.
    """
    expected = measure.answers(measure.folded, EXACT)
    ways: list[Way] = []
    seconds: dict[str, float] = {}
    best: keras.Model | None = None

    def attempt(rung: Rung) -> None:
        nonlocal best
        start = time.monotonic()
        made = rung.make()
        ways.append(measure.worth(rung.name, made, expected))
        if best_of(ways) == len(ways) - 1:
            best = made[1]
        seconds[rung.name] = round(time.monotonic() - start, 3)

    for rung in usual:
        attempt(rung)
    for rung in further:
        if any(way.passes for way in ways):
            break
        attempt(rung)
    return best, Choice(ways[best_of(ways)].name, len(measure.selection), tuple(ways)), seconds
