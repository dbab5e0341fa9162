"""Answers of one head of each task, made by chance but alike from seed to seed, with truth and with what a precision adds."""

from __future__ import annotations

import dataclasses

import numpy as np

from exporters.contract import Output

IMAGES = 240
SIDE, CLASSES = 12, 4
OUTPUTS = {
    output.task: output
    for output in (
        Output("healthy", "linear", "binary", (1,), activation="sigmoid", labels=("ill", "healthy")),
        Output("tags", "linear", "multilabel", (6,), activation="sigmoid", labels=tuple("abcdef")),
        Output("grade", "linear", "ordinal", (4,), activation="sigmoid", labels=("none", "mild", "medium", "strong", "worst")),
        Output("size", "linear", "regression", (2,), activation="linear", columns=("share", "grams")),
        Output("place", "boxes", "boxes", (4,), activation="sigmoid", columns=("x_min", "y_min", "x_max", "y_max")),
        Output("regions", "segmentation", "segmentation", (SIDE, SIDE, CLASSES), labels=("ground", "cat", "dog", "bird")),
        Output("label", "linear", "multiclass", (3,), labels=("a", "b", "c")),
        Output("near", "embedding", "embedding", (16,), activation="unit_length", unit="unit length"),
    )
}  # fmt: skip
# How much of the deviation of a head's inputs each precision adds, roughly.
NOISE = {"float32": 2e-6, "float16": 3e-4, "uint8": 0.004, "dynamic_int8": 0.004, "int8": 0.025}


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def softmax(values: np.ndarray) -> np.ndarray:
    odds = np.exp(values - values.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Case:
    """A head's answers on some images: `inputs` are what its last activation is put upon."""

    output: Output
    inputs: np.ndarray
    expected: np.ndarray
    truth: np.ndarray

    def noisy(self, share: float, seed: int = 5) -> np.ndarray:
        """The answers whose inputs are off by a share of their deviation."""
        noise = np.random.default_rng(seed).normal(0, share, self.inputs.shape)
        return activated(self.output, self.inputs + noise * self.inputs.std(0))


def activated(output: Output, inputs: np.ndarray) -> np.ndarray:
    if output.task == "ordinal":
        # One score of each image, of which every threshold takes its own share away.
        inputs = inputs - 5.0 * (np.arange(output.shape[0]) - 1.5)
    if output.task == "boxes":
        centre, size = 0.35 + 0.3 * sigmoid(inputs[:, :2]), 0.2 + 0.4 * sigmoid(inputs[:, 2:])
        return np.concatenate([centre - size / 2, centre + size / 2], -1).astype(np.float32)
    if output.activation == "unit_length":
        return (inputs / np.linalg.norm(inputs, axis=-1, keepdims=True)).astype(np.float32)
    change = {"sigmoid": sigmoid, "softmax": softmax, "linear": lambda values: values}[output.activation]
    return change(inputs).astype(np.float32)


def case(task: str, images: int = IMAGES, seed: int = 0) -> Case:
    """Answers of which most are sure; every label is given to some images, the last of a multilabel head to few."""
    output, generator = OUTPUTS[task], np.random.default_rng([seed, *task.encode()])
    side = generator.choice([-1.0, 1.0], (images, *output.shape))
    if task == "multilabel":
        side[:, -1] = np.where(np.arange(images) % 40 == 0, 1.0, -1.0)
    inputs = side * generator.uniform(2.5, 6, side.shape)
    if task == "ordinal":
        # Between two thresholds, which are 5 apart.
        inputs = 5.0 * (np.arange(images) % 5 - 2)[:, None] + generator.uniform(-1.5, 1.5, (images, 1))
    elif task == "regression":
        inputs = generator.uniform(0, 1, (images, 2)) * [1, 1000]
    elif task == "boxes":
        inputs = generator.normal(0, 1.5, (images, 4))
    elif task == "segmentation":
        inputs = _scenes(images, generator)
    elif task == "multiclass":
        inputs = 6.0 * np.eye(3)[np.arange(images) % 3] + generator.uniform(0, 2, (images, 3))
    elif task == "embedding":
        inputs = generator.normal(0, 1, (8, 16))[np.arange(images) % 8] + generator.normal(0, 0.3, (images, 16))
    expected = activated(output, inputs)
    return Case(output, inputs, expected, _truth(output, expected, generator))


def _scenes(images: int, generator: np.random.Generator) -> np.ndarray:
    """Logits of rectangles of the classes 1 to 3 on a ground of class 0; the last class is rare."""
    maps = np.zeros((images, SIDE, SIDE), int)
    for index, one in enumerate(maps):
        for label, (low, high) in ((1, (4, 8)), (2, (3, 7)), (3, (1, 3))):
            height, width = generator.integers(low, high, 2)
            top, left = generator.integers(0, SIDE - height), generator.integers(0, SIDE - width)
            if label < 3 or index % 3 == 0:
                one[top : top + height, left : left + width] = label
    return 7.0 * np.eye(CLASSES)[maps] + generator.uniform(0, 3, (*maps.shape, CLASSES))


def _truth(output: Output, expected: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """What the answers say, wrong here and there."""
    wrong = generator.random(len(expected)) < 0.1
    if output.task == "multilabel":
        return ((expected > 0.5) ^ (generator.random(expected.shape) < 0.05)).astype(np.int64)
    if output.task in ("regression", "boxes"):
        spread = expected.std(0) * 0.1
        moved = expected + generator.normal(0, 1, expected.shape) * spread
        return (np.clip(moved, 0, 1) if output.task == "boxes" else moved).astype(np.float32)
    if output.task == "segmentation":
        maps = expected.argmax(-1)
        maps[generator.random(maps.shape) < 0.05] = 0
        maps[:, 0] = 255
        return maps.astype(np.uint8)
    if output.task == "embedding":
        return np.arange(len(expected)) % 8
    if output.task == "multiclass":
        return np.where(wrong, 0, expected.argmax(-1))
    said = (expected > 0.5).sum(-1)
    return np.where(wrong, np.maximum(said - 1, 0), said)
