"""A backbone out of a SavedModel or from a hub: its weights in a known network where they fit, else as it is.

As it is, it stays one layer: `keras.layers.TFSMLayer` around a SavedModel with one function from scaled pixels to features,
which travels with the result. That SavedModel is written anew from the given one, so that it takes any number of pictures
and holds nothing but what computes the features.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from exporters.contract import Resize
from exporters.errors import InputError
from exporters.opaque import ENDPOINT, FOLDER, freeze
from pipeline import bundle
from pipeline.backbones.files import ask_for_scaling
from pipeline.backbones.hub import resolved, shown_name
from pipeline.backbones.loading import LoadedBackbone
from pipeline.backbones.loading_files import first_line
from pipeline.backbones.saved_model_graphs import SavedGraph, plain_name, read_saved_model, rename_functions
from pipeline.backbones.transplanting import transplant
from pipeline.config import BackboneSection

FEATURES = "saved_model_features"
CACHE = "cutpoint-saved-models"
CHECKED_PICTURES = 4
_LARGEST_DIFFERENCE = 1e-4
_HUB_NOTE = (
    "Its pixels are scaled to 0..1, as the common signatures of images on TensorFlow Hub say "
    "(tensorflow.org/hub/common_signatures/images)."
)


def picture_size(source: Path | str) -> tuple[int | None, int | None]:
    """Return the height and width in px that a SavedModel's signature takes, None where it takes any."""
    # Nothing runs here: what it may do is looked through when it is loaded.
    signature = read_saved_model(resolved(source), shown_name(source), trust=True).signature
    return signature.height, signature.width


def load_from_saved_model(section: BackboneSection, how: Resize) -> LoadedBackbone:
    """Load a backbone from a folder or a hub handle.

    Args:
        section: `name` is the folder or the handle; `pixel_scaling` may be `auto` for a handle, or where the network is
            recognised; `trust` lets operations outside the list of known ones run.
        how: its width and height are the model's input size.

    Returns:
        A network of the table with the SavedModel's weights, where its answers are the same; else a model whose one cut is
        the SavedModel's output, (N, 1, 1, channels) for a feature vector.

    Raises:
        InputError: it cannot be had or read, takes another size, or does not tell how it wants its pixels.
    """
    is_path = Path(section.name).expanduser().is_dir()
    source = Path(section.name).expanduser() if is_path else section.name
    shown = shown_name(source)
    graph = read_saved_model(resolved(source), shown, trust=section.trust)
    _check_size(graph, how, shown)
    scaling = section.pixel_scaling
    if scaling == "auto" and not is_path:
        scaling = "unit"
    values, folder = rewritten(graph, how, shown)
    network, notes = transplant(values, _caller(folder), scaling, how)
    if network is not None:
        return dataclass_of(network, shown, notes)
    if scaling == "auto":
        raise ask_for_scaling(shown)
    return _opaque(folder, shown, scaling, how, [*notes, *([] if is_path else [_HUB_NOTE])])


def dataclass_of(network: Any, shown: str, notes: list[str]) -> LoadedBackbone:
    """Return a transplanted network as a backbone that came from `shown`."""
    from pipeline.backbones.loading import digest_of_weights

    row = network.row
    digest = digest_of_weights(network.model)
    return LoadedBackbone(network.model, network.scaling, digest, shown, row.usual_cut, row.usual_cuts, tuple(notes))


def _check_size(graph: SavedGraph, how: Resize, shown: str) -> None:
    signature = graph.signature
    for name, mine, theirs in (("height", signature.height, how.height), ("width", signature.width, how.width)):
        if mine is not None and mine != theirs:
            raise InputError(
                f"The SavedModel {shown} takes a {name} of {mine} px, and resize.{name} is {theirs}.",
                f"{mine} px",
                "leave resize.width and resize.height out",
            )


def rewritten(graph: SavedGraph, how: Resize, shown: str) -> tuple[dict[str, np.ndarray], Path]:
    """Write a SavedModel anew with one function, `serve`: float32 (N, height, width, 3) -> features.

    Returns:
        Variable -> value, and the folder in the cache.

    Raises:
        InputError: the variables cannot be restored, or the graph works for its own number of pictures only.
    """
    try:
        values, definition, references = _restored(graph)
        module = _module(graph, definition, values, references, how)
        folder = _cached(module, values, how)
        _check_batches(folder, graph, how)
    except InputError:
        raise
    except Exception as fault:  # TensorFlow raises its own errors, ValueError, TypeError and KeyError by turns
        if isinstance(fault, MemoryError):
            raise
        raise InputError(
            f"The SavedModel {shown} cannot be used: {first_line(fault)}.",
            "a SavedModel that answers pictures of the size asked for, any number at once",
            "export it again, with a batch of any size: tf.TensorSpec([None, height, width, 3])",
        ) from fault
    return values, folder


