"""The Kotlin and Swift code of artifacts' READMEs: compiled, and run with stand-ins for the phone's classes and the runtimes."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from PIL import Image

from exporters.contract import Card
from exporters.pixels import CROPS
from exporters.usage import usage
from tests.usage_code import BESIDE, check_answers, code_of, given, parsed
from tests.usage_code import exported as exported  # fixtures
from tests.usage_code import shown as shown
from tests.usage_code import work as work

JVM, SWIFT = ROOT / "tests" / "jvm", ROOT / "tests" / "swift"
ARTIFACTS = ("tflite-float32", "tflite-int8", "onnx-float32", "columns/tflite-int8", "columns/onnx-float32")
ROWS = tuple(itertools.product(ARTIFACTS, CROPS))


@dataclasses.dataclass(frozen=True)
class Case:
    """A picture that is given to the code of a README: `number` is that code's, `folder` is where the files are."""

    number: int
    card: Card
    picture: Path
    folder: Path
    numbers: dict[str, np.ndarray]


def numbers_like(card: Card) -> dict[str, np.ndarray]:
    """Numbers of the shapes of a card's outputs; those that come in steps of 1/256 are such steps."""
    generator = np.random.default_rng(7)
    steps = {each.name: generator.integers(0, 256, each.shape) / 256 for each in card.outputs}
    return {name: values.astype(np.float32) for name, values in steps.items()}


def write_case(folder: Path, card: Card, path: Path, labels: Path) -> dict[str, np.ndarray]:
    """Write a picture as Android holds it, the files of an artifact, and the numbers that its runtime shall give."""
    folder.mkdir(parents=True)
    for each in (*labels.glob("labels*.txt"), *labels.glob("model.*")):
        shutil.copy(each, folder)
    rgba = np.asarray(Image.open(path).convert("RGBA"))
    (folder / "argb.bin").write_bytes(rgba[..., [3, 0, 1, 2]].tobytes())
    (folder / "size.txt").write_text(f"{rgba.shape[1]} {rgba.shape[0]}")
    numbers = numbers_like(card)
    lines = [
        f"{each.name}\t{each.dtype}\t{' '.join(str(value) for value in numbers[each.name].ravel())}\n"
        for each in card.outputs
    ]
    (folder / "numbers.txt").write_text("".join(lines))
    return numbers


@pytest.fixture(scope="module")
def cases(exported: Callable, shown: list[Path], work: Path) -> list[Case]:
    """Two pictures for each row: one of another aspect, and one that is transparent."""
    found = []
    for number, (asked, crop) in enumerate(ROWS):
        card = Card.read(exported(asked) / "card.json")
        card = dataclasses.replace(card, resize=dataclasses.replace(card.resize, crop=crop))
        for place, path in enumerate((shown[0], shown[2])):
            folder = work / f"case-{number}-{place}"
            found.append(Case(number, card, path, folder, write_case(folder, card, path, exported(asked))))
    return found


def written(language: str, cases: list[Case]) -> dict[int, str]:
    """Number of a row -> its code."""
    return {each.number: code_of(usage(parsed(ROWS[each.number][0]), each.card), language) for each in cases}


def check(cases: list[Case], told: list[str]) -> None:
    """The code gave the runtime the right bytes, and said what the runtime's numbers say."""
    for case, line in zip(cases, told, strict=True):
        each, pixels = json.loads(line), given(case.card, case.picture)
        assert each["pixels"] == pixels.tobytes().hex(), case.card.resize
        fed = pixels if case.card.input_dtype == "uint8" else pixels.astype(np.float32)
        columns = {"columns": np.array(BESIDE, np.float32)} if case.card.columns else {}
        assert each["given"] == {name: values.tobytes().hex() for name, values in {"image": fed, **columns}.items()}
        for name, expected in case.numbers.items():
            np.testing.assert_allclose(each["numbers"][name], expected.ravel(), atol=1e-6)
        check_answers(case.card, each, 1e-6)


