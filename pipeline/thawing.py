"""The copy of an assembled model that fine-tuning trains, and the way back from it. Keras only, with any backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np

from exporters.cloning import set_weights
from exporters.contract import COLUMNS_NAME, INPUT_NAME, ORDINAL
from pipeline.encoding import PREFIX
from pipeline.heads import is_custom
from pipeline.heads.answers import Falling, OneKernel
from pipeline.lessons import Lesson, answer_in_own_units, answer_in_spread, target_range

_NEVER_TRAINED = (INPUT_NAME, COLUMNS_NAME, "pixel_scaling")


class CentredDropout(keras.layers.Dropout):
    """Dropout towards a center instead of 0.

    Heads learn on centred features, and the mean is folded into their first layer afterwards. There a dropped feature is one
    that is as always, which in features that are not centred is their mean; 0 may be far away from everything that was seen.

    Args:
        center: float32 (width,).
        options: of Dropout.
    """

    def __init__(self, center: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self._center = np.asarray(center, np.float32)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the inputs (N, width) with some of them at the center, while training."""
        if not training:
            return inputs
        center = keras.ops.cast(self._center, inputs.dtype)
        return center + super().call(inputs - center, training=training)


def thawed(
    whole: keras.Model,
    frozen: Collection[str],
    tuned: Collection[str],
    lessons: Mapping[str, Lesson],
    centers: Mapping[str, np.ndarray],
    *,
    mixed: bool,
) -> keras.Model:
    """Return a copy of a model in which layers can be trained, together with all heads that learn and their trunk.

    BatchNorm stays as it is everywhere, statistics, scale and shift: with few pictures in a batch they would undo what was
    learned before (Keras's guide "Image classification via fine-tuning with EfficientNet" freezes it whole, too). Dropout inside
    the backbone is off, as where `training=False` is passed to it. The answers of regressions are in units of their spread.

    Args:
        whole: the assembled model.
        frozen: names of the backbone's layers that stay bit for bit.
        tuned: names of the backbone's layers that are trained.
        lessons: head -> what it is taught; outputs without a lesson are left out.
        centers: name of a dropout layer -> the mean of what it takes; see `CentredDropout`.
        mixed: compute in float16 with float32 weights, but for the input and the answers.
    """
    backbone, exact = {*frozen, *tuned}, {*_NEVER_TRAINED, *lessons}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        # Columns are numbers of any size, which float16 does not hold.
        beside = layer.name.startswith(PREFIX) and layer.name not in backbone
        if mixed and layer.name not in exact and not beside and "dtype" in config:
            config["dtype"] = "mixed_float16"
        if layer.name in backbone and "rate" in config and "dropout" in type(layer).__name__.lower():
            config["rate"] = 0.0
        if layer.name in centers:
            return CentredDropout(centers[layer.name], **config)
        return type(layer).from_config(config)

    inputs = whole.inputs if len(whole.inputs) > 1 else whole.inputs[0]
    learning = keras.Model(inputs, {name: whole.output[name] for name in sorted(lessons)})
    model = keras.models.clone_model(learning, clone_function=copy)
    set_weights(model, learning.get_weights())
    model.trainable = True
    for layer in model.layers:
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name not in {*frozen, *_NEVER_TRAINED} and not normalises
    for name, lesson in lessons.items():
        last = model.get_layer(name)
        if (range_ := target_range(lesson)) is not None:
            answer_in_spread(last, range_)
        if lesson.task == ORDINAL and not is_custom(lesson.section.kind):
            last.kernel.constraint, last.bias.constraint = OneKernel(), Falling()
    return model


def take_over(model: keras.Model, whole: keras.Model, lessons: Mapping[str, Lesson]) -> None:
    """Give the assembled model, in place, the weights that its copy learned; all others are not touched."""
    for layer in model.layers:
        if layer.trainable_weights:
            whole.get_layer(layer.name).set_weights(layer.get_weights())
    for name, lesson in lessons.items():
        if (range_ := target_range(lesson)) is not None:
            answer_in_own_units(whole.get_layer(name), range_)


def count_parameters(model: keras.Model) -> int:
    """Return how many numbers are trained."""
    return sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
