"""The audit's readers find in real artifacts what the Keras model has, and refuse whatever is no whole model."""

from __future__ import annotations

import collections
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnxruntime import quantization

from exporters import onnx as onnx_exporter
from exporters import tfjs as tfjs_exporter
from exporters import tflite as tflite_exporter
from exporters.audit import onnx as onnx_reader
from exporters.audit import tfjs as tfjs_reader
from exporters.audit import tflite as tflite_reader
from exporters.audit.contents import CONV, DENSE, DEPTHWISE, LINEAR, RELU, RELU6, Contents, Layer
from exporters.contract import WHOLE_NUMBERS, ArtifactName
from exporters.errors import ParityError
from tests import audit_models, small_models
from tests.small_models import EVERY_ARTIFACT

READERS = {"tflite": tflite_reader.read, "onnx": onnx_reader.read, "tfjs": tfjs_reader.read}
EXPORTERS = {"tflite": tflite_exporter.export, "onnx": onnx_exporter.export, "tfjs": tfjs_exporter.export}
MODEL_FILES = {"tflite": "model.tflite", "onnx": "model.onnx", "tfjs": "model.json"}
NAMES = {str(name): name for name in EVERY_ARTIFACT if name.format in READERS}
INT8 = [name for name in NAMES if NAMES[name].precision == "int8"]
KINDS = {keras.layers.Conv2D: CONV, keras.layers.DepthwiseConv2D: DEPTHWISE, keras.layers.Dense: DENSE}
# Precision -> how kernels and biases are stored; TFLite leaves kernels of less than 1024 values alone in dynamic_int8.
STORED = {
    "float32": ("float32", "float32"),
    "float16": ("float16", "float16"),
    "uint8": ("uint8", "float32"),
    "uint16": ("uint16", "float32"),
    "dynamic_int8": ("int8", "float32"),
    "int8": ("int8", "int32"),
    "int16x8": ("int8", "int64"),
}
LEFT_ALONE = 1024
BRANCHED = [
    *("tflite-float32", "tflite-int8", "onnx-float32", "onnx-dynamic_int8", "onnx-int8", "tfjs-float32", "tfjs-uint8"),
    *("tfjs-uint16", "tflite-int16x8"),
]
FAULTS_OF_EACH = 60


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def folder_of(session_folder: Path, name: str) -> Path:
    return small_models.result_folder(session_folder) / "artifacts" / name


@functools.cache
def contents_of(session_folder: Path, name: str) -> Contents:
    return READERS[NAMES[name].format](folder_of(session_folder, name))


@functools.cache
def branched_contents(session_folder: Path, name: str, groups: int = 1, first_padding: str = "same") -> Contents:
    one, out = ArtifactName(*name.split("-")), session_folder / f"branched {groups} {first_padding} as {name}"
    out.mkdir()
    EXPORTERS[one.format](
        audit_models.branched_saved_model(session_folder, groups, first_padding),
        audit_models.CARD,
        out,
        precision=one.precision,
        calibration_images=audit_models.branched_images(),
    )
    return READERS[one.format](out)


def weighted(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if type(layer) in KINDS]


def layer_of(found: Layer, layers: list[keras.layers.Layer]) -> keras.layers.Layer:
    """The Keras layer of the same kind and shape whose kernel is nearest."""
    fitting = [each for each in layers if KINDS[type(each)] == found.kind]
    fitting = [each for each in fitting if each.get_weights()[0].shape == found.kernel.values.shape]
    assert fitting, f"{found.name}: no {found.kind} of shape {found.kernel.values.shape}"
    return min(fitting, key=lambda each: np.abs(each.get_weights()[0] - found.kernel.values).max())


def allowed(constant, expected: np.ndarray) -> np.ndarray:
    """Half a step, the rounding of float16, that of float32."""
    relative = 2.0**-11 if constant.dtype == "float16" else 0.0
    return 0.501 * constant.step + relative * np.abs(expected) + 1e-6 * max(1.0, np.abs(expected).max())