def kotlin() -> tuple[list[str], str]:
    """The command of a Kotlin compiler, and the jar of Kotlin's library for what it makes."""
    found = importlib.util.find_spec("run_kotlin_kernel")
    if found is None or not shutil.which("java") or not shutil.which("javac"):
        pytest.skip("no Kotlin compiler: it takes a JDK, and the package kotlin-jupyter-kernel")
    jars = sorted((Path(found.submodule_search_locations[0]) / "jars").glob("*.jar"))
    library = next(str(each) for each in jars if each.name.startswith("kotlin-stdlib-"))
    compiler = ("java", "-cp", os.pathsep.join(map(str, jars)), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler")
    return [*compiler, "-no-stdlib", "-no-reflect", "-Werror"], library


@pytest.mark.slow
def test_kotlin(cases: list[Case], tmp_path: Path) -> None:
    compiler, library = kotlin()
    stand_ins, sources, made = tmp_path / "stand-ins", tmp_path / "sources", tmp_path / "made"
    subprocess.run(["javac", "-d", stand_ins, *JVM.rglob("*.java")], check=True)
    sources.mkdir()
    shutil.copy(JVM / "Cases.kt", sources)
    for number, code in written("kotlin", cases).items():
        (sources / f"case{number}.kt").write_text(f"package case{number}\n\n{code}", encoding="utf-8")
    calls = [
        f'tell(java.io.File("{each.folder}")) {{ open, bitmap -> case{each.number}.Model(open).run {{ '
        "Told(pixels(bitmap), numbers(bitmapCOLUMNS), answer(bitmapCOLUMNS)) } }".replace(
            "COLUMNS", f", floatArrayOf({', '.join(f'{value}f' for value in BESIDE)})" if each.card.columns else ""
        )
        for each in cases
    ]
    (sources / "main.kt").write_text("\n".join(["fun main() {", *calls, "}"]), encoding="utf-8")
    classes = os.pathsep.join([library, str(stand_ins)])
    done = subprocess.run(
        [*compiler, "-cp", classes, "-d", made, *sources.iterdir()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    command = ["java", "-cp", os.pathsep.join([classes, str(made)]), "MainKt"]
    check(cases, subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.mark.slow
def test_swift(cases: list[Case], tmp_path: Path) -> None:
    compiler = shutil.which("swiftc")
    if compiler is None:
        pytest.skip("no Swift compiler: swiftc is not on the PATH")
    search = ("-I", tmp_path, "-L", tmp_path, "-swift-version", "5")
    modules = ("CoreGraphics", "TensorFlowLite", "OnnxRuntimeBindings")
    for name in modules:
        made = ("-emit-module", "-emit-library", "-static", "-module-name", name, "-o", tmp_path / f"lib{name}.a")
        subprocess.run([compiler, *made, *search, SWIFT / f"{name}.swift"], check=True, cwd=tmp_path)
    sources = tmp_path / "sources"
    sources.mkdir()
    shutil.copy(SWIFT / "Cases.swift", sources)
    imports = "".join(f"import {each}\n" for each in (*modules, "Foundation"))
    for number, code in written("swift", cases).items():
        # How a file is read stays out: it takes Apple's ImageIO.
        code, extension, _ = re.sub(r"^import .*\n", "", code, flags=re.M).partition("extension Model {")
        assert extension
        (sources / f"case{number}.swift").write_text(f"{imports}enum Case{number} {{\n{code}}}\n", encoding="utf-8")
    calls = [
        f'try tell("{each.folder}") {{ folder, image in let model = try Case{each.number}.Model(folder: folder); '
        "return (try model.pixels(image), try model.numbers(imageCOLUMNS), try model.answer(imageCOLUMNS)) }".replace(
            "COLUMNS", f", columns: {BESIDE}" if each.card.columns else ""
        )
        for each in cases
    ]
    (sources / "main.swift").write_text("\n".join(calls), encoding="utf-8")
    libraries = [f"-l{each}" for each in reversed(modules)]
    program = tmp_path / "program"
    subprocess.run([compiler, "-wmo", *search, "-o", program, *sorted(sources.iterdir()), *libraries], check=True)
    check(cases, subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines())
