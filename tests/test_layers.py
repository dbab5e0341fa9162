"""Where an artifact leaves the Keras model: faults at a known layer, made in Keras and exported, are named in every format.

And nothing is named where nothing is wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exporters.audit.contents import CONV, DEPTHWISE
from exporters.contract import FORMATS, ArtifactName
from exporters.errors import ParityError
from exporters.export import export_artifact
from exporters.inference import InferenceModels
from exporters.layers import onnx as onnx_taps
from exporters.layers import tfjs as tfjs_taps
from exporters.layers import tflite as tflite_taps
from exporters.layers.alignment import align
from exporters.layers.reference import load_reference, reference_of
from exporters.layers.tracing import Reference, trace_artifact
from exporters.runners.onnx import OnnxRunner
from exporters.runners.tfjs import TfjsRunner
from exporters.runners.tflite import TfliteRunner
from exporters.saved_model import write_saved_model
from tests import small_models
from tests.small_models import CUT, EVERY_ARTIFACT

IMAGES = 16
FLOAT32 = [name for name in EVERY_ARTIFACT if name.precision == "float32"]
INT8 = [name for name in EVERY_ARTIFACT if name.precision == "int8"]
RUNNERS = {"tflite": TfliteRunner, "onnx": OnnxRunner, "tfjs": TfjsRunner}
TAPS = {"tflite": tflite_taps.activations, "onnx": onnx_taps.activations, "tfjs": tfjs_taps.activations}
LAYERS = ["first", "deep", "point", "deep_2", "point_2", "zebra", "apple"]


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@functools.cache
def bright() -> keras.Model:
    """The small model, with so much contrast behind `point` that values go over 6, where ReLU6 cuts them off."""
    return normed(
        small_models.small().model, "point", lambda gamma, beta, mean, variance: (4 * gamma, beta, mean, variance)
    )


@functools.cache
def reference(of_bright: bool = False) -> Reference:
    return reference_of(bright() if of_bright else small_models.small().model)


def rebuilt(model: keras.Model, name: str, make: Callable[[dict], keras.layers.Layer]) -> keras.Model:
    """A copy of a model with another layer in the place of one."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        return make(settings) if layer.name == name else type(layer).from_config(settings)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def changed(model: keras.Model, name: str, edit: Callable[..., tuple]) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.get_layer(name).set_weights(edit(*(each.copy() for each in copy.get_layer(name).get_weights())))
    return copy


def normed(model: keras.Model, name: str, edit: Callable[..., tuple]) -> keras.Model:
    return changed(model, f"{name}_norm", edit)


