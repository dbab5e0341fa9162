"""`segmentation`: the class of each pixel, from the feature maps of one cut or of several, which make a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from pipeline.config import HeadSection
from pipeline.geometry import Grid
from pipeline.heads.answers import regularizer

# Maps reach a head flattened: `pipeline.features` keeps rows, and what is kept serves heads that flatten them too.
POOLING = "flatten"
CHANNELS = 32
_MAP_HEAD = "_map_head"


def build(
    name: str, section: HeadSection, task: str, width: int, units: int, seed: int, grid: Grid | None = None
) -> keras.Model:
    """Build the head on flattened feature maps (N, width), those of several cuts one behind the other; see `build_head`.

    It answers float32 (N, height, width, units), a quarter of the model's input in either direction: devices draw such a map
    over the picture, and a golden set of whole ones would not travel. What takes the maps themselves is `map_head`.

    Args:
        name, section, task, width, units, seed: see `build_head`; `section.dimension` is how many channels it works with.
        grid: the shapes of the maps and of the answer.
    """
    if grid is None:
        raise ValueError("a head of label maps needs to know their shapes")
    flat = keras.Input((width,), name=f"{name}_features")
    maps = [
        keras.ops.reshape(flat[:, start:end], (-1, *shape))
        for shape, (start, end) in zip(grid.maps, grid.places, strict=True)
    ]
    return keras.Model(flat, _on_maps(name, section, units, seed, grid)(maps), name=f"{name}_head")


def map_head(head: keras.Model) -> keras.Model:
    """Return the part of a head that takes a list of feature maps (N, height, width, channels), of stock layers alone."""
    return next(layer for layer in head.layers if isinstance(layer, keras.Model))


def _on_maps(name: str, section: HeadSection, units: int, seed: int, grid: Grid) -> keras.Model:
    """Build the pyramid.

    Each map is brought to the same channels by a 1 x 1 convolution and to the finest one's size, and they are added up, as by
    Kirillov et al. 2019 (arXiv:1901.02446), with the laterals of Lin et al. 2017 (arXiv:1612.03144).
    """
    channels = section.dimension or CHANNELS
    inputs = [keras.Input(shape, name=f"{name}_map_{index}") for index, shape in enumerate(grid.maps, 1)]
    finest = tuple(min(side, max(shape[axis] for shape in grid.maps)) for axis, side in enumerate(grid.shape))
    sides = [
        _lateral(f"{name}_{index}", value, finest, channels, section, seed + index)
        for index, value in enumerate(inputs, 1)
    ]
    value = keras.layers.Add(name=f"{name}_add")(sides) if len(sides) > 1 else sides[0]
    value = keras.layers.ReLU(name=f"{name}_relu")(value)
    value = keras.layers.Conv2D(
        channels,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=keras.initializers.HeUniform(seed=seed),
        kernel_regularizer=regularizer(section.l2),
        name=f"{name}_smooth",
    )(value)
    value = keras.layers.Dropout(section.dropout, seed=seed, name=f"{name}_dropout")(value)
    value = _enlarged(f"{name}_last", value, grid.shape)
    classes = keras.layers.Conv2D(
        units,
        1,
        activation="softmax",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        kernel_regularizer=regularizer(section.l2),
        name=name,
        dtype="float32",
    )(value)
    return keras.Model(inputs, classes, name=name + _MAP_HEAD)


def _lateral(
    name: str, value: keras.KerasTensor, size: Sequence[int], channels: int, section: HeadSection, seed: int
) -> keras.KerasTensor:
    factors = tuple(-(-value.shape[axis + 1] // size[axis]) for axis in (0, 1))
    if max(factors) > 1:
        value = keras.layers.AveragePooling2D(factors, padding="same", name=f"{name}_average")(value)
    value = keras.layers.Conv2D(
        channels,
        1,
        kernel_initializer=keras.initializers.HeUniform(seed=seed),
        kernel_regularizer=regularizer(section.l2),
        name=f"{name}_lateral",
    )(value)
    return _enlarged(name, value, size)


def _enlarged(name: str, value: keras.KerasTensor, size: Sequence[int]) -> keras.KerasTensor:
    """Enlarge a map bilinearly by whole numbers, and cut off what is too much: strides round up, at the right and below."""
    factors = tuple(-(-size[axis] // value.shape[axis + 1]) for axis in (0, 1))
    if max(factors) > 1:
        value = keras.layers.UpSampling2D(factors, interpolation="bilinear", name=f"{name}_enlarge")(value)
    over = tuple((0, value.shape[axis + 1] - size[axis]) for axis in (0, 1))
    if over != ((0, 0), (0, 0)):
        value = keras.layers.Cropping2D(over, name=f"{name}_crop")(value)
    return value


def moments(features: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of flattened maps, float32 (width,): a mean for each channel, a deviation for each map.

    As with pooled features, but that a convolution takes the same everywhere.
    """
    means, deviations = [], []
    for (height, width, channels), (start, end) in zip(grid.maps, grid.places, strict=True):
        pixels = features[:, start:end].reshape(-1, channels)
        largest = max(float(pixels.std(0, dtype=np.float64).max()), 1e-6)
        means.append(np.tile(pixels.mean(0, dtype=np.float64), height * width))
        deviations.append(np.full(end - start, largest))
    return np.concatenate(means).astype(np.float32), np.concatenate(deviations).astype(np.float32)


def fold(head: keras.Model, grid: Grid, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Make a head that takes (maps - mean) / deviation take the maps as they are, in place; see `moments`."""
    core = map_head(head)
    name = core.name.removesuffix(_MAP_HEAD)
    for index, ((_, _, channels), (start, _)) in enumerate(zip(grid.maps, grid.places, strict=True), 1):
        lateral = core.get_layer(f"{name}_{index}_lateral")
        kernel, bias = (np.asarray(values, np.float64) for values in lateral.get_weights())
        folded = kernel / float(deviation[start])
        shifted = bias - mean[start : start + channels].astype(np.float64) @ folded[0, 0]
        lateral.set_weights([folded.astype(np.float32), shifted.astype(np.float32)])
