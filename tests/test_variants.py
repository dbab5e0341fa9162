"""Variants of artifacts, made on request: a batch of one picture, and float32 in and out of whole numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from exporters.audit.auditing import audit, read_contents
from exporters.contract import BATCH1, CEILINGS, FORMATS, ArtifactName, Card, parse_formats
from exporters.export import export_artifact
from exporters.golden import read_golden, read_manifest
from exporters.inference import InferenceModels
from exporters.report_facts import rows
from exporters.runtimes import open_runner
from exporters.verification import verify_artifact, verify_folder
from tests import column_models, small_models

MADE = tuple(
    f"{format_name}-{precision}-{variant}"
    for format_name, row in FORMATS.items()
    for precision in row.precisions
    for variant, precisions in row.variants.items()
    if precision in precisions
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder that holds nothing but variants."""
    session, folder = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("variants")
    for name in parse_formats(MADE):
        export(name, session, folder / "artifacts")
    small_models.write_fingerprints_of(small_models.inference_models(session), folder)
    small_models.write_golden_of(folder, small_models.small())
    return folder


def export(name: ArtifactName, session: Path, artifacts: Path) -> Path:
    one, models = small_models.small(), small_models.inference_models(session)
    return export_artifact(name, models.saved_model(name.precision), one.card, artifacts, one.calibration_images)


def test_every_variant_of_the_table_has_a_name_that_users_give() -> None:
    for format_name, row in FORMATS.items():
        for variant, precisions in row.variants.items():
            for precision in precisions:
                name = f"{format_name}-{precision}-{variant}"
                assert parse_formats([name]) == (ArtifactName(format_name, precision, variant),)
                assert str(parse_formats([name])[0]) == name
        assert not [name for name in parse_formats([format_name]) if name.variant], "never unasked"
    found = parse_formats(["onnx-int8-batch1", "tflite-int8-float_io", "tflite-int8", "tflite-float32-batch1"])
    assert [str(name) for name in found] == [
        *("tflite-float32-batch1", "tflite-int8", "tflite-int8-float_io", "onnx-int8-batch1"),
    ]


def test_variants_are_verified(out: Path) -> None:
    report = verify_folder(out, runtimes="local")
    assert [each["name"] for each in report["artifacts"]] == list(MADE)
    for artifact in report["artifacts"]:
        assert (artifact["audit"]["status"], artifact["audit"]["faults"]) == ("verified", [])
        assert {runtime["status"] for runtime in artifact["runtimes"]} == {"verified"}, artifact["name"]
        assert artifact["runtimes"][0]["images"] == small_models.GOLDEN_IMAGES
    assert (report["verdict"], report["exit_code"]) == ("verified", 0)
    told = [(row.format, row.precision) for row in rows(report)]
    assert {f"{form}-{precision}" for form, precision in told} == set(MADE), "reports tell variants apart"


@pytest.mark.parametrize("name", [name for name in MADE if name.endswith(BATCH1)])
def test_a_batch_of_one_is_fixed_in_the_file_and_on_its_papers(name: str, out: Path) -> None:
    folder, one = out / "artifacts" / name, small_models.small()
    contents = read_contents(folder, name.split("-")[0])
    assert [each.shape for each in contents.inputs] == [(1, 32, 32, 3)]
    assert {each.shape for each in contents.outputs} == {(1, 5)}
    card = Card.read(folder / "card.json")
    assert card.batch == 1 and card.to_json()["input"]["shape"] == [1, 32, 32, 3]
    assert "`image`: (1, 32, 32, 3)" in (folder / "README.md").read_text(encoding="utf-8")
    with open_runner(folder, name.split("-")[0]) as runner:
        answers = runner.predict(one.images[:5])
    assert all(len(answers[head]) == 5 for head in one.reference), "runners give it one after another"


def test_a_batch_of_one_leaves_no_free_axis(out: Path) -> None:
    details = Interpreter(str(out / "artifacts" / "tflite-float32-batch1" / "model.tflite")).get_tensor_details()
    assert all(-1 not in each["shape_signature"] for each in details)
    model = onnx.load(out / "artifacts" / "onnx-float32-batch1" / "model.onnx")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = [each.type.tensor_type.shape.dim for each in (*inferred.value_info, *inferred.input, *inferred.output)]
    assert shapes and all(axis.dim_value > 0 for shape in shapes for axis in shape)


