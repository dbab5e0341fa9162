"""The second phase of training: the backbone's layers from one on, together with all heads, on the pictures themselves.

Any Keras backend. The features in the cache stay those of the untouched backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporters.contract import COLUMNS_NAME, INPUT_NAME, Resize
from exporters.runners.keras import KerasRunner
from pipeline import tuning_cache
from pipeline.assembly import check_frozen
from pipeline.augmentation import augment
from pipeline.columns import raw_columns
from pipeline.epochs import Keeping, Shown, run_epochs
from pipeline.heads import learns, pooling_of
from pipeline.heads.sharing import on_trunk
from pipeline.learning import CHECKPOINT, Classroom, tell
from pipeline.lessons import Lesson, curves_of, picture_weights, truth_for_loss
from pipeline.losses import loss_of, metrics_of, optimizer_of
from pipeline.picture_loading import Pictures
from pipeline.reference import Taught
from pipeline.tensorboard import write_logs
from pipeline.thawing import count_parameters, take_over, thawed

NAME = "fine_tuning"
# Heads whose dropout takes the features themselves.
BEGIN_WITH_DROPOUT = ("linear", "embedding")


def fine_tune(
    room: Classroom,
    whole: keras.Model,
    truncated: keras.Model,
    tuned: tuple[str, ...],
    how: Resize,
    taught: Mapping[str, Taught],
) -> tuple[dict[str, Taught], bool]:
    """Train layers of the backbone, the trunk and all heads on their losses' weighted sum; `whole` is changed in place.

    Early stopping watches the validation loss, the best weights are kept, and the model stays as it was where nothing got
    better. The penalty on squares of weights is of the first phase alone.

    Args:
        room: what the heads were taught with.
        whole: the assembled model, with auxiliary heads.
        truncated: the backbone as it was loaded.
        tuned: the layers; see `layers_to_tune`.
        how: the resize.
        taught: the heads after the first phase.

    Returns:
        The heads with their new answers and the curves of this phase; whether it came from the cache.

    Raises:
        CutpointError: a frozen weight is not the one that was loaded.
    """
    # It looks at pictures, and draws them anew itself.
    room = dataclasses.replace(room, views=())
    frozen = tuple(layer.name for layer in truncated.layers if layer.name not in tuned)
    lessons = room.lessons([name for name, section in sorted(room.config.heads.items()) if learns(section)])
    folder = tuning_cache.folder_of(room, whole, tuned, how, lessons)
    cached = folder.is_dir()
    if not cached:
        _train(room, whole, frozen, tuned, how, lessons, folder)
    found = tuning_cache.curves_in(folder)
    if cached and room.logs:
        write_logs(room.logs / NAME, {NAME: found["history"]})
    _tell(room, tuned, found)
    histories = {
        name: {**each.history, NAME: _history_of(name, found, len(lessons))} if name in lessons else each.history
        for name, each in taught.items()
    }
    answers = {name: each.answers for name, each in taught.items()}
    if found["best_epoch"]:
        tuning_cache.put_back(folder, whole)
        check_frozen(whole, truncated, except_for=tuned)
        answers = _answers(room, whole, how)
        for name in sorted(taught):
            tell(room, name, answers[name])
    return {
        name: dataclasses.replace(each, history=histories[name], answers=answers[name]) for name, each in taught.items()
    }, cached


def _train(
    room: Classroom,
    whole: keras.Model,
    frozen: tuple[str, ...],
    tuned: tuple[str, ...],
    how: Resize,
    lessons: Mapping[str, Lesson],
    folder: Path,
) -> None:
    """Train, and put the weights and curves into the cache."""
    config, section = room.config, room.config.fine_tuning
    keras.utils.set_random_seed(config.seed)
    model = thawed(whole, frozen, tuned, lessons, _centers(room, lessons), mixed=config.training.mixed_precision)
    optimizer = optimizer_of(config.training.optimizer, section.learning_rate)
    if config.training.mixed_precision:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss={name: loss_of(each.section, config.training) for name, each in lessons.items()},
        loss_weights={name: each.section.loss_weight for name, each in lessons.items()},
        metrics={name: metrics_of(each.section) for name, each in lessons.items()},
        # In TensorFlow, XLA compiles a network's step for minutes on a CPU.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    checkpoint = folder.with_suffix(CHECKPOINT)
    with Pictures(room.dataset.of_split("train"), how) as train, Pictures(room.dataset.of_split("val"), how) as val:
        beside = _beside(room)
        shown = _shown(room, train, lessons, beside)
        truth = {name: truth_for_loss(each, each.val) for name, each in lessons.items()}
        held_out = Shown(
            len(val),
            section.batch_size,
            None,
            lambda at, _: (beside(val.take(at), "val", at), {k: v[at] for k, v in truth.items()}),
        )
        before = model.evaluate(held_out, verbose=0, return_dict=True) if len(val) else {}
        with room.terminal.progress("fine-tuning") as progress:
            keeping = Keeping(
                lambda epoch, epochs, figures: progress(epoch, epochs),
                checkpoint,
                room.logs / NAME if room.logs else None,
                lambda text: room.terminal.say(f"fine-tuning: {text}"),
            )
            validation = {"validation_data": held_out} if len(val) else {}
            course = run_epochs(
                model,
                model.trainable_variables,
                shown,
                validation,
                section.epochs,
                section.patience,
                keeping,
                before.get("loss"),
            )
    found = {
        "history": course.history,
        "epochs": list(range(1, course.epochs + 1)),
        "best_epoch": course.best_epoch + 1,
        "before": {f"val_{key}": [float(value)] for key, value in before.items()},
        "from_layer": tuned[0],
        "parameters": count_parameters(model),
    }
    if course.best_epoch >= 0:
        take_over(model, whole, lessons)
    names = {layer.name for layer in model.layers if layer.trainable_weights}
    tuning_cache.keep(folder, whole, names if course.best_epoch >= 0 else (), found)
    checkpoint.unlink(missing_ok=True)


def _centers(room: Classroom, lessons: Mapping[str, Lesson]) -> dict[str, np.ndarray]:
    """Return the mean of the features that a dropout layer takes, by its name: of heads that begin with one."""
    found = {}
    for name, each in lessons.items():
        if each.section.kind in BEGIN_WITH_DROPOUT and not on_trunk(room.config, each.section):
            features = room.features(name, pooling_of(each.section), "train")
            found[f"{name}_dropout"] = features.mean(0, dtype=np.float64).astype(np.float32)
    return found


def _beside(room: Classroom) -> Callable[[np.ndarray, str, np.ndarray], Any]:
    """Return a function from pictures, their split and their places in it to what the model takes: with their columns."""
    splits = {name: raw_columns(room.columns, room.dataset.of_split(name)) for name in ("train", "val")}

    def beside(images: np.ndarray, split: str, indices: np.ndarray) -> Any:
        return {INPUT_NAME: images, COLUMNS_NAME: splits[split][indices]} if room.columns else images

    return beside


def _shown(
    room: Classroom,
    train: Pictures,
    lessons: Mapping[str, Lesson],
    beside: Callable[[np.ndarray, str, np.ndarray], Any],
) -> Shown:
    """Return the training pictures, drawn anew in every epoch."""
    config = room.config
    truth = {name: truth_for_loss(each, each.train) for name, each in lessons.items()}
    weights = {name: picture_weights(each, config.training) for name, each in lessons.items()}

    def take(indices: np.ndarray, epoch: int) -> tuple[Any, ...]:
        draw = f"epoch {epoch}"
        images = train.take(
            indices, lambda picture, sha256: augment(picture, config.augmentation, config.seed, draw, sha256)
        )
        return beside(images, "train", indices), *(
            {name: each[indices] for name, each in rows.items()} for rows in (truth, weights)
        )

    return Shown(len(train), config.fine_tuning.batch_size, config.seed, take)


def _history_of(name: str, found: Mapping[str, Any], heads: int) -> dict[str, Any]:
    """Return one head's curves and what it was before; of several heads also the loss that all of them are trained on."""
    before = curves_of(found["before"], name, heads)
    facts = {key: found[key] for key in ("epochs", "best_epoch", "from_layer", "parameters")}
    if heads > 1 and before:
        facts["joint_val_loss"] = [*found["before"]["val_loss"], *found["history"]["val_loss"]]
    return {
        **curves_of(found["history"], name, heads),
        **{f"{key}_before": values[0] for key, values in before.items()},
        **facts,
    }