def check_layers(found: tuple[Layer, ...], model: keras.Model) -> list[str]:
    """Hold each layer against the Keras layer that it must be, and return the names of these in the order found."""
    layers, names = weighted(model), []
    assert len(found) == len(layers)
    for each in found:
        layer = layer_of(each, layers)
        kernel, *bias = layer.get_weights()
        assert (np.abs(each.kernel.values - kernel) <= allowed(each.kernel, kernel)).all(), layer.name
        assert each.kernel.values.dtype == each.kernel.step.dtype == np.float32
        np.broadcast_to(each.kernel.step, kernel.shape)
        if bias:
            assert each.bias.values.shape == bias[0].shape
            assert (np.abs(each.bias.values - bias[0]) <= allowed(each.bias, bias[0])).all(), layer.name
        else:
            # A regression that is counted in shares of its columns' ranges has one to move them by, and none is left of it.
            none = np.zeros_like(each.bias.values) if each.bias else None
            assert each.bias is None or (np.abs(each.bias.values) <= allowed(each.bias, none)).all(), layer.name
        names.append(layer.name)
    return names


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_are_those_of_the_keras_model(name: str, session_folder: Path) -> None:
    model = small_models.inference_models(session_folder).model(NAMES[name].precision)
    contents = contents_of(session_folder, name)
    names = check_layers(contents.layers, model)
    assert names[:5] == ["first", "deep", "point", "deep_2", "point_2"]
    assert set(names[5:]) == {"zebra", "apple"}
    wanted = [CONV, DEPTHWISE, CONV, DEPTHWISE, CONV, DENSE, DENSE]
    assert [layer.kind for layer in contents.layers] == wanted


@pytest.mark.parametrize("name", NAMES)
def test_activations_behind_layers(name: str, session_folder: Path) -> None:
    layers = contents_of(session_folder, name).layers
    for layer in layers[:5]:
        if name == "onnx-int8":
            # The quantiser drops a ReLU6 where the stored numbers cannot stand for anything outside of it.
            limits, stored = np.iinfo(layer.output_quantisation.dtype), layer.output_quantisation
            low, high = ((limit - stored.zero_point[0]) * stored.scale[0] for limit in (limits.min, limits.max))
            assert layer.activation == LINEAR and low == 0 and high <= 6.0001
        else:
            assert layer.activation == RELU6
    assert [layer.activation for layer in layers[5:]] == ["softmax", "softmax"]


@pytest.mark.parametrize("name", NAMES)
def test_dtypes_and_steps(name: str, session_folder: Path) -> None:
    contents, tally = contents_of(session_folder, name), collections.Counter()
    kernel_dtype, bias_dtype = STORED[NAMES[name].precision]
    for layer in contents.layers:
        small = name == "tflite-dynamic_int8" and layer.kernel.values.size < LEFT_ALONE
        assert layer.kernel.dtype == ("float32" if small else kernel_dtype), layer.name
        assert layer.bias.dtype == bias_dtype
        for constant in (layer.kernel, layer.bias):
            tally[constant.dtype] += constant.values.size
            assert bool(np.all(constant.step > 0)) == ("int" in constant.dtype)
            # In int64 the steps are finer than the float32 in which values are given.
            if constant.step.any() and constant.dtype != "int64":
                steps = constant.values.astype(np.float64) / constant.step
                assert np.abs(steps - np.rint(steps)).max() < 0.02, "a value is a whole number of steps"
        if "int" in layer.kernel.dtype:
            channels = layer.bias.values.size
            assert layer.kernel.step.size == channels, "one scale for each channel"
    assert dict(contents.weights) == dict(tally)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_have_their_public_names(name: str, session_folder: Path) -> None:
    contents, integers = contents_of(session_folder, name), name == "tflite-int8"
    (image,) = contents.inputs
    assert (image.name, image.shape) == ("image", (None, 32, 32, 3))
    assert image.dtype == ("uint8" if integers else "float32")
    heads = {port.name: port for port in contents.outputs if port.name != "features"}
    assert sorted(heads) == ["apple", "zebra"]
    assert ("features" in [port.name for port in contents.outputs]) == (NAMES[name].format == "tfjs")
    for port in heads.values():
        assert port.shape == (None, 5) and port.dtype == image.dtype
    if integers:
        assert (image.quantisation.scale, image.quantisation.zero_point) == (1.0, 0)
        assert heads["apple"].quantisation.scale == pytest.approx(1 / 256)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_computed_in_which_dtype(name: str, session_folder: Path) -> None:
    contents = contents_of(session_folder, name)
    expected = {
        "tflite-int8": {"int8", "uint8"},
        "tflite-int16x8": {"int16", "float32"},
        "onnx-int8": {"uint8"},
        "onnx-float16": {"float16", "float32"},
    }.get(name, {"float32"})
    assert set(contents.activations) == expected
    quantised = [layer for layer in contents.layers if layer.output_quantisation is not None]
    assert len(quantised) == (7 if NAMES[name].precision in WHOLE_NUMBERS else 0)
    if name == "tflite-int16x8":
        assert contents.activations["float32"] == 2, "the two answers"
    if name == "onnx-float16":
        assert contents.activations["float32"] == 2, "the casts to the two answers"
    if name == "tflite-int8":
        assert contents.activations["uint8"] == 2, "the two answers"


