"""The comparison in the page's self-test: what Python makes of an artifact's answers, JavaScript makes of them too."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters import measures
from exporters.contract import CEILINGS, Limits, Output
from exporters.parity import DEGENERATE, FAILED, NOT_VERIFIED, VERIFIED, compare, compare_output
from tests import task_answers
from tests.task_answers import Case, case

SELF_TEST = Path(__file__).parents[1] / "web_demo" / "self_test"
# Reads calls as JSON and writes what they give; arrays come as base64 of float64.
CALLER = """
import { readFileSync } from "node:fs";
const [compare, measures, npz] = await Promise.all(process.argv.slice(1, 4).map((each) => import(each)));
const array = (kind, text) => new kind(new Uint8Array(Buffer.from(text, "base64")).buffer);
const values = (each) => each && { data: array(Float64Array, each.data), shape: each.shape };
const byName = (all) => Object.fromEntries(Object.entries(all).map(([name, each]) => [name, values(each)]));
const calls = {
  compare: ({ reference, answers, outputs, limits, truth, options }) =>
    compare.compare(byName(reference), byName(answers), outputs, compare.limitsOf(limits), byName(truth), options),
  allowed: ({ count, least }) => measures.allowedDisagreements(count, least),
  quantile: ({ numbers, share }) => measures.quantile(numbers, share),
  npz: async ({ bytes }) => Object.fromEntries(
    Object.entries(await npz.readNpz(array(Uint8Array, bytes).buffer))
      .map(([name, { data, shape }]) => [name, { kind: data.constructor.name, shape, data: Array.from(data) }])
  ),
};
const answers = [];
for (const { call, ...rest } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    answers.push(await calls[call](rest));
  } catch (fault) {
    answers.push({ error: fault.message });
  }
}
console.log(JSON.stringify(answers));
"""


def call_javascript(calls: list[dict[str, Any]]) -> list[Any]:
    """Hand all calls to one Node process; without Node this fails, since nothing would be compared."""
    assert shutil.which("node"), "Node 20 or later is missing: install it from your system's packages"
    modules = [(SELF_TEST / name).as_uri() for name in ("comparison/compare.js", "comparison/measures.js", "npz.js")]
    command = ["node", "--input-type=module", "--eval", CALLER, "--", *modules]
    done = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packed(values: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(values, np.float64)
    return {"data": base64.b64encode(data.tobytes()).decode(), "shape": list(data.shape)}


def request(
    reference: dict[str, np.ndarray],
    answers: dict[str, np.ndarray],
    outputs: tuple[Output, ...],
    limits: Limits,
    truth: dict[str, np.ndarray] | None = None,
    **options: bool,
) -> dict[str, Any]:
    """A call of `compare`."""
    arrays = {"reference": reference, "answers": answers, "truth": truth or {}}
    told = {key: {name: packed(values) for name, values in each.items()} for key, each in arrays.items()}
    described = [dataclasses.asdict(output) for output in outputs]
    return {"call": "compare", **told, "outputs": described, "limits": dataclasses.asdict(limits), "options": options}


def rolled(one: Case) -> np.ndarray:
    return np.roll(one.expected, 1, axis=0)


def permuted(one: Case) -> np.ndarray:
    return np.roll(one.expected, 1, axis=-1)


def constant(one: Case) -> np.ndarray:
    return np.broadcast_to(one.expected[:1], one.expected.shape)


def with_nan(one: Case) -> np.ndarray:
    answer = one.expected.copy()
    answer[1].reshape(-1)[0] = np.nan
    return answer


def a_few_wrong(one: Case) -> np.ndarray:
    answer = one.expected.copy()
    answer[:3] = one.expected[3:6]
    return answer


ANSWERS: dict[str, Callable[[Case], np.ndarray]] = {
    "float32": lambda one: one.noisy(2e-6),
    "uint8": lambda one: one.noisy(0.004),
    "int8": lambda one: one.noisy(0.025),
    "far off": lambda one: one.noisy(0.3),
    "rolled": rolled,
    "permuted": permuted,
    "constant": constant,
    "NaN": with_nan,
    "a few wrong": a_few_wrong,
    "half": lambda one: one.expected * 0.5,
}
PRECISIONS = ("float32", "float16", "uint8", "int8")
# The figures that Python has and the page leaves out: who looks for the cause has the report.
LEFT_OUT = {
    "max_relative", "worst", "kl", "top5_agreement", "top5_near_ties", "confusion", "confusion_of_keras", "remark",
    "recall_at_1", "recall_at_1_of_keras", "f1", "f1_of_keras", "mean_rank_error", "mean_rank_error_of_keras",
    "constant_labels", "mean_absolute_error", "mean_absolute_error_of_keras", "r2", "r2_of_keras",
}  # fmt: skip


def without(figures: dict[str, Any]) -> dict[str, Any]:
    kept = {key: each for key, each in figures.items() if key not in LEFT_OUT}
    return kept | {"columns": [without(each) for each in kept["columns"]]} if "columns" in kept else kept


def words(reason: str) -> str:
    """A reason but for its numbers, which the two languages round and write each in its own way."""
    return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", reason)


def same(mine: Any, theirs: Any) -> bool:
    """Whether two figures are alike: as JSON, and numbers but for rounding."""
    if isinstance(theirs, dict):
        return set(mine) == set(theirs) and all(same(mine[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(theirs, float):
        return mine == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    return mine == theirs


@functools.cache
def judged() -> list[tuple[str, Any, Any]]:
    """Every task, precision and fault, judged here and there: name, Python's comparison, JavaScript's."""
    calls, mine = [], []
    for task in task_answers.OUTPUTS:
        for sampled, images in ((True, 24), (False, 60 if task == "segmentation" else 240)):
            one = case(task, images)
            truth = {one.output.name: one.truth} if not sampled else {}
            for name, made in ANSWERS.items():
                answer = made(one).astype(np.float32)
                for precision in PRECISIONS:
                    limits = CEILINGS[precision]
                    told = f"{task}, {images} images, {name}, judged as {precision}"
                    found = compare_output(
                        one.expected, answer, one.output, limits, truth.get(one.output.name), sampled=sampled
                    )
                    mine.append((told, found))
                    arrays = {one.output.name: one.expected}, {one.output.name: answer}
                    calls.append(request(*arrays, (one.output,), limits, truth, sampled=sampled))
    answers = call_javascript(calls)
    return [(told, found, each) for (told, found), each in zip(mine, answers, strict=True)]


@pytest.mark.parametrize("task", task_answers.OUTPUTS)
def test_every_task_is_judged_as_python_judges_it(task: str) -> None:
    statuses = set()
    for told, mine, answer in judged():
        if not told.startswith(f"{task},"):
            continue
        (theirs,) = answer.values()
        assert theirs["status"] == mine.status, (told, mine.reason, theirs["reason"])
        assert words(theirs["reason"]) == words(mine.reason), (told, mine.reason, theirs["reason"])
        assert same(theirs["figures"], without(mine.figures)), (told, mine.figures, theirs["figures"])
        statuses.add(mine.status)
    assert {VERIFIED, FAILED} <= statuses


def test_what_cannot_be_compared_is_refused_as_python_refuses_it() -> None:
    one = case("multiclass")
    name, output, limits = one.output.name, one.output, CEILINGS["float32"]
    still = np.broadcast_to(one.expected[:1], one.expected.shape)
    nothing, bad = one.expected[:0], one.expected.copy()
    bad[0, 0] = np.inf
    tied = one.expected.copy()
    tied[:20] = [0.4, 0.39999, 0.20001]
    label = np.roll(one.expected, 0)
    label[:, 0] = 0.5 + label[:, 0] / 2
    label[:, 1:] /= 4
    cases = {
        "no images": ({name: nothing}, {name: nothing}, NOT_VERIFIED),
        "no reference": ({}, {}, NOT_VERIFIED),
        "an output too many": ({}, {name: one.expected}, FAILED),
        "an output that is missing": ({name: one.expected}, {}, FAILED),
        "an output that nobody promised": ({"other": one.expected, name: one.expected}, {name: one.expected}, FAILED),
        "another shape": ({name: one.expected}, {name: one.expected[:, :2]}, FAILED),
        "not the card's shape": ({name: one.expected[:, :2]}, {name: one.expected[:, :2]}, FAILED),
        "a constant reference": ({name: still}, {name: one.expected}, DEGENERATE),
        "infinity in the reference": ({name: bad}, {name: one.expected}, DEGENERATE),
        "one image": ({name: one.expected[:1]}, {name: one.expected[:1]}, DEGENERATE),
        "near-ties": ({name: tied}, {name: tied}, DEGENERATE),
        "one label for all": ({name: label}, {name: label}, DEGENERATE),
    }
    calls = [request(reference, answers, (output,), limits) for reference, answers, _ in cases.values()]
    for (told, (reference, answers, status)), found in zip(cases.items(), call_javascript(calls), strict=True):
        mine = compare(reference, answers, (output,), limits, {})
        assert {key: each.status for key, each in mine.items()} == {key: each["status"] for key, each in found.items()}
        assert status in {each["status"] for each in found.values()}, (told, found)


def test_near_ties_of_a_sample_are_refused_where_there_is_nothing_else() -> None:
    one = case("multiclass", 24)
    tied = one.expected.copy()
    tied[:2] = [0.4, 0.39999, 0.20001]
    arrays, limits = ({one.output.name: tied},) * 2, CEILINGS["float32"]
    lenient, strict = call_javascript(
        [
            request(*arrays, (one.output,), limits, sampled=True),
            request(*arrays, (one.output,), limits, sampled=True, refusesTies=True),
        ]
    )
    assert lenient["label"]["status"] == VERIFIED
    assert strict["label"]["status"] == DEGENERATE and "near-ties" in strict["label"]["reason"]


def test_limits_that_cannot_be_meant_are_refused() -> None:
    one = case("multiclass", 24)
    arrays = {one.output.name: one.expected}, {one.output.name: one.expected}
    calls = [request(*arrays, (one.output,), CEILINGS["float32"]) for _ in range(4)]
    calls[0]["limits"] |= {"max_abs": -1}
    calls[1]["limits"] |= {"agreement": None}
    calls[2]["limits"] |= {"max_abs": "much"}
    calls[3]["limits"] |= {"patience": 1}
    assert all("limit" in each["error"] for each in call_javascript(calls))


def test_what_chance_allows_is_what_python_allows() -> None:
    asked = [(count, least) for count in (0, 1, 7, 24, 300) for least in (0.0, 0.5, 0.95, 0.98, 0.995, 1.0)]
    found = call_javascript([{"call": "allowed", "count": count, "least": least} for count, least in asked])
    assert found == [measures.allowed_disagreements(*each) for each in asked]
    times = np.random.default_rng(0).uniform(1, 9, 23)
    shares = (0.0, 0.025, 0.5, 0.95, 1.0)
    found = call_javascript([{"call": "quantile", "numbers": times.tolist(), "share": share} for share in shares])
    assert found == pytest.approx(np.quantile(times, shares))


ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
    "labels_a": np.arange(-2, 4),
    "labels_b": np.array([[1.5, -2.25]], np.float32),
    "flags": np.array([True, False]),
    "double": np.array([np.pi]),
    "nothing": np.zeros((0, 7), np.float32),
    "one": np.float32(3),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numpy_are_read(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "arrays.npz", **ARRAYS)
    bytes_of = base64.b64encode((tmp_path / "arrays.npz").read_bytes()).decode()
    (found,) = call_javascript([{"call": "npz", "bytes": bytes_of}])
    assert list(found) == list(ARRAYS)
    for name, values in ARRAYS.items():
        assert found[name]["shape"] == list(values.shape), name
        assert found[name]["data"] == values.reshape(-1).tolist(), name
    assert [found[name]["kind"] for name in ("images", "labels_b")] == ["Uint8Array", "Float32Array"]


def test_what_is_no_array_of_numbers_is_said(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "good.npz", values=np.arange(1000) % 7)
    good = (tmp_path / "good.npz").read_bytes()
    np.savez(tmp_path / "words.npz", words=np.array(["a", "b"]))
    np.savez(tmp_path / "turned.npz", turned=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    at = good.index(b"values.npy") + 60
    broken = [
        b"no archive", b"", good[: len(good) // 2], good[:at] + bytes(40) + good[at + 40 :],
        (tmp_path / "words.npz").read_bytes(), (tmp_path / "turned.npz").read_bytes(),
    ]  # fmt: skip
    found = call_javascript([{"call": "npz", "bytes": base64.b64encode(each).decode()} for each in broken])
    assert all(each.get("error") for each in found), found
