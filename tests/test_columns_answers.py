"""Whole result folders of a model with columns: verified in every runtime, and found out where columns are swapped or missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporters.contract import CEILINGS, FORMATS, Card, parse_formats, usual_formats
from exporters.errors import CutpointError, InputError
from exporters.export import export_artifact
from exporters.golden import golden_images, read_golden, read_manifest, write_manifest
from exporters.golden_files import check_pixels, read_files
from exporters.inputs import Inputs, with_cells
from exporters.layers.folder import trace_folder
from exporters.prediction import predict_pictures, remark_on_columns
from exporters.runners.keras import KerasRunner
from exporters.runners.tfjs import TfjsRunner
from exporters.runtimes import open_runner, run_artifact
from exporters.verification import verify_folder
from tests import small_models
from tests.columned_folder import CARD, COLUMNS, FLOAT32, GRADES, columned, result_folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result_folder(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def report(whole: Path) -> dict:
    return verify_folder(whole)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the folder, for a test to change; without TF.js, whose runtimes are the slow ones."""
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    shutil.rmtree(out / "artifacts" / "tfjs-float32")
    write_manifest(out, CARD, CEILINGS)
    return out


def test_every_local_runtime_answers_as_keras_does(report: dict) -> None:
    assert (report["verdict"], report["exit_code"]) == ("verified", 0)
    assert [each["name"] for each in report["artifacts"]] == [str(name) for name in FLOAT32]
    for artifact in report["artifacts"]:
        assert (artifact["audit"]["status"], artifact["audit"]["reason"]) == ("verified", "")
        for runtime in artifact["runtimes"]:
            assert set(runtime["outputs"]) == {"apple", "grade"}
            assert (runtime["files"]["status"], runtime["files"]["images"]) == ("verified", 6)
            assert runtime["latency_ms"]["median"] > 0


def test_the_columns_matter_to_one_head_and_not_to_the_other() -> None:
    one = columned()
    empty = with_cells(one.inputs.images, COLUMNS)
    with KerasRunner(one.model) as runner:
        answers = runner.predict(empty)
    np.testing.assert_allclose(answers["apple"], one.reference["apple"], atol=1e-6)
    assert (answers["grade"].argmax(1) != one.reference["grade"].argmax(1)).mean() > 0.3
    assert (one.reference["grade"].argmax(1) == one.truth["grade"]).mean() > 0.85


def permuted(card: Card) -> Card:
    """The card with the categories in another order, as somebody may sort them anew: their indices change."""
    age, skin, weight = card.columns
    turned = dataclasses.replace(skin, categories=(*skin.categories[1:], skin.categories[0]))
    return dataclasses.replace(card, columns=(age, turned, weight))


def test_categories_in_another_order_are_found_out_by_the_cells_of_the_files(copy: Path) -> None:
    for folder in (copy / "artifacts").iterdir():
        permuted(Card.read(folder / "card.json")).write(folder / "card.json")
    permuted(CARD).write(copy / "card.json")
    write_manifest(copy, permuted(CARD), CEILINGS)
    report = verify_folder(copy)
    assert (report["verdict"], report["integrity"]["status"]) == ("failed", "verified")
    for artifact in report["artifacts"]:
        for runtime in artifact["runtimes"]:
            # The columns of the golden set are numbers already: of these nothing is wrong.
            assert {each["status"] for each in runtime["outputs"].values()} == {"verified"}
            assert (runtime["files"]["status"], runtime["files"]["check"]) == ("failed", "files")
            assert runtime["files"]["reason"].startswith("grade: the answers to image files differ by 0.")


def test_an_artifact_whose_card_alone_has_other_columns_is_found_out(copy: Path) -> None:
    folder = copy / "artifacts" / "onnx-float32"
    permuted(Card.read(folder / "card.json")).write(folder / "card.json")
    write_manifest(copy, CARD, CEILINGS)
    (tflite, onnx) = verify_folder(copy)["artifacts"]
    assert {each["status"] for each in tflite["runtimes"]} == {"verified"}
    reason = "its card describes the columns otherwise than the Keras model does"
    assert [(each["status"], each["check"], each["reason"]) for each in onnx["runtimes"]] == [
        ("failed", "card", reason)
    ]


