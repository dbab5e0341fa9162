"""What the guides say about where to cut, beside what was measured.

The rule is that of the field's courses (Stanford CS231n, "Transfer learning") and of Yosinski et al. 2014
(arXiv:1411.1792): the less the pictures resemble those of the pretraining, the earlier; the more there are, the more of the
backbone is worth training. It names no numbers: those here are this project's, and are printed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.advice.choice import Candidate
from pipeline.advice.scoring import difference

LITTLE_PER_CLASS, MUCH_PER_CLASS = 200, 1000
RULE = (
    "similar pictures and few of them: cut late, keep the backbone frozen",
    "dissimilar pictures: cut earlier, as late layers know the objects of the pretraining",
    "many pictures: cut earlier and fine-tune, as there is enough to learn late layers anew",
)


def judge(candidates: Sequence[Candidate], chosen: Candidate, per_class: float, chance: float) -> dict[str, Any]:
    """Apply the guides' rule and compare it with the measurement.

    How similar the pictures are to those of the pretraining is not known: what is measured is whether the late cuts are
    worth more than all earlier ones, and no more than that is said.

    Args:
        candidates: all cuts.
        chosen: the recommended one.
        per_class: training pictures for each class, on average.
        chance: the share of right answers of one who always names the most frequent class.

    Returns:
        `rule` its sentences, `pictures_per_class`, `little_below`, `much_from`, `amount` (`little`, `between`, `much`),
        `late_over_earlier` (points 0..1 with interval, or None), `similarity` (`similar`, `dissimilar`, `undecided`,
        `nothing`), `where` (`late`, `earlier`, `either`), `how` (`frozen`, `fine-tuned`), `agrees` (None: not to be told),
        `sentences`.
    """
    amount = "little" if per_class < LITTLE_PER_CLASS else "much" if per_class >= MUCH_PER_CLASS else "between"
    similarity, gap, told = _similarity(candidates, chance)
    where = {"similar": "late", "dissimilar": "earlier"}.get(similarity, "either")
    if amount == "much":
        where = "earlier"
    how = "fine-tuned" if amount == "much" else "frozen"
    agrees = _agreement(where, how, chosen.part)
    sentences = [_of_amount(per_class, amount), told, _of_rule(where, how), _of_agreement(agrees, chosen, where)]
    return {
        "rule": list(RULE),
        "pictures_per_class": round(per_class, 1),
        "little_below": LITTLE_PER_CLASS,
        "much_from": MUCH_PER_CLASS,
        "amount": amount,
        "late_over_earlier": None if gap is None else dict(zip(("value", "low", "high"), gap, strict=True)),
        "similarity": similarity,
        "where": where,
        "how": how,
        "agrees": agrees,
        "sentences": sentences,
    }


def _similarity(candidates: Sequence[Candidate], chance: float) -> tuple[str, tuple[float, float, float] | None, str]:
    late = [each for each in candidates if each.part == "late"]
    earlier = [each for each in candidates if each.part != "late"]
    top = max(candidates, key=lambda each: each.worth.mean)
    if top.worth.mean - 2 * top.worth.standard_error <= chance:
        said = f"no cut is beyond doubt better than {chance:.1%}, which naming one class alone would reach"
        return "nothing", None, f"How similar they are cannot be told: {said}."
    if not late or not earlier:
        return "undecided", None, "How similar they are cannot be told: there are no late and earlier cuts to compare."
    best_late, best_earlier = (max(each, key=lambda one: one.worth.mean) for each in (late, earlier))
    gap = difference(best_late.worth, best_earlier.worth)
    measured = (
        f"the best late cut, '{best_late.name}', is {gap[0] * 100:+.1f} points (95 %: {gap[1] * 100:+.1f} to "
        f"{gap[2] * 100:+.1f}) from the best earlier one, '{best_earlier.name}'"
    )
    if gap[1] > 0:
        return "similar", gap, f"The pictures behave like ones similar to those of the pretraining: {measured}."
    if gap[2] < 0:
        return "dissimilar", gap, f"The pictures behave like ones unlike those of the pretraining: {measured}."
    return "undecided", gap, f"Whether they are similar to those of the pretraining is open: {measured}."


def _of_amount(per_class: float, amount: str) -> str:
    words = {"little": "that is little", "between": "that is neither little nor much", "much": "that is much"}
    return (
        f"{per_class:.0f} training pictures a class: {words[amount]} (little: under {LITTLE_PER_CLASS}; much: from "
        f"{MUCH_PER_CLASS} on; the guides give no numbers, these are this project's)."
    )


def _of_rule(where: str, how: str) -> str:
    words = {"late": "a late cut", "earlier": "an earlier cut", "either": "no cut before another"}
    return f"The guides' rule then says: {words[where]}, {how}."


def _agreement(where: str, how: str, part: str) -> bool | None:
    # Fine-tuning is not what the probe measures.
    if where == "either" or how != "frozen":
        return None
    return (part == "late") == (where == "late")


def _of_agreement(agrees: bool | None, chosen: Candidate, where: str) -> str:
    measured = f"The measurement on frozen features recommends '{chosen.name}', {_article(chosen.part)} cut"
    if agrees is None and where == "earlier":
        return f"{measured}; what fine-tuning would add at an earlier one is not measured."
    if agrees is None:
        return f"{measured}; the rule has nothing to set against it."
    return (
        f"{measured}: both agree." if agrees else f"{measured}: rule and measurement disagree; the measurement counts."
    )


def _article(part: str) -> str:
    return f"an {part}" if part == "early" else f"a {part}"
