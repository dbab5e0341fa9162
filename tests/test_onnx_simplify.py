"""What is taken out of an ONNX graph, or written otherwise in it, and that it then answers to the last bit as before."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from exporters.onnx_names import settle_names
from exporters.onnx_simplify import keep_one_opset, share_constants, simplify
from exporters.onnx_windows import pad_for_pooling

FLOATS = onnx.TensorProto.FLOAT
SHAPE = ("batch", 6, 9, 9)
AROUND = np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64)
KERNEL = np.random.default_rng(1).normal(size=(4, 6, 3, 3)).astype(np.float32)


def model_of(
    nodes: list[onnx.NodeProto], shape: tuple = SHAPE, outputs: tuple[str, ...] = ("y",), **constants: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOATS, shape)],
        [helper.make_tensor_value_info(name, FLOATS, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], f"{kind}/{output}", **attributes)


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    # As it is written: what onnxruntime would move into something else stays.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    shape = [axis.dim_value or 3 for axis in model.graph.input[0].type.tensor_type.shape.dim]
    given = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": given})


def simplified(model: onnx.ModelProto) -> dict[str, int]:
    """Simplify a model in place; returns how many nodes of each kind are left. The answers are the same."""
    before = answers(model)
    simplify(model)
    settle_names(model)
    onnx.checker.check_model(model, full_check=True)
    for one, other in zip(before, answers(model), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)
    return dict(collections.Counter(each.op_type for each in model.graph.node))


def test_what_is_reshaped_back_and_forth_is_not_reshaped() -> None:
    nodes = [
        node("GlobalAveragePool", "x", "a"),
        node("Squeeze", "a axes", "b"),
        node("Reshape", "b four", "c"),
        node("Conv", "c point", "d"),
        node("Reshape", "d again", "e"),
        node("Sigmoid", "e", "y"),
    ]
    constants = {"axes": [2, 3], "four": [-1, 6, 1, 1], "again": [-1, 4, 1, 1], "point": KERNEL[:, :, :1, :1]}
    model = model_of(nodes, **constants)
    assert simplified(model) == {"GlobalAveragePool": 1, "Conv": 1, "Sigmoid": 1}


def test_what_is_turned_and_back_is_not_turned() -> None:
    there, back, other = [0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2]
    nodes = [node("Transpose", "x", "y", perm=there), node("Transpose", "y", "a", perm=back), node("Relu", "a", "z")]
    model = model_of(nodes, outputs=("y", "z"))
    assert simplified(model) == {"Transpose": 1, "Relu": 1}
    nodes[1] = node("Transpose", "y", "a", perm=other)
    assert simplified(model_of(nodes, outputs=("y", "z"))) == {"Transpose": 2, "Relu": 1}


def test_what_ends_in_another_shape_stays() -> None:
    nodes = [node("Squeeze", "x axes", "a"), node("Reshape", "a turned", "b"), node("Relu", "b", "y")]
    model = model_of(nodes, ("batch", 2, 3, 1), axes=[3], turned=[-1, 3, 2, 1])
    assert simplified(model) == {"Squeeze": 1, "Reshape": 1, "Relu": 1}


def test_an_answer_that_is_only_reshaped_keeps_its_name() -> None:
    model = model_of([node("Squeeze", "x axes", "a"), node("Unsqueeze", "a axes", "y")], ("batch", 2, 1), axes=[2])
    simplified(model)
    assert [each.name for each in model.graph.output] == ["y"]


def test_a_flattened_batch_keeps_its_name() -> None:
    model = model_of([node("Reshape", "x rows", "a"), node("Relu", "a", "y")], rows=[-1, 6 * 81])
    assert simplified(model) == {"Reshape": 1, "Relu": 1}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    first = {each.name: each.type.tensor_type.shape.dim[0].dim_param for each in inferred.value_info}
    assert set(first.values()) == {"batch"}
    together = model_of([node("Reshape", "x rows", "y")], rows=[-1, 81])
    assert simplified(together) == {"Reshape": 1}, "pictures and channels in one axis are no batch"


def test_a_shape_that_is_worked_out_while_it_runs_is_written_down() -> None:
    nodes = [
        node("Shape", "x", "a"),
        node("Gather", "a first", "b"),
        node("Concat", "b rest", "c", axis=0),
        node("Reshape", "x c", "d"),
        node("Relu", "d", "y"),
    ]
    model = model_of(nodes, first=[0], rest=[6 * 81])
    assert simplified(model) == {"Reshape": 1, "Relu": 1}
    assert [numpy_helper.to_array(each).tolist() for each in model.graph.initializer] == [[0, 6 * 81]]


def test_a_slice_names_only_what_it_cuts() -> None:
    end = 2**31 - 1
    model = model_of([node("Slice", "x start end axes", "y")], start=[0, 1, 0], end=[end, end, 5], axes=[0, 2, 3])
    simplified(model)
    stored = [numpy_helper.to_array(each).tolist() for each in model.graph.initializer]
    assert stored == [[1, 0], [end, 5], [2, 3]]


@pytest.mark.parametrize(
    ("three", "left"), [(3.0, {"HardSigmoid": 1, "Mul": 1}), (2.0, {"Add": 1, "Clip": 1, "Mul": 2})]
)
def test_a_hard_sigmoid_is_one_operator(three: float, left: dict[str, int]) -> None:
    nodes = [
        node("Add", "x three", "a"),
        node("Clip", "a low high", "b"),
        node("Mul", "b sixth", "c"),
        node("Mul", "x c", "y"),
    ]
    numbers = {"three": np.full((1, 1, 1, 1), three), "low": 0.0, "high": 6.0, "sixth": 1 / 6}
    constants = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    assert simplified(model_of(nodes, **constants)) == left


def test_a_product_with_a_bias_is_one_operator() -> None:
    nodes = [node("MatMul", "x matrix", "a"), node("Add", "a bias", "b"), node("Softmax", "b", "y")]
    matrix, bias = KERNEL.reshape(-1, 4)[:6], np.arange(4, dtype=np.float32)
    assert simplified(model_of(nodes, ("batch", 6), matrix=matrix, bias=bias)) == {"Gemm": 1, "Softmax": 1}
    # Gemm takes rows alone, and a bias that all of them share.
    assert "MatMul" in simplified(model_of(nodes, ("batch", 2, 6), matrix=matrix, bias=bias))
    assert "MatMul" in simplified(model_of(nodes, (3, 6), matrix=matrix, bias=np.ones((3, 4), np.float32)))


def test_zeros_around_go_into_convolutions_and_averages() -> None:
    nodes = [
        node("Pad", "x around", "a"),
        node("Conv", "a kernel", "b", strides=[2, 2]),
        node("Conv", "a kernel", "c", auto_pad="VALID"),
        node("AveragePool", "a", "d", kernel_shape=[3, 3]),
        node("GlobalAveragePool", "b", "y"),
        node("GlobalAveragePool", "c", "z"),
    ]
    model = model_of(nodes, outputs=("y", "z", "d"), around=AROUND, kernel=KERNEL)
    assert "Pad" not in simplified(model)


@pytest.mark.parametrize(
    ("before", "padding", "window"),
    [
        (None, {}, {"kind": "MaxPool"}),
        ("Relu", {"filling": np.float32(1)}, {"kind": "MaxPool"}),
        ("Relu", {"around": np.array([0, 1, 1, 0, 0, 0, 2, 1], np.int64)}, {"kind": "AveragePool"}),
        ("Relu", {"around": np.array([0, 0, 3, 0, 0, 0, 0, 0], np.int64)}, {"kind": "MaxPool"}),
        ("Relu", {}, {"kind": "AveragePool", "ceil_mode": 1}),
        ("Relu", {}, {"kind": "AveragePool", "pads": [1, 1, 1, 1]}),
    ],
    ids=["may be negative", "with ones", "channels", "wider than the window", "rounded up", "padded twice"],
)
def test_padding_that_a_window_would_compute_otherwise_stays(
    before: str | None, padding: dict[str, np.ndarray], window: dict[str, object]
) -> None:
    given = {"around": AROUND, "filling": np.float32(0)} | padding
    kind = window.pop("kind")
    nodes = [node("Pad", "a around filling", "b"), node(kind, "b", "y", kernel_shape=[3, 3], strides=[2, 2], **window)]
    nodes = [node(before or "Neg", "x", "a"), *nodes]
    assert simplified(model_of(nodes, **given))["Pad"] == 1


@pytest.mark.parametrize("positive", ["Relu", "Clip"])
def test_zeros_around_what_is_never_negative_go_into_the_largest_of_a_window(positive: str) -> None:
    taken = {"Relu": "x", "Clip": "x low"}[positive]
    nodes = [
        node(positive, taken, "a"),
        node("Pad", "a around", "b"),
        node("MaxPool", "b", "y", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    model = model_of(nodes, around=AROUND, low=np.float32(0))
    assert simplified(model) == {positive: 1, "MaxPool": 1}


def test_padding_in_front_of_a_pooling_that_keeps_it_is_not_quite_0() -> None:
    nodes = [node("Neg", "x", "a"), node("Pad", "a around", "b"), node("MaxPool", "b", "y", kernel_shape=[3, 3])]
    model = model_of(nodes, around=AROUND)
    expected = answers(model)
    pad_for_pooling(model.graph)
    (pad,) = (each for each in model.graph.node if each.op_type == "Pad")
    stored = {each.name: float(numpy_helper.to_array(each).max()) for each in model.graph.initializer}
    assert 0 < stored[pad.input[2]] < 1e-44
    np.testing.assert_allclose(answers(model), expected, atol=1e-44)


def test_what_is_stored_twice_is_stored_once() -> None:
    nodes = [node("Add", "x one", "a"), node("Mul", "a two", "b"), node("Sub", "b three", "y")]
    ones, numbers = np.ones((1, 6, 1, 1), np.float32), np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)
    model = model_of(nodes, one=ones, two=numbers, three=ones.copy())
    expected = answers(model)
    share_constants(model)
    assert [each.name for each in model.graph.initializer] == ["one", "two"]
    np.testing.assert_array_equal(answers(model), expected)
    single = model_of(nodes[:1] + [node("Sub", "a two", "y")], one=np.ones(1, np.float32), two=np.ones(1, np.float32))
    share_constants(single)
    assert len(single.graph.initializer) == 2


def test_operator_sets_that_nothing_needs_are_not_named() -> None:
    model = model_of([node("Relu", "x", "y")])
    keep_one_opset(model)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    own = model_of([helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])])
    keep_one_opset(own)
    assert {each.domain for each in own.opset_import} == {"", "ai.onnx.ml"}
