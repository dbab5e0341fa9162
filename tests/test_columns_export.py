"""Models with tabular columns beside the picture: every artifact answers as Keras does, and its columns stay in float32."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from exporters.audit.auditing import audit, read_contents
from exporters.audit.rules import Subject
from exporters.audit.rules import inputs as inputs_rule
from exporters.calibration import with_full_range
from exporters.columns import CATEGORY, NUMBER, Column
from exporters.columns_encoder import ColumnsEncoder, encoder_of, find_encoder
from exporters.columns_graph import fed_by_columns_alone
from exporters.columns_ranges import fit_to_features
from exporters.contract import CEILINGS, COLUMNS_ENCODED, FORMATS, ArtifactName, Card
from exporters.errors import CutpointError, InputError
from exporters.export import export_artifact
from exporters.folding import fold
from exporters.inference import InferenceModels
from exporters.inputs import Inputs
from exporters.runners.tfjs import TfjsRunner
from tests import column_models, small_models
from tests.column_models import CARD, COLUMNS, WithColumns, answers, edges

NAMES = {str(name): name for name in small_models.EVERY_ARTIFACT}
QUICK = 48


@dataclasses.dataclass(frozen=True)
class Exported:
    """All artifacts of the model, and the models behind them."""

    folder: Path
    models: InferenceModels


@pytest.fixture(scope="module")
def one() -> WithColumns:
    return column_models.with_columns()


@pytest.fixture(scope="module")
def exported(one: WithColumns, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("columns")
    (out / "saved").mkdir()
    models = InferenceModels(one.model, small_models.CUT, one.calibration, out / "saved", features_everywhere=False)
    for name in NAMES.values():
        export_artifact(name, models.saved_model(name.precision), one.card, out / "artifacts", one.calibration)
    return Exported(out / "artifacts", models)


def answer(folder: Path, name: ArtifactName, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return what the runtime itself answers, output -> float32; TF.js through its runner, as it needs a program."""
    if name.format == "tfjs":
        with TfjsRunner(folder, backend="wasm") as runner:
            return runner.predict(inputs)
    if name.format == "onnx":
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return dict(zip([each.name for each in session.get_outputs()], session.run(None, inputs.named()), strict=True))
    signature = Interpreter(str(folder / "model.tflite")).get_signature_runner("serving_default")
    given, found = signature.get_input_details(), []
    for index in range(len(inputs)):
        each = inputs[index : index + 1].named()
        found.append(signature(**{key: values.astype(given[key]["dtype"]) for key, values in each.items()}))
    told = signature.get_output_details()
    return {key: _real(np.concatenate([each[key] for each in found]), told[key]["quantization"]) for key in told}


def _real(values: np.ndarray, quantisation: tuple[float, int]) -> np.ndarray:
    scale, zero_point = quantisation
    return values if values.dtype == np.float32 else (values.astype(np.float32) - zero_point) * np.float32(scale)


def off(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], spread: np.ndarray) -> tuple[float, float]:
    """Return the largest difference of probabilities, and of prices in shares of their spread."""
    prices = np.abs(found["price"] - expected["price"]) / spread
    return float(np.abs(found["texture"] - expected["texture"]).max()), float(prices.max())


def worst_allowed(precision: str) -> tuple[float, float]:
    limits = CEILINGS[precision]
    return limits.max_abs or 0.1, limits.worst_relative_error or limits.relative_error


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_answer_as_keras_does(name: str, one: WithColumns, exported: Exported) -> None:
    found = answer(exported.folder / name, NAMES[name], one.inputs[:QUICK])
    expected = {key: values[:QUICK] for key, values in one.reference.items()}
    probabilities, prices = off(found, expected, one.truth["price"].std(0))
    allowed = worst_allowed(NAMES[name].precision)
    assert probabilities <= allowed[0] and prices <= allowed[1]
    agreement = (found["texture"].argmax(1) == expected["texture"].argmax(1)).mean()
    assert agreement >= CEILINGS[NAMES[name].precision].agreement - 1 / QUICK