@pytest.mark.parametrize("name", NAMES)
def test_operators_as_others_count_them(name: str, session_folder: Path) -> None:
    contents, folder = contents_of(session_folder, name), folder_of(session_folder, name)
    if NAMES[name].format == "tflite":
        details = Interpreter(
            str(folder / "model.tflite"), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )._get_ops_details()
        names = [each["op_name"] for each in details]
    elif NAMES[name].format == "onnx":
        names = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    else:
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        names = [node["op"] for node in model["modelTopology"]["node"]]
    assert dict(contents.operators) == dict(collections.Counter(names))
    assert contents.opset == (17 if NAMES[name].format == "onnx" else None)
    assert contents.custom_operators == contents.random_operators == ()


@pytest.mark.parametrize("name", NAMES)
def test_other_constants_are_the_pixel_scaling_and_the_bounds_of_relu6(name: str, session_folder: Path) -> None:
    contents = contents_of(session_folder, name)
    values = sorted(float(each.values.reshape(())) for each in contents.constants)
    expected = [-1.0, 1 / 127.5]
    if name in ("onnx-float32", "onnx-float16", "onnx-dynamic_int8"):
        expected = [-1.0, 0.0, 1 / 127.5, 6.0]
    assert values == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", BRANCHED)
def test_a_branched_model(name: str, session_folder: Path) -> None:
    contents = branched_contents(session_folder, name)
    names = check_layers(contents.layers, audit_models.branched())
    assert names[:5] == ["first", "flat", "multiplied", "valid", "hidden"]
    assert set(names[5:]) == {"angle", "kind"}
    activations = dict(zip(names, [layer.activation for layer in contents.layers], strict=True))
    assert (activations["kind"], activations["angle"], activations["flat"]) == ("softmax", LINEAR, LINEAR)
    if name != "onnx-int8":
        assert [activations[each] for each in ("first", "multiplied", "valid", "hidden")] == [RELU, RELU6, RELU6, RELU]
    assert not contents.custom_operators and not contents.random_operators
    if NAMES[name].precision in WHOLE_NUMBERS:
        # A regression is answered in float32, and nothing else; shapes are worked out in int32 and int64.
        assert contents.activations.get("float32", 0) == (2 if name == "tflite-int16x8" else 1)
        unrounded = [each for each, layer in zip(names, contents.layers, strict=True) if not layer.output_quantisation]
        assert unrounded == (["angle"] if name == "onnx-int8" else [])


@pytest.mark.parametrize("name", ["tflite-float32", "tflite-int8"])
def test_a_grouped_convolution(name: str, session_folder: Path) -> None:
    names = check_layers(branched_contents(session_folder, name, groups=2).layers, audit_models.branched(2))
    assert names[3] == "valid"


