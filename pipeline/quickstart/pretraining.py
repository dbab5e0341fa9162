"""Supervised pretraining of MobileNetV2 0.35 on the procedural classes, in rounds that can be stopped between.

A round draws fresh images and shows each of them several times, every time cropped and coloured differently. Drawing
is seeded by the round's number, so a checkpoint needs to hold nothing but variables and the number of rounds done.
Early rounds use small images, which cost less than half, as in "Fixing the train-test resolution discrepancy"
(Touvron et al., 2019) and fast.ai's progressive resizing; the last ones use the size the backbone is shipped for.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np

from exporters.errors import InputError
from pipeline.quickstart.augmentation import augment
from pipeline.quickstart.procedural import CLASSES
from pipeline.quickstart.recipe import Recipe

CHECKPOINT = "checkpoint.npz"
Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def build_backbone(size_px: int | None = 96) -> keras.Model:
    """The network with random weights: images (N, size_px, size_px, 3) in [-1, 1] to features (N, h, w, 1280)."""
    return keras.applications.MobileNetV2(
        alpha=0.35, include_top=False, weights=None, input_shape=(size_px, size_px, 3)
    )


def build_classifier(recipe: Recipe) -> tuple[keras.Model, keras.Model]:
    """Backbone and the compiled classifier around it: images (N, S, S, 3) 0..255 to logits (N, classes), for any S."""
    keras.utils.set_random_seed(recipe.seed)
    backbone = build_backbone(None)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The default of 0.999 remembers thousands of batches, more than a round has.
            layer.momentum = 0.98
    images = keras.Input((None, None, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(scaled))
    logits = keras.layers.Dense(len(CLASSES))(keras.layers.Dropout(recipe.dropout, seed=recipe.seed)(pooled))
    classifier = keras.Model(images, logits)
    classifier.compile(
        optimizer=_optimizer(recipe),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    classifier.optimizer.build(classifier.trainable_variables)
    return backbone, classifier


def _optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.learning_rate / 20,
        warmup_target=recipe.learning_rate,
        warmup_steps=max(recipe.steps // 30, 1),
        decay_steps=max(recipe.steps - recipe.steps // 30, 1),
        alpha=0.002,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def train(
    recipe: Recipe,
    work: pathlib.Path,
    draw_round: Callable[[int], Callable[[], tuple[np.ndarray, np.ndarray]]],
    say: Callable[[str], None] = print,
    rounds: int | None = None,
) -> keras.Model:
    """Train until `recipe.rounds` rounds are done, going on from the checkpoint in `work` where there is one.

    In: the recipe; `work`, a folder that exists; `draw_round(n)`, which begins to draw round n and returns what waits
    for its images (N, 96, 96, 3) uint8 and labels (N,); `say`, which takes a line a round; `rounds`, to stop early.
    Out: the backbone. Raises InputError when the checkpoint was made with another recipe.
    """
    backbone, classifier = build_classifier(recipe)
    done = load_checkpoint(classifier, recipe, work)
    last = recipe.rounds if rounds is None else min(rounds, recipe.rounds)
    drawing = draw_round(done) if done < last else None
    while done < last:
        images, labels = drawing()
        drawing = draw_round(done + 1) if done + 1 < last else None
        began = time.perf_counter()
        loss, accuracy = _train_round(classifier, recipe, done, images, labels)
        done += 1
        save_checkpoint(classifier, recipe, work, done)
        seconds = time.perf_counter() - began
        say(
            f"round {done}/{recipe.rounds}, {recipe.size_px(done - 1)} px: loss {loss:.3f}, accuracy {accuracy:.3f}, "
            f"{len(images) * recipe.passes / seconds:.0f} images/s, {_minutes_left(recipe, done, seconds):.0f} min left"
        )
    return backbone


def _minutes_left(recipe: Recipe, done: int, seconds: float) -> float:
    """Guess from the last round, whose cost goes with the area of its images."""
    per_pixel = seconds / recipe.size_px(done - 1) ** 2
    return sum(per_pixel * recipe.size_px(number) ** 2 for number in range(done, recipe.rounds)) / 60


def _train_round(
    classifier: keras.Model, recipe: Recipe, number: int, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Show a round's images, putting the next batch together meanwhile. Out: mean loss and accuracy of the round."""
    figures = []
    batches = _batches(recipe, number, images, labels)
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = reader.submit(next, batches, None)
            figures.append(classifier.train_on_batch(*batch))
    loss, accuracy = np.mean(figures, axis=0)
    return float(loss), float(accuracy)


def _batches(recipe: Recipe, number: int, images: np.ndarray, labels: np.ndarray) -> Batches:
    generator = np.random.default_rng([recipe.seed, number, 1])
    for _ in range(recipe.passes):
        order = generator.permutation(len(images))
        for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            batch = augment(images[chosen], recipe.size_px(number), generator)
            yield batch, np.eye(len(CLASSES), dtype=np.float32)[labels[chosen]]


def save_checkpoint(classifier: keras.Model, recipe: Recipe, work: pathlib.Path, done: int) -> None:
    """Write all variables, the optimizer's too, and the rounds done; the old checkpoint is replaced whole."""
    variables = [*classifier.variables, *classifier.optimizer.variables]
    arrays = {f"v{index:04d}": v.numpy() for index, v in enumerate(variables)}
    unfinished = work / f"unfinished-{CHECKPOINT}"
    np.savez(unfinished, done=done, recipe=json.dumps(dataclasses.asdict(recipe)), **arrays)
    os.replace(unfinished, work / CHECKPOINT)


def load_checkpoint(classifier: keras.Model, recipe: Recipe, work: pathlib.Path) -> int:
    """Put the variables of `work`'s checkpoint into the classifier. Out: the rounds done, 0 where there is none.

    Raises InputError when the checkpoint belongs to another recipe.
    """
    path = work / CHECKPOINT
    if not path.exists():
        return 0
    with np.load(path) as stored:
        if json.loads(str(stored["recipe"])) != json.loads(json.dumps(dataclasses.asdict(recipe))):
            raise InputError(
                f"The checkpoint {path} was made with another recipe: {stored['recipe']}.",
                str(dataclasses.asdict(recipe)),
                "remove it, or name another folder with --work",
            )
        for index, variable in enumerate([*classifier.variables, *classifier.optimizer.variables]):
            variable.assign(stored[f"v{index:04d}"])
        return int(stored["done"])
