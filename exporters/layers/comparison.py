"""How far a layer's values are from Keras's, summed up batch by batch. Standard library and numpy only."""

from __future__ import annotations

import dataclasses

import numpy as np

# A channel that is hardly ever other than 0 is not judged by its own roundings alone, but with this share of all channels'.
FLOOR = 0.05
# What calibration may cut off, as a share of the root mean square of a layer's values: counted as the roundings' own size.
CUT_OFF = 0.03
# Among thousands of positions some are off by several times the root mean square of the roundings.
PEAK = 5.0


@dataclasses.dataclass(frozen=True)
class LayerValues:
    """What one layer gives for a batch of images, all (N, ..., channels).

    `truth` is Keras's from the image on; `alone` what Keras's layer gives on the artifact's own inputs of that layer;
    `found` the artifact's, None where its shape is another; `spread` the variance that roundings alone give to it;
    `output_range` the least and the largest value that the artifact's layer can give.
    """

    index: int
    truth: np.ndarray
    alone: np.ndarray
    found: np.ndarray | None
    spread: np.ndarray
    output_range: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over positions, to which those of further images can be added; arrays float64 (channels,).

    Squared, all but the last three: `difference` to Keras from the image on; `inherited` and `own`, that and the difference to
    Keras's layer alone, inside the range that the artifact can give; `spread`, what roundings may make of them; `cut_off`,
    what Keras's layer alone gives beyond the range, and `whole`, all that it gives. `peak` is the largest single error, in
    multiples of what roundings explain.
    """

    difference: float
    inherited: np.ndarray
    own: np.ndarray
    spread: np.ndarray
    cut_off: float
    whole: float
    truth: float
    found: float
    product: float
    largest: float
    peak: float

    def __add__(self, other: Sums) -> Sums:
        added = {}
        for name in (field.name for field in dataclasses.fields(Sums)):
            join = np.maximum if name in ("largest", "peak") else np.add
            added[name] = join(getattr(self, name), getattr(other, name))
        return Sums(**added)


def sums_of(values: LayerValues) -> Sums:
    """Return the sums of one batch; `values.found` is there."""
    truth, alone, found = (_rows(each) for each in (values.truth, values.alone, values.found))
    spread = _rows(np.broadcast_to(np.asarray(values.spread, np.float64), values.truth.shape))
    difference = found - truth
    inside = np.clip(alone, *values.output_range)
    own = (found - inside) ** 2
    inherited = (found - np.clip(truth, *values.output_range)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        peaks = np.where(own == 0, 0.0, np.minimum(own, inherited) / (spread + FLOOR * spread.mean()))
    # A few positions only, as a dense layer has, make no statistics of the largest.
    peak = float(np.sqrt(peaks.max())) if values.truth.ndim > 2 else 0.0
    return Sums(
        difference=float((difference**2).sum()),
        inherited=inherited.sum(0),
        own=own.sum(0),
        spread=spread.sum(0),
        cut_off=float(((alone - inside) ** 2).sum()),
        whole=float((alone**2).sum()),
        truth=float((truth**2).sum()),
        found=float((found**2).sum()),
        product=float((truth * found).sum()),
        largest=float(np.abs(difference).max()),
        peak=peak,
    )


def _rows(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1, values.shape[-1])


def figures(sums: Sums) -> dict[str, float | None]:
    """Return the comparison with Keras from the image on; None for what is not finite or has no meaning.

    `max_abs` in the layer's own unit; `relative` the root mean square of the difference over that of Keras's values;
    `snr_db` the same in decibels, None where nothing differs; `cosine` of the angle between the two.
    """
    relative = float(np.sqrt(sums.difference / sums.truth)) if sums.truth else float("inf") if sums.difference else 0.0
    size = float(np.sqrt(sums.truth) * np.sqrt(sums.found))
    decibels = -20 * float(np.log10(relative)) if relative > 0 else float("nan")
    numbers = {
        "max_abs": sums.largest,
        "relative": relative,
        "snr_db": decibels,
        "cosine": sums.product / size if size else float("nan"),
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}


def off_by(sums: Sums) -> float:
    """Return how many times larger a layer's own error is than its roundings explain, in the channel where that is most.

    A fault that only few positions show, such as a bound that is missing, stands out by its largest error instead.
    A layer's own error is the difference to Keras's layer on the same inputs; nothing is inherited from the layers before.
    Where the difference to Keras from the image on is the smaller one, that is taken instead: an exporter that corrects
    biases makes up for what earlier layers lost, and such a correction is no fault. What calibration cut off the range of
    values is judged on its own: the tails of images that it did not see may go, but not what many values have.
    """
    own = np.minimum(sums.own, sums.inherited)
    floor = FLOOR * sums.spread.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(own / (sums.spread + floor))
    ratio = np.where(own == 0, 0.0, ratio)
    cut_off = np.sqrt(sums.cut_off / sums.whole) / CUT_OFF if sums.cut_off else 0.0
    return float(np.nan_to_num([ratio.max(), sums.peak / PEAK, cut_off], nan=np.inf).max())
