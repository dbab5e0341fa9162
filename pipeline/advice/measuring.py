"""What networks cost that end at each of several cuts: parameters, work, sizes and measured latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from exporters.contract import INPUT_NAME
from pipeline.advice.choice import Costs
from pipeline.assembly import lay_flat
from pipeline.backbones.loading import LoadedBackbone
from pipeline.costs import LayerCost
from pipeline.cut import truncate
from pipeline.scaling import scale_pixels

# For one layer with weights, beside its weights, in a TFLite file: float32, int8.
FLOAT32_LAYER_BYTES, INT8_LAYER_BYTES = 560, 720


def thinned(
    cuts: Sequence[str], usual: Sequence[str], rows: Mapping[str, LayerCost], most: int
) -> tuple[tuple[str, ...], int]:
    """Return at most about `most` of the candidates, and how many were left out.

    The usual cuts, the first and the last stay; of the others those that lie next to even steps of the work done.
    """
    if len(cuts) <= most:
        return tuple(cuts), 0
    kept = {cuts[0], cuts[-1], *(cut for cut in usual if cut in cuts)}
    work = np.array([rows[cut].macs for cut in cuts], np.float64)
    for step in np.linspace(work[0], work[-1], most):
        if len(kept) >= most:
            break
        kept.add(cuts[int(np.abs(work - step).argmin())])
    chosen = tuple(cut for cut in cuts if cut in kept)
    return chosen, len(cuts) - len(chosen)


def measure_costs(
    backbone: LoadedBackbone, rows: Mapping[str, LayerCost], cuts: Sequence[str], classes: Sequence[int], seconds: float
) -> tuple[dict[str, Costs], dict[str, object]]:
    """Return what each cut costs with linear heads on it, and how that was found out.

    With Keras on TensorFlow the network is converted to TFLite up to each cut: the float32 size is that of the file, the
    int8 size an estimate from what is stored in it, the latency measured in LiteRT. With another backend the sizes are
    estimated from the parameters, and there is no latency.

    Args:
        backbone: the whole backbone.
        rows: layer -> its cost.
        cuts: the layers to cut at, the shallowest first.
        classes: of each head.
        seconds: about how long measuring the latency may take.

    Returns:
        Cut -> costs; and `measured`, `runtime`, `threads`, `rounds`.
    """
    if keras.backend.backend() != "tensorflow":
        found = {cut: _estimate(backbone.model, rows, cut, classes) for cut in cuts}
        return found, {"measured": False, "runtime": "", "threads": 0, "rounds": 0}
    # Imported here: under another Keras backend there may be no TensorFlow to convert with.
    from exporters.tflite_parts import convert_parts
    from pipeline.advice.latency import measure

    parts = dict(zip(cuts, convert_parts(_with_heads(backbone, cuts, classes)).values(), strict=True))
    height, width = backbone.model.inputs[0].shape[1:3]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    latencies = measure({cut: part.content for cut, part in parts.items()}, image, seconds)
    found = {
        cut: Costs(rows[cut].params, rows[cut].macs, len(part.content), part.int8_bytes, latencies.median_ms[cut])
        for cut, part in parts.items()
    }
    how = {"measured": True, "runtime": "litert", "threads": latencies.threads, "rounds": latencies.rounds}
    return found, how


def _with_heads(backbone: LoadedBackbone, cuts: Sequence[str], classes: Sequence[int]) -> keras.Model:
    """Return a model from raw pixels to the answers at each cut: pooling and a dense layer for each head."""
    truncated = truncate(backbone.model, tuple(cuts))
    image = keras.Input(truncated.inputs[0].shape[1:], name=INPUT_NAME)
    maps = lay_flat(truncated, scale_pixels(image, backbone.pixel_scaling))
    answers = {}
    for index, cut in enumerate(cuts):
        pooled = keras.layers.GlobalAveragePooling2D()(maps[cut] if len(cuts) > 1 else maps)
        each = [keras.layers.Dense(count, "softmax")(pooled) for count in classes]
        answers[f"cut_{index}"] = keras.layers.Concatenate()(each) if len(each) > 1 else each[0]
    return keras.Model(image, answers, name="heads_at_every_cut")


def _estimate(model: keras.Model, rows: Mapping[str, LayerCost], cut: str, classes: Sequence[int]) -> Costs:
    """Estimate the sizes from the weights of the layers up to a cut: BatchNorms end up in the layers before them."""
    kernels, widths = 0, list(classes)
    for layer in truncate(model, (cut,)).layers:
        if isinstance(layer, keras.layers.BatchNormalization) or not layer.weights:
            continue
        sizes = [int(np.prod(weight.shape)) for weight in layer.weights if len(weight.shape) > 1]
        kernels += sum(sizes)
        widths.append(int(layer.output.shape[-1]))
    kernels += sum(rows[cut].shape[-1] * count for count in classes)
    float32 = 4 * (kernels + sum(widths)) + FLOAT32_LAYER_BYTES * len(widths) + 2000
    # Of each channel a bias and two scales, and a zero point for all layers of as many channels.
    int8 = kernels + 3 * 4 * sum(widths) + 8 * sum(set(widths)) + INT8_LAYER_BYTES * len(widths) + 2000
    return Costs(rows[cut].params, rows[cut].macs, float32, int8, None)
