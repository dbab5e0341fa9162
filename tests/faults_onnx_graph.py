"""Makers of faults in the graph of an ONNX file: each edits `model.onnx` of an artifact folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, version_converter

from tests.faults_files import onnx_of, producer_of, sort_nodes, store_in_onnx, stored_in_onnx


def fixed_batch(folder: Path) -> None:
    """Takes one image at a time, where any number is promised."""
    with onnx_of(folder) as model:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def softmax_too_steep(folder: Path) -> None:
    """The logits are added to themselves before the softmax: no constant is needed for it."""
    with onnx_of(folder) as model:
        for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
            source = softmax.input[0]
            softmax.input[0] = f"{source}/doubled"
            model.graph.node.append(helper.make_node("Add", [source, source], [f"{source}/doubled"]))
        sort_nodes(model)


def relu6_become_relu_unseen(folder: Path) -> None:
    with onnx_of(folder) as model:
        clip = producer_of(model, "small_1/first_relu_1/Relu6/output_0")
        clip.op_type = "Relu"
        del clip.input[1:]


def custom_operator(folder: Path) -> None:
    """An operator of onnxruntime's own, whose result nobody takes."""
    with onnx_of(folder) as model:
        model.graph.node.append(helper.make_node("FastGelu", ["image"], ["dangling"], domain="com.microsoft"))
        if "com.microsoft" not in {each.domain for each in model.opset_import}:
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def random_operator(folder: Path) -> None:
    """Random numbers that nothing needs yet."""
    with onnx_of(folder) as model:
        model.graph.node.append(helper.make_node("RandomUniform", [], ["dangling"], shape=[2]))


def another_opset(folder: Path) -> None:
    path = folder / "model.onnx"
    converted = version_converter.convert_version(onnx.load(path), 18)
    path.write_bytes(converted.SerializeToString(deterministic=True))


def input_renamed(folder: Path) -> None:
    with onnx_of(folder) as model:
        model.graph.input[0].name = "pixels"
        for node in model.graph.node:
            node.input[:] = ["pixels" if name == "image" else name for name in node.input]


def extra_output(folder: Path) -> None:
    """A third answer, as of a head that was left in."""
    with onnx_of(folder) as model:
        model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["other"]))
        model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, None))


def answer_with_another_axis(folder: Path) -> None:
    """(N, 1, 5) in place of (N, 5)."""
    with onnx_of(folder) as model:
        producer_of(model, "zebra").output[0] = "zebra/before"
        store_in_onnx(model, "zebra/axis", np.array([1], np.int64))
        model.graph.node.append(helper.make_node("Unsqueeze", ["zebra/before", "zebra/axis"], ["zebra"]))
        (output,) = (each for each in model.graph.output if each.name == "zebra")
        output.type.tensor_type.ClearField("shape")


def missing_output(folder: Path) -> None:
    with onnx_of(folder) as model:
        kept = [each for each in model.graph.output if each.name != "apple"]
        del model.graph.output[:]
        model.graph.output.extend(kept)


def constant_answer(folder: Path) -> None:
    """One head answers alike whatever it sees; no stored number tells of it."""
    with onnx_of(folder) as model:
        producer_of(model, "zebra").output[0] = "zebra/before"
        model.graph.node.append(helper.make_node("Sub", ["zebra/before"] * 2, ["zebra/nothing"]))
        model.graph.node.append(helper.make_node("Softmax", ["zebra/nothing"], ["zebra"]))


def classes_rolled(folder: Path) -> None:
    """The classes of one head come in another order; no stored number tells of it."""
    with onnx_of(folder) as model:
        producer_of(model, "zebra").output[0] = "zebra/before"
        store_in_onnx(model, "zebra/order", np.array([1, 2, 3, 4, 0], np.int64))
        model.graph.node.append(helper.make_node("Gather", ["zebra/before", "zebra/order"], ["zebra"], axis=1))


def off_where_brighter(folder: Path, place: tuple[int, int, int], limit: float, added: float) -> None:
    """Add to the first class of one head for each image that is brighter than `limit` at one place; NaN with `added` NaN."""
    with onnx_of(folder) as model:
        producer_of(model, "zebra").output[0] = "zebra/before"
        row, column, channel = place
        for name, values in {
            "at": [0, row, column, channel],
            "to": [2**31, row + 1, column + 1, channel + 1],
            "axes": [0, 1, 2, 3],
            "flat": [-1, 1],
            "four": [0, 0, 0, 4],
            "one": [1],
        }.items():
            store_in_onnx(model, f"place/{name}", np.array(values, np.int64))

        def constant(name: str, value: float) -> onnx.NodeProto:
            filling = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
            return helper.make_node("ConstantOfShape", ["place/one"], [name], value=filling)

        model.graph.node.extend(
            [
                helper.make_node("Slice", ["image", "place/at", "place/to", "place/axes"], ["place/pixel"]),
                helper.make_node("Reshape", ["place/pixel", "place/flat"], ["place/column"]),
                constant("place/limit", limit),
                constant("place/added", added),
                constant("place/zero", 0.0),
                helper.make_node("Greater", ["place/column", "place/limit"], ["place/brighter"]),
                helper.make_node("Where", ["place/brighter", "place/added", "place/zero"], ["place/more"]),
                helper.make_node("Add", ["zebra/before", "place/more"], ["zebra"]),
            ]
        )


def scaling_slightly_off(folder: Path) -> None:
    """Pixels are divided by 127.6, not by 127.5; or multiplied by its reciprocal."""
    with onnx_of(folder) as model:
        name = "small_1/pixel_scaling_1/mul/input_1"
        stored = stored_in_onnx(model, name)
        store_in_onnx(model, name, np.asarray(127.6 if stored > 1 else 1 / 127.6, stored.dtype))


def squeezes_the_wrong_axis(folder: Path) -> None:
    """No runtime can run it; nothing that is stored in reals is other than it should be."""
    with onnx_of(folder) as model:
        store_in_onnx(model, "small_1/pooled_1/Mean_Squeeze/input_1", np.array([1, 2], np.int64))


def swapped_labels_inside(folder: Path) -> None:
    """The card in the metadata lists the labels in another order."""
    with onnx_of(folder) as model:
        (entry,) = (each for each in model.metadata_props if each.key == "card")
        card = json.loads(entry.value)
        for output in card["outputs"]:
            output["labels"] = output["labels"][::-1]
        entry.value = json.dumps(card)


def swapped_lists_inside(folder: Path) -> None:
    """The metadata lists the labels of one head in another order; its card does not."""
    with onnx_of(folder) as model:
        (entry,) = (each for each in model.metadata_props if each.key == "labels.zebra")
        entry.value = json.dumps(json.loads(entry.value)[::-1])


def another_producer(folder: Path) -> None:
    """The file was written by another version; everything else in it is the same."""
    with onnx_of(folder) as model:
        model.producer_version = "an older one"
