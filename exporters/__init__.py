"""Carries a Keras model out of Keras into TF.js, TFLite and ONNX, and proves that it arrived intact."""