def one_wrong_weight(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> tuple:
        kernel[0, 0, 3, 5] += 3 * np.abs(kernel).max()
        return (kernel,)

    return changed(model, "point", edit)


def lost_statistics(model: keras.Model) -> keras.Model:
    return normed(model, "deep_2", lambda gamma, beta, mean, variance: (gamma, beta, 0 * mean, 0 * variance + 1))


def relu_for_relu6(model: keras.Model) -> keras.Model:
    return rebuilt(model, "point_relu", lambda settings: keras.layers.ReLU(name=settings["name"]))


def dead_filter(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray) -> tuple:
        kernel[..., 40] = 0
        return (kernel,)

    return changed(model, "point_2", edit)


def permuted_channels(model: keras.Model) -> keras.Model:
    return changed(model, "deep", lambda kernel: (np.roll(kernel, 1, axis=2),))


def wrong_bias_at_the_start(model: keras.Model) -> keras.Model:
    def edit(gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple:
        beta[2] += 1
        return gamma, beta, mean, variance

    return normed(model, "first", edit)


def wrong_bias_at_the_end(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray, bias: np.ndarray) -> tuple:
        bias[2] += 1
        return kernel, bias

    return changed(model, "apple", edit)


FAULTS = {
    one_wrong_weight: "point",
    lost_statistics: "deep_2",
    relu_for_relu6: "point",
    dead_filter: "point_2",
    permuted_channels: "deep",
    wrong_bias_at_the_start: "first",
    wrong_bias_at_the_end: "apple",
}


# The precisions between differ from those only in how much they round: they are tried on faults of each kind, in `make test-all`.
IN_ALL = (one_wrong_weight, relu_for_relu6, dead_filter, wrong_bias_at_the_end)
CASES = [
    pytest.param(fault, name, id=f"{fault.__name__}-{name}", marks=[] if name in FLOAT32 + INT8 else [pytest.mark.slow])
    for fault in FAULTS
    for name in (EVERY_ARTIFACT if fault in IN_ALL else FLOAT32 + INT8)
]


@functools.cache
def models_of(
    session_folder: Path, fault: Callable[[keras.Model], keras.Model] | None, seed: int = 0
) -> InferenceModels:
    one = small_models.small(seed)
    model = bright() if fault is relu_for_relu6 else one.model
    work = session_folder / f"traced {fault.__name__ if fault else 'good'} {seed}"
    work.mkdir()
    return InferenceModels(
        fault(model) if fault else model, CUT, one.calibration_images, work / "saved", features_everywhere=False
    )


def traced(models: InferenceModels, name: ArtifactName, out: Path, against: Reference, seed: int = 0) -> dict:
    one = small_models.small(seed)
    folder = export_artifact(name, models.saved_model(name.precision), one.card, out, one.calibration_images)
    return trace_artifact(folder, name.format, one.images[:IMAGES], against)


def own_errors(trace: dict) -> dict[str, float]:
    return {row["name"]: row["own_error"] for row in trace["rows"]}


@pytest.mark.parametrize("name", EVERY_ARTIFACT, ids=str)
def test_nothing_is_named_where_nothing_is_wrong(name: ArtifactName, session_folder: Path) -> None:
    out = small_models.result_folder(session_folder)
    images = small_models.small().images[:IMAGES]
    trace = trace_artifact(out / "artifacts" / str(name), name.format, images, load_reference(out))
    assert (trace["status"], trace["first_off"], trace["reason"]) == ("traced", None, "")
    assert (trace["images"], sorted(row["name"] for row in trace["rows"])) == (IMAGES, sorted(LAYERS))
    assert [row["kind"] for row in trace["rows"]] == ["conv", "depthwise"] * 2 + ["conv", "dense", "dense"]
    # Half of what is named, so that another machine's arithmetic has room.
    assert max(own_errors(trace).values()) < 4
    assert {row["name"]: row["relative"] for row in trace["rows"]}["first"] < 0.05
    if name.precision == "float32":
        assert all(row["relative"] < 1e-5 and row["snr_db"] > 100 and row["cosine"] > 0.99999 for row in trace["rows"])


@pytest.mark.parametrize("name", INT8, ids=str)
@pytest.mark.parametrize("seed", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_nothing_is_named_in_other_models(name: ArtifactName, seed: int, session_folder: Path, tmp_path: Path) -> None:
    """These two come nearest of a dozen: one clips what calibration did not see, one is unsure of an image."""
    models = models_of(session_folder, None, seed)
    trace = traced(models, name, tmp_path, reference_of(small_models.small(seed).model), seed)
    assert (trace["status"], trace["first_off"]) == ("traced", None), own_errors(trace)


@pytest.mark.parametrize(("fault", "name"), CASES)
def test_the_layer_that_is_wrong_is_named(
    fault: Callable, name: ArtifactName, session_folder: Path, tmp_path: Path
) -> None:
    models = models_of(session_folder, fault)
    trace = traced(models, name, tmp_path, reference(of_bright=fault is relu_for_relu6))
    assert (trace["status"], trace["first_off"]) == ("traced", FAULTS[fault]), own_errors(trace)
    # The layers behind it get wrong inputs, and are right all the same.
    behind = LAYERS[LAYERS.index(FAULTS[fault]) + 1 :]
    assert all(own_errors(trace)[layer] < 6 for layer in behind)


@functools.cache
def manifold() -> keras.Model:
    """A model of what the small one lacks: swish, which formats take apart, squeeze and excitation, dilation, branches, a
    hidden dense layer, sigmoid, two channels out of one."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((32, 32, 3), name="image")
    values = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    values = layers.Activation("silu")(layers.Conv2D(16, 3, 2, padding="same", name="swish")(values))
    values = layers.DepthwiseConv2D(3, 2, depth_multiplier=2, name="twofold")(layers.ZeroPadding2D(1)(values))
    values = layers.ReLU(6.0)(layers.BatchNormalization()(values))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(values)
    squeezed = layers.Conv2D(8, 1, activation="relu", name="squeeze")(squeezed)
    values = layers.Multiply()([values, layers.Conv2D(32, 1, activation="sigmoid", name="excite")(squeezed)])
    values = layers.Add()([values, layers.Conv2D(32, 1, name="project")(values)])
    values = layers.Conv2D(24, 3, padding="same", dilation_rate=2, activation="relu", name="dilated")(values)
    branches = [
        layers.Conv2D(8, side, padding="same", activation="relu", name=f"branch_{side}")(values) for side in (1, 3)
    ]
    hidden = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(layers.Concatenate()(branches)))
    outputs = {
        "apple": layers.Dense(5, activation="softmax", name="apple")(hidden),
        "zebra": layers.Dense(5, activation="sigmoid", name="zebra")(hidden),
    }
    return keras.Model(image, outputs)


def wrong_weight_before_swish(model: keras.Model) -> keras.Model:
    def edit(kernel: np.ndarray, bias: np.ndarray) -> tuple:
        kernel[1, 1, 0, 4] += 3 * np.abs(kernel).max()
        return kernel, bias

    return changed(model, "swish", edit)


@pytest.mark.parametrize("name", [*FLOAT32, *INT8], ids=str)
@pytest.mark.parametrize(
    ("fault", "named"), [(None, None), (wrong_weight_before_swish, "swish")], ids=["good", "faulty"]
)
def test_other_kinds_of_layers(fault: Callable | None, named: str | None, name: ArtifactName, tmp_path: Path) -> None:
    model, one = manifold(), small_models.small()
    models = InferenceModels(
        fault(model) if fault else model, None, one.calibration_images, tmp_path / "saved", features_everywhere=False
    )
    card = dataclasses.replace(one.card, cut=())
    folder = export_artifact(name, models.saved_model(name.precision), card, tmp_path, one.calibration_images)
    trace = trace_artifact(folder, name.format, one.images[:IMAGES], reference_of(model))
    assert (trace["status"], trace["first_off"]) == ("traced", named), own_errors(trace)
    assert sum(row["own_error"] is not None for row in trace["rows"]) >= len(trace["rows"]) - 3


def without_deep(model: keras.Model) -> keras.Model:
    """A copy of a model that leaves out the layer `deep`, which changes no shape, and what belongs to it."""
    gone = {"deep", "deep_norm", "deep_relu"}

    def call(layer: keras.layers.Layer, *arguments: object, **options: object) -> object:
        return arguments[0] if layer.name in gone else layer(*arguments, **options)

    copy = keras.models.clone_model(model, call_function=call)
    for layer in copy.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


def with_deep_twice(model: keras.Model) -> keras.Model:
    """A copy of a model in which copies of `deep` and what belongs to it follow upon them."""
    names = ("deep", "deep_norm", "deep_relu")
    copies = {}

    def call(layer: keras.layers.Layer, *arguments: object, **options: object) -> object:
        values = layer(*arguments, **options)
        if layer.name == names[-1]:
            for name in names:
                original = model.get_layer(name)
                copies[name] = type(original).from_config({**original.get_config(), "name": f"{name}_twice"})
                values = copies[name](values)
        return values

    copy = keras.models.clone_model(model, call_function=call)
    for layer in copy.layers:
        layer.set_weights(model.get_layer(layer.name.removesuffix("_twice")).get_weights())
    return copy


@pytest.mark.parametrize("name", FLOAT32, ids=str)
@pytest.mark.parametrize(
    ("fault", "named", "reason"),
    [
        pytest.param(without_deep, "deep", "the artifact has no layer deep", id="skipped"),
        pytest.param(with_deep_twice, "deep (again)", "the artifact has one layer more: deep (again)", id="doubled"),
    ],
)
def test_a_layer_that_is_skipped_or_doubled_is_named(
    fault: Callable, named: str, reason: str, name: ArtifactName, session_folder: Path, tmp_path: Path
) -> None:
    trace = traced(models_of(session_folder, fault), name, tmp_path, reference())
    assert (trace["first_off"], trace["reason"]) == (named, reason)
    assert named in own_errors(trace)


@pytest.mark.parametrize("name", FLOAT32, ids=str)
@pytest.mark.parametrize(
    ("fault", "named"),
    [
        pytest.param(None, {None}, id="good"),
        pytest.param(lost_statistics, {"deep_2"}, id="lost statistics"),
        pytest.param(dead_filter, {"deep_2", "point_2"}, id="dead filter"),
    ],
)
def test_batch_norms_that_were_not_folded_are_no_fault_and_hide_none(
    fault: Callable | None, named: set, name: ArtifactName, tmp_path: Path
) -> None:
    """As a plain conversion leaves them: two formats keep the BatchNorm behind a depthwise convolution, and the layer behind
    that tells for both."""
    one = small_models.small()
    saved = write_saved_model(fault(one.model) if fault else one.model, CUT, tmp_path / "saved")
    folder = export_artifact(name, saved, one.card, tmp_path, one.calibration_images)
    trace = trace_artifact(folder, name.format, one.images[:IMAGES], reference())
    assert trace["status"] == "traced"
    assert trace["first_off"] in named, trace["reason"]


@pytest.mark.parametrize("name", FLOAT32, ids=str)
def test_branches_in_another_order_are_no_fault(name: ArtifactName, tmp_path: Path) -> None:
    """The two heads have one shape and no order: only their kernels tell which is which."""
    one = small_models.small()
    swapped = keras.Model(one.model.inputs, dict(reversed(one.model.output.items())))
    models = InferenceModels(swapped, CUT, one.calibration_images, tmp_path / "saved", features_everywhere=False)
    trace = traced(models, name, tmp_path, reference())
    assert (trace["first_off"], trace["reason"]) == (None, "")


@dataclasses.dataclass(frozen=True)
class Bare:
    kind: str
    kernel: np.ndarray


def bare(*seeds: int, kind: str = CONV, noise: float = 0.0) -> list[Bare]:
    """Layers of one shape, each with a kernel of its own."""
    kernels = [np.random.default_rng(seed).normal(size=(1, 1, 8, 8)) for seed in seeds]
    blurred = [kernel + noise * np.random.default_rng(99).normal(size=kernel.shape) for kernel in kernels]
    return [Bare(kind, kernel.astype(np.float32)) for kernel in blurred]


@pytest.mark.parametrize(
    ("found", "pairs"),
    [
        pytest.param([0, 1, 2, 3], [(0, 0), (1, 1), (2, 2), (3, 3)], id="all"),
        pytest.param([0, 2, 3], [(0, 0), (1, None), (2, 1), (3, 2)], id="skipped"),
        pytest.param([0, 1, 1, 2, 3], [(0, 0), (1, 1), (None, 2), (2, 3), (3, 4)], id="doubled"),
        pytest.param([0, 2, 1, 3], [(0, 0), (1, 2), (2, 1), (3, 3)], id="reordered"),
        pytest.param([0, 9, 2, 3], [(0, 0), (1, 1), (2, 2), (3, 3)], id="other weights"),
        pytest.param([9, 0, 1, 2, 3], [(None, 0), (0, 1), (1, 2), (2, 3), (3, 4)], id="one before"),
        pytest.param([], [(0, None), (1, None), (2, None), (3, None)], id="none"),
    ],
)
def test_alignment(found: list[int], pairs: list) -> None:
    assert align(bare(0, 1, 2, 3), bare(*found, noise=0.02)) == pairs


def test_alignment_pairs_only_layers_of_one_kind() -> None:
    assert align(bare(0), bare(0, kind=DEPTHWISE)) == [(None, 0), (0, None)]


@pytest.mark.parametrize("name", EVERY_ARTIFACT, ids=str)
def test_a_tap_gives_what_the_runner_answers(name: ArtifactName, session_folder: Path) -> None:
    """Of the one tensor that both can tell: taken from inside, the answer of a head is the runner's."""
    folder = small_models.result_folder(session_folder) / "artifacts" / str(name)
    images = small_models.small().images[:IMAGES]
    with RUNNERS[name.format](folder) as runner:
        answers = runner.predict(images)
    module, _, attribute = FORMATS[name.format].reader.partition(":")
    layers = getattr(__import__(module, fromlist=[attribute]), attribute)(folder).layers
    tap = TAPS[name.format]
    values = tap(folder, [layer.output for layer in layers], images)
    assert all(each.dtype == np.float32 and len(each) == IMAGES for each in values.values())
    assert [values[layer.output].shape[-1] for layer in layers[:5]] == [12, 12, 24, 24, 96]
    room = 2e-3 if str(name) == "onnx-float16" else 1e-6
    for head in ("zebra", "apple"):
        assert any(
            each.shape == answers[head].shape and np.abs(each - answers[head]).max() <= room for each in values.values()
        ), head


@pytest.mark.parametrize("name", FLOAT32, ids=str)
def test_a_tensor_that_is_not_there_is_refused(name: ArtifactName, session_folder: Path) -> None:
    folder = small_models.result_folder(session_folder) / "artifacts" / str(name)
    tap = TAPS[name.format]
    with pytest.raises(ParityError, match="no such thing"):
        tap(folder, ["no such thing"], small_models.small().images[:1])


def write_onnx(folder: Path, nodes: list, constants: dict[str, np.ndarray], output: str) -> None:
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [None, 16, 16, 3])
    given = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [given], stored),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")


def test_the_operator_tells_the_layout_not_the_shape(tmp_path: Path) -> None:
    """16 channels of 16 by 16: behind a convolution they come first, behind a transposition or a product last."""
    generator = np.random.default_rng(0)
    kernel, product = generator.normal(size=(16, 3, 1, 1)), generator.normal(size=(16, 16))
    constants = {"kernel": kernel.astype("f4"), "product": product.astype("f4"), "shift": np.full((16, 1, 1), 9, "f4")}
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["conv"]),
        helper.make_node("Add", ["shift", "conv"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["last"], ["relu"]),
        helper.make_node("MatMul", ["relu", "product"], ["multiplied"]),
        helper.make_node("Transpose", ["multiplied"], ["odd"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["last"], ["turned"], perm=[0, 3, 2, 1]),
        helper.make_node("Relu", ["odd"], ["answer"]),
    ]
    write_onnx(tmp_path, nodes, constants, "answer")
    images = generator.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    found = onnx_taps.activations(tmp_path, ["conv", "shifted", "relu", "multiplied", "turned"], images)
    conv = images.astype(np.float64) @ kernel[:, :, 0, 0].T
    expected = {"conv": conv, "shifted": conv + 9, "relu": np.maximum(conv + 9, 0), "turned": conv + 9}
    expected["multiplied"] = expected["relu"] @ product
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-2, err_msg=name)