@pytest.mark.parametrize("name", NAMES)
def test_unknown_categories_outliers_and_boundaries_answer_as_keras_does(
    name: str, one: WithColumns, exported: Exported
) -> None:
    expected = answers(one.model, edges())
    probabilities, prices = off(
        answer(exported.folder / name, NAMES[name], edges()), expected, one.truth["price"].std(0)
    )
    allowed = worst_allowed(NAMES[name].precision)
    assert probabilities <= allowed[0] and prices <= allowed[1]


def test_what_the_columns_say_changes_the_answers(one: WithColumns) -> None:
    picture = one.inputs[:1]
    rows = np.repeat(picture.columns, 4, axis=0)
    rows[1, 0] += 2.5
    rows[2, 2] = 0 if rows[2, 2] >= 3.5 else 4
    rows[3, 3] = 2 if rows[3, 3] != 2 else 1
    found = answers(one.model, Inputs(np.repeat(picture.images, 4, axis=0), rows))["price"] / one.truth["price"].std(0)
    assert (np.abs(found[1:] - found[0]).max(1) > 0.1).all()


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_are_found_to_be_what_they_are(name: str, exported: Exported) -> None:
    folder = exported.folder / name
    found = audit(
        folder, NAMES[name], Card.read(folder / "card.json"), exported.models.weight_set(NAMES[name].precision)
    )
    assert (found["status"], found["reason"]) == ("verified", "")
    ports = {each["name"]: (each["dtype"], each["shape"]) for each in found["inputs"]}
    pixels = "uint8" if name == "tflite-int8" else "float32"
    assert ports == {"image": (pixels, [None, 32, 32, 3]), "columns": ("float32", [None, len(COLUMNS)])}
    assert found["constants"]["uncompared"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_encodes_columns_stays_in_float32(name: str, exported: Exported) -> None:
    contents = read_contents(exported.folder / name, NAMES[name].format)
    expected = exported.models.weight_set(NAMES[name].precision).others
    numbers = {key: values for key, values in expected.items() if key.startswith(f"{COLUMNS_ENCODED}/")}
    assert len(numbers) >= 13
    for values in numbers.values():
        same = [each for each in contents.constants if np.array_equal(each.values.ravel(), values)]
        assert same and {each.dtype for each in same} == {"float32"}
    # Only at its end it is brought to what the heads compute in, for each of them.
    narrow = {dtype: count for dtype, count in contents.encoder.items() if dtype not in ("float32", "bool")}
    assert contents.encoder["float32"] >= 12 and sum(narrow.values()) <= 2


def test_a_full_integer_file_computes_all_else_in_whole_numbers(exported: Exported) -> None:
    # One answer is a regression, which comes out in float32.
    assert read_contents(exported.folder / "tflite-int8", "tflite").activations["float32"] == 1
    assert read_contents(exported.folder / "onnx-int8", "onnx").activations["float32"] == 1


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8"])
def test_a_body_in_float_under_an_int8_name_is_found(name: str, exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.folder / name, tmp_path / name)
    file = FORMATS[NAMES[name].format].file
    shutil.copy(exported.folder / f"{NAMES[name].format}-float32" / file, tmp_path / name / file)
    found = audit(
        tmp_path / name, NAMES[name], Card.read(tmp_path / name / "card.json"), exported.models.weight_set("int8")
    )
    assert {"computed precision", "stored precision"} <= {each["check"] for each in found["faults"]}


def test_pictures_and_columns_come_in_this_order(exported: Exported) -> None:
    for name in NAMES:
        if name.startswith("tflite"):
            details = Interpreter(str(exported.folder / name / "model.tflite")).get_input_details()
            assert [each["name"] for each in details] == ["serving_default_image:0", "serving_default_columns:0"]
            assert details[1]["dtype"] == np.float32
        elif name.startswith("onnx"):
            model = onnx.load(exported.folder / name / "model.onnx")
            onnx.checker.check_model(model, full_check=True)
            assert [each.name for each in model.graph.input] == ["image", "columns"]


def _change_tflite(folder: Path, change: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray) -> None:
    path = folder / "model.tflite"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    for buffer in model.buffers:
        if buffer.data is not None and bytes(buffer.data) == wanted.tobytes():
            buffer.data = np.frombuffer(change(wanted).astype("<f4").tobytes(), np.uint8)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _change_onnx(folder: Path, change: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray) -> None:
    model = onnx.load(folder / "model.onnx")
    for each in model.graph.initializer:
        values = numpy_helper.to_array(each)
        if values.dtype == np.float32 and np.array_equal(values.ravel(), wanted):
            each.CopyFrom(numpy_helper.from_array(change(values).astype(np.float32), each.name))
    onnx.save(model, folder / "model.onnx")


def _change_tfjs(folder: Path, change: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray) -> None:
    shard = next(folder.glob("*.bin"))
    shard.write_bytes(shard.read_bytes().replace(wanted.tobytes(), change(wanted).astype("<f4").tobytes()))


_CHANGES = {"tflite": _change_tflite, "onnx": _change_onnx, "tfjs": _change_tfjs}
_FAULTS = {
    "a boundary that is off by the least of it": (
        np.float32([1.25, 3.5, 7.1]),
        lambda values: np.nextafter(values, np.float32(0)),
    ),
    "another mean": (np.float32([2020.4]), lambda values: values + np.float32(0.001)),
    "categories in another order": (np.float32([1, 2, 3, 4, 5]), lambda values: values[::-1]),
}


@pytest.mark.parametrize("name", ["tfjs-float32", "tflite-int8", "onnx-float16"])
@pytest.mark.parametrize("fault", _FAULTS)
def test_an_encoder_that_was_changed_is_found(name: str, fault: str, exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.folder / name, tmp_path / name)
    _CHANGES[NAMES[name].format](tmp_path / name, _FAULTS[fault][1], _FAULTS[fault][0])
    found = audit(
        tmp_path / name,
        NAMES[name],
        Card.read(tmp_path / name / "card.json"),
        exported.models.weight_set(NAMES[name].precision),
    )
    assert {each["check"] for each in found["faults"]} == {"constants"}


@pytest.mark.parametrize("name", ["tfjs-float32", "tflite-float32", "onnx-float32"])
def test_inputs_that_the_card_does_not_promise_are_found(name: str, exported: Exported) -> None:
    folder = exported.folder / name
    card = Card.read(folder / "card.json")
    for promised, reason in ((card.columns[:2], "shape (None, 4), not (None, 2)"), ((), "it has 2 inputs")):
        found = audit(folder, NAMES[name], dataclasses.replace(card, columns=promised), None)
        assert any(each["check"] == "input" and reason in each["reason"] for each in found["faults"])


def test_an_artifact_without_the_columns_of_its_card_is_found(exported: Exported) -> None:
    name = NAMES["onnx-float32"]
    contents = read_contents(exported.folder / str(name), name.format)
    card = Card.read(exported.folder / str(name) / "card.json")
    for left, reason in (
        (contents.inputs[:1], "it has 1 inputs, not 2"),
        (tuple(dataclasses.replace(each, name=each.name.upper()) for each in contents.inputs), "no input 'columns'"),
    ):
        subject = Subject(name, dataclasses.replace(contents, inputs=left), card, None, ())
        assert reason in "; ".join(inputs_rule(subject))


def test_the_papers_say_what_the_columns_take(exported: Exported) -> None:
    text = (exported.folder / "onnx-float32" / "README.md").read_text(encoding="utf-8")
    assert "Input `columns`: (N, 4) float32" in text and "--column year=..." in text
    assert "- `weight`: a number, in ranges between 1.25, 3.5, 7.1; 3.5 where it is unknown" in text
    assert "0 for an unknown one: 1 dark, 2 fair, 3 mid, 4 naïve, «odd», 5 zebra" in text
    inside = json.loads((exported.folder / "tfjs-uint8" / "model.json").read_bytes())["userDefinedMetadata"]["card"]
    assert Card.from_json(inside).columns == COLUMNS


def test_the_encoder_is_one_layer_that_gives_what_keras_gives(one: WithColumns) -> None:
    folded = fold(one.model, [small_models.CUT]).model
    assert [each.name for each in folded.inputs] == ["image", "columns"]
    encoders = [each for each in folded.layers if isinstance(each, ColumnsEncoder)]
    assert [each.name for each in encoders] == [COLUMNS_ENCODED] and find_encoder(folded) is None
    found = keras.Model(folded.inputs[1], encoders[0].output)(edges().columns)
    expected = keras.Model(one.model.inputs[1], one.model.get_layer(COLUMNS_ENCODED).output)(edges().columns)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    again = ColumnsEncoder.from_config(json.loads(json.dumps(encoders[0].get_config())))
    np.testing.assert_array_equal(again(edges().columns), found)


def test_columns_that_are_encoded_otherwise_are_refused(one: WithColumns) -> None:
    image, columns = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="columns")
    described = (
        Column("a", NUMBER, mean=1.0, standard_deviation=2.0),
        Column("b", CATEGORY, categories=("x", "y")),
    )
    layers, pooled = keras.layers, keras.layers.GlobalAveragePooling2D()(image)
    bare = keras.Model([image, columns], {"head": layers.Dense(1)(layers.Concatenate()([pooled, columns]))})
    own = layers.Concatenate(name=COLUMNS_ENCODED)([layers.Rescaling(0.5)(columns[:, :1]), columns[:, 1:]])
    rescaled = keras.Model([image, columns], {"head": layers.Dense(1)(layers.Concatenate()([pooled, own]))})
    swapped = column_models.encode(layers.Concatenate()([columns[:, 1:], columns[:, :1]]), described)
    turned = keras.Model([image, columns], {"head": layers.Dense(1)(layers.Concatenate()([pooled, swapped]))})
    for model, reason in ((bare, "no layer is called"), (rescaled, "goes through"), (turned, "takes several values")):
        with pytest.raises(CutpointError, match="encodes its columns in a way that cannot be exported") as caught:
            fold(model)
        assert reason in str(caught.value)


