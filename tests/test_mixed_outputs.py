"""Heads of every task on one network, in every format and precision: by name, by value, in the type that is promised."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from exporters.audit.auditing import audit
from exporters.contract import CEILINGS, CLASSIFICATIONS, QUANTISED, ArtifactName, Card, Output
from exporters.errors import InputError
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.papers import artifact_card
from exporters.runners.tflite import TfliteRunner
from exporters.runtimes import open_runner
from exporters.saved_model import write_saved_model
from exporters.tflite_outputs import pack
from tests.mixed_heads import COLUMNS, CUT, TASKS, Mixed, card_of, mixed
from tests.small_models import EVERY_ARTIFACT

INT8 = ArtifactName("tflite", "int8")
# All of the shape (3,): whoever pairs by position or by shape is found out.
ALIKE = ("kind", "marks", "rank", "sort")
# No limit holds int8's differences; these would still see a wrong layer.
LARGEST_INT8_DIFFERENCE = 0.15
WEB = {"tfjs": "TfjsChromiumRunner", "onnx": "OnnxWebRunner", "tflite": "LitertWebRunner"}


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mixed outputs")


@pytest.fixture(scope="session")
def exported(work: Path) -> Callable[..., Path]:
    """Export the network with some heads as an artifact, each once."""
    models: dict[tuple[str, ...], InferenceModels] = {}

    def export(name: ArtifactName, heads: tuple[str, ...] = tuple(TASKS)) -> Path:
        one, folder = mixed(heads), work / "-".join(heads)
        if heads not in models:
            (folder / "saved").mkdir(parents=True)
            models[heads] = InferenceModels(
                one.model, CUT, one.calibration_images, folder / "saved", features_everywhere=False
            )
        if not (folder / str(name)).exists():
            saved = models[heads].saved_model(name.precision)
            export_artifact(name, saved, one.card, folder, one.calibration_images)
        return folder / str(name)

    export.models = models
    return export


def audited(exported: Callable[..., Path], folder: Path, heads: tuple[str, ...], name: ArtifactName = INT8) -> dict:
    card = artifact_card(mixed(heads).card, name)
    return audit(folder, name, card, exported.models[heads].weight_set(name.precision))


def column_errors(expected: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """The largest error of each column in shares of the spread of its own middle 95 %."""
    spread = np.quantile(expected, 0.975, axis=0) - np.quantile(expected, 0.025, axis=0)
    return np.abs(answer - expected).max(axis=0) / spread


@pytest.mark.parametrize("name", EVERY_ARTIFACT, ids=str)
def test_every_head_answers_as_keras_does_under_its_own_name(name: ArtifactName, exported: Callable) -> None:
    # 16 bits lack the operator that brings an embedding to its length, see the test after this one.
    heads = tuple(head for head in TASKS if head != "near" or name.precision != "int16x8")
    one = mixed(heads)
    with open_runner(exported(name, heads), name.format) as runner:
        answers = runner.predict(one.images)
    limits = CEILINGS[name.precision]
    for head, expected in one.reference.items():
        answer = answers[head]
        assert answer.dtype == np.float32 and answer.shape == expected.shape
        if head == "amounts":
            assert column_errors(expected, answer).max() <= (0.05 if name.precision in QUANTISED else 0.01)
        elif head == "near":
            assert (answer * expected).sum(-1).min() >= limits.least_cosine
        else:
            assert np.abs(answer - expected).max() <= (limits.max_abs or LARGEST_INT8_DIFFERENCE)
    for head in ALIKE:
        apart = {other: np.abs(answers[head] - one.reference[other]).max() for other in ALIKE}
        assert min(apart, key=apart.get) == head and sorted(apart.values())[1] > 0.5


def test_an_embedding_in_16_bits_is_refused_in_the_user_s_words(exported: Callable) -> None:
    with pytest.raises(InputError, match=r"TFLite in int16x8 cannot hold this model: .*L2_NORMALIZATION"):
        exported(ArtifactName("tflite", "int16x8"))


@pytest.mark.parametrize("heads", [("sort", "kind"), ("sure", "amounts", "kind"), tuple(TASKS)], ids=len)
def test_int8_gives_each_head_the_type_of_its_task(heads: tuple[str, ...], exported: Callable) -> None:
    folder = exported(INT8, heads)
    wanted = {head: "uint8" if TASKS[head].task in CLASSIFICATIONS else "float32" for head in heads}
    assert {each.name: each.dtype for each in Card.read(folder / "card.json").outputs} == wanted
    with TfliteRunner(folder) as runner:
        assert {name: np.dtype(each["dtype"]).name for name, each in runner._outputs.items()} == wanted
    found = audited(exported, folder, heads)
    assert (found["status"], found["reason"]) == ("verified", "")
    assert found["activations"].get("float32", 0) == sum(each == "float32" for each in wanted.values())


def test_the_artifact_s_readme_says_how_its_numbers_are_read(exported: Callable) -> None:
    readme = (exported(INT8) / "README.md").read_text(encoding="utf-8")
    for line in (
        "- `amounts`: regression, shape (N, 2), float32, linear, columns share, amount\n",
        "- `sure`: binary, shape (N, 1), uint8, sigmoid, 2 labels\n",
        "Binary: one number is the probability of the second label.\n",
    ):
        assert line in readme
    assert "Binary" not in (exported(INT8, ("sort", "kind")) / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in exported(INT8).glob("labels*")}
    assert names == {f"labels.{head}.txt" for head in TASKS if TASKS[head].labels}


@pytest.mark.parametrize("heads", [("sure", "amounts", "kind"), tuple(TASKS)], ids=len)
def test_onnx_int8_passes_the_audit(heads: tuple[str, ...], exported: Callable) -> None:
    name = ArtifactName("onnx", "int8")
    found = audited(exported, exported(name, heads), heads, name)
    assert (found["status"], found["reason"]) == ("verified", "")
    assert len(found["outputs"]) == len(heads)


def test_reference_kernels_and_xnnpack_agree(exported: Callable) -> None:
    one = mixed()
    with TfliteRunner(exported(INT8)) as fast, TfliteRunner(exported(INT8), backend="reference") as plain:
        found, expected = fast.predict(one.images[:30]), plain.predict(one.images[:30])
    for head in set(TASKS) - {"amounts"}:
        np.testing.assert_allclose(found[head], expected[head], atol=0.1, err_msg=head)
    assert column_errors(expected["amounts"], found["amounts"]).max() <= 0.02


def of_files(folder: Path, tmp_path: Path, change: Callable[[schema.ModelT], None]) -> Path:
    """A copy of an artifact whose model was changed."""
    copy = Path(shutil.copytree(folder, tmp_path / "changed"))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((copy / "model.tflite").read_bytes(), 0))
    change(model)
    (copy / "model.tflite").write_bytes(pack(model))
    return copy


def scale_constant(name: str, factor: float) -> Callable[[schema.ModelT], None]:
    def change(model: schema.ModelT) -> None:
        (tensor,) = [each for each in model.subgraphs[0].tensors if each.name == name.encode()]
        values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).copy()
        values[0] *= factor
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    return change


def swap_outputs(model: schema.ModelT) -> None:
    sure, kind = (each for each in model.signatureDefs[0].outputs if each.name in (b"sure", b"kind"))
    sure.tensorIndex, kind.tensorIndex = kind.tensorIndex, sure.tensorIndex


def give_floats(model: schema.ModelT) -> None:
    """Let a classification come out before it is turned to uint8."""
    (output,) = [each for each in model.signatureDefs[0].outputs if each.name == b"kind"]
    (last,) = [each for each in model.subgraphs[0].operators if output.tensorIndex in each.outputs]
    output.tensorIndex = int(last.inputs[0])


def narrow(model: schema.ModelT) -> None:
    """Let the whole numbers of a regression cover a third of what they should, and its kernel with them."""
    (kernel,) = [each for each in model.subgraphs[0].operators if _feeds(model, each, b"amounts/float32")]
    tensor = model.subgraphs[0].tensors[int(kernel.outputs[0])]
    tensor.quantization.scale = tensor.quantization.scale / np.float32(3)


def _feeds(model: schema.ModelT, operator: schema.OperatorT, name: bytes) -> bool:
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    return any(tensors[int(each.outputs[0])].name == name and operator.outputs[0] in each.inputs for each in operators)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scale_constant("amounts/width", 1.01), "'amounts' is stored with other weights"),
        (scale_constant("amounts/low", 1.05), "'amounts' is stored with other weights: bias"),
        (give_floats, "its output 'kind' is int8, not uint8"),
        (narrow, "'amounts' covers"),
    ],
    ids=["width", "low", "type", "range"],
)
def test_the_audit_finds_faults_behind_the_whole_numbers(
    change: Callable, words: str, exported: Callable, tmp_path: Path
) -> None:
    heads = ("sure", "amounts", "kind")
    found = audited(exported, of_files(exported(INT8, heads), tmp_path, change), heads)
    assert found["status"] == "failed" and words in found["reason"], found["reason"]


def test_swapped_heads_are_seen_by_shape_or_by_value(exported: Callable, tmp_path: Path) -> None:
    heads = ("sure", "amounts", "kind")
    with TfliteRunner(of_files(exported(INT8, heads), tmp_path, swap_outputs)) as runner:
        assert runner.predict(mixed(heads).images[:2])["kind"].shape == (2, 1)


def changed_amounts(change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> tuple[keras.Model, Mixed]:
    """The network with its regression alone, whose kernel and bias are changed."""
    one = mixed(("amounts",))
    model = keras.models.clone_model(one.model)
    model.set_weights(one.model.get_weights())
    model.get_layer("amounts").set_weights(change(model.get_layer("amounts").get_weights()))
    return model, one


KELVINS = "far from 0, as temperatures in kelvin are"
REGRESSIONS = {
    KELVINS: lambda weights: [weights[0] * 10, weights[1] + (290, 1e6)],
    "below 0 alone": lambda weights: [-weights[0], -weights[1] - (1, 2000)],
    "a thousandth beside a million": lambda weights: [weights[0] * (1e-3, 1e3), weights[1] * (1e-3, 1e3)],
}


# Those of each that can fail alone; the rest are slow tests.
QUICK = {("tflite-int8", KELVINS), ("onnx-float16", KELVINS), ("tflite-float16", KELVINS), ("tfjs-float16", KELVINS)}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        pytest.param(name, what, marks=() if (str(name), what) in QUICK else pytest.mark.slow, id=f"{name}, {what}")
        for name in EVERY_ARTIFACT
        for what in REGRESSIONS
        if name.precision != "float32"
    ],
)
def test_regressions_of_any_range_keep_their_columns(name: ArtifactName, what: str, tmp_path: Path) -> None:
    model, one = changed_amounts(REGRESSIONS[what])
    (tmp_path / "saved").mkdir()
    models = InferenceModels(model, None, one.calibration_images, tmp_path / "saved", features_everywhere=False)
    card = dataclasses.replace(card_of(("amounts",)), cut=())
    folder = export_artifact(name, models.saved_model(name.precision), card, tmp_path, one.calibration_images)
    expected = np.asarray(model(one.images.astype(np.float32), training=False)["amounts"])
    with open_runner(folder, name.format) as runner:
        errors = column_errors(expected, runner.predict(one.images)["amounts"])
    assert errors.max() <= (0.05 if name.precision in QUANTISED else 0.005)
    found = audit(folder, name, artifact_card(card, name), models.weight_set(name.precision))
    assert (found["status"], found["reason"]) == ("verified", "")


def test_a_regression_without_a_bias_is_given_one(tmp_path: Path) -> None:
    one = mixed(("amounts",))
    pooled = one.model.get_layer("pooled").output
    answer = keras.layers.Dense(2, use_bias=False, name="amounts")
    model = keras.Model(one.model.inputs, {"amounts": answer(pooled)})
    kernel = one.model.get_layer("amounts").get_weights()[0]
    answer.set_weights([kernel])
    saved = write_saved_model(model, None, tmp_path / "saved")
    card = dataclasses.replace(one.card, cut=())
    folder = export_artifact(INT8, saved, card, tmp_path, one.calibration_images)
    expected = np.asarray(model(one.images.astype(np.float32), training=False)["amounts"])
    with TfliteRunner(folder) as runner:
        assert column_errors(expected, runner.predict(one.images)["amounts"]).max() <= 0.05


def test_two_regressions_may_take_the_same_features_in_float16(tmp_path: Path) -> None:
    """Both last layers stay in float32, and what they take is cast once."""
    keras.utils.set_random_seed(5)
    image = keras.Input((32, 32, 3), name="image")
    values = keras.layers.Conv2D(6, 3, 4, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    shared = keras.layers.Dense(12, activation="relu")(keras.layers.Flatten()(values))
    model = keras.Model(image, {name: keras.layers.Dense(2, name=name)(shared) for name in ("one", "two")})
    outputs = tuple(
        Output(name, "linear", "regression", (2,), activation="linear", columns=COLUMNS) for name in ("one", "two")
    )
    card = dataclasses.replace(card_of(()), outputs=outputs, cut=())
    saved = write_saved_model(model, {}, tmp_path / "saved")
    shown = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    folder = export_artifact(ArtifactName("onnx", "float16"), saved, card, tmp_path, shown)
    expected = model(shown.astype(np.float32))
    with open_runner(folder, "onnx") as runner:
        for name, answer in runner.predict(shown).items():
            assert 0 < np.abs(answer - expected[name]).max() < 2e-3 * np.abs(expected[name]).max()


def test_one_calibration_image_makes_no_column_endlessly_fine(tmp_path: Path) -> None:
    one = mixed(("amounts",))
    saved = write_saved_model(one.model, CUT, tmp_path / "saved")
    folder = export_artifact(INT8, saved, one.card, tmp_path, one.calibration_images[:1])
    with TfliteRunner(folder) as runner:
        assert np.isfinite(runner.predict(one.images[:8])["amounts"]).all()


def test_equal_vectors_are_stored_once(exported: Callable) -> None:
    content = (exported(INT8) / "model.tflite").read_bytes()
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    quantised = [graph.Tensors(index).Quantization() for index in range(graph.TensorsLength())]
    places: dict[bytes, set[int]] = {}
    for each in quantised:
        if each is not None and each.ZeroPointLength() > 1:
            # Where the vector begins in the file: the field's place, and what is written there, which leads on from it.
            field = each._tab.Pos + each._tab.Offset(10)
            places.setdefault(each.ZeroPointAsNumpy().tobytes(), set()).add(each._tab.Indirect(field))
    assert len(places) > 1 and all(len(found) == 1 for found in places.values())
    assert sum(each is not None and each.ZeroPointLength() > 1 for each in quantised) > 2 * len(places)


def test_stored_numbers_are_aligned(exported: Callable) -> None:
    content = (exported(INT8) / "model.tflite").read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    places = []
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if isinstance(data, np.ndarray) and len(data):
            places.append(data.__array_interface__["data"][0] - np.frombuffer(content, np.uint8).ctypes.data)
    assert len(places) > 20 and not any(place % 16 for place in places)


@pytest.mark.parametrize(
    "format_name", ["tflite", *(pytest.param(each, marks=pytest.mark.slow) for each in WEB if each != "tflite")]
)
def test_the_browser_s_runtimes_tell_them_apart_too(format_name: str, exported: Callable) -> None:
    pytest.importorskip("tests.test_web_demo")  # skips where there is no browser
    from exporters.runners import chromium

    name = INT8 if format_name == "tflite" else ArtifactName(format_name, "float32")
    one = mixed()
    try:
        with getattr(chromium, WEB[format_name])(exported(name), backend="wasm") as web:
            answers = web.predict(one.images[:24])
    finally:
        chromium.close_session()
    with open_runner(exported(name), format_name) as native:
        expected = native.predict(one.images[:24])
    for head in TASKS:
        assert answers[head].dtype == np.float32 and answers[head].shape == expected[head].shape
        np.testing.assert_allclose(answers[head], expected[head], rtol=1e-4, atol=1e-3, err_msg=head)
    for head in ALIKE:
        apart = {other: np.abs(answers[head] - one.reference[other][:24]).max() for other in ALIKE}
        assert min(apart, key=apart.get) == head
