"""What named layers of a TF.js layers model give for some images, computed by TF.js in Node on the verifying backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporters.inputs import Inputs
from exporters.runners.tfjs import layers_runner


def activations(folder: Path, names: Sequence[str], given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
    """Return what layers give, behind the activation that is part of them.

    Args:
        folder: the artifact's folder, which holds `model.json`.
        names: names of layers.
        given: pictures uint8 (N, height, width, 3), RGB.

    Returns:
        name -> float32 (N, ...), channels last.

    Raises:
        NotVerifiedError: there is no Node, or one that is too old.
        ParityError: there is no such layer, or TF.js fails.
    """
    with layers_runner(folder) as runner:
        return runner.values_of(given, names)