def test_calibration_images_and_model_agree_on_columns(one: WithColumns, tmp_path: Path) -> None:
    short = Inputs(one.calibration.images, one.calibration.columns[:, :2])
    for given in (one.calibration.images, short):
        with pytest.raises(InputError, match="calibration images come with"):
            InferenceModels(one.model, None, given, tmp_path, features_everywhere=False)
    small = small_models.small()
    with pytest.raises(InputError, match="come with 4 columns"):
        InferenceModels(small.model, None, one.calibration, tmp_path, features_everywhere=False)


def test_calibration_reaches_as_far_as_columns_may(one: WithColumns) -> None:
    given = one.calibration[:3]
    widened = with_full_range(given)
    assert len(widened) == 3 + 8 and len(with_full_range(one.calibration)) == 2 * len(one.calibration)
    np.testing.assert_array_equal(widened.columns[:3], given.columns)
    far = widened.columns[3:]
    for column in range(4):
        assert (far[:, column] < -1e29).sum() == (far[:, column] > 1e29).sum() == 1
    encoded = np.asarray(encoder_of(fold(one.model).model)(widened.columns))
    assert encoded[:, :2].min() == -5 and encoded[:, :2].max() == 5 and np.isfinite(encoded).all()
    assert len(with_full_range(given[:0])) == 0