def test_columns_given_in_another_order_are_found_out(copy: Path) -> None:
    golden = copy / "golden" / "images.npz"
    arrays = dict(np.load(golden))
    arrays["columns"] = arrays["columns"][np.r_[1 : len(arrays["columns"]), 0]]
    np.savez_compressed(golden, **arrays)
    write_manifest(copy, CARD, CEILINGS)
    report = verify_folder(copy)
    assert report["verdict"] == "failed"
    for artifact in report["artifacts"]:
        for runtime in artifact["runtimes"]:
            assert (
                runtime["outputs"]["grade"]["status"] == "failed"
                and runtime["outputs"]["apple"]["status"] == "verified"
            )
            assert runtime["files"]["status"] == "verified"


def test_a_golden_set_comes_back_with_its_columns_and_cells(whole: Path) -> None:
    golden, one = read_golden(whole, read_manifest(whole)), columned()
    np.testing.assert_array_equal(golden.columns, one.inputs.columns, strict=True)
    np.testing.assert_array_equal(golden.inputs[3:5].columns, one.inputs.columns[3:5], strict=True)
    assert golden.card == CARD and len(golden_images(whole)) == len(one.inputs)
    files = read_files(whole)
    assert [each.path.name for each in files[5:7]] == ["0005.png", "0000.jpg"]
    assert [each.cells for each in files] == [
        {name: cell.strip() for name, cell in one.cells[index].items()} for index in (*range(6), *range(4))
    ]
    with np.load(whole / "golden" / "images.npz") as arrays:
        assert sorted(arrays.files) == ["columns", "images", "labels_apple", "labels_grade"]


def test_a_golden_set_without_columns_has_no_word_of_them(tmp_path: Path) -> None:
    small_models.write_golden_of(tmp_path, small_models.small())
    with np.load(tmp_path / "golden" / "images.npz") as arrays:
        assert "columns" not in arrays.files
    assert "columns" not in (tmp_path / "golden" / "files" / "expected.json").read_text(encoding="utf-8")
    assert "columns" not in read_manifest(tmp_path)["card"]
    assert read_golden(tmp_path, read_manifest(tmp_path)).columns is None


def without_last(arrays: dict) -> None:
    arrays["columns"] = arrays["columns"][:, :-1]


def of_one_picture_less(arrays: dict) -> None:
    arrays["columns"] = arrays["columns"][1:]


def with_nan(arrays: dict) -> None:
    arrays["columns"][3, 0] = np.nan


def with_half_a_category(arrays: dict) -> None:
    arrays["columns"][3, 1] = 1.5


def with_a_category_too_many(arrays: dict) -> None:
    arrays["columns"][3, 1] = 5


def as_doubles(arrays: dict) -> None:
    arrays["columns"] = arrays["columns"].astype(np.float64)


def as_texts(arrays: dict) -> None:
    arrays["columns"] = arrays["columns"].astype(str)


def missing(arrays: dict) -> None:
    del arrays["columns"]


@pytest.mark.parametrize(
    "damage",
    [
        without_last,
        of_one_picture_less,
        with_nan,
        with_half_a_category,
        with_a_category_too_many,
        as_doubles,
        as_texts,
        missing,
    ],
)
def test_damaged_columns_are_bad_input(damage: Callable[[dict], None], copy: Path) -> None:
    path = copy / "golden" / "images.npz"
    arrays = dict(np.load(path))
    damage(arrays)
    np.savez_compressed(path, **arrays)
    with pytest.raises(InputError, match=r"cannot be read: it(s column| holds no columns)"):
        verify_folder(copy)


def test_columns_that_no_card_names_are_bad_input(copy: Path) -> None:
    other = dataclasses.replace(CARD, columns=())
    other.write(copy / "card.json")
    write_manifest(copy, other, CEILINGS)
    with pytest.raises(InputError, match="it holds columns, and the card names no columns"):
        verify_folder(copy)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (None, "0000.png has no columns, and the card names some"),
        (["age"], "the columns of 0000.png are not texts by name"),
        ({"age": 40}, "the columns of 0000.png are not texts by name"),
        ({"age": ["40"]}, "the columns of 0000.png are not texts by name"),
        ({"age": "forty"}, "The column 'age' has 'forty'."),
        ({"height": "3"}, "The model takes no column 'height'."),
    ],
)
def test_damaged_cells_fail_the_folder_in_words(cells: object, told: str, copy: Path) -> None:
    path = copy / "golden" / "files" / "expected.json"
    expected = json.loads(path.read_text(encoding="utf-8"))
    expected["files"][0].pop("columns")
    if cells is not None:
        expected["files"][0]["columns"] = cells
    path.write_text(json.dumps(expected), encoding="utf-8")
    write_manifest(copy, CARD, CEILINGS)
    found = check_pixels(copy, CARD)
    assert (found["status"], found["reason"]) == ("failed", f"the golden files cannot be read: {told}")
    assert verify_folder(copy)["verdict"] == "failed"