def _tell(room: Classroom, tuned: tuple[str, ...], found: Mapping[str, Any]) -> None:
    key = "val_loss" if "val_loss" in found["history"] else "loss"
    losses, before, words = found["history"][key], found["before"].get(key, [None])[0], key.replace("_", " ")
    said = f"fine-tuning: from '{tuned[0]}' on, {found['parameters']} parameters, {len(losses)} epochs: {words} "
    if found["best_epoch"]:
        first = losses[0] if before is None else before
        at = "after the first epoch" if before is None else "before"
        said += f"{first:.4f} {at}, {losses[found['best_epoch'] - 1]:.4f} after epoch {found['best_epoch']}"
    else:
        said += f"{before:.4f} before, at best {min(losses):.4f} after: the model stays as it was"
    room.terminal.say(said)


def _answers(room: Classroom, whole: keras.Model, how: Resize) -> dict[str, np.ndarray]:
    """Return the model's answers to all test pictures, head -> float32 (N, ...)."""
    found: list[dict[str, np.ndarray]] = []
    examples = room.dataset.of_split("test")
    with Pictures(examples, how) as test, KerasRunner(whole) as runner:
        for start in range(0, len(test), 256):
            places = np.arange(start, min(start + 256, len(test)))
            found.append(runner.predict(room.inputs(test.take(places), [examples[index] for index in places])))
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}