def _restored(graph: SavedGraph) -> tuple[dict[str, np.ndarray], Any, dict[str, str]]:
    """Return variable -> value, the graph that computes the features, and tensor in it -> variable."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(graph.meta, clear_devices=True)
        if saver is not None and (graph.folder / "variables").is_dir():
            saver.restore(session, str(graph.folder / "variables" / "variables"))
        definition = tf.compat.v1.graph_util.extract_sub_graph(
            session.graph.as_graph_def(), [plain_name(graph.signature.output)]
        )
        reads, references = {}, {}
        for node in definition.node:
            if node.op in ("VarHandleOp", "VariableV2", "Variable"):
                name = node.attr["shared_name"].s.decode() or node.name
                tensor = session.graph.get_tensor_by_name(f"{node.name}:0")
                if node.op == "VarHandleOp":
                    tensor = tf.raw_ops.ReadVariableOp(resource=tensor, dtype=node.attr["dtype"].type)
                reads[name], references[f"{node.name}:0"] = tensor, name
        return session.run(reads), definition, references


def _module(
    graph: SavedGraph, definition: Any, values: dict[str, np.ndarray], references: dict[str, str], how: Resize
) -> tf.Module:
    kinds = {node.name: node.op for node in definition.node}
    replaced = {plain_name(graph.signature.input), *map(plain_name, references)}
    # What is given from outside would stay in the graph beside it: converters trip over variables that nothing reads.
    kept = [node for node in definition.node if node.name not in replaced]
    definition = tf.compat.v1.GraphDef(node=kept, library=definition.library, versions=definition.versions)
    rename_functions(definition, hashlib.sha256(definition.SerializeToString(deterministic=True)).hexdigest()[:12])
    for node in definition.node:
        # Shapes as they were for the given number of pictures, and places beside nodes that are gone.
        for key in ("_output_shapes", "_class"):
            node.attr.pop(key, None)
    module = tf.Module()
    module.kept = [tf.Variable(values[name], trainable=False, name=name.split(":")[0]) for name in sorted(values)]
    variables = dict(zip(sorted(values), module.kept, strict=True))

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, how.height, how.width, 3], tf.float32, name="pixels")]
    )
    def serve(pixels: tf.Tensor) -> tf.Tensor:
        picture = tf.cast(pixels, tf.uint8) if graph.signature.whole_numbers else pixels
        given = {graph.signature.input: picture}
        for tensor, name in references.items():
            # Reading a variable notes it as one of the function's; its handle has to be brought into the graph besides.
            value = variables[name].read_value()
            handle = kinds[plain_name(tensor)] == "VarHandleOp"
            given[tensor] = pixels.graph.capture(variables[name].handle) if handle else value
        (features,) = tf.graph_util.import_graph_def(
            definition, input_map=given, return_elements=[graph.signature.output], name="imported"
        )
        return tf.identity(features, name="features")

    module.serve = serve
    return module


def _cached(module: tf.Module, values: dict[str, np.ndarray], how: Resize) -> Path:
    concrete = module.serve.get_concrete_function()
    digest = hashlib.sha256(f"{how.height} {how.width}".encode())
    digest.update(concrete.graph.as_graph_def().SerializeToString(deterministic=True))
    for name in sorted(values):
        digest.update(name.encode() + np.ascontiguousarray(values[name]).tobytes())
    target = bundle.cache_folder() / CACHE / digest.hexdigest()[:24] / FOLDER
    if not (target / "saved_model.pb").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            tf.saved_model.save(module, f"{work}/{FOLDER}", signatures={ENDPOINT: concrete})
            # Its identity is drawn by chance, and says nothing of the model.
            (Path(work) / FOLDER / "fingerprint.pb").unlink(missing_ok=True)
            os.replace(f"{work}/{FOLDER}", target)
    return target


def _caller(folder: Path) -> Any:
    # The variables live as long as what was loaded does.
    loaded = tf.saved_model.load(str(folder))
    return lambda pixels: np.asarray(loaded.serve(tf.constant(pixels, tf.float32)))


def _check_batches(folder: Path, graph: SavedGraph, how: Resize) -> None:
    call = _caller(folder)
    pixels = np.random.default_rng(0).uniform(0, 1, (2, how.height, how.width, 3)).astype(np.float32)
    both, alone = call(pixels), np.concatenate([call(pixels[:1]), call(pixels[1:])])
    scale = max(float(np.abs(alone).max(initial=0)), 1e-6)
    if both.shape != alone.shape or float(np.abs(both - alone).max(initial=0)) > _LARGEST_DIFFERENCE * scale:
        raise InputError(
            f"The SavedModel's signature '{graph.signature.name}' answers a picture otherwise alone than beside others.",
            "answers that do not depend on the number of pictures",
            "export it for inference, with a batch of any size",
        )


def _opaque(folder: Path, shown: str, scaling: str, how: Resize, notes: list[str]) -> LoadedBackbone:
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"The SavedModel {shown} runs in TensorFlow alone, and KERAS_BACKEND is {keras.backend.backend()}.",
            "KERAS_BACKEND=tensorflow",
            "unset KERAS_BACKEND",
        )
    image = keras.Input((how.height, how.width, 3), name="input")
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint=ENDPOINT, trainable=False, name="saved_model")
    # By default such a layer counts as trainable, whatever its variables are.
    layer.trainable = False
    freeze(layer)
    features = layer(image)
    if len(features.shape) == 2:
        features = keras.layers.Reshape((1, 1, features.shape[-1]), name=FEATURES)(features)
    model = keras.Model(image, features, name="backbone")
    model.trainable = False
    if model.trainable_weights:
        raise InputError(f"The SavedModel {shown} cannot be frozen.", "variables that do not train", "export it again")
    from pipeline.backbones.loading import digest_of_weights

    cut = model.layers[-1].name
    digest = hashlib.sha256((digest_of_weights(model) + folder.parent.name).encode()).hexdigest()
    told = f"The backbone {shown} stays a SavedModel: it cannot be cut inside nor folded, and ships as {FOLDER}/."
    return LoadedBackbone(model, scaling, digest, shown, cut, (cut,), (*notes, told))
