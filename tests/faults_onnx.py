"""Makers of faults in how an ONNX file is quantised: each edits `model.onnx` of an artifact folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests.faults_files import onnx_of, producer_of, sort_nodes, store_in_onnx, stored_in_onnx

POINT_2 = "small_1/point_2_1/BiasAdd/input_1"
BIAS_2 = "small_1/point_2_1/BiasAdd/input_2"
ACTIVATION = "small_1/deep_relu_1/Relu6/output_0"


def _scaled(folder: Path, name: str, factor: float, *, where: object = ...) -> None:
    with onnx_of(folder) as model:
        values = stored_in_onnx(model, name)
        values[where] *= np.float32(factor)
        store_in_onnx(model, name, values)


def weight_scale_off(folder: Path) -> None:
    """One channel's scale is off by one of 127."""
    _scaled(folder, f"{POINT_2}_scale", 128 / 127, where=3)


def scales_permuted(folder: Path) -> None:
    with onnx_of(folder) as model:
        store_in_onnx(model, f"{POINT_2}_scale", np.roll(stored_in_onnx(model, f"{POINT_2}_scale"), 1))


def bias_off_by_a_step(folder: Path) -> None:
    with onnx_of(folder) as model:
        store_in_onnx(model, f"{BIAS_2}_quantized", stored_in_onnx(model, f"{BIAS_2}_quantized") + np.int32(1))


def activation_zero_point_off(folder: Path) -> None:
    with onnx_of(folder) as model:
        name = f"{ACTIVATION}_zero_point"
        store_in_onnx(model, name, stored_in_onnx(model, name) + np.uint8(1))


def activation_scale_off(folder: Path) -> None:
    _scaled(folder, f"{ACTIVATION}_scale", 1.01)


def logits_scale_off(folder: Path) -> None:
    """Only where the softmax reads: it sees steeper logits than there are."""
    with onnx_of(folder) as model:
        for head in ("apple", "zebra"):
            restored = producer_of(model, producer_of(model, f"{head}_QuantizeLinear_Input").input[0])
            steeper = f"{head}/steeper"
            store_in_onnx(model, steeper, stored_in_onnx(model, restored.input[1]) * np.float32(1.5))
            restored.input[1] = steeper


def output_scale_off(folder: Path) -> None:
    """The answers are twice what they should be, and add up to 2."""
    with onnx_of(folder) as model:
        for head in ("apple", "zebra"):
            store_in_onnx(model, f"{head}/doubled", stored_in_onnx(model, f"{head}_scale") * np.float32(2))
            producer_of(model, head).input[1] = f"{head}/doubled"


def image_range_too_narrow(folder: Path) -> None:
    """As if no calibration image were brighter than 230: everything above is cut off."""
    _scaled(folder, "image_scale", 230 / 255)


def pooled_range_too_narrow(folder: Path) -> None:
    _scaled(folder, "small_1/pooled_1/Mean/output_0_scale", 0.8)


def scaled_pixels_range_too_narrow(folder: Path) -> None:
    _scaled(folder, "small_1/pixel_scaling_1/add/output_0_scale", 0.9)


def activations_in_float(folder: Path) -> None:
    """Kernels are still stored in 8 bits, but nothing between the layers is quantised."""
    with onnx_of(folder) as model:
        stored = {each.name for each in model.graph.initializer}
        quantised = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
        restored = {
            node.output[0]: quantised[node.input[0]].input[0]
            for node in model.graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] not in stored
        }
        outputs = {each.name for each in model.graph.output}
        for node in model.graph.node:
            node.input[:] = [restored.get(name, name) for name in node.input]
            node.output[:] = [_public(name, restored, outputs) for name in node.output]
        gone = ("QuantizeLinear", "DequantizeLinear")
        kept = [node for node in model.graph.node if node.op_type not in gone or node.input[0] in stored]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(copies)


def logits_in_float(folder: Path) -> None:
    """The last layers hand their logits to the softmax in float: nothing else computes otherwise."""
    with onnx_of(folder) as model:
        for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
            softmax.input[0] = _unquantised(model, softmax.input[0])


def features_in_float(folder: Path) -> None:
    """What comes out of the last convolution is pooled in float; its ReLU6 is written out."""
    with onnx_of(folder) as model:
        (pool,) = (node for node in model.graph.node if node.op_type == "GlobalAveragePool")
        source = _unquantised(model, pool.input[0])
        for name, bound in (("low", 0.0), ("high", 6.0)):
            store_in_onnx(model, f"clip/{name}", np.float32(bound))
        pool.input[0] = f"{source}/clipped"
        model.graph.node.append(helper.make_node("Clip", [source, "clip/low", "clip/high"], [f"{source}/clipped"]))
        sort_nodes(model)


def _unquantised(model: onnx.ModelProto, name: str) -> str:
    """Take a QuantizeLinear and its DequantizeLinear out, with their parameters; returns what went into them."""
    restore = producer_of(model, name)
    quantise = producer_of(model, restore.input[0])
    source = quantise.input[0]
    model.graph.node.remove(restore)
    model.graph.node.remove(quantise)
    used = {each for node in model.graph.node for each in node.input}
    for tensor in [each for each in model.graph.initializer if each.name not in used]:
        model.graph.initializer.remove(tensor)
    return source


def _public(name: str, restored: dict[str, str], outputs: set[str]) -> str:
    return next((public for public, source in restored.items() if source == name and public in outputs), name)


def answers_through_8_bits(folder: Path) -> None:
    with onnx_of(folder) as model:
        store_in_onnx(model, "eighth/scale", np.float32(1 / 255))
        store_in_onnx(model, "eighth/zero", np.uint8(0))
        for head in ("apple", "zebra"):
            producer_of(model, head).output[0] = f"{head}/float"
            parameters = ["eighth/scale", "eighth/zero"]
            model.graph.node.append(helper.make_node("QuantizeLinear", [f"{head}/float", *parameters], [f"{head}/8"]))
            model.graph.node.append(helper.make_node("DequantizeLinear", [f"{head}/8", *parameters], [head]))
