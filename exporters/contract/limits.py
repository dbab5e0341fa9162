"""What an artifact of each precision may differ by from the Keras model."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an artifact may differ by.

    `max_abs` is the largest difference of probabilities, and of boxes in shares of the picture (None: not judged by difference),
    `agreement` the least share 0..1 of images with the same top-1 label outside near-ties, of decisions that stay, of pixels
    that keep their class; `accuracy_drop` the largest fall of accuracy in shares, of boxes and label maps the largest fall of
    the mean IoU with the true ones (None: not judged), `relative_error` the error of a regression in shares of each column's
    spread, of a box in shares of the picture: the largest one, but where `worst_relative_error` limits that one, the root of
    the mean of squares,
    `log_max_abs` the largest difference of log-probabilities, or log-odds (None: not judged), `confidence_shift` by how much the
    mean probability of the likeliest label may change (None: not judged), `least_cosine` the least
    cosine between an embedding and Keras's of the same image, `neighbours` the least share of images whose nearest neighbour
    among the others stays the same (None: embeddings are not judged), `iou` the least mean intersection over union with
    Keras's boxes, or of the regions of each class in the label maps (None: neither is judged).
    """

    max_abs: float | None
    agreement: float
    accuracy_drop: float | None = None
    relative_error: float = 0.01
    log_max_abs: float | None = None
    confidence_shift: float | None = None
    least_cosine: float | None = None
    neighbours: float | None = None
    iou: float | None = None
    worst_relative_error: float | None = None


CEILINGS: dict[str, Limits] = {
    # Of log-probabilities: twenty times what the roundings of float32 bring, seven times those of float16, in real networks.
    # Cosines are those of vectors that are off by 0.1 %, 1 %, 15 % and 35 % of their length across it. What feature maps of
    # these precisions may be off by, an embedding may be, which is their mean; only int8 rounds it once more, in steps of 1/128.
    # Neighbours are held to the share that labels are held to.
    # IoU is what is left of a box half as wide and high as the picture that is shifted along both by 0.02 %, 0.12 %, 0.6 % and
    # 2 % of it. Regions of classes of one size whose pixels agree by A have A / (2 - A) in common: 99 %, 96 % and 90 % for
    # float16, 8 bits and int8; some room is left below, as smaller regions consist of more edge.
    # What 8 bits change varies from image to image: the worst one of some hundreds is off by up to five times as much as all of
    # them in the root of the mean of squares, as one image in twenty may get another label.
    "float32": Limits(1e-4, 1.0, log_max_abs=1e-3, least_cosine=0.9999995, neighbours=1.0, iou=0.998),
    "float16": Limits(5e-3, 0.995, log_max_abs=0.06, least_cosine=0.99995, neighbours=0.995, iou=0.99),
    "uint8": Limits(5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25),
    "uint16": Limits(5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25),
    "dynamic_int8": Limits(
        5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25
    ),
    "int16x8": Limits(5e-2, 0.98, 0.01, 0.05, least_cosine=0.989, neighbours=0.98, iou=0.95, worst_relative_error=0.25),
    "int8": Limits(
        None,
        0.95,
        0.01,
        0.05,
        confidence_shift=0.03,
        least_cosine=0.94,
        neighbours=0.95,
        iou=0.85,
        worst_relative_error=0.25,
    ),
}
