"""What named nodes or layers of a TF.js artifact give for some images, computed by TF.js in Node on the verifying backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporters.inputs import Inputs
from exporters.runners.tfjs import TfjsRunner, layers_runner


def activations(folder: Path, names: Sequence[str], given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
    """Return what nodes of a graph model give; a fused node gives what comes out behind its bias and activation.

    Args:
        folder: the artifact's folder, which holds `model.json`.
        names: names of nodes.
        given: pictures uint8 (N, height, width, 3), RGB, with columns for a model that takes such.

    Returns:
        name -> float32 (N, ...), channels last.

    Raises:
        NotVerifiedError: there is no Node, or one that is too old.
        ParityError: there is no such node, or TF.js fails.
    """
    with TfjsRunner(folder) as runner:
        return runner.values_of(given, names)


def layers_activations(folder: Path, names: Sequence[str], given: np.ndarray | Inputs) -> dict[str, np.ndarray]:
    """Return what layers of a layers model give, behind the activation that is part of them; else as `activations` does."""
    with layers_runner(folder) as runner:
        return runner.values_of(given, names)