def test_columns_do_not_widen_the_range_of_the_features(one: WithColumns) -> None:
    folded = fold(one.model).model
    fitted = fit_to_features(folded, one.calibration)
    for inputs in (one.inputs[:32], edges()):
        before, after = answers(folded, inputs), answers(fitted, inputs)
        assert off(after, before, one.truth["price"].std(0)) < (1e-5, 1e-5)
    pooled = np.asarray(
        keras.Model(fitted.inputs, fitted.get_layer("pooled").output)(list(one.calibration.named().values()))
    )
    encoded = np.asarray(encoder_of(fitted)(with_full_range(one.calibration).columns))
    assert encoded.min() == pytest.approx(0, abs=1e-5) and encoded.max() == pytest.approx(pooled.max(), rel=1e-5)
    without = fold(small_models.small().model).model
    assert fit_to_features(without, Inputs(one.calibration.images)) is without
    assert fit_to_features(folded, one.calibration[:0]) is folded


def test_only_what_comes_from_columns_alone_counts_as_their_encoder() -> None:
    calls = [(["joined", "kernel"], ["out"]), (["columns", "mean"], ["a"]), (["a"], ["b", "c"])]
    calls += [(["image", "b"], ["joined"]), (["kernel"], ["scaled"])]
    assert fed_by_columns_alone(calls, {"columns"}, {"image"}) == {"columns", "a", "b", "c"}
    assert fed_by_columns_alone(calls, set(), {"image", "columns"}) == set()


