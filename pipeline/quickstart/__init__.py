"""The embedded default: a maker of labelled drawings, and a small backbone pretrained without natural images."""

import pathlib

WEIGHTS = pathlib.Path(__file__).with_name("backbone.weights.h5")
