"""Which layer to cut at, measured on somebody's own pictures: `cutpoint advise` and `cut = "auto"`.

Only the pictures of train and val are looked at: a cut that was chosen on the test split would look better there than it is.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.contract import BINARY, MULTICLASS, ORDINAL, QUANTISED, Resize, parse_formats
from exporters.errors import InputError
from pipeline.advice.budget import read_budget
from pipeline.advice.cache import advice_folder, keep_advice, read_advice
from pipeline.advice.choice import Candidate, chosen_of, recommend
from pipeline.advice.form import advice_to_json, columns_left_out, notes_of
from pipeline.advice.measuring import measure_costs, thinned
from pipeline.advice.worth import Question, probed_of, probed_pooling, weigh
from pipeline.backbones.loading import LoadedBackbone, load_backbone
from pipeline.config import Config, HeadSection
from pipeline.costs import layer_costs
from pipeline.cut import candidate_cuts
from pipeline.extraction import extract
from pipeline.features import check_unreadable, find_unreadable
from pipeline.heads import learns, task_of
from pipeline.run import tell_split, usual_resize
from pipeline.splitting import Dataset, Example, split_dataset
from pipeline.stages import StageLog
from pipeline.targets import readings_of, target_of
from pipeline.terminal import Terminal
from pipeline.training import check_device

SECONDS_OF_LATENCY = 15.0
PROBED_TASKS = frozenset({MULTICLASS, BINARY, ORDINAL})
LEAST_PICTURES_OF_A_CLASS = 2


def advise(config: Config, root: Path, examples: tuple[Example, ...], terminal: Terminal) -> dict[str, Any]:
    """Measure every candidate cut.

    Args:
        config: the checked configuration.
        root: the data's path.
        examples: all pictures.
        terminal: where progress goes.

    Returns:
        The advice; its form is told in `pipeline.advice.form`.

    Raises:
        InputError: too few pictures, or something that the user gave is wrong.
    """
    log = StageLog(terminal.say)
    device, how = check_device(config.device), usual_resize(config)
    with log.stage("backbone", f"{config.backbone.name} alpha {config.backbone.alpha:g}, {config.backbone.weights}"):
        backbone = load_backbone(config.backbone, how)
    advice, _ = _measure(config, backbone, root, examples, how, device, log, terminal, fresh=True)
    return {**advice, "stages": log.to_json()}


def choose_cut(
    config: Config,
    backbone: LoadedBackbone,
    root: Path,
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    log: StageLog,
    terminal: Terminal,
) -> tuple[str, dict[str, Any]]:
    """Choose the cut of a run with `cut = "auto"`: what fits into `[advise]`'s budget, else what `advise.choose` says.

    Returns:
        The layer, and what the run's state holds of it: `advice`, and `notes`, sentences for the report.

    Raises:
        InputError: nothing fits into the budget, or there are too few pictures.
    """
    with log.stage("advise", "which cut, measured on the training and validation pictures") as stage:
        # Its parts are one stage of a run.
        parts = StageLog(terminal.say)
        advice, stage.cached = _measure(config, backbone, root, examples, how, device, parts, terminal, fresh=False)
        if advice["chosen"] is None:
            raise InputError(*advice["budget"]["error"])
    beside = [columns_left_out(tuple(config.columns))] if config.columns else []
    chosen = next(row for row in advice["cuts"] if row["name"] == advice["chosen"])
    terminal.say(
        f"advise: cut at '{chosen['name']}', {chosen['accuracy']:.1%} expected; {len(advice['cuts'])} measured"
    )
    return chosen["name"], {"advice": advice, "notes": notes_of(advice) + beside}


def _measure(
    config: Config,
    backbone: LoadedBackbone,
    root: Path,
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    log: StageLog,
    terminal: Terminal,
    *,
    fresh: bool,
) -> tuple[dict[str, Any], bool]:
    """Return the advice, and whether it came from the cache; `fresh` measures anew what the cache holds."""
    heads = probed_heads(config)
    if not heads:
        raise InputError(
            "No head learns to tell labels apart, which is what cuts are compared by.",
            f"at least one head of the task {', '.join(sorted(PROBED_TASKS))}",
            "name the cut with --cut, or add a head of the kind linear",
        )
    rows = {row.name: row for row in layer_costs(backbone.model)}
    cuts, left_out = thinned(candidate_cuts(backbone.model), backbone.usual_cuts, rows, config.advise.most_cuts)
    with log.stage("features", f"of training and validation pictures at {len(cuts)} cuts") as stage:
        dataset, found = _features(config, backbone, cuts, root, examples, how, device, terminal)
        stage.cached = found.computed == 0
    if fresh:
        # A run tells of its split itself.
        tell_split(dataset, terminal)
    seen = [example for example in dataset.examples if example.split != "test"]
    probed, folds = probed_of(seen, config.seed)
    questions = {name: _question(name, section, dataset, probed, root) for name, section in heads.items()}
    kept = advice_folder(config, backbone, cuts, how, dataset, precision_of(config))
    known = None if fresh else read_advice(kept)
    if known is not None:
        return known, True
    with log.stage("costs", f"sizes and latency at {len(cuts)} cuts"):
        classes = [question.classes for question in questions.values()]
        costs, measured = measure_costs(backbone, rows, cuts, classes, SECONDS_OF_LATENCY)
    counts = len(dataset.of_split("train")), len(dataset.of_split("test"))
    with log.stage("probe", f"{len(probed)} pictures at {len(cuts)} cuts"):
        candidates = []
        for cut in cuts:
            worth = weigh(
                config,
                questions,
                folds,
                counts,
                lambda pooling, cut=cut: found.of_head((cut,), pooling, probed),
            )
            row = rows[cut]
            candidates.append(Candidate(cut, row.part, row.reduction, row.shape, costs=costs[cut], **_fields(worth)))
    advice = _conclude(config, backbone, how, dataset, questions, candidates, measured, left_out, len(probed))
    keep_advice(kept, advice)
    return advice, False


def _conclude(
    config: Config,
    backbone: LoadedBackbone,
    how: Resize,
    dataset: Dataset,
    questions: Mapping[str, Question],
    candidates: Sequence[Candidate],
    measured: Mapping[str, Any],
    left_out: int,
    probed: int,
) -> dict[str, Any]:
    budget, precision = read_budget(config.advise.max_size, config.advise.max_latency), precision_of(config)
    recommended = recommend(candidates, budget, precision)
    chosen, error = None, None
    try:
        chosen = chosen_of(recommended, candidates, budget, config.advise.choose, precision)
    except InputError as fault:
        error = (fault.what, fault.expected, fault.mend)
    facts = {
        "backbone": {
            "name": config.backbone.name,
            "alpha": config.backbone.alpha,
            "usual_cut": backbone.usual_cut,
            "random": config.backbone.weights == "none",
        },
        "input": {"width": how.width, "height": how.height},
        "pictures": {split: len(dataset.of_split(split)) for split in ("train", "val", "test")} | {"probed": probed},
        "grouped": any(example.group for example in dataset.examples),
        "columns": tuple(config.columns),
        "latency": dict(measured),
        "precision": precision,
        "choose": config.advise.choose,
        "left_out": left_out,
    }
    return advice_to_json(facts, questions, candidates, recommended, budget, chosen, error, config.training)


def precision_of(config: Config) -> str:
    """Return the precision in which sizes are meant: the configured one, else int8 where something quantised is made."""
    if config.advise.precision:
        return config.advise.precision
    names = parse_formats(config.export.formats)
    return "int8" if any(name.precision in QUANTISED for name in names) else "float32"


def _features(
    config: Config,
    backbone: LoadedBackbone,
    cuts: Sequence[str],
    root: Path,
    examples: tuple[Example, ...],
    how: Resize,
    device: str,
    terminal: Terminal,
) -> tuple[Dataset, Any]:
    """Return the split, and the features of its training and validation pictures at every cut.

    Which pictures can be read has a say in the split, as it has in a run; of test pictures nothing else is found out.
    """
    poolings = sorted({probed_pooling(section) for section in probed_heads(config).values()})
    wanted = [(cut, pooling) for cut in cuts for pooling in poolings]
    data = msgspec.structs.replace(config.data, bad_limit=1.0)
    probing = msgspec.structs.replace(config, data=data)
    readings = readings_of(config)
    guess = split_dataset(examples, {}, config.data.split, config.seed, root, readings)
    tested = {example.sha256 for example in guess.of_split("test")}
    bad = find_unreadable(tuple(example for example in examples if example.sha256 in tested), how, 1.0)
    others = tuple(example for example in examples if example.sha256 not in tested)
    while True:
        found = extract(probing, backbone, wanted, others, how, device, terminal)
        bad |= found.bad
        check_unreadable(bad, examples, config.data.bad_limit, last=True)
        dataset = split_dataset(examples, bad, config.data.split, config.seed, root, readings)
        have = {example.sha256 for example in others}
        moved = [each for each in dataset.examples if each.split != "test" and each.sha256 not in have]
        if not moved:
            return dataset, found
        # An unreadable picture made room for one that was thought to be a test picture.
        others = (*others, *moved)


def probed_heads(config: Config) -> dict[str, HeadSection]:
    """Return the heads whose labels a cut can be judged by: those that tell one of several labels."""
    return {name: each for name, each in sorted(config.heads.items()) if learns(each) and task_of(each) in PROBED_TASKS}


def _question(name: str, section: HeadSection, dataset: Dataset, probed: Sequence[Example], root: Path) -> Question:
    target = target_of(name, section, dataset)
    column = target.columns[0]
    counts = collections.Counter(example.targets[column] for example in probed)
    few = [label for label in target.labels if counts[label] < LEAST_PICTURES_OF_A_CLASS]
    if few:
        raise InputError(
            f"{root}: of the class {few[0]!r} of '{column}' train and val hold {counts[few[0]]} picture(s).",
            f"at least {LEAST_PICTURES_OF_A_CLASS} of each class in train and val: one is left out, another one learnt from",
            "add pictures, make data.split's share of test smaller, or name the cut with --cut",
        )
    return Question(section, target.truth(probed), len(target.labels), column)


def _fields(worth: Any) -> dict[str, Any]:
    return {field.name: getattr(worth, field.name) for field in dataclasses.fields(worth)}
