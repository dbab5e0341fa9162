"""Every format in every precision, made of a small real network: names, answers, dtypes, bytes, and nothing half-made."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from exporters.calibration import with_full_range
from exporters.contract import CEILINGS, FORMATS, QUANTISED, ArtifactName, Card, Output
from exporters.errors import InputError
from exporters.export import artifact_card, export_artifact, move_into_place
from exporters.papers import labels_files
from exporters.parity import near_ties
from exporters.runners.keras import KerasRunner
from exporters.runtimes import open_runner
from exporters.saved_model import write_saved_model
from tests import small_models
from tests.small_models import CUT, EVERY_ARTIFACT, LABELS, SIDE_PX

# No limit holds int8's differences; this one would still see a wrong layer.
LARGEST_INT8_DIFFERENCE = 0.15
NAMES = {str(name): name for name in EVERY_ARTIFACT}
FLOAT32 = [ArtifactName(name, "float32") for name in FORMATS]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def out(work: Path) -> Path:
    return small_models.result_folder(work)


@pytest.fixture(scope="session")
def one() -> small_models.Small:
    return small_models.small()


def answers_of(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    with open_runner(folder, folder.name.split("-")[0]) as runner:
        return runner.predict(images)


def test_the_small_network_is_worth_comparing_with(one: small_models.Small) -> None:
    for name, answer in one.reference.items():
        assert np.ptp(answer, axis=0).min() > 0.9, "every class is sometimes sure, sometimes out of the question"
        assert set(answer.argmax(-1)) == set(range(len(LABELS[name])))
        for limits in CEILINGS.values():
            assert near_ties(answer, limits.max_abs).mean() <= 0.04
        assert 0.9 < (answer.argmax(-1) == one.truth[name]).mean() < 1
    assert np.abs(one.reference["apple"] - one.reference["zebra"]).max() > 0.9, "swapped heads would be seen"
    normed = [layer for layer in one.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(normed) == 5
    for layer in normed:
        _, _, mean, variance = layer.get_weights()
        assert np.ptp(mean) > 0.1 and np.ptp(variance) > 0.01 and variance.min() > 1e-4


def test_every_artifact_was_written(out: Path) -> None:
    assert sorted(path.name for path in (out / "artifacts").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_artifact_answers_as_keras_does(name: str, out: Path, one: small_models.Small) -> None:
    limits = CEILINGS[NAMES[name].precision]
    largest = limits.max_abs or LARGEST_INT8_DIFFERENCE
    answers = answers_of(out / "artifacts" / name, one.images)
    assert set(answers) == set(LABELS)
    for head, expected in one.reference.items():
        assert answers[head].dtype == np.float32 and answers[head].shape == expected.shape
        assert np.abs(answers[head] - expected).max() <= largest
        clear = ~near_ties(expected, limits.max_abs)
        assert (answers[head].argmax(-1) == expected.argmax(-1))[clear].mean() >= limits.agreement
        np.testing.assert_allclose(answers[head].sum(-1), 1, atol=0.02 if NAMES[name].precision in QUANTISED else 2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_input_and_outputs_have_their_names(name: str, out: Path) -> None:
    with open_runner(out / "artifacts" / name, NAMES[name].format) as runner:
        assert runner.input_name == "image"
        extra = ("features",) if NAMES[name].format == "tfjs" else ()
        assert runner.output_names == tuple(sorted((*LABELS, *extra)))


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_say_what_the_file_holds(name: str, out: Path, one: small_models.Small) -> None:
    folder = out / "artifacts" / name
    card = Card.read(folder / "card.json")
    assert card == dataclasses.replace(artifact_card(one.card, NAMES[name]), outputs=card.outputs)
    assert [each.name for each in card.outputs] == ["apple", "zebra"]
    assert card.precision == NAMES[name].precision
    for head, labels in LABELS.items():
        content = (folder / f"labels.{head}.txt").read_bytes()
        assert content == ("\n".join(labels) + "\n").encode()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert name in readme and "`apple`" in readme and "`zebra`" in readme and card.input_dtype in readme
    assert (folder / FORMATS[NAMES[name].format].file).is_file()


def test_one_head_with_labels_has_a_plain_labels_file(one: small_models.Small) -> None:
    apple, zebra = one.card.outputs
    assert labels_files(dataclasses.replace(one.card, outputs=(apple,))) == {"labels.txt": LABELS["apple"]}
    angle = Output("angle", "linear", "regression", (1,), activation="linear")
    assert labels_files(dataclasses.replace(one.card, outputs=(angle, zebra))) == {"labels.txt": LABELS["zebra"]}
    near = Output("near", "embedding", "embedding", (8,), activation="unit_length", labels=LABELS["apple"])
    mask = dataclasses.replace(apple, name="mask", task="segmentation", shape=(4, 4, 5))
    assert labels_files(dataclasses.replace(one.card, outputs=(near, zebra))) == {"labels.txt": LABELS["zebra"]}
    assert set(labels_files(dataclasses.replace(one.card, outputs=(mask, zebra)))) == {
        "labels.mask.txt",
        "labels.zebra.txt",
    }
    assert set(labels_files(one.card)) == {"labels.apple.txt", "labels.zebra.txt"}


@pytest.mark.parametrize("name", FLOAT32, ids=str)
def test_one_head_and_no_cut(name: ArtifactName, one: small_models.Small, single: Path, tmp_path: Path) -> None:
    card = dataclasses.replace(one.card, outputs=(one.card.output("zebra"),), cut=())
    folder = export_artifact(name, single, card, tmp_path, one.calibration_images)
    with open_runner(folder, name.format) as runner:
        assert runner.output_names == ("zebra",)
        answers = runner.predict(one.images[:20])
    assert np.abs(answers["zebra"] - one.reference["zebra"][:20]).max() < 1e-4
    assert (folder / "labels.txt").is_file()


@pytest.fixture(scope="session")
def single(work: Path, one: small_models.Small) -> Path:
    model = keras.Model(one.model.inputs, {"zebra": one.model.get_layer("zebra").output})
    return write_saved_model(model, None, work / "single")


@pytest.fixture(scope="session")
def features(one: small_models.Small) -> np.ndarray:
    model = keras.Model(one.model.inputs, one.model.get_layer(CUT).output)
    return np.asarray(model(one.images[:6].astype(np.float32), training=False))


def test_tfjs_carries_the_cut_point_s_features(out: Path, one: small_models.Small, features: np.ndarray) -> None:
    with open_runner(out / "artifacts" / "tfjs-float32", "tfjs") as runner:
        found = runner.predict(one.images[:6], outputs=("features",))["features"]
    assert found.shape == (6, 8, 8, 96) and features.std() > 0.1
    np.testing.assert_allclose(found, features, atol=1e-4)


@pytest.mark.parametrize("name", [each for each in FLOAT32 if not FORMATS[each.format].carries_features], ids=str)
def test_the_others_carry_features_when_asked(
    name: ArtifactName, with_features: Path, one: small_models.Small, features: np.ndarray, tmp_path: Path
) -> None:
    answers = answers_of(
        export_artifact(name, with_features, one.card, tmp_path, one.calibration_images), one.images[:6]
    )
    assert set(answers) == {"apple", "features", "zebra"}
    np.testing.assert_allclose(answers["features"], features, atol=1e-4)
    np.testing.assert_allclose(answers["zebra"], one.reference["zebra"][:6], atol=1e-4)


@pytest.fixture(scope="session")
def with_features(work: Path, one: small_models.Small) -> Path:
    return write_saved_model(one.model, CUT, work / "with_features", features_everywhere=True)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("tflite")])
def test_the_batch_is_free(name: str, out: Path, one: small_models.Small) -> None:
    with open_runner(out / "artifacts" / name, NAMES[name].format) as runner:
        together = runner.predict(one.images[:5])
        alone = [runner.predict(image[None]) for image in one.images[:5]]
    for head in LABELS:
        assert together[head].shape == (5, 5)
        rows = np.concatenate([each[head] for each in alone])
        np.testing.assert_allclose(rows, together[head], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_uint8_and_float_pixels_are_the_same_pixels(name: str, out: Path, one: small_models.Small) -> None:
    with open_runner(out / "artifacts" / name, NAMES[name].format) as runner:
        as_bytes, as_floats = runner.predict(one.images[:4]), runner.predict(one.images[:4].astype(np.float32))
    for head in LABELS:
        np.testing.assert_array_equal(as_bytes[head], as_floats[head])


def tfjs_weights(folder: Path) -> dict[str, int]:
    """Bytes of weights by the dtype in which they are stored."""
    sizes: dict[str, int] = collections.Counter()
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        for weight in group["weights"]:
            stored = weight.get("quantization", weight)["dtype"]
            width = {"float32": 4, "int32": 4, "float16": 2, "uint16": 2, "uint8": 1}[stored]
            sizes[stored] += int(np.prod(weight["shape"])) * width
    return sizes


def tflite_weights(folder: Path) -> dict[str, int]:
    """Bytes of constants by dtype; what has no data yet before anything was computed is no constant."""
    interpreter = Interpreter(str(folder / "model.tflite"))
    sizes: dict[str, int] = collections.Counter()
    for tensor in interpreter.get_tensor_details():
        try:
            values = interpreter.get_tensor(tensor["index"])
        except ValueError:
            continue
        sizes[str(values.dtype)] += values.nbytes
    return sizes


def onnx_weights(folder: Path) -> dict[str, int]:
    """Bytes of initializers by dtype."""
    sizes: dict[str, int] = collections.Counter()
    for initializer in onnx.load(folder / "model.onnx").graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        sizes[str(values.dtype)] += values.nbytes
    return sizes


WEIGHTS = {"tfjs": tfjs_weights, "tflite": tflite_weights, "onnx": onnx_weights}
STORED_AS = {each: each for each in ("float32", "float16", "uint8", "uint16", "int8")}
STORED_AS |= {"dynamic_int8": "int8", "int16x8": "int8"}


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_stored_in_their_precision(name: str, out: Path, one: small_models.Small) -> None:
    sizes = WEIGHTS[NAMES[name].format](out / "artifacts" / name)
    stored = STORED_AS[NAMES[name].precision]
    width = np.dtype(stored).itemsize
    # TFLite's dynamic range quantises only what gains by it: kernels of 1024 values and more.
    least = 1024 if name == "tflite-dynamic_int8" else 1
    kernels = sum(weights.size for weights in one.model.get_weights() if weights.ndim > 1 and weights.size >= least)
    assert kernels > 2000 and sizes[stored] >= kernels * width
    if least == 1 and stored != "float32":
        assert sizes["float32"] <= 0.3 * kernels * 4, "the weights are stored as float32 besides"


def test_smaller_precisions_make_smaller_files(out: Path) -> None:
    def size(name: str) -> int:
        return sum(path.stat().st_size for path in (out / "artifacts" / name).glob("*.bin"))

    assert size("tfjs-float16") < 0.55 * size("tfjs-float32")
    assert size("tfjs-uint8") < 0.36 * size("tfjs-float32")
    for name, largest_share in (("tflite-float16", 0.8), ("tflite-dynamic_int8", 0.8), ("tflite-int8", 0.8)):
        smaller, plain = (
            (out / "artifacts" / each / "model.tflite").stat().st_size for each in (name, "tflite-float32")
        )
        assert smaller < largest_share * plain, name
    small, plain = (
        (out / "artifacts" / f"onnx-{each}" / "model.onnx").stat().st_size for each in ("dynamic_int8", "float32")
    )
    assert small < 0.6 * plain


def test_tflite_int8_takes_and_gives_bytes_and_computes_in_integers(out: Path) -> None:
    interpreter = Interpreter(str(out / "artifacts" / "tflite-int8" / "model.tflite"))
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    signature = interpreter.get_signature_runner("serving_default")
    (name, details), *others = signature.get_input_details().items()
    assert (name, others, details["dtype"], details["quantization"]) == ("image", [], np.uint8, (1.0, 0))
    assert {head: each["dtype"] for head, each in signature.get_output_details().items()} == {
        "apple": np.uint8,
        "zebra": np.uint8,
    }
    floats = [each["name"] for each in interpreter.get_tensor_details() if each["dtype"] in (np.float32, np.float16)]
    assert floats == []


@pytest.mark.parametrize("precision", [each for each in FORMATS["tflite"].precisions if each != "int8"])
def test_tflite_in_other_precisions_takes_and_gives_floats(precision: str, out: Path) -> None:
    interpreter = Interpreter(str(out / "artifacts" / f"tflite-{precision}" / "model.tflite"))
    signature = interpreter.get_signature_runner("serving_default")
    details = [*signature.get_input_details().values(), *signature.get_output_details().values()]
    assert {each["dtype"] for each in details} == {np.float32}


def test_heads_that_do_not_classify_answer_in_float32_from_int8(
    work: Path, one: small_models.Small, tmp_path: Path
) -> None:
    outputs = (dataclasses.replace(one.card.output("apple"), task="regression", labels=()), one.card.output("zebra"))
    card = dataclasses.replace(one.card, outputs=outputs)
    name = ArtifactName("tflite", "int8")
    folder = export_artifact(name, small_models.saved_model(work), card, tmp_path, one.calibration_images)
    signature = Interpreter(str(folder / "model.tflite")).get_signature_runner("serving_default")
    assert next(iter(signature.get_input_details().values()))["dtype"] == np.uint8
    found = {head: each["dtype"] for head, each in signature.get_output_details().items()}
    assert found == {"apple": np.float32, "zebra": np.uint8}
    assert {each.name: each.dtype for each in Card.read(folder / "card.json").outputs} == {
        "apple": "float32",
        "zebra": "uint8",
    }


def test_the_card_s_dtypes_are_those_of_the_file(one: small_models.Small) -> None:
    for name in EVERY_ARTIFACT:
        integer = name == ArtifactName("tflite", "int8")
        card = artifact_card(one.card, name)
        assert card.input_dtype == ("uint8" if integer else "float32")
        assert {each.dtype for each in card.outputs} == {card.input_dtype}


def test_dull_calibration_images_still_give_a_scale_of_one(work: Path, one: small_models.Small, tmp_path: Path) -> None:
    dull = np.clip(one.calibration_images[:8], 60, 180)
    before = dull.copy()
    name = ArtifactName("tflite", "int8")
    folder = export_artifact(name, small_models.saved_model(work), one.card, tmp_path, dull)
    details = Interpreter(str(folder / "model.tflite")).get_input_details()[0]
    assert details["quantization"] == (1.0, 0)
    np.testing.assert_array_equal(dull, before)


def test_the_full_range_is_added_only_where_it_is_missing() -> None:
    dull = np.full((2, 4, 4, 3), 100, np.uint8)
    widened = with_full_range(dull)
    assert widened[0].min() == 0 and widened[0].max() == 255 and (widened != dull).sum() == 6
    assert (dull == 100).all() and with_full_range(widened) is widened
    apart = dull.copy()
    apart[0, 0, 0], apart[1, 0, 0] = 0, 255
    widened = with_full_range(apart)
    assert any(image.min() == 0 and image.max() == 255 for image in widened)


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8"])
def test_int8_without_calibration_images_is_an_input_error(
    name: str, work: Path, one: small_models.Small, tmp_path: Path
) -> None:
    none = one.calibration_images[:0]
    with pytest.raises(InputError, match=f"no calibration images for {name}"):
        export_artifact(NAMES[name], small_models.saved_model(work), one.card, tmp_path, none)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", FORMATS["onnx"].precisions)
def test_onnx_is_what_the_runtimes_want(precision: str, out: Path) -> None:
    model = onnx.load(out / "artifacts" / f"onnx-{precision}" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {each.domain: each.version for each in model.opset_import}[""] == 17
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}, "operators that only onnxruntime knows"
    (image,) = model.graph.input
    batch, *rest = image.type.tensor_type.shape.dim
    assert not batch.HasField("dim_value") and [each.dim_value for each in rest] == [SIDE_PX, SIDE_PX, 3]
    assert {each.type.tensor_type.elem_type for each in (image, *model.graph.output)} == {onnx.TensorProto.FLOAT}


def test_onnx_int8_has_a_scale_for_each_channel(out: Path) -> None:
    model = onnx.load(out / "artifacts" / "onnx-int8" / "model.onnx")
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    kernels = [name for name, values in constants.items() if values.dtype == np.int8 and values.ndim == 4]
    scales = {
        node.input[0]: constants[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    assert len(kernels) == 5
    assert all(scales[name].shape == (max(constants[name].shape[:1]),) for name in kernels)
    assert all(np.ptp(scales[name]) > 0 for name in kernels)


def test_tfjs_says_which_output_is_which(out: Path) -> None:
    model = json.loads((out / "artifacts" / "tfjs-float32" / "model.json").read_text(encoding="utf-8"))
    assert list(model["signature"]["inputs"]) == ["image"]
    assert list(model["signature"]["outputs"]) == ["apple", "features", "zebra"]
    assert model["userDefinedMetadata"]["structuredOutputKeys"] == ["apple", "features", "zebra"]
    card = Card.read(out / "artifacts" / "tfjs-float32" / "card.json")
    assert Card.from_json(model["userDefinedMetadata"]["card"]) == card
    assert not {"BatchNormalization", "FusedBatchNormV3"} & {node["op"] for node in model["modelTopology"]["node"]}


def test_the_stand_ins_of_tensorflowjs_are_gone_again(out: Path) -> None:
    for name in ("jax", "tensorflow_hub", "tf_keras", "tensorflow_decision_forests"):
        assert getattr(sys.modules.get(name), "__file__", "real") is not None
        assert name not in sys.modules or sys.modules[name].__spec__ is not None


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_export_makes_the_same_bytes(
    name: str, out: Path, work: Path, one: small_models.Small, tmp_path: Path
) -> None:
    saved = small_models.inference_models(work).saved_model(NAMES[name].precision)
    again = export_artifact(NAMES[name], saved, one.card, tmp_path, one.calibration_images)
    first, second = content_of(out / "artifacts" / name), content_of(again)
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []


EXPORT_ELSEWHERE = """
import json, sys
from pathlib import Path
import numpy as np
from exporters.contract import Card, parse_formats
from exporters.export import export_artifact
saved, (card, images, out) = json.loads(sys.argv[1]), map(Path, sys.argv[2:])
for name in parse_formats(list(saved)):
    export_artifact(name, Path(saved[str(name)]), Card.read(card), out, np.load(images))
