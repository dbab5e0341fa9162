"""Kernels of an ONNX graph in 8 bits: what is stored, what is left alone, and that the graph still answers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from exporters.onnx_weights import store_in_int8


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int]) -> onnx.ModelProto:
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", floats, shape)],
        [helper.make_tensor_value_info("y", floats, [None, None])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def on_the_grid(kernel: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    scale = np.abs(kernel).max(others, keepdims=True) / 127
    return (np.rint(kernel / scale) * scale).astype(np.float32)


def test_each_kind_of_layer_has_a_scale_for_each_of_its_own_channels() -> None:
    generator = np.random.default_rng(0)
    draw = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    constants = {"conv": draw(6, 3, 2, 2), "deep": draw(6, 1, 3, 3), "matrix": draw(6, 5), "turned": draw(4, 5)}
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"]),
        helper.make_node("Conv", ["a", "deep"], ["b"], group=6),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "matrix"], ["e"]),
        helper.make_node("Gemm", ["e", "turned"], ["y"], transB=1),
    ]
    axes = {"conv": 0, "deep": 0, "matrix": 1, "turned": 0}
    model = model_of(nodes, constants, [None, 3, 8, 8])
    store_in_int8(model)
    found = stored(model)
    for name, axis in axes.items():
        whole, scale = found[f"{name}_quantized"], found[f"{name}_scale"]
        assert whole.dtype == np.int8 and scale.size == constants[name].shape[axis] == scale.shape[axis]
        np.testing.assert_allclose(whole * scale, on_the_grid(constants[name], axis), rtol=1e-6)
    expected = model_of(
        nodes, {name: on_the_grid(each, axes[name]) for name, each in constants.items()}, [None, 3, 8, 8]
    )
    values = draw(3, 3, 8, 8)
    np.testing.assert_allclose(answer(model, values), answer(expected, values), rtol=1e-4, atol=1e-5)


def test_what_is_no_kernel_alone_is_left_as_it_is() -> None:
    shared, wide = np.ones((3, 3), np.float32), np.ones((3, 2), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"]),
        helper.make_node("Add", ["a", "shared"], ["b"]),
        helper.make_node("MatMul", ["b", "wide"], ["y"], "encodes"),
    ]
    model = model_of(nodes, {"shared": shared, "wide": wide}, [3, 3])
    store_in_int8(model, wide=["encodes"])
    assert set(stored(model)) == {"shared", "wide"} and len(model.graph.node) == 3


def test_dead_channels_stay_dead_and_nan_is_not_hidden() -> None:
    kernel = np.array([[1.0, 0.0, np.nan], [-0.5, 0.0, 1.0]], np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "kernel"], ["y"])], {"kernel": kernel}, [None, 2])
    store_in_int8(model)
    found = answer(model, np.ones((1, 2), np.float32))[0]
    assert abs(found[0] - (127 - 64) / 127) < 1e-6 and found[1] == 0 and np.isnan(found[2])