def test_whole_numbers_with_float_io_take_raw_pixels_and_answer_as_without(out: Path, tmp_path: Path) -> None:
    folder, one = out / "artifacts" / "tflite-int8-float_io", small_models.small()
    interpreter = Interpreter(str(folder / "model.tflite"))
    signature = interpreter.get_signature_runner("serving_default")
    details = [*signature.get_input_details().values(), *signature.get_output_details().values()]
    assert {each["dtype"] for each in details} == {np.float32}
    first = next(each for each in interpreter._get_ops_details() if each["op_name"] == "QUANTIZE")
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    scale, zero_point = tensors[first["outputs"][0]]["quantization"]
    assert scale == pytest.approx(1.0) and zero_point == -128, "every raw value is a step of its own"
    card = Card.read(folder / "card.json")
    assert card.input_dtype == "float32" and {each.dtype for each in card.outputs} == {"float32"}
    plain = small_models.result_folder(out.parent) / "artifacts" / "tflite-int8"
    answers = []
    for each in (plain, folder):
        with open_runner(each, "tflite") as runner:
            answers.append(runner.predict(one.images))
    for head in one.reference:
        np.testing.assert_allclose(answers[1][head], answers[0][head], atol=1e-6)


@pytest.mark.parametrize("name", ["tflite-int8-batch1", "tflite-int8-float_io", "onnx-int8-batch1"])
def test_variants_of_a_model_with_columns_and_a_regression(name: str, tmp_path: Path) -> None:
    """Beside the conversion, ranges and encoded columns are measured, on more pictures than one at once."""
    one, (parsed,) = column_models.with_columns(), parse_formats([name])
    models = InferenceModels(one.model, small_models.CUT, one.calibration, tmp_path, features_everywhere=False)
    saved, precision = models.saved_model(parsed.precision), parsed.precision
    folder = export_artifact(parsed, saved, one.card, tmp_path / "artifacts", one.calibration)
    found = audit(folder, parsed, Card.read(folder / "card.json"), models.weight_set(precision))
    assert (found["status"], found["reason"]) == ("verified", "")
    with open_runner(folder, parsed.format) as runner:
        answers = runner.predict(one.inputs[:24])
    off = np.abs(answers["price"] - one.reference["price"][:24]) / one.truth["price"].std(0)
    assert off.max() <= CEILINGS[precision].worst_relative_error
    assert (answers["texture"].argmax(1) == one.reference["texture"][:24].argmax(1)).mean() > 0.9


@pytest.mark.parametrize("name", ["tflite-int8-batch1", "onnx-float32-batch1"])
def test_a_variant_is_made_of_the_same_bytes_again(name: str, out: Path, tmp_path: Path) -> None:
    (parsed,) = parse_formats([name])
    again = export(parsed, out.parent, tmp_path)
    for path in (out / "artifacts" / name).iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["tflite-float32-batch1", "onnx-int8-batch1", "tflite-int8-float_io"])
def test_the_plain_artifact_is_no_variant(name: str, out: Path, tmp_path: Path) -> None:
    """A file that takes any number of pictures, or whole numbers, is not what the folder's name says."""
    (wanted,) = parse_formats([name])
    folder = small_models.result_folder(out.parent) / "artifacts" / f"{wanted.format}-{wanted.precision}"
    golden = read_golden(out, read_manifest(out))
    card = Card.read(out / "artifacts" / name / "card.json")
    found = audit(folder, wanted, card, golden.fingerprints[wanted.precision])
    assert found["status"] == "failed" and "input" in {fault["check"] for fault in found["faults"]}
    mislabelled = tmp_path / name
    mislabelled.symlink_to(folder, target_is_directory=True)
    entry = verify_artifact(mislabelled, golden)
    assert [runtime["check"] for runtime in entry["runtimes"]] == ["card"]
