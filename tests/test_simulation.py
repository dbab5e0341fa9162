"""Answers in steps: what a full-integer file answers, computed without one; and channels brought to like ranges for it."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from exporters.contract import ArtifactName, Backbone, Card, Output, Resize
from exporters.correction import correct
from exporters.equalisation import equalise
from exporters.export import export_artifact
from exporters.folding import fold
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.pixels import load_images
from exporters.runners.tflite import TfliteRunner
from exporters.saved_model import write_saved_model
from exporters.simulation import answers_in_steps, in_steps
from pipeline.assembly import Part, assemble
from pipeline.backbones.loading import load_backbone
from pipeline.config import BackboneSection
from pipeline.cut import truncate
from pipeline.quickstart.drawings import make_drawings

REALDATA = os.environ.get("CUTPOINT_REALDATA", "")
SIDE_PX = 96
CUT = "out_relu"
CARD = Card(
    "simulated",
    Resize(SIDE_PX, SIDE_PX),
    (Output("code", "linear", "regression", (8,), activation="linear"),),
    Backbone("mobilenet_v2", 0.35, "", "tf"),
    (CUT,),
)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Pictures of the kind that the embedded backbone was trained on, in no order."""
    folder = tmp_path_factory.mktemp("drawn") / "drawings"
    make_drawings(folder, per_class=40)
    paths = np.random.default_rng(0).permutation(sorted(map(str, folder.rglob("*.png"))))
    return load_images([Path(each) for each in paths], CARD.resize)


@pytest.fixture(scope="module")
def calibration(drawings: np.ndarray) -> Inputs:
    return Inputs(drawings[:80])