_ODD = {
    "nothing to normalise": (Column("a", NUMBER, mean=0.0, standard_deviation=1.0),),
    "one category": (Column("a", CATEGORY, categories=("x",)),),
    "one boundary": (Column("a", "bucket", boundaries=(0.0,)),),
    "many numbers": tuple(Column(f"n{i}", NUMBER, mean=float(i), standard_deviation=1.0 + i) for i in range(12)),
    "many categories": (Column("a", CATEGORY, categories=tuple(f"{index:03}" for index in range(300))),),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", _ODD)
def test_odd_columns_are_exported_too(case: str, tmp_path: Path) -> None:
    described, generator = _ODD[case], np.random.default_rng(0)
    network = small_models.build_model(3)
    columns = keras.Input((len(described),), name="columns")
    pooled, encoded = network.get_layer("pooled").output, column_models.encode(columns, described)
    joined = keras.layers.Concatenate(name="trunk_with_columns")([pooled, encoded])
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(12, use_bias=False, name="trunk")(joined))
    texture = keras.layers.Dense(5, activation="softmax", name="texture")(keras.layers.ReLU()(hidden))
    price = keras.layers.Dense(2, name="price")(joined)
    model = keras.Model([network.inputs[0], columns], {"texture": texture, "price": price}, name="odd")
    images, _ = small_models.pictures(96, 5)
    drawn = [
        generator.normal(each.mean, each.standard_deviation, 96)
        if each.kind == NUMBER
        else generator.integers(0, each.width + 1, 96)
        for each in described
    ]
    inputs = Inputs(images, np.stack(drawn, axis=1).astype(np.float32))
    card = dataclasses.replace(CARD, columns=described)
    models = InferenceModels(model, small_models.CUT, inputs, tmp_path, features_everywhere=False)
    expected = answers(model, inputs[:QUICK])
    for name in (each for each in NAMES.values() if each.precision in ("float32", "int8")):
        folder = export_artifact(name, models.saved_model(name.precision), card, tmp_path / "out", inputs)
        found = audit(folder, name, Card.read(folder / "card.json"), models.weight_set(name.precision))
        assert (found["status"], found["reason"]) == ("verified", "")
        answered = answer(folder, name, inputs[:QUICK])
        probabilities, prices = off(answered, expected, expected["price"].std(0))
        allowed = worst_allowed(name.precision)
        assert probabilities <= allowed[0] and prices <= allowed[1]
