"""predict.js under Node against Pillow: equal bit for bit."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporters import pixels
from exporters.contract import Resize

PREDICT_JS = Path(__file__).parents[1] / "web_demo" / "predict.js"
# Reads a list of calls as JSON and writes their answers; bytes go both ways in base64.
CALLER = """
import { readFileSync } from "node:fs";
const predict = await import(process.argv[1]);
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const answers = JSON.parse(readFileSync(0, "utf8")).map(({ call, data, width, height, ...rest }) => {
  try {
    if (call === "topLabels") {
      return { top: predict.topLabels(new Float32Array(rest.probabilities), rest.labels, rest.k) };
    }
    if (call === "explain") {
      return { said: predict.explain(new Float32Array(rest.answer), rest.output, rest.seen, rest.top) };
    }
    const made = call === "overWhite"
      ? predict.overWhite(bytes(data), width, height)
      : predict.resize({ data: bytes(data), width, height }, rest.resize);
    return { ...made, data: Buffer.from(made.data).toString("base64") };
  } catch (fault) {
    return { error: fault.message };
  }
});
console.log(JSON.stringify(answers));
"""

SIZES = [
    ((1, 1), (1, 1)), ((1, 1), (7, 5)), ((9, 1), (3, 3)), ((1, 9), (3, 3)), ((2, 2), (3, 3)), ((3, 3), (2, 2)),
    ((5, 7), (5, 7)), ((5, 7), (5, 3)), ((5, 7), (2, 7)), ((13, 17), (1, 1)), ((17, 13), (16, 12)),
    ((16, 12), (17, 13)), ((31, 97), (96, 96)), ((97, 31), (96, 96)), ((96, 96), (97, 95)), ((100, 100), (96, 96)),
    ((128, 128), (96, 96)), ((128, 96), (32, 32)), ((257, 255), (64, 64)), ((300, 200), (224, 224)),
    ((200, 300), (224, 224)), ((640, 480), (96, 96)), ((480, 641), (160, 160)), ((333, 777), (33, 77)),
    ((64, 64), (224, 192)), ((7, 400), (50, 50)), ((400, 7), (50, 50)), ((1000, 3), (3, 1000)),
    # On both sides of the line past which Pillow 13 resizes the height first.
    ((40, 66), (39, 63)), ((40, 66), (39, 64)), ((64, 96), (33, 33)), ((64, 96), (32, 33)), ((62, 24), (61, 22)),
]  # fmt: skip
CROP_SIZES = [
    ((1, 1), (4, 2)), ((40, 30), (32, 32)), ((30, 40), (32, 32)), ((41, 29), (31, 17)), ((29, 41), (17, 31)),
    ((500, 1), (8, 8)), ((1, 500), (8, 8)), ((96, 96), (96, 96)), ((199, 101), (96, 64)), ((101, 199), (96, 64)),
    ((320, 240), (224, 224)), ((33, 33), (32, 31)), ((2, 3), (64, 48)),
]  # fmt: skip


def call_javascript(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hand all calls to one Node process; without Node this fails, since nothing would be compared."""
    assert shutil.which("node"), "Node 20 or later is missing: install it from your system's packages"
    command = ["node", "--input-type=module", "--eval", CALLER, "--", PREDICT_JS.as_uri()]
    done = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packed(array: np.ndarray) -> dict[str, Any]:
    return {
        "data": base64.b64encode(array.tobytes()).decode(),
        "width": array.shape[1],
        "height": array.shape[0],
    }


def unpacked(answer: dict[str, Any]) -> np.ndarray:
    assert "error" not in answer, answer
    data = np.frombuffer(base64.b64decode(answer["data"]), np.uint8)
    return data.reshape(answer["height"], answer["width"], 3)


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng([width, height]).integers(0, 256, (height, width, channels), dtype=np.uint8)


def gradient(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(255, 0, height))
    return np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8)


def extremes(width: int, height: int) -> np.ndarray:
    return (noise(width, height) > 127).astype(np.uint8) * 255


@pytest.mark.parametrize("make", [noise, gradient, extremes])
def test_stretch_equals_pillow(make) -> None:
    cases = [(make(*size), target) for size, target in SIZES]
    calls = [
        packed(picture) | {"call": "resize", "resize": {"width": width, "height": height}}
        for picture, (width, height) in cases
    ]
    answers = call_javascript(calls)
    compared = 0
    for (picture, target), answer in zip(cases, answers, strict=True):
        expected = np.asarray(Image.fromarray(picture).resize(target, Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(unpacked(answer), expected, err_msg=f"{picture.shape} to {target}")
        compared += 1
    assert compared == 33


@pytest.mark.parametrize("crop", pixels.CROPS)
def test_crops_equal_python(crop: str) -> None:
    cases = [
        (make(*size), Resize(width, height, crop=crop))
        for size, (width, height) in CROP_SIZES
        for make in (noise, gradient)
    ]
    answers = call_javascript([packed(picture) | {"call": "resize", "resize": vars(how)} for picture, how in cases])
    compared = 0
    for (picture, how), answer in zip(cases, answers, strict=True):
        np.testing.assert_array_equal(unpacked(answer), pixels.resize(picture, how), err_msg=f"{picture.shape} {how}")
        compared += 1
    assert compared == 26


def test_alpha_is_laid_over_white_as_python_does() -> None:
    every = np.array([[(c, 255 - c, c // 2, a) for c in range(256)] for a in range(256)], np.uint8)
    cases = [every, noise(31, 17, 4), noise(1, 1, 4)]
    answers = call_javascript([packed(rgba) | {"call": "overWhite"} for rgba in cases])
    for rgba, answer in zip(cases, answers, strict=True):
        color, alpha = rgba[..., :3].astype(int), rgba[..., 3:].astype(int)
        expected = (color * alpha + 255 * (255 - alpha) + 127) // 255
        np.testing.assert_array_equal(unpacked(answer), expected)


def test_top_labels_are_sorted_and_ties_keep_their_order() -> None:
    call = {"call": "topLabels", "probabilities": [0.25, 0.5, 0.25, 0.0], "labels": ["a", "b", "c", "d"], "k": 3}
    (answer,) = call_javascript([call])
    assert [(each["label"], each["probability"]) for each in answer["top"]] == [("b", 0.5), ("a", 0.25), ("c", 0.25)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resize": {"width": 2, "height": 2, "method": "nearest"}}, "method 'nearest'"),
        ({"resize": {"width": 2, "height": 2, "crop": "toString"}}, "crop 'toString'"),
        ({"width": 0}, "is not RGB"),
        ({"height": 4}, "is not RGB"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, Any], words: str) -> None:
    call = packed(noise(3, 3)) | {"call": "resize", "resize": {"width": 2, "height": 2}} | change
    (answer,) = call_javascript([call])
    assert words in answer["error"]