@pytest.fixture(scope="module")
def held_out(drawings: np.ndarray) -> Inputs:
    return Inputs(drawings[80:])


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The embedded backbone, with skips, depthwise layers and ReLU6."""
    return with_code(BackboneSection(alpha=0.35, weights="quickstart"), CUT)


def with_code(section: BackboneSection, cut: str) -> keras.Model:
    """A backbone with eight linear answers: no softmax hides anything."""
    truncated = truncate(load_backbone(section, CARD.resize).model, (cut,))
    features = keras.Input((truncated.output.shape[-1],))
    start = keras.initializers.RandomNormal(stddev=0.05, seed=3)
    head = keras.Model(features, keras.layers.Dense(8, kernel_initializer=start, name="code")(features))
    return assemble(truncated, "tf", {"code": Part("average", (cut,), head)})


@pytest.fixture(scope="module")
def folded(model: keras.Model) -> keras.Model:
    return fold(model, [CUT]).model


def answers_of_file(rounded: keras.Model, calibration: Inputs, held_out: Inputs, folder: Path) -> np.ndarray:
    """What TFLite answers to the held-out pictures in whole numbers."""
    saved = write_saved_model(rounded, None, folder / "saved")
    made = export_artifact(ArtifactName("tflite", "int8"), saved, CARD, folder / "artifacts", calibration)
    with TfliteRunner(made) as runner:
        return runner.predict(held_out)["code"]


def off(expected: np.ndarray, found: np.ndarray) -> float:
    """The root of the mean square of the differences, in shares of the deviation of what is expected."""
    return float(np.sqrt(np.square(expected - found).mean() / expected.var(0).mean()))


def test_steps_hold_zero_and_both_ends() -> None:
    values = np.array([-0.3, -0.1, 0.0, 0.1, 0.7], np.float32)
    found = in_steps(values.copy(), 255)
    assert found[2] == 0
    np.testing.assert_allclose(found, values, atol=1.0 / 255)
    # Values of one sign have 0 as the other end, and nothing but zeros has no steps.
    assert in_steps(values[3:].copy(), 1).tolist() == [0.0, pytest.approx(0.7)]
    assert not in_steps(np.zeros(3, np.float32), 255).any()
    # Between given ends, in the same array; what lies beyond them is cut off.
    wide = np.array([-9.0, -1.0, 0.0, 0.26, 9.0], np.float32)
    assert in_steps(wide, 8, (-1.0, 3.0)) is wide and wide.tolist() == [-1.0, -1.0, 0.0, 0.5, 3.0]


def test_without_steps_answers_are_the_models_own(folded: keras.Model, held_out: Inputs) -> None:
    expected = np.asarray(folded(held_out.images.astype(np.float32))["code"])
    np.testing.assert_allclose(answers_in_steps(folded, held_out, "float32")[0], expected, atol=1e-4)


@pytest.mark.slow
def test_answers_in_steps_are_as_far_off_as_the_files(
    folded: keras.Model, calibration: Inputs, held_out: Inputs, tmp_path: Path
) -> None:
    rounded = correct(folded, "int8", calibration)
    in_float, simulated = (answers_in_steps(rounded, held_out, each)[0] for each in ("float32", "int8"))
    of_file = answers_of_file(rounded, calibration, held_out, tmp_path)
    # Which way a value in the middle of two steps goes is chance; how far answers are off, is not.
    assert off(in_float, simulated) == pytest.approx(off(in_float, of_file), rel=0.3)
    assert off(in_float, of_file) > 0.02


@pytest.mark.skipif(not REALDATA, reason="CUTPOINT_REALDATA is not set")
def test_a_correction_that_sees_rounded_activations_answers_nearer(tmp_path: Path) -> None:
    paths = sorted((Path(REALDATA) / "datasets" / "sign_language_digits").glob("*/*.JPG"))
    drawn = np.random.default_rng(0).choice(len(paths), 220, replace=False)
    photographs = load_images([paths[index] for index in drawn], CARD.resize)
    calibration, held_out = Inputs(photographs[:100]), Inputs(photographs[100:])
    weights = Path(REALDATA) / "weights" / "mobilenet_2_5_224_tf_no_top.h5"
    section = BackboneSection(name="mobilenet", alpha=0.25, weights=str(weights))
    folded = fold(with_code(section, "conv_pw_13_relu"), ["conv_pw_13_relu"]).model
    expected = answers_in_steps(folded, held_out, "float32")[0]
    found = {}
    for precision in ("dynamic_int8", "int8"):
        rounded = correct(folded, precision, calibration)
        found[precision] = off(expected, answers_of_file(rounded, calibration, held_out, tmp_path / precision))
    assert found["int8"] < 0.8 * found["dynamic_int8"]


@pytest.mark.slow
def test_equalised_channels_answer_alike_and_lie_nearer_together(
    folded: keras.Model, calibration: Inputs, held_out: Inputs
) -> None:
    level = equalise(folded, calibration, [CUT])
    expected, found = (answers_in_steps(each, held_out, "float32")[0] for each in (folded, level))
    # Held-out pictures reach a little over 1.25 times what the calibration images do, and are cut off there.
    assert off(expected, found) < 0.02
    names = [layer.name for layer in folded.layers if layer.name.endswith(("_relu", "_add")) and layer.name != CUT]
    spreads = np.array([[_spread(each, name, calibration) for name in names] for each in (folded, level)])
    assert spreads[1].mean() < 0.9 * spreads[0].mean()
    assert (spreads[1] < 1.2 * spreads[0]).all()


def _spread(model: keras.Model, name: str, calibration: Inputs) -> float:
    """How many times the largest channel of a layer's output is as large as the middle one."""
    taps = keras.Model(model.inputs, model.get_layer(name).output)
    largest = np.abs(np.asarray(taps(calibration.images.astype(np.float32)))).max((0, 1, 2))
    return float(largest.max() / np.median(largest[largest > 0]))


def test_what_is_to_be_kept_is_kept(folded: keras.Model, calibration: Inputs, held_out: Inputs) -> None:
    level = equalise(folded, calibration, [CUT])
    shown = held_out.images.astype(np.float32)
    expected, found = (
        np.asarray(keras.Model(each.inputs, each.get_layer(CUT).output)(shown)) for each in (folded, level)
    )
    assert np.sqrt(np.square(expected - found).mean()) < 0.01 * expected.std()
    assert [layer.name for layer in level.layers] == [layer.name for layer in folded.layers]


@pytest.mark.slow
def test_of_two_ways_the_nearer_one_on_the_selection_is_taken(
    model: keras.Model, tmp_path: Path, calibration: Inputs, held_out: Inputs
) -> None:
    chosen = InferenceModels(
        model, CUT, calibration, tmp_path / "two", features_everywhere=False, selection=held_out
    ).model("int8")
    alone = InferenceModels(model, CUT, calibration, tmp_path / "one", features_everywhere=False)
    expected = answers_in_steps(alone.model("float32"), held_out, "float32")[0]
    level = correct(equalise(alone.model("float32"), calibration, [CUT]), "int8", calibration)
    ways = [off(expected, answers_in_steps(each, held_out, "int8")[0]) for each in (alone.model("int8"), level)]
    found = off(expected, answers_in_steps(chosen, held_out, "int8")[0])
    assert found == pytest.approx(min(ways), rel=0.05)