def test_tflite_takes_the_pixel_scaling_into_a_first_convolution_that_pads_nothing(session_folder: Path) -> None:
    contents = branched_contents(session_folder, "tflite-float32", first_padding="valid")
    kernel, bias = audit_models.branched(first_padding="valid").get_layer("first").get_weights()
    first = contents.layers[0]
    np.testing.assert_allclose(first.kernel.values, kernel / 127.5, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(first.bias.values, bias - kernel.sum((0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert contents.constants == ()


def test_tflite_biases_have_the_scale_that_the_file_notes_too(session_folder: Path) -> None:
    path = folder_of(session_folder, "tflite-int8") / "model.tflite"
    noted = {
        tuple(each["quantization_parameters"]["scales"])
        for each in Interpreter(str(path)).get_tensor_details()
        if each["dtype"] == np.int32 and len(each["quantization_parameters"]["scales"])
    }
    for layer in contents_of(session_folder, "tflite-int8").layers:
        assert any(
            len(scales) == layer.bias.step.size and np.allclose(scales, layer.bias.step, rtol=1e-5) for scales in noted
        )


def test_a_float_operator_within_an_int8_tflite_model_shows(session_folder: Path, tmp_path: Path) -> None:
    one = small_models.small()
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(small_models.saved_model(session_folder)), signature_keys=["serving_default"]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    images = one.calibration_images[:8]
    converter.representative_dataset = lambda: ({"image": each[None].astype(np.float32)} for each in images)
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["DEPTHWISE_CONV_2D"])
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
    )
    (tmp_path / "model.tflite").write_bytes(debugger.get_nondebug_quantized_model())
    contents = tflite_reader.read(tmp_path)
    assert contents.activations["float32"] >= 4 and contents.activations["int8"] > 4
    floating = [layer.kind for layer in contents.layers if layer.output_quantisation is None]
    assert floating == [DEPTHWISE, DEPTHWISE]


def test_a_float_operator_within_an_int8_onnx_model_shows(session_folder: Path, tmp_path: Path) -> None:
    source = onnx.load(folder_of(session_folder, "onnx-float32") / "model.onnx")
    excluded = next(node for node in source.graph.node if node.op_type == "Conv" and node.name)
    images = small_models.small().calibration_images[:4].astype(np.float32)

    class Images(quantization.CalibrationDataReader):
        left = iter([{"image": each[None]} for each in images])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    onnx.save(source, tmp_path / "float.onnx")
    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "model.onnx", Images(), nodes_to_exclude=[excluded.name], per_channel=True
    )
    contents = onnx_reader.read(tmp_path)
    assert contents.activations["float32"] == 2, "the convolution and the ReLU6 behind it"
    assert [layer.name for layer in contents.layers if layer.kernel.dtype == "float32"] == [excluded.name]


def test_onnx_numbers_in_another_file_are_refused(session_folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder_of(session_folder, "onnx-float32") / "model.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="numbers", size_threshold=100)
    with pytest.raises(ParityError, match="outside"):
        onnx_reader.read(tmp_path)


def damaged(content: bytes, kind: int, generator: np.random.Generator) -> bytes:
    """Cut off, bits turned, bytes of the structure at either end replaced, or a stretch overwritten with noise."""
    if kind == 0:
        return content[: generator.integers(len(content))]
    changed = bytearray(content)
    if kind == 1:
        for _ in range(generator.integers(1, 20)):
            changed[generator.integers(len(changed))] ^= 1 << generator.integers(8)
    elif kind == 2:
        start = 0 if generator.integers(2) else max(0, len(changed) - 4000)
        for _ in range(generator.integers(1, 8)):
            changed[start + generator.integers(min(4000, len(changed) - start))] = generator.integers(256)
    else:
        start = int(generator.integers(len(changed)))
        end = min(len(changed), start + int(generator.integers(1, 400)))
        changed[start:end] = generator.integers(0, 256, end - start, dtype=np.uint8).tobytes()
    return bytes(changed)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_or_read_and_nothing_else(name: str, session_folder: Path, tmp_path: Path) -> None:
    generator, form = np.random.default_rng(9), NAMES[name].format
    folder = shutil.copytree(folder_of(session_folder, name), tmp_path / name)
    path = folder / MODEL_FILES[form]
    content, refused = path.read_bytes(), 0
    for index in range(FAULTS_OF_EACH):
        path.write_bytes(damaged(content, index % 4, generator))
        try:
            READERS[form](folder)
        except ParityError as fault:
            assert fault.expected and fault.mend
            refused += 1
    # Each fourth variant is cut off, and never whole.
    assert refused >= FAULTS_OF_EACH // 4


@pytest.mark.parametrize("form", READERS)
def test_no_file_or_one_of_another_kind_is_refused(form: str, tmp_path: Path) -> None:
    for content in (None, b"", b"{}", b"TFL3", b"\0" * 64, json.dumps({"format": "layers-model"}).encode()):
        if content is not None:
            (tmp_path / MODEL_FILES[form]).write_bytes(content)
        with pytest.raises(ParityError):
            READERS[form](tmp_path)


def test_tfjs_weights_that_end_too_early_are_refused(session_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(session_folder, "tfjs-float32"), tmp_path / "short")
    (shard,) = folder.glob("*.bin")
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(ParityError, match="end before"):
        tfjs_reader.read(folder)


def test_the_readers_load_no_trainer(session_folder: Path) -> None:
    """In a process of its own, which holds nothing but what they import."""
    folder = small_models.result_folder(session_folder) / "artifacts"
    program = (
        "import sys, pathlib\n"
        "from exporters.audit import onnx, tfjs, tflite\n"
        "for reader, name in ((onnx, 'onnx-int8'), (tfjs, 'tfjs-uint8'), (tflite, 'tflite-int8')):\n"
        "    assert reader.read(pathlib.Path(sys.argv[1]) / name).layers\n"
        "print(sorted({'keras', 'tensorflow', 'onnxruntime', 'tensorflowjs'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert answer.stdout.strip() == "[]"
