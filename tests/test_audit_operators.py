"""The audit's readers on files made for one feature each: how constants reach an operator, random and custom operators."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

from exporters.audit import onnx as onnx_reader
from exporters.audit import tfjs as tfjs_reader
from exporters.audit import tflite as tflite_reader
from exporters.audit.contents import CONV, DEPTHWISE, LINEAR, RELU, RELU6
from exporters.audit.tfjs_operators import FUSABLE, NO_BIAS, RUNNABLE
from exporters.errors import ParityError
from tests.audit_models import write_onnx, write_tfjs, write_tflite
from tests.tfjs_kernels import fusable_activations, runnable_operators

PACKAGES = Path(__file__).parents[1] / "web_demo" / "node_modules" / "@tensorflow"


def conv_weights(generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"kernel": generator.normal(size=(6, 4, 3, 3)).astype(np.float32), "bias": np.arange(6, dtype=np.float32)}


def test_onnx_constants_reach_their_operator_through_other_nodes(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    matrix = generator.normal(size=(6, 5)).astype(np.float32)
    weights = {
        "kernel": generator.normal(size=(3, 3, 4, 6)).astype(np.float16),
        "six": np.array(6, np.float16),
        "added": np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1),
        "matrix": np.rint(matrix.T * 20).astype(np.int8),
        "scale": np.linspace(0.04, 0.06, 5, dtype=np.float32),
        "zeros": np.zeros(5, np.int8),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Cast", ["kernel"], ["kernel32"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["kernel32"], ["turned"], perm=[3, 2, 0, 1]),
        helper.make_node("Identity", ["turned"], ["same"]),
        helper.make_node("Conv", ["image", "same"], ["plain"], name="conv"),
        helper.make_node("Add", ["plain", "added"], ["biased"]),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Cast", ["six"], ["six32"], to=TensorProto.FLOAT),
        helper.make_node("Clip", ["biased", "zero", "six32"], ["clipped"]),
        helper.make_node("ReduceMean", ["clipped"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("DequantizeLinear", ["matrix", "scale", "zeros"], ["real"], axis=0),
        helper.make_node("Gemm", ["pooled", "real"], ["answer"], transB=1, alpha=0.5, name="gemm"),
    ]
    conv, gemm = onnx_reader.read(write_onnx(tmp_path, nodes, weights)).layers
    np.testing.assert_array_equal(conv.kernel.values, weights["kernel"].astype(np.float32))
    np.testing.assert_array_equal(conv.bias.values, np.arange(6))
    assert (conv.name, conv.kernel.dtype, conv.activation, conv.output) == ("conv", "float16", RELU6, "clipped")
    wanted = 0.5 * (weights["matrix"] * weights["scale"][:, None].astype(np.float64)).T
    np.testing.assert_allclose(gemm.kernel.values, wanted, rtol=1e-6)
    np.testing.assert_allclose(gemm.kernel.step, 0.5 * weights["scale"][None], rtol=1e-6)
    assert (gemm.kernel.dtype, gemm.bias, gemm.activation) == ("int8", None, LINEAR)


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(0, 6, RELU6), (0, None, RELU), (0, 4, "clip"), (-1, 6, "clip"), (0, np.inf, RELU)]
)
def test_onnx_clip_is_the_activation_that_its_bounds_say(
    low: float, high: float | None, wanted: str, tmp_path: Path
) -> None:
    weights = conv_weights(np.random.default_rng(6)) | {"low": np.array(low, np.float32)}
    if high is not None:
        weights["high"] = np.array(high, np.float32)
    bounds = ["low"] if high is None else ["low", "high"]
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["plain"]),
        helper.make_node("Clip", ["plain", *bounds], ["answer"]),
    ]
    (layer,) = onnx_reader.read(write_onnx(tmp_path, nodes, weights)).layers
    assert layer.activation == wanted


def test_an_operator_that_others_take_too_has_no_activation(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["plain"]),
        helper.make_node("Relu", ["plain"], ["positive"]),
        helper.make_node("Add", ["plain", "positive"], ["answer"]),
    ]
    (layer,) = onnx_reader.read(write_onnx(tmp_path, nodes, conv_weights(np.random.default_rng(7)))).layers
    assert (layer.activation, layer.output) == (LINEAR, "plain")


def test_onnx_layers_stand_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["between", "kernel2"], ["answer"], name="second"),
        helper.make_node("Conv", ["image", "kernel"], ["between"], name="first"),
    ]
    weights = {"kernel": np.ones((4, 4, 1, 1), np.float32), "kernel2": np.ones((2, 4, 1, 1), np.float32)}
    layers = onnx_reader.read(write_onnx(tmp_path, nodes, weights)).layers
    assert [layer.name for layer in layers] == ["first", "second"]


def test_a_circle_of_operators_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["image", "there"], ["here"]),
        helper.make_node("Relu", ["here"], ["there"]),
        helper.make_node("Relu", ["here"], ["answer"]),
    ]
    with pytest.raises(ParityError, match="circle"):
        onnx_reader.read(write_onnx(tmp_path, nodes, {}))


RANDOM_ONNX = {
    "RandomNormalLike": (17, lambda: [helper.make_node("RandomNormalLike", ["image"], ["answer"])], {}),
    "Bernoulli": (17, lambda: [helper.make_node("Bernoulli", ["image"], ["answer"])], {}),
    "Dropout": (
        17,
        lambda: [helper.make_node("Dropout", ["image", "share", "training"], ["answer"])],
        {"share": np.array(0.2, np.float32), "training": np.array(True)},
    ),
    "BatchNormalization": (
        17,
        lambda: [
            helper.make_node("BatchNormalization", ["image", *"abcd"], ["answer", "mean", "variance"], training_mode=1)
        ],
        dict.fromkeys("abcd", np.ones(4, np.float32)),
    ),
}


@pytest.mark.parametrize("operator", RANDOM_ONNX)
def test_random_operators_in_onnx(operator: str, tmp_path: Path) -> None:
    opset, nodes, weights = RANDOM_ONNX[operator]
    folder = write_onnx(tmp_path, nodes(), weights, opset=opset)
    assert onnx_reader.read(folder).random_operators == (operator,)


def test_onnx_dropout_and_batch_norm_at_rest_are_not_random(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Dropout", ["image", "share", "training"], ["kept"]),
        helper.make_node("BatchNormalization", ["kept", *"abcd"], ["answer"]),
    ]
    weights = {"share": np.array(0.2, np.float32), "training": np.array(False)}
    weights |= dict.fromkeys("abcd", np.ones(4, np.float32))
    contents = onnx_reader.read(write_onnx(tmp_path, nodes, weights))
    assert contents.random_operators == ()
    assert contents.weights == {"float32": 16}


def test_operators_of_other_domains_are_custom_in_onnx(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gelu", ["image"], ["curved"], domain="com.microsoft"),
        helper.make_node("Gelu", ["curved"], ["answer"]),
    ]
    contents = onnx_reader.read(write_onnx(tmp_path, nodes, {}))
    # Gelu joined the standard in opset 20; a model of opset 17 has none.
    assert contents.custom_operators == ("Gelu", "com.microsoft.Gelu")
    assert contents.operators == {"Gelu": 1, "com.microsoft.Gelu": 1}


def test_random_and_custom_operators_in_tflite(tmp_path: Path) -> None:
    noisy = tf.function(lambda image: image + tf.random.uniform((1, 4)))
    contents = tflite_reader.read(write_tflite(noisy, tmp_path / "noisy"))
    assert (contents.random_operators, contents.custom_operators) == (("RANDOM_UNIFORM",), ())
    foreign = tf.function(lambda image: image + tf.random.gamma((1, 4), 1.0))
    contents = tflite_reader.read(write_tflite(foreign, tmp_path / "foreign", flex=True))
    assert contents.custom_operators == contents.random_operators == ("FlexRandomGamma",)


def node(name: str, operator: str, *inputs: str, **attributes: dict) -> dict:
    return {"name": name, "op": operator, "input": list(inputs), "attr": {"T": {"type": "DT_FLOAT"}, **attributes}}


def weight(name: str, values: np.ndarray, scale: float = 0.0, least: float = 0.0) -> tuple[dict, bytes]:
    entry = {"name": name, "shape": list(values.shape), "dtype": "float32"}
    if scale:
        entry["quantization"] = {"dtype": str(values.dtype), "scale": scale, "min": least, "original_dtype": "float32"}
    return entry, values.tobytes()


def test_tfjs_layers_of_unfused_operators(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    conv = generator.integers(0, 65536, (3, 3, 4, 6), dtype=np.uint16)
    deep = generator.integers(0, 256, (3, 3, 6, 1), dtype=np.uint8)
    scale = np.linspace(0.01, 0.02, 6, dtype=np.float32).reshape(1, 1, 6, 1)
    matrix = generator.normal(size=(5, 6)).astype(np.float32)
    bias = np.arange(6, dtype=np.float32)
    nodes = [
        # The product stands last, as the exporter's own does.
        node("conv", "Conv2D", "image", "a"),
        node("biased", "BiasAdd", "conv", "b"),
        node("clipped", "Relu6", "biased"),
        node("deep", "DepthwiseConv2dNative", "clipped", "product"),
        node("pooled", "Mean", "deep", "axes"),
        node("dense", "MatMul", "pooled", "d:0", transpose_b={"b": True}),
        node("product", "Mul", "c", "scale"),
        node("answer", "Softmax", "dense"),
    ]
    weights = [
        weight("a", conv, 1e-4, -3.0),
        weight("b", bias),
        weight("c", deep, 1.0, -128.0),
        weight("scale", scale),
        weight("d", matrix),
        ({"name": "axes", "shape": [2], "dtype": "int32"}, np.array([1, 2], np.int32).tobytes()),
    ]
    contents = tfjs_reader.read(write_tfjs(tmp_path, nodes, weights))
    first, second, third = contents.layers
    np.testing.assert_allclose(first.kernel.values, conv * 1e-4 - 3.0, atol=1e-6)
    assert (first.kind, first.kernel.dtype, first.activation, first.output) == (CONV, "uint16", RELU6, "clipped")
    assert first.kernel.step == pytest.approx(1e-4)
    np.testing.assert_array_equal(first.bias.values, bias)
    np.testing.assert_allclose(second.kernel.values, (deep.astype(np.float32) - 128) * scale, rtol=1e-6)
    np.testing.assert_array_equal(second.kernel.step, scale)
    assert (second.kind, second.kernel.dtype, second.bias, second.activation) == (DEPTHWISE, "uint8", None, LINEAR)
    np.testing.assert_array_equal(third.kernel.values, matrix.T)
    assert (third.activation, third.output) == ("softmax", "answer")
    assert contents.constants == ()
    assert contents.weights == {"uint16": 216, "uint8": 54, "float32": 36}
    assert contents.activations == {"float32": 7}


def fused_with(*names: str) -> dict:
    """The attribute of a fused operator that says what it holds besides."""
    return {"list": {"s": [base64.b64encode(name.encode()).decode() for name in names]}}


def test_tfjs_layers_of_fused_operators(tmp_path: Path) -> None:
    kernel, bias = np.ones((1, 1, 4, 4), np.float32), np.arange(4, dtype=np.float32)
    nodes = [
        node("one", "_FusedConv2D", "image", "kernel", "bias", fused_ops=fused_with("BiasAdd", "Relu6")),
        node("answer", "_FusedConv2D", "one", "kernel", fused_ops=fused_with("NoOp", "Relu")),
    ]
    contents = tfjs_reader.read(write_tfjs(tmp_path, nodes, [weight("kernel", kernel), weight("bias", bias)]))
    first, second = contents.layers
    assert (first.activation, second.activation, second.bias) == (RELU6, RELU, None)
    np.testing.assert_array_equal(first.bias.values, bias)
    assert contents.custom_operators == ()


@pytest.mark.parametrize("fused", ["image", "one"])
def test_a_bias_that_tfjs_cannot_run_is_refused(fused: str, tmp_path: Path) -> None:
    """A skip connection or a lone number that the converter has taken for a bias."""
    nodes = [node("answer", "_FusedConv2D", "image", "kernel", fused, fused_ops=fused_with("BiasAdd"))]
    weights = [weight("kernel", np.ones((1, 1, 4, 4), np.float32)), weight("one", np.ones((), np.float32))]
    with pytest.raises(ParityError, match="no list of 4 stored numbers"):
        tfjs_reader.read(write_tfjs(tmp_path, nodes, weights))


def test_random_and_custom_operators_in_tfjs(tmp_path: Path) -> None:
    nodes = [
        node("conv", "_FusedConv2D", "image", "kernel", "bias", fused_ops=fused_with("BiasAdd", "_FusedHardSwish")),
        node("noise", "RandomStandardNormal", "conv"),
        node("fourier", "FFT", "noise"),
        node("unknown", "MatrixInverse", "fourier"),
        node("answer", "FusedBatchNormV3", "unknown", is_training={"b": True}),
    ]
    weights = [weight("kernel", np.ones((1, 1, 4, 2), np.float32)), weight("bias", np.ones(2, np.float32))]
    contents = tfjs_reader.read(write_tfjs(tmp_path, nodes, weights))
    assert contents.custom_operators == ("FFT", "MatrixInverse", "_FusedConv2D with _FusedHardSwish")
    assert contents.random_operators == ("FusedBatchNormV3", "RandomStandardNormal")


@pytest.mark.parametrize("place", ["../weights.bin", "/weights.bin", "sub/weights.bin", "..", ""])
def test_tfjs_weights_outside_the_folder_are_refused(place: str, tmp_path: Path) -> None:
    folder = write_tfjs(tmp_path / "model", [node("answer", "Relu", "image")], [])
    (tmp_path / "weights.bin").write_bytes(b"")
    path = folder / "model.json"
    path.write_text(path.read_text(encoding="utf-8").replace("weights.bin", place), encoding="utf-8")
    with pytest.raises(ParityError):
        tfjs_reader.read(folder)


def test_the_table_of_tfjs_operators_is_that_of_the_installed_packages() -> None:
    assert runnable_operators(PACKAGES) == RUNNABLE
    assert fusable_activations(PACKAGES) - {"linear"} == {each.lower() for each in FUSABLE - {"BiasAdd", NO_BIAS}}
