"""The advice as JSON: what `cutpoint advise --json` prints, advice.json holds and report.json has under `advice`.

    schema_version  1
    backbone        {"name", "alpha", "usual_cut", "random": whether its weights are of no training}
    input           {"width", "height"} in px
    pictures        {"train", "val", "test": counts, "probed": of train and val}; `grouped`: whether groups are kept together
    heads           {head: {"target", "kind", "classes", "most_frequent": share, "judged_by": "accuracy" |
                    "balanced accuracy"}}
    latency         {"measured", "runtime", "threads", "rounds"}; without a measurement the fronts are over `macs`
    precision       in which a size is meant: `int8` | `float32`; `choose` as configured; `left_out` candidates not measured
    cuts            the shallowest first: {"name", "part", "reduction", "shape", "accuracy": mean over the heads,
                    "standard_error", "converged_accuracy": of heads trained to their end, "difference_to_best": {"value",
                    "low", "high"}, "params", "macs", "float32_bytes", "int8_bytes", "latency_ms", "on_speed_front",
                    "on_size_front", "heads": {head: {"accuracy", "standard_error", "balanced_accuracy",
                    "converged_accuracy", "predicted_test": {"value", "low", "high"}}}}
    recommended     {"most_accurate", "smallest_within_a_point": cuts, "budget": cut or null}
    budget          {"asked", "max_size_bytes", "max_latency_ms", "nearest": cut or null, "error": [what, expected, mend] or
                    null}
    chosen          what `cut = "auto"` takes; null where nothing fits into the budget
    rule            what the guides say: see `pipeline.advice.rule.judge`
    notes           sentences

Accuracies are shares 0..1, intervals 95 %, sizes bytes, latencies ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporters import report_numbers as numbers
from pipeline.advice.budget import Budget
from pipeline.advice.choice import Candidate, Recommendations, behind_the_best, cost_of, front
from pipeline.advice.rule import judge
from pipeline.advice.scoring import Share
from pipeline.advice.worth import Question
from pipeline.config import TrainingSection

SCHEMA_VERSION = 1
# A head that longer training would lift by this much is told of.
WORTH_TELLING = 0.02


def advice_to_json(
    facts: Mapping[str, Any],
    questions: Mapping[str, Question],
    candidates: Sequence[Candidate],
    recommended: Recommendations,
    budget: Budget,
    chosen: str | None,
    error: tuple[str, str, str] | None,
    training: TrainingSection,
) -> dict[str, Any]:
    """Return the advice in the form that this module tells.

    Args:
        facts: `backbone`, `input`, `pictures`, `grouped`, `columns`, `latency`, `precision`, `choose`, `left_out`.
        questions: head -> what it is to tell.
        candidates: the shallowest first.
        recommended, budget, chosen, error: what was recommended, and why nothing was chosen.
        training: how heads are trained.
    """
    by_name = {each.name: each for each in candidates}
    best = by_name[recommended.most_accurate]
    _, cost = cost_of(candidates)
    fast = front(candidates, cost)
    small = front(candidates, lambda each: each.costs.size_bytes(facts["precision"]))
    chance = sum(each.most_frequent for each in questions.values()) / len(questions)
    per_class = facts["pictures"]["train"] / max(question.classes for question in questions.values())
    main = by_name[chosen or recommended.smallest_within_a_point]
    return {
        "schema_version": SCHEMA_VERSION,
        **{key: facts[key] for key in ("backbone", "input", "pictures", "grouped")},
        "heads": {name: _head(question) for name, question in questions.items()},
        **{key: facts[key] for key in ("latency", "precision", "choose", "left_out")},
        "cuts": [
            _row(each, best) | {"on_speed_front": each.name in fast, "on_size_front": each.name in small}
            for each in candidates
        ],
        "recommended": {
            "most_accurate": recommended.most_accurate,
            "smallest_within_a_point": recommended.smallest_within_a_point,
            "budget": recommended.in_budget,
        },
        "budget": {
            "asked": str(budget),
            "max_size_bytes": budget.max_bytes,
            "max_latency_ms": budget.max_ms,
            "nearest": recommended.nearest,
            "error": list(error) if error else None,
        },
        "chosen": chosen,
        "rule": judge(candidates, main, per_class, chance),
        "notes": _notes(facts, questions, best, main, training),
    }


def _head(question: Question) -> dict[str, Any]:
    return {
        "target": question.column,
        "kind": question.section.kind,
        "classes": question.classes,
        "most_frequent": question.most_frequent,
        "judged_by": "balanced accuracy" if question.judged_balanced else "accuracy",
    }


def _row(each: Candidate, best: Candidate) -> dict[str, Any]:
    costs = each.costs
    return {
        "name": each.name,
        "part": each.part,
        "reduction": each.reduction,
        "shape": list(each.shape),
        "accuracy": each.share.mean,
        "standard_error": each.share.standard_error,
        "converged_accuracy": each.worth.mean,
        "difference_to_best": _interval(behind_the_best(each, best)),
        "params": costs.params,
        "macs": costs.macs,
        "float32_bytes": costs.float32_bytes,
        "int8_bytes": costs.int8_bytes,
        "latency_ms": costs.latency_ms,
        "heads": {
            name: {
                **_accuracy(accuracy),
                "balanced_accuracy": each.balanced[name].mean,
                "converged_accuracy": each.converged[name].mean,
                "predicted_test": _interval(each.predicted[name]),
            }
            for name, accuracy in each.accuracy.items()
        },
    }


def _accuracy(share: Share) -> dict[str, float]:
    return {"accuracy": share.mean, "standard_error": share.standard_error}


def _interval(values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), values, strict=True))


def _notes(
    facts: Mapping[str, Any],
    questions: Mapping[str, Question],
    best: Candidate,
    main: Candidate,
    training: TrainingSection,
) -> list[str]:
    notes = []
    gained = main.worth.mean - main.share.mean
    if gained >= WORTH_TELLING:
        notes.append(
            f"At '{main.name}' a head trained to its end would reach {numbers.share(main.worth.mean)}: more than "
            f"{training.epochs} epochs, or a higher learning rate than {training.learning_rate:g}, would be worth it."
        )
    if facts.get("columns"):
        notes.append(columns_left_out(facts["columns"]))
    others = {question.section.kind for question in questions.values()} - {"linear"}
    if others:
        notes.append(f"The probe is linear: what a head of the kind {', '.join(sorted(others))} adds is not predicted.")
    if any(question.section.pooling == "flatten" for question in questions.values()):
        notes.append("Features are probed averaged over their places; the head takes each place by itself.")
    unequal = [name for name, question in questions.items() if question.judged_balanced]
    if unequal:
        shares = ", ".join(f"{name} {questions[name].most_frequent:.0%}" for name in unequal)
        judged = "every class counts the same" if training.class_weights else "every picture counts the same"
        notes.append(f"The classes are unequal in size (the largest: {shares}): {judged}, as in training.")
    if best.share.mean - best.share.standard_error * 2 < sum(q.most_frequent for q in questions.values()) / len(
        questions
    ):
        notes.append("No cut is beyond doubt better than naming the most frequent class: more pictures are needed.")
    if not facts["latency"]["measured"]:
        notes.append(
            "Latency was not measured, and sizes are estimated: converting needs Keras on TensorFlow. Speed and size are "
            "judged by multiply-accumulates."
        )
    if facts["left_out"]:
        notes.append(f"{facts['left_out']} more candidates were left out, evenly over the work (advise.most_cuts).")
    if facts["backbone"]["random"]:
        notes.append("The backbone's weights are random (backbone.weights): there was no pretraining to be similar to.")
    if not facts["grouped"]:
        notes.append(
            "The spread holds for pictures of the same kind: where several are of one person, place or day, set data.group."
        )
    return notes


def columns_left_out(columns: Sequence[str]) -> str:
    """Return a sentence that says what the measuring does not look at."""
    return f"Cuts are compared by the pictures alone: what the columns {', '.join(columns)} add comes on top."


def notes_of(advice: Mapping[str, Any]) -> list[str]:
    """Return sentences for the report of a run whose cut was chosen."""
    row = next(each for each in advice["cuts"] if each["name"] == advice["chosen"])
    why = {
        "most_accurate": "the most accurate",
        "smallest_within_a_point": "the smallest within a point of the most accurate",
    }[advice["choose"]]
    if advice["budget"]["asked"]:
        why = f"the most accurate that fits into {advice['budget']['asked']}"
    expected = "; ".join(
        f"{name} {numbers.share(head['predicted_test']['value'])} ({numbers.share(head['predicted_test']['low'])} to "
        f"{numbers.share(head['predicted_test']['high'])})"
        for name, head in row["heads"].items()
    )
    return [
        f"The cut '{row['name']}' was chosen out of {len(advice['cuts'])} by measuring on train and val: {why}. "
        f"Expected on the test split: {expected}."
    ]
