"""Make the embedded backbone again: `python -m pipeline.quickstart.pretrain` (at most an hour on two cores).

Stopping it (Ctrl-C) costs at most the round in hand; running it again goes on. This file imports no framework, so
that the processes which draw the images, and which import it too, do not either.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from exporters.errors import InputError
from pipeline.bundle import cache_folder
from pipeline.quickstart import WEIGHTS
from pipeline.quickstart.procedural import draw_images
from pipeline.quickstart.recipe import Recipe
from pipeline.workers import end_with_parent

IMAGES_PER_TASK = 512


def main(arguments: list[str] | None = None) -> int:
    """Pretrain and write the weights and their sha256. Out: exit code 0, 2 for wrong input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    work = options.work or default_work()
    work.mkdir(parents=True, exist_ok=True)
    try:
        pretrain(Recipe(), work, options.out, workers=options.workers)
    except InputError as fault:
        print(fault, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished round", file=sys.stderr)
        return 130
    return 0


def pretrain(
    recipe: Recipe, work: pathlib.Path, out: pathlib.Path, *, workers: int = 2, rounds: int | None = None
) -> int:
    """Train by the recipe, going on from `work`'s checkpoint; after the last round write `out` and `out` + `.sha256`.

    In: `workers` processes draw images; `rounds` stops after so many in all. Out: the rounds done. Raises InputError
    when the checkpoint in `work` was made with another recipe.
    """
    # Imported here for the sake of the drawing processes, which import this module as their main one.
    from pipeline.quickstart import pretraining

    last = recipe.rounds if rounds is None else min(rounds, recipe.rounds)
    # Not forked: a framework's threads do not survive it.
    processes = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
    )
    try:
        draw = functools.partial(_draw_round, recipe, processes)
        backbone = pretraining.train(recipe, work, draw, say=_say, rounds=last)
    finally:
        processes.shutdown(cancel_futures=True)
    if last == recipe.rounds:
        shipped = pretraining.build_backbone()
        shipped.set_weights(backbone.get_weights())
        write_weights(shipped, out)
    return last


def write_weights(backbone: object, out: pathlib.Path) -> None:
    """Write a Keras backbone's weights as `out`, whole, and the sha256 of that file beside it in sha256sum's format."""
    unfinished = out.with_name(f"unfinished-{out.name}")
    backbone.save_weights(unfinished)
    digest = hashlib.sha256(unfinished.read_bytes()).hexdigest()
    os.replace(unfinished, out)
    out.with_name(out.name + ".sha256").write_text(f"{digest}  {out.name}\n", encoding="utf-8")


def default_work() -> pathlib.Path:
    """The folder of the checkpoint where none is named: in `$CUTPOINT_CACHE`, else in the user's cache folder."""
    return cache_folder() / "pretrain"


def _draw_round(
    recipe: Recipe, processes: concurrent.futures.Executor, number: int
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Begin to draw a round in pieces. Out: what waits for its images (N, 96, 96, 3) uint8 and labels (N,) int32."""
    first = number * recipe.images_per_round
    pieces = []
    for start in range(0, recipe.images_per_round, IMAGES_PER_TASK):
        count = min(IMAGES_PER_TASK, recipe.images_per_round - start)
        pieces.append(processes.submit(draw_images, count, seed=recipe.seed, first=first + start))

    def collect() -> tuple[np.ndarray, np.ndarray]:
        images, labels = zip(*(piece.result() for piece in pieces), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    return collect


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.quickstart.pretrain", description=__doc__)
    parser.add_argument(
        "--work", type=pathlib.Path, help="folder of the checkpoint (default: in the user's cache folder)"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=WEIGHTS, help="weights file to write (default: the shipped one)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that draw images (default: 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