@pytest.mark.parametrize("name", [str(each) for each in FLOAT32])
def test_a_runner_never_answers_without_the_columns_it_needs(name: str, whole: Path) -> None:
    one = columned()
    with open_runner(whole / "artifacts" / name, name.partition("-")[0]) as runner:
        for given in (one.inputs.images[:2], Inputs(one.inputs.images[:2])):
            with pytest.raises(InputError, match="takes columns beside the picture, and none were given"):
                runner.predict(given)
            with pytest.raises(InputError, match="none were given"):
                runner.time_one(given[0] if isinstance(given, np.ndarray) else given[:1], 1)
        some = one.inputs[:2]
        np.testing.assert_allclose(runner.predict(some)["grade"], one.reference["grade"][:2], atol=1e-4)
        assert len(runner.time_one(some[:1], 2)) == 2
        wide = Inputs(some.images, np.concatenate([some.columns, some.columns], axis=1))
        with pytest.raises(CutpointError):
            runner.predict(wide)


def test_no_tensor_of_the_columns_is_left_in_tfjs(whole: Path) -> None:
    some, request = columned().inputs[:4], {"command": "predict", "outputs": ["grade"]}
    with TfjsRunner(whole / "artifacts" / "tfjs-float32") as runner:
        assert len({runner._ask(some, request)[0]["tensors"] for _ in range(5)}) == 1


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts that take pictures alone."""
    one, saved = small_models.small(), small_models.saved_model(tmp_path_factory.getbasetemp())
    out = tmp_path_factory.mktemp("plain")
    for name in FLOAT32:
        export_artifact(name, saved, one.card, out, one.calibration_images)
    return out


@pytest.mark.parametrize("name", [str(each) for each in FLOAT32])
def test_an_artifact_without_columns_is_given_none(name: str, plain: Path) -> None:
    told = pytest.raises(InputError, match="takes pictures alone, and columns were given")
    with open_runner(plain / name, name.partition("-")[0]) as runner, told:
        runner.predict(columned().inputs[:2])


def test_a_keras_model_without_columns_is_given_none() -> None:
    images = columned().inputs[:2]
    with KerasRunner(small_models.small().model) as runner, pytest.raises(InputError, match="columns were given"):
        runner.predict(images)


def test_a_runtime_that_is_given_no_columns_fails_with_words(whole: Path) -> None:
    runtime = FORMATS["onnx"].runtimes[0]
    images = columned().inputs.images[:1]
    with pytest.raises(InputError, match="none were given"):
        run_artifact(runtime, whole / "artifacts" / "onnx-float32", images, images[:0])


def test_every_layer_is_followed_in_every_format(whole: Path) -> None:
    entries = [{"name": str(name), "format": name.format, "audit": {}} for name in FLOAT32]
    trace_folder(whole, entries)
    for entry in entries:
        layers = entry["layers"]
        assert (layers["status"], layers["first_off"], layers["images"]) == ("traced", None, 12), layers["reason"]
        assert {"grade", "first"} <= {row["name"] for row in layers["rows"] if row["max_abs"] is not None}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_models.write_pictures(tmp_path_factory.mktemp("beside"), 2)


@pytest.mark.parametrize("name", [str(each) for each in FLOAT32])
def test_pictures_are_answered_with_their_cells(name: str, whole: Path, pictures: list[Path]) -> None:
    cells = [{"age": "70", "skin": "hell"}, {"skin": "dark", "weight": " 20 "}]
    found = predict_pictures(whole / "artifacts" / name, pictures, top=2, cells=cells)
    grades = [each["outputs"]["grade"]["top"][0]["label"] for each in found]
    # Dark skin is always bad, an age over 60 is très bon where the skin says nothing else: see `truth_of`.
    assert grades == ["très bon", "bad"]
    assert [each["columns"] for each in found] == [
        {"age": "70", "skin": "hell", "weight": None},
        {"age": None, "skin": "dark", "weight": "20"},
    ]
    assert [each["unknown"] for each in found] == [[], []]


def test_what_is_not_told_is_remarked_on(whole: Path, pictures: list[Path]) -> None:
    answers = predict_pictures(whole, pictures, top=1)
    empty = with_cells(np.zeros((1, 32, 32, 3), np.uint8), COLUMNS)
    assert len(answers) == 2 and answers[0]["columns"] == {"age": None, "skin": None, "weight": None}
    assert empty.columns.tolist() == [[41.5, 0, 72]]
    assert remark_on_columns(answers) == "Nothing is said of age, skin, weight: taken as unknown."
    told = {"age": "3", "skin": "violet", "weight": "4"}
    answers = predict_pictures(whole, pictures, top=1, cells=[told, {**told, "skin": "dark"}])
    assert remark_on_columns(answers) == "Training never saw skin 'violet': answered as an unknown category."
    answers = predict_pictures(whole, pictures, top=1, cells=[{**told, "skin": "dark"}] * 2)
    assert remark_on_columns(answers) == ""


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([{"age": "forty"}, {}], "The column 'age' has 'forty'"),
        ([{}, {"heigth": "3"}], "no column 'heigth'"),
        ([{}], "2 pictures, and cells for 1"),
    ],
)
def test_bad_cells_are_told_before_any_picture_is_read(cells: list, told: str, whole: Path) -> None:
    with pytest.raises(InputError, match=told):
        predict_pictures(whole, [Path("not there.png")] * 2, top=1, cells=cells)


def test_a_model_without_columns_says_so(plain: Path, pictures: list[Path]) -> None:
    with pytest.raises(InputError, match="no column 'age'") as fault:
        predict_pictures(plain / "onnx-float32", pictures, top=1, cells=[{"age": "3"}] * 2)
    assert "a picture alone" in fault.value.expected
    answers = predict_pictures(plain / "onnx-float32", pictures, top=1)
    assert "columns" not in answers[0] and remark_on_columns(answers) == ""


@pytest.mark.slow
def test_every_precision_is_verified_in_every_local_runtime(tmp_path_factory: pytest.TempPathFactory) -> None:
    usual = parse_formats(list(usual_formats()))
    report = verify_folder(result_folder(tmp_path_factory.getbasetemp(), usual))
    assert report["verdict"] == "verified"
    assert [each["name"] for each in report["artifacts"]] == [str(name) for name in usual]
    for artifact in report["artifacts"]:
        assert {each["files"]["status"] for each in artifact["runtimes"]} == {"verified"}, artifact["name"]


PREDICTOR = """
import { readFileSync } from "node:fs";
import * as core from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { loadGraphModel } from "@tensorflow/tfjs-converter";
const { openPredictor } = await import(process.argv[1]);
const { folder, picture, asked } = JSON.parse(readFileSync(0, "utf8"));
await core.setBackend("cpu");
const read = async (name) => new Uint8Array(readFileSync(`${folder}/${name}`)).buffer;
const predictor = await openPredictor({ ...core, loadGraphModel }, read);
const answers = [];
for (const beside of asked) {
  const answer = predictor.answer({ ...picture, data: Uint8Array.from(picture.data) }, beside);
  answers.push(await answer.then(({ said }) => said, (fault) => ({ error: fault.message })));
}
predictor.dispose();
const names = predictor.card.columns.map(({ name }) => name);
console.log(JSON.stringify({ answers, names, tensors: core.memory().numTensors }));
"""


def test_predict_js_takes_cells_as_python_does(whole: Path) -> None:
    image = columned().inputs.images[0]
    told = [{}, {"columns": {"age": "70", "skin": "hell"}}, {"columns": {"skin": " müde ", "weight": 95}, "top": 1}]
    refused = [{"columns": {"age": "forty"}}, {"columns": {"hair": "1"}}]
    picture = {"data": image.ravel().tolist(), "width": image.shape[1], "height": image.shape[0]}
    asked = {"folder": str(whole / "artifacts" / "tfjs-float32"), "picture": picture, "asked": told + refused}
    web_demo = Path(__file__).parents[1] / "web_demo"
    command = ["node", "--input-type=module", "--eval", PREDICTOR, "--", (web_demo / "predict.js").as_uri()]
    done = subprocess.run(command, input=json.dumps(asked), cwd=web_demo, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["names"] == ["age", "skin", "weight"] and said["tensors"] == 0
    assert [each.get("error", "").partition(".")[0] for each in said["answers"][3:]] == [
        "The column age has “forty”",
        "The model takes no column hair",
    ]
    cells = [each.get("columns", {}) for each in told]
    with KerasRunner(columned().model) as runner:
        expected = runner.predict(with_cells(np.repeat(image[None], 3, axis=0), COLUMNS, cells))["grade"]
    for shares, answer in zip(expected, said["answers"], strict=False):
        assert answer["grade"]["top"][0]["label"] == GRADES[shares.argmax()]
        assert answer["grade"]["top"][0]["probability"] == pytest.approx(float(shares.max()), abs=1e-4)
    assert len(said["answers"][2]["grade"]["top"]) == 1