"""


@pytest.mark.slow
def test_another_process_makes_the_same_bytes(out: Path, work: Path, one: small_models.Small, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", one.calibration_images)
    models = small_models.inference_models(work)
    saved = {name: str(models.saved_model(NAMES[name].precision)) for name in NAMES}
    arguments = [json.dumps(saved), out / "card.json", tmp_path / "images.npy", tmp_path / "artifacts"]
    command = [sys.executable, "-c", EXPORT_ELSEWHERE, *map(str, arguments)]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True)
    for name in NAMES:
        assert content_of(tmp_path / "artifacts" / name) == content_of(out / "artifacts" / name), name


def break_exporter(monkeypatch: pytest.MonkeyPatch, format_name: str, fault: BaseException) -> None:
    """Let a format's exporter write its file and half of another, and then raise."""
    module, _, attribute = FORMATS[format_name].exporter.partition(":")

    def export(saved_model_dir: Path, card: Card, out: Path, **options: object) -> None:
        (out / FORMATS[format_name].file).write_bytes(b"half")
        raise fault

    monkeypatch.setattr(importlib.import_module(module), attribute, export)


@pytest.mark.parametrize("fault", [RuntimeError("broken"), KeyboardInterrupt(), InputError("wrong")], ids=repr)
@pytest.mark.parametrize("format_name", FORMATS)
def test_an_exporter_that_breaks_half_way_leaves_nothing(
    format_name: str, fault: BaseException, one: small_models.Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_exporter(monkeypatch, format_name, fault)
    with pytest.raises(type(fault)):
        export_artifact(ArtifactName(format_name, "float32"), tmp_path, one.card, tmp_path / "artifacts", np.empty(0))
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_an_exporter_that_breaks_leaves_the_earlier_artifact(
    one: small_models.Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "onnx-float32"
    earlier.mkdir()
    (earlier / "model.onnx").write_bytes(b"earlier")
    break_exporter(monkeypatch, "onnx", RuntimeError("broken"))
    with pytest.raises(RuntimeError):
        export_artifact(ArtifactName("onnx", "float32"), tmp_path, one.card, tmp_path, np.empty(0))
    assert content_of(tmp_path) == {"onnx-float32/model.onnx": b"earlier"}


def test_papers_that_cannot_be_written_leave_nothing(
    one: small_models.Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("exporters.onnx.export", lambda *a, **k: (a[2] / "model.onnx").write_bytes(b"whole"))
    monkeypatch.setattr("exporters.export.write_papers", full)
    with pytest.raises(OSError, match="No space"):
        export_artifact(ArtifactName("onnx", "float32"), tmp_path, one.card, tmp_path, np.empty(0))
    assert list(tmp_path.iterdir()) == []


def test_a_new_artifact_replaces_the_old_one_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "place", tmp_path / "new"
    for folder, file in ((old, "stale.bin"), (new, "fresh.bin")):
        folder.mkdir()
        (folder / file).write_bytes(b"1")
    assert move_into_place(new, old) == old
    assert content_of(tmp_path) == {"place/fresh.bin": b"1"}


def test_the_keras_runner_reads_files_and_models_in_batches(out: Path, one: small_models.Small) -> None:
    with KerasRunner(out / "model.keras") as runner:
        found = runner.predict(one.images[:70])
        assert runner.predict(one.images[:0]) == {}
    assert list(found) == ["apple", "zebra"]
    for head in LABELS:
        np.testing.assert_allclose(found[head], one.reference[head][:70], atol=1e-6)
    nameless = keras.Model(one.model.inputs, one.model.get_layer("zebra").output)
    with KerasRunner(nameless) as runner:
        np.testing.assert_allclose(runner.predict(one.images[:3])["zebra"], one.reference["zebra"][:3], atol=1e-6)
