"""The JavaScript code of artifacts' READMEs, bundled as its user would and run in a real Chromium."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mimetypes
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from PIL import Image
from playwright.sync_api import Browser, Error, Page, Route

from exporters.contract import ArtifactName, Card, Resize
from exporters.pixels import CROPS
from exporters.usage import usage
from tests.demo_page import browser as browser  # a fixture
from tests.mixed_heads import card_of
from tests.pictures import picture
from tests.usage_code import BESIDE, answers_of_runner, check_answers, code_of, given, parsed, unknown
from tests.usage_code import exported as exported  # fixtures
from tests.usage_code import shown as shown
from tests.usage_code import work as work

# A secure context without a certificate, which what computes in a browser asks for.
SITE = "http://localhost/"
# Steps of 1 in 255 by which a browser's pixels may differ, where it decodes otherwise than Pillow.
MOST_DECODED = {".png": 2, ".jpg": 6}
LARGEST_IN_BROWSERS = {"float32": 1e-4, "uint8": 0.02}
SIZES = ((57, 41), (16, 200), (33, 32), (1, 1))
IN_A_PAGE = """
import * as use from "./use.js";
globalThis.told = (async () => {
  const found = [];
  for (const path of PICTURES) {
    const source = await (await fetch(path)).blob();
    const beside = COLUMNS ? [COLUMNS] : [];
    const plain = (each) => Object.fromEntries(Object.entries(each).map(([name, values]) => [name, Array.from(values)]));
    const answer = await use.answer(source, ...beside);
    for (const [name, value] of Object.entries(answer)) if (ArrayBuffer.isView(value)) answer[name] = Array.from(value);
    found.push({
      pixels: Array.from(await use.pixels(source)),
      numbers: plain(await use.numbers(source, ...beside)),
      unknown: plain(await use.numbers(source)),
      answer,
    });
  }
  return found;
})();
"""
PACKAGES = {
    "tfjs": ("@tensorflow/tfjs-backend-wasm/dist", "*.wasm"),
    "tfjs_layers": ("@tensorflow/tfjs-backend-wasm/dist", "*.wasm"),
    "tflite": ("@litertjs/core/wasm", "*"),
    "onnx": ("onnxruntime-web/dist", "ort-wasm-simd-threaded.*"),
}
MODULES = ROOT / "web_demo" / "node_modules"
IN_BROWSERS = ("tfjs-float32", "tfjs_layers-float32", "tflite-float32-batch1", "tflite-int8-batch1", "onnx-float32")


def bundled(code: str, entry: str, here: Path) -> Path:
    """Bundle the code as its user would: its packages by their names, for browsers."""
    here.mkdir()
    (here / "use.js").write_text(code, encoding="utf-8")
    (here / "entry.js").write_text(entry, encoding="utf-8")
    subprocess.run(
        [
            *(MODULES / ".bin" / "esbuild", here / "entry.js", "--bundle", "--format=esm", "--target=es2022"),
            *(f"--outfile={here / 'bundle.js'}", "--log-level=error", "--platform=browser"),
            *(
                "--external:fs",
                "--external:path",
                "--external:module",
                "--external:crypto",
                "--external:string_decoder",
            ),
        ],
        check=True,
        env={**os.environ, "NODE_PATH": str(MODULES)},
    )
    return here / "bundle.js"


@pytest.mark.parametrize(
    "asked",
    [
        *IN_BROWSERS,
        "columns/tfjs-float32",
        *(pytest.param(f"columns/{each}", marks=pytest.mark.slow) for each in ("tflite-int8-batch1", "onnx-float32")),
    ],
)
def test_javascript_answers_as_the_runtime_does(
    asked: str, exported: Callable, shown: list[Path], tmp_path: Path, browser: Browser
) -> None:
    folder = exported(asked)
    card = Card.read(folder / "card.json")
    columns = BESIDE if card.columns else None
    entry = IN_A_PAGE.replace("PICTURES", json.dumps([each.name for each in shown])).replace(
        "COLUMNS", json.dumps(columns)
    )
    code = code_of((folder / "README.md").read_text(encoding="utf-8"), "javascript")
    bundle = bundled(code, entry, tmp_path / "page")
    package, pattern = PACKAGES[parsed(asked).format]
    files = {"bundle.js": bundle, **{each.name: each for each in shown}}
    files |= {f"wasm/{path.name}": path for path in (MODULES / package).glob(pattern)}
    files |= {f"{folder.name}/{path.name}": path for path in folder.iterdir()}
    with of_files(browser, files) as page:
        page.set_content('<script type="module" src="bundle.js"></script>')
        page.wait_for_function("globalThis.told")
        told = page.evaluate("globalThis.told")
    for path, each in zip(shown, told, strict=True):
        pixels = given(card, path)
        mine = np.array(each["pixels"]).reshape(pixels.shape)
        # Browsers decode JPEGs a little otherwise than Pillow does, and keep colours multiplied by their transparency.
        assert np.abs(mine - pixels.astype(int)).max() <= (
            0 if path.name == "picture.png" else MOST_DECODED[path.suffix]
        )
        beside = np.array([columns], np.float32) if columns else None
        for key, row in (("numbers", beside), ("unknown", unknown(card))):
            for name, expected in answers_of_runner(folder, card, mine.astype(np.uint8), row).items():
                found = np.reshape(each[key][name], expected.shape)
                scale = max(1.0, float(np.abs(expected).max()))
                assert np.abs(found - expected).max() <= LARGEST_IN_BROWSERS[card.input_dtype] * scale, name
        check_answers(card, each, 1e-6)
    assert not card.columns or told[0]["numbers"] != told[0]["unknown"]
    assert told[0]["numbers"] != told[1]["numbers"]


@contextlib.contextmanager
def of_files(browser: Browser, files: dict[str, Path]) -> Iterator[Page]:
    """A page of a site with those files; asking for any other is a failure, as is whatever stands on its console."""
    page, complaints = browser.new_page(), []

    def answer(route: Route) -> None:
        name = route.request.url.removeprefix(SITE)
        if name in ("", *files):
            kind = mimetypes.guess_type(name)[0] or {".wasm": "application/wasm", ".mjs": "text/javascript"}.get(
                Path(name).suffix, "application/octet-stream"
            )
            route.fulfill(
                body=files[name].read_bytes() if name else "<title>Use</title>",
                content_type=kind if name else "text/html",
            )
        else:
            complaints.append(f"asked for {route.request.url}")
            route.abort()

    page.route("**/*", answer)
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda fault: complaints.append(str(fault)))
    page.goto(SITE)
    try:
        yield page
    except Error as fault:
        pytest.fail(f"{fault}\n{complaints}")
    finally:
        page.close()
    # LiteRT.js tells on the console what it starts.
    found = [each for each in complaints if not re.search(r"WebGPU|adapters|INFO: |WARNING: ", each)]
    assert found == [], found


@pytest.mark.parametrize("crop", CROPS)
def test_every_crop_in_python_and_javascript(crop: str, tmp_path: Path, browser: Browser) -> None:
    card = dataclasses.replace(card_of(("sort",)), resize=Resize(48, 32, crop=crop))
    pictures = []
    for width, height in SIZES:
        pictures.append(tmp_path / f"{width}x{height}.png")
        Image.fromarray(picture(width, height)).save(pictures[-1])
    text = usage(ArtifactName("onnx", "float32"), card)
    # The pixels alone, without a model that would be of that size.
    python = re.sub(r"^SESSION = .*$", "", code_of(text, "python"), flags=re.M)
    space: dict = {"__file__": str(tmp_path / "use.py"), "__name__": "use"}
    exec(compile(python, "use.py", "exec"), space)
    code = re.sub(r"^(const session|import \* as ort|ort\.env).*$", "", code_of(text, "javascript"), flags=re.M)
    names = json.dumps([each.name for each in pictures])
    entry = 'import * as use from "./use.js";\nglobalThis.told = (async () => { const found = [];\n'
    entry += (
        f"for (const path of {names}) found.push(Array.from(await use.pixels(await (await fetch(path)).blob())));\n"
    )
    bundle = bundled(code, entry + "return found; })();", tmp_path / "page")
    with of_files(browser, {"bundle.js": bundle, **{each.name: each for each in pictures}}) as page:
        page.set_content('<script type="module" src="bundle.js"></script>')
        page.wait_for_function("globalThis.told")
        told = page.evaluate("globalThis.told")
    for path, found in zip(pictures, told, strict=True):
        expected = given(card, path)
        np.testing.assert_array_equal(space["pixels"](path), expected)
        np.testing.assert_array_equal(np.reshape(found, expected.shape), expected)
