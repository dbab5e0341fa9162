"""Runners: one context manager per runtime, numpy in, numpy out, no TensorFlow (the Keras reference apart)."""
