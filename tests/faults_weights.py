"""Makers of faults in the weights of a Keras model: each takes the model that would be exported, and returns a damaged one."""

from __future__ import annotations

import keras
import numpy as np

from tests.faults_rebuilding import edited, rebuilt


def permuted_classes(model: keras.Model) -> keras.Model:
    copy = rebuilt(model)
    copy.get_layer("zebra").set_weights([np.roll(each, 1, axis=-1) for each in copy.get_layer("zebra").get_weights()])
    return copy


def swapped_color_channels(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> None:
        kernel[:] = kernel[:, :, ::-1].copy()

    return edited(model, "first", edit)


def one_wrong_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> None:
        kernel[0, 0, 3, 5] += 100 * np.abs(kernel).max()

    return edited(model, "point", edit)


def one_weight_off_by_a_step(model: keras.Model) -> keras.Model:
    """One weight of 2304, other than the one that gives the scale, is off by 1/127 of its channel's largest."""

    def edit(kernel: np.ndarray) -> None:
        channel = kernel[0, 0, :, 7]
        channel[np.argsort(np.abs(channel))[3]] += np.abs(channel).max() / 127

    return edited(model, "point_2", edit)


def one_bias_off(model: keras.Model) -> keras.Model:
    def edit(bias: np.ndarray) -> None:
        bias[11] += 0.004

    return edited(model, "point_2", edit, which=1)


def dead_filter(model: keras.Model) -> keras.Model:
    def edit(values: np.ndarray) -> None:
        values[..., 4] = 0

    return edited(edited(model, "point", edit), "point", edit, which=1)


def two_filters_swapped(model: keras.Model) -> keras.Model:
    def edit(values: np.ndarray) -> None:
        values[..., [2, 3]] = values[..., [3, 2]]

    return edited(edited(model, "point_2", edit), "point_2", edit, which=1)


def kernel_transposed(model: keras.Model) -> keras.Model:
    """Height and width of a kernel swapped."""

    def edit(kernel: np.ndarray) -> None:
        kernel[:] = kernel.transpose(1, 0, 2, 3).copy()

    return edited(model, "deep_2", edit)


def nan_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> None:
        kernel[4, 2] = np.nan

    return edited(model, "zebra", edit)


def early_nan_weight(model: keras.Model) -> keras.Model:
    """Some runtimes' ReLU6 makes a number of NaN again: a wrong one."""

    def edit(kernel: np.ndarray) -> None:
        kernel[1, 1, 0, 4] = np.nan

    return edited(model, "first", edit)


def infinite_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> None:
        kernel[4, 2] = np.inf

    return edited(model, "zebra", edit)


def infinite_bias(model: keras.Model) -> keras.Model:
    """The other classes get a probability of 0, this one NaN."""

    def edit(bias: np.ndarray) -> None:
        bias[1] = np.inf

    return edited(model, "zebra", edit, which=1)


def constant_output(model: keras.Model) -> keras.Model:
    return edited(edited(model, "zebra", lambda kernel: kernel.fill(0)), "apple", lambda kernel: kernel.fill(0))


def lost_statistics(model: keras.Model) -> keras.Model:
    copy = rebuilt(model)
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta, np.zeros_like(mean), np.ones_like(variance)])
    return copy


def wrong_epsilon(model: keras.Model) -> keras.Model:
    """1e-5, as other frameworks have it, in place of 1e-3."""
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]

    def make(layer: keras.layers.Layer) -> keras.layers.Layer:
        return keras.layers.BatchNormalization.from_config({**layer.get_config(), "epsilon": 1e-5})

    return rebuilt(model, replace=dict.fromkeys(names, make))
