"""TF.js under Node against Keras, by output name, and every way in which it can fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.errors import InputError, NotVerifiedError, ParityError
from exporters.inputs import Inputs
from exporters.runners import tfjs
from exporters.runners.tfjs import TfjsRunner
from tests import tiny_tfjs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    out, model = tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())
    return out / "artifacts" / "tfjs-float32", model


@pytest.fixture
def broken(tiny: tuple[Path, keras.Model], tmp_path: Path) -> Path:
    """A copy of the artifact, for a test to damage."""
    return Path(shutil.copytree(tiny[0], tmp_path / "tfjs-float32"))


def shard(folder: Path) -> Path:
    (path,) = folder.glob("*.bin")
    return path


@pytest.mark.parametrize("backend", tfjs.BACKENDS)
def test_every_output_is_keras_s_by_name(tiny: tuple[Path, keras.Model], backend: str) -> None:
    folder, model = tiny
    images = tiny_tfjs.pictures(40)
    expected = tiny_tfjs.reference(model, images)
    assert np.abs(expected["apple"] - expected["zebra"]).max() > 0.2, "a swap would not be seen"
    with TfjsRunner(folder, backend=backend) as runner:
        assert (runner.name, runner.version, runner.backend) == ("tfjs-node", "4.22.0", backend)
        assert (runner.input_name, runner.output_names) == ("image", ("apple", "features", "zebra"))
        answers = runner.predict(images, outputs=runner.output_names)
        again = runner.predict(images.astype(np.float32))
    assert set(again) == {"apple", "zebra"}
    for name, values in expected.items():
        assert answers[name].dtype == np.float32 and answers[name].shape == values.shape
        np.testing.assert_allclose(answers[name], values, rtol=0, atol=1e-5 * max(1, np.abs(values).max()))
    np.testing.assert_array_equal(again["apple"], answers["apple"])


def test_large_batches_one_output_and_no_tensor_left(tiny: tuple[Path, keras.Model]) -> None:
    images = np.repeat(tiny_tfjs.pictures(1), 3000, axis=0)
    with TfjsRunner(tiny[0]) as runner:
        assert runner.predict(images, outputs=("features",))["features"].shape == (3000, 8, 8, 16)
        request = {"command": "predict", "outputs": ["apple"]}
        held = {runner._ask(Inputs(images[:4]), request)[0]["tensors"] for _ in range(5)}
    assert len(held) == 1


def test_single_answers_are_timed(tiny: tuple[Path, keras.Model]) -> None:
    image = tiny_tfjs.pictures(1)[0]
    with TfjsRunner(tiny[0], threads=2) as runner:
        times_ms = runner.time_one(image, 7)
        assert len(times_ms) == 7 and all(0 < each < 10_000 for each in times_ms)
        assert len(runner.time_one(image[np.newaxis].astype(np.float32), 1)) == 1


def cut_shard(folder: Path) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:-100])


def lengthen_shard(folder: Path) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes() + b"\0\0\0\0")


def break_json(folder: Path) -> None:
    (folder / "model.json").write_text("{", encoding="utf-8")


def edit_json(folder: Path, edit) -> None:
    path = folder / "model.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def make_layers_model(folder: Path) -> None:
    edit_json(folder, lambda data: data.update(format="layers-model"))


def swap_names(folder: Path) -> None:
    """Do what the converter does in some runs: list the signature's outputs in another order than their keys."""

    def edit(data: dict) -> None:
        data["signature"]["outputs"] = dict(reversed(data["signature"]["outputs"].items()))

    edit_json(folder, edit)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no such file"),
        (lambda folder: shard(folder).unlink(), "no such file"),
        (lambda folder: (folder / "model.json").unlink(), "no such file"),
        (cut_shard, "bytes, and model.json describes"),
        (lengthen_shard, "bytes, and model.json describes"),
        (break_json, "JSON"),
        (make_layers_model, "not a TF.js graph model"),
        (swap_names, "both must be in the same order"),
    ],
)
def test_damaged_artifacts_are_said_to_be(broken: Path, damage, words: str) -> None:
    damage(broken)
    with pytest.raises(ParityError, match=f"(?i){words}") as caught, TfjsRunner(broken):
        pass
    assert "could not be loaded" in caught.value.what


def test_images_of_another_size_and_unknown_outputs_are_refused_and_the_runner_lives_on(tiny) -> None:
    with TfjsRunner(tiny[0]) as runner:
        with pytest.raises(ParityError, match="shape"):
            runner.predict(np.zeros((1, 16, 16, 3), np.uint8))
        with pytest.raises(ParityError, match="no output pear; it has apple, features, zebra"):
            runner.predict(tiny_tfjs.pictures(1), outputs=("pear",))
        assert runner.predict(tiny_tfjs.pictures(1))["apple"].shape == (1, 5)


@pytest.mark.parametrize(
    "images",
    [np.zeros((0, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3)), np.zeros((32, 32, 3), np.uint8)],
)
def test_what_are_no_images_is_refused(tiny, images: np.ndarray) -> None:
    with TfjsRunner(tiny[0]) as runner, pytest.raises(InputError, match="shape"):
        runner.predict(images)


def test_a_killed_process_is_an_error_and_leaves_nothing_behind(tiny) -> None:
    with pytest.raises(ParityError, match="Node ended"), TfjsRunner(tiny[0]) as runner:
        process = runner._process
        os.kill(process.pid, signal.SIGKILL)
        runner.predict(np.repeat(tiny_tfjs.pictures(1), 500, axis=0))
    assert process.returncode == -signal.SIGKILL


def test_node_ends_with_the_context(tiny) -> None:
    with TfjsRunner(tiny[0]) as runner:
        process = runner._process
    assert process.returncode == 0
    with pytest.raises(KeyboardInterrupt), TfjsRunner(tiny[0]) as runner:
        process = runner._process
        raise KeyboardInterrupt
    assert process.returncode is not None


def test_without_node_nothing_is_verified(tiny, tmp_path: Path) -> None:
    with pytest.raises(NotVerifiedError, match="there is no 'no-such-node'"), TfjsRunner(tiny[0], node="no-such-node"):
        pass
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v18.19.0\n", encoding="utf-8")
    old.chmod(0o755)
    with pytest.raises(NotVerifiedError, match=r"is Node 18\.19\.0"), TfjsRunner(tiny[0], node=str(old)):
        pass


def test_without_the_bundle_nothing_is_verified(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfjs, "BUNDLE", tmp_path / "runner.mjs")
    with pytest.raises(NotVerifiedError) as caught, TfjsRunner(tiny[0]):
        pass
    assert caught.value.mend == "make setup"


def test_an_unknown_backend_is_refused(tiny) -> None:
    with pytest.raises(InputError, match="no backend 'webgpu'"):
        TfjsRunner(tiny[0], backend="webgpu")


def test_the_runner_loads_no_framework() -> None:
    code = (
        "import sys, exporters.runners.tfjs; print(*sorted({'tensorflow', 'keras', 'tensorflowjs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
