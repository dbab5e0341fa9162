"""Budgets, fronts, recommendations and the guides' rule, on candidates made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporters.errors import InputError
from exporters.report_advice_text import sentences_of, to_markdown
from pipeline.advice.budget import Budget, check_choice, read_budget
from pipeline.advice.choice import Candidate, Costs, behind_the_best, chosen_of, cost_of, front, recommend
from pipeline.advice.form import advice_to_json
from pipeline.advice.rule import judge
from pipeline.advice.scoring import Share, predict_test, share_of
from pipeline.advice.worth import Question, least_shrinkage
from pipeline.config import HeadSection, TrainingSection, read_config

COUNT = 1000


def share(accuracy: float) -> Share:
    """Of COUNT pictures the first are right: candidates agree on as many as they can."""
    return share_of(np.arange(COUNT) < round(accuracy * COUNT), np.ones(COUNT), np.arange(COUNT))


def candidate(
    name: str, accuracy: float, size_kb: float, ms: float | None, part: str = "late", worth: float | None = None
) -> Candidate:
    """A candidate whose work grows with its size."""
    costs = Costs(round(size_kb * 1000), round(size_kb * 1e6), round(size_kb * 4000), round(size_kb * 1000), ms)
    one, best = share(accuracy), share(worth or accuracy)
    predicted = {"label": predict_test(one, 0.0, 800, 200)}
    heads = ({"label": one}, {"label": one}, {"label": best}, predicted)
    return Candidate(name, part, 16, (7, 7, 64), one, best, *heads, costs=costs)


def row() -> list[Candidate]:
    """Five cuts, one of which another beats in all."""
    return [
        candidate("first", 0.50, 20, 1.0, "early"),
        candidate("second", 0.70, 60, 2.0, "middle"),
        candidate("beaten", 0.65, 90, 2.5, "middle"),
        candidate("fourth", 0.895, 200, 3.0),
        candidate("last", 0.90, 600, 4.0),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500kB", 5e5),
        ("1.5 MB", 1.5e6),
        ("64KiB", 65536),
        ("2 MiB", 2**21),
        ("20000", 2e4),
        (20000, 2e4),
        (".5mb", 5e5),
    ],
)
def test_sizes_are_read(text: str | int, expected: float) -> None:
    assert read_budget(text, "") == Budget(max_bytes=expected)


@pytest.mark.parametrize(("text", "expected"), [("5ms", 5.0), ("0.02 s", 20.0), ("800us", 0.8), ("1S", 1000.0)])
def test_latencies_are_read(text: str, expected: float) -> None:
    assert read_budget("", text) == Budget(max_ms=pytest.approx(expected))


@pytest.mark.parametrize(
    ("size", "latency"),
    [("many", ""), ("5 parsecs", ""), ("0kB", ""), ("-5kB", ""), ("", "5"), ("", "fast"), ("1e3", "")],
)
def test_what_is_no_quantity_is_refused(size: str, latency: str) -> None:
    with pytest.raises(InputError) as caught:
        read_budget(size, latency)
    assert "kB" in caught.value.expected or "ms" in caught.value.expected


def test_no_budget_is_false_and_a_budget_says_what_it_is() -> None:
    assert not read_budget("", "")
    assert str(read_budget("500kB", "5ms")) == "500.0 kB and 5.00 ms"


@pytest.mark.parametrize(
    "setting", ["advise.choose=smalest_within_a_point", "advise.precision=int4", "advise.max_size=big"]
)
def test_wrong_settings_are_found_when_the_configuration_is_read(setting: str) -> None:
    with pytest.raises(InputError):
        read_config(None, {}, (setting,))
    check_choice("most_accurate", "int8")


def test_the_front_holds_what_no_other_beats() -> None:
    kind, cost = cost_of(row())
    assert kind == "latency"
    assert front(row(), cost) == {"first", "second", "fourth", "last"}
    assert front([candidate("a", 0.5, 1, 1), candidate("b", 0.5, 1, 1)], cost) == {"a"}


def test_each_wish_has_its_recommendation() -> None:
    found = recommend(row(), Budget(), "int8")
    assert (found.most_accurate, found.smallest_within_a_point, found.in_budget) == ("last", "fourth", None)
    assert chosen_of(found, row(), Budget(), "smallest_within_a_point", "int8") == "fourth"
    assert chosen_of(found, row(), Budget(), "most_accurate", "int8") == "last"


@pytest.mark.parametrize(
    ("budget", "precision", "expected"),
    [
        (Budget(max_bytes=250e3), "int8", "fourth"),
        (Budget(max_bytes=250e3), "float32", "second"),
        (Budget(max_ms=2.6), "int8", "second"),
        (Budget(max_bytes=1e6, max_ms=1.5), "int8", "first"),
    ],
)
def test_the_most_accurate_that_fits_is_taken(budget: Budget, precision: str, expected: str) -> None:
    found = recommend(row(), budget, precision)
    assert found.in_budget == expected
    assert chosen_of(found, row(), budget, "most_accurate", precision) == expected


def test_a_budget_that_nothing_fits_into_names_the_nearest() -> None:
    budget = Budget(max_bytes=100e3, max_ms=0.5)
    found = recommend(row(), budget, "int8")
    assert (found.in_budget, found.nearest) == (None, "first")
    with pytest.raises(
        InputError, match=r"100\.0 kB and 0\.50 ms: the nearest, 'first', costs 20\.0 kB as int8 TFLite and 1\.00 ms"
    ):
        chosen_of(found, row(), budget, "most_accurate", "int8")


def test_without_latency_the_work_decides() -> None:
    plain = [candidate(each.name, each.share.mean, each.costs.params / 1000, None) for each in row()]
    assert cost_of(plain)[0] == "macs"
    assert recommend(plain, Budget(), "int8").smallest_within_a_point == "fourth"
    with pytest.raises(InputError, match="cannot be measured"):
        recommend(plain, Budget(max_ms=5), "int8")


def test_the_distance_to_the_best_is_paired() -> None:
    *_, fourth, last = row()
    value, low, high = behind_the_best(fourth, last)
    assert value == pytest.approx(-0.005)
    assert low < value < high
    assert behind_the_best(last, last) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("late", "early", "per_class", "similarity", "where", "how", "agrees"),
    [
        (0.9, 0.6, 50, "similar", "late", "frozen", True),
        (0.6, 0.9, 50, "dissimilar", "earlier", "frozen", True),
        (0.8, 0.8, 50, "undecided", "either", "frozen", None),
        (0.9, 0.6, 5000, "similar", "earlier", "fine-tuned", None),
        (0.105, 0.1, 50, "nothing", "either", "frozen", None),
    ],
)
def test_the_rule_follows_from_amount_and_measurement(
    late: float, early: float, per_class: float, similarity: str, where: str, how: str, agrees: bool | None
) -> None:
    both = [candidate("early", early, 20, 1.0, "early"), candidate("late", late, 200, 3.0, "late")]
    told = judge(both, max(both, key=lambda each: each.share.mean), per_class, 0.1)
    assert (told["similarity"], told["where"], told["how"], told["agrees"]) == (similarity, where, how, agrees)
    assert f"{per_class:.0f} training pictures a class" in told["sentences"][0]


def test_rule_and_measurement_can_disagree_and_it_is_said() -> None:
    both = [candidate("middle", 0.6, 20, 1.0, "middle", 0.7), candidate("late", 0.59, 200, 3.0, "late", 0.95)]
    told = judge(both, both[0], 50, 0.1)
    assert (told["where"], told["agrees"]) == ("late", False)
    assert "disagree" in told["sentences"][-1]


def advice(candidates: list[Candidate], budget: Budget = Budget()) -> dict[str, Any]:  # noqa: B008  frozen
    """The JSON of candidates."""
    facts = {
        "backbone": {"name": "mobilenet_v2", "alpha": 0.35, "usual_cut": "last", "random": True},
        "input": {"width": 96, "height": 96},
        "pictures": {"train": 800, "val": 200, "test": 200, "probed": 1000},
        "grouped": False,
        "latency": {
            "measured": candidates[0].costs.latency_ms is not None,
            "runtime": "litert",
            "threads": 2,
            "rounds": 9,
        },
        "precision": "int8",
        "choose": "smallest_within_a_point",
        "left_out": 0,
    }
    question = Question(HeadSection(), np.arange(COUNT) % 10, 10)
    found = recommend(candidates, budget, "int8")
    return advice_to_json(
        facts, {"label": question}, candidates, found, budget, found.in_budget, None, TrainingSection()
    )


def test_the_words_name_every_recommendation() -> None:
    told = advice(row(), Budget(max_bytes=70e3))
    text = "\n".join(sentences_of(told))
    assert "Most accurate: 'last', 90.0% ± 1.9" in text
    assert "Smallest within a point: 'fourth'" in text
    assert "Within 70.0 kB (int8): 'second'" in text
    assert "-0.5 points from the most accurate" in text
    assert "no pretraining to be similar to" in text
    markdown = to_markdown(told)
    assert markdown.count("\n| ") == 2 + 5
    assert "Nothing fits into 1.0 kB; the nearest: 'first'" in to_markdown(advice(row(), Budget(max_bytes=1e3)))


def test_a_head_that_is_not_trained_out_is_told_of() -> None:
    told = advice([candidate("early", 0.5, 20, 1.0, "early"), candidate("late", 0.7, 200, 3.0, "late", 0.85)])
    assert any("trained to its end would reach 85.0%" in note for note in told["notes"])


def test_what_training_reaches_grows_with_its_steps() -> None:
    linear, other = HeadSection(), HeadSection(kind="mlp")
    reached = [least_shrinkage(linear, TrainingSection(epochs=epochs), 1440) for epochs in (5, 50, 500)]
    assert reached == sorted(reached, reverse=True)
    assert reached[1] == pytest.approx(0.033, rel=0.05)
    assert least_shrinkage(other, TrainingSection(), 1440) == 0


def test_small_classes_are_judged_by_balanced_accuracy() -> None:
    assert Question(HeadSection(), np.array([0] * 90 + [1] * 10), 2).judged_balanced
    assert not Question(HeadSection(), np.array([0] * 55 + [1] * 45), 2).judged_balanced
