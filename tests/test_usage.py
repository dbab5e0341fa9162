"""The code in artifacts' READMEs: for each language or a word on where it is; Python's is run."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporters.columns import Column
from exporters.contract import ArtifactName, Card
from exporters.papers import artifact_card
from exporters.usage import usage
from tests.mixed_heads import TASKS, card_of
from tests.small_models import EVERY_ARTIFACT
from tests.usage_code import BESIDE, answers_of_runner, check_answers, code_of, given, parsed, unknown
from tests.usage_code import exported as exported  # fixtures
from tests.usage_code import shown as shown
from tests.usage_code import work as work

LANGUAGES = ("python", "javascript", "kotlin", "swift")
RUN_IN_PYTHON = ("tflite-float32", "tflite-int8", "onnx-float32", "onnx-int8")


PYTHON = """
import json, sys
import use
told = []
for path in sys.argv[1:]:
    beside = {"columns": COLUMNS} if COLUMNS else {}
    told.append({
        "pixels": use.pixels(path).tolist(),
        "numbers": {name: values.tolist() for name, values in use.numbers(path, **beside).items()},
        "unknown": {name: values.tolist() for name, values in use.numbers(path).items()},
        "answer": use.answer(path, **beside),
    })
print(json.dumps(told, default=lambda value: value.tolist()))
"""


@pytest.mark.parametrize("asked", [*RUN_IN_PYTHON, "columns/tflite-int8", "columns/onnx-float32"])
def test_python_answers_as_the_runtime_does(asked: str, exported: Callable, shown: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exported(asked), tmp_path / str(parsed(asked)))
    card = Card.read(folder / "card.json")
    (folder / "use.py").write_text(code_of((folder / "README.md").read_text(encoding="utf-8"), "python"))
    columns = BESIDE if card.columns else None
    told = json.loads(
        subprocess.run(
            [sys.executable, "-c", PYTHON.replace("COLUMNS", repr(columns)), *map(str, shown)],
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(folder)},
        ).stdout
    )
    for path, each in zip(shown, told, strict=True):
        pixels = given(card, path)
        np.testing.assert_array_equal(each["pixels"], pixels)
        beside = np.array([columns], np.float32) if columns else None
        for key, row in (("numbers", beside), ("unknown", unknown(card))):
            for name, expected in answers_of_runner(folder, card, pixels, row).items():
                # The same kernels, of one picture here and there.
                np.testing.assert_allclose(each[key][name], expected, atol=1e-6, rtol=1e-6, err_msg=name)
        check_answers(card, each, 1e-6)
    assert not card.columns or told[0]["numbers"] != told[0]["unknown"]
    assert told[0]["numbers"] != told[1]["numbers"]


def test_every_artifact_has_code_for_each_language_or_says_where_it_is() -> None:
    for name in EVERY_ARTIFACT:
        text = usage(name, artifact_card(card_of(tuple(TASKS)), name))
        for language in LANGUAGES:
            title = {"python": "Python", "javascript": "JavaScript", "kotlin": "Kotlin", "swift": "Swift"}[language]
            told = text.rpartition("```")[2]
            assert code_of(text, language) or title in told or (title == "JavaScript" and "LiteRT.js" in told), name
        if python := code_of(text, "python"):
            ast.parse(python)
        assert "«" not in text


def test_names_that_look_like_placeholders_stay_what_they_are() -> None:
    columns = (Column("«WIDTH»", "number", default=1.5), Column("$weight", "number", default=2.0))
    outputs = (dataclasses.replace(TASKS["amounts"], columns=("«NAME» $x", "b")),)
    card = dataclasses.replace(card_of(("amounts",)), columns=columns, outputs=outputs)
    text = usage(ArtifactName("tflite", "float32"), card)
    assert "1.5,  # «WIDTH»" in text and '"«NAME» $x"' in text and '"«NAME» \\$x"' in text