def test_what_cannot_be_traced_says_why(session_folder: Path, tmp_path: Path) -> None:
    out = small_models.result_folder(session_folder)
    images = small_models.small().images[:2]
    nothing = Reference((), lambda images, taps: iter(()))
    for name in FLOAT32:
        damaged = tmp_path / str(name)
        damaged.mkdir()
        (damaged / FORMATS[name.format].file).write_bytes(b"{}")
        traces = [
            trace_artifact(damaged, name.format, images, reference()),
            trace_artifact(tmp_path / "nowhere", name.format, images, reference()),
            trace_artifact(out / "artifacts" / str(name), name.format, images[:0], reference()),
            trace_artifact(out / "artifacts" / str(name), name.format, images, nothing),
        ]
        for trace in traces:
            assert (trace["status"], trace["first_off"], trace["rows"]) == ("not_traced", None, [])
            assert trace["reason"]


@pytest.mark.parametrize("name", FLOAT32, ids=str)
def test_nan_is_named_where_it_begins(name: ArtifactName, tmp_path: Path) -> None:
    def edit(kernel: np.ndarray) -> tuple:
        kernel[1, 1, 4, 0] = np.nan
        return (kernel,)

    one = small_models.small()
    saved = write_saved_model(changed(one.model, "deep", edit), CUT, tmp_path / "saved")
    folder = export_artifact(name, saved, one.card, tmp_path, one.calibration_images)
    trace = trace_artifact(folder, name.format, one.images[:4], reference())
    assert (trace["status"], trace["first_off"]) == ("traced", "deep")
    json.dumps(trace, allow_nan=False)
