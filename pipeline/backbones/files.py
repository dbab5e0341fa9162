"""A backbone out of a `.keras` or `.h5` file: flat, with its cut points and with the pixel scaling that it wants."""

from __future__ import annotations

from pathlib import Path

import keras

from exporters.contract import Resize
from exporters.errors import InputError
from pipeline.backbones import PIXEL_SCALINGS
from pipeline.backbones.loading import LoadedBackbone, digest_of_weights
from pipeline.backbones.loading_files import FileModel, load_model_file
from pipeline.backbones.nested import flatten
from pipeline.backbones.recognition import (
    Recognised,
    last_feature_map,
    name_of_scaling,
    recognise,
    scaling_in_front,
)
from pipeline.backbones.stock import to_stock_layers
from pipeline.config import BackboneSection
from pipeline.costs import layer_costs


def load_from_file(section: BackboneSection, how: Resize) -> LoadedBackbone:
    """Load a backbone from the model file that `section.name` names.

    Args:
        section: `pixel_scaling` is `auto` for a model that scales its pixels itself or is recognised; `trust` lets
            Lambda layers run.
        how: its width and height become the model's input size.

    Raises:
        InputError: the file cannot be loaded, gives no feature map, or does not tell how it wants its pixels.
    """
    path = Path(section.name).expanduser()
    model = to_stock_layers(_of_size(load_model_file(path, trust=section.trust), how))
    return describe(model, section, path.name)


def _of_size(loaded: FileModel, how: Resize) -> keras.Model:
    """Return the model flat and for pictures of a size; where its top does not take that size, without its top."""
    try:
        return loaded.flat(how.height, how.width)
    except InputError:
        height, width = loaded.model.inputs[0].shape[1:3]
        if not height or not width or (height, width) == (how.height, how.width):
            raise
        own = loaded.flat(height, width)
        end = last_feature_map(own)
        if end is None:
            raise
        return flatten(keras.Model(own.inputs, own.get_layer(end).output), how.height, how.width)


def describe(model: keras.Model, section: BackboneSection, name: str) -> LoadedBackbone:
    """Find out what a flat model is, where it is cut and how it wants its pixels; raises InputError as `load_from_file`."""
    end = last_feature_map(model)
    if end is None:
        raise InputError(
            f"The model {name} gives no feature map.",
            "a network with a layer of shape (N, height, width, channels) that everything goes through",
            "take a convolutional network, or one before it was reshaped",
        )
    found = recognise(model)
    scaling, notes = _scaling(model, section, name, found)
    model.trainable = False
    cuts = _usual_cuts(model, found)
    return LoadedBackbone(model, scaling, digest_of_weights(model), name, cuts[-1], cuts, tuple(notes))


def _usual_cuts(model: keras.Model, found: Recognised | None) -> tuple[str, ...]:
    end = last_feature_map(model)
    names = {layer.name for layer in model.layers}
    if found and set(found.row.usual_cuts) <= names:
        return found.row.usual_cuts
    from pipeline.cut import candidate_cuts

    worth, deepest = set(candidate_cuts(model)), {}
    for row in layer_costs(model):
        if row.name in worth and row.reduction and row.reduction >= 8:
            deepest[row.reduction] = row.name
        if row.name == end:
            break
    return (*(each for each in deepest.values() if each != end), end)


def _scaling(
    model: keras.Model, section: BackboneSection, name: str, found: Recognised | None
) -> tuple[str, list[str]]:
    """Return the pixel scaling to put before a model, and sentences on how it was come by."""
    known = (
        f"is {found.name}{f' alpha {found.alpha:g}' if found.row.alphas else ''}" if found else "is of no known kind"
    )
    notes = [f"The backbone of {name} {known}, by its layers' names and shapes."]
    last = scaling_in_front(model)
    if section.pixel_scaling != "auto":
        if last and section.pixel_scaling != "none":
            notes.append(f"It scales its pixels itself too ('{last}'): both are done, as was asked for.")
        return section.pixel_scaling, notes
    if last:
        named = name_of_scaling(model, last)
        return "none", [
            *notes,
            f"It scales its pixels itself{f' ({named})' if named else ''}, up to its layer '{last}'.",
        ]
    if found is None:
        raise ask_for_scaling(name)
    own = scaling_in_front(found.network)
    scaling = name_of_scaling(found.network, own) if own else found.row.pixel_scaling
    if scaling is None:
        raise ask_for_scaling(name)
    return scaling, [*notes, f"Its pixel scaling is taken to be that of {found.name}: {scaling}."]


def ask_for_scaling(name: str) -> InputError:
    """Return the error that asks how a model wants its pixels."""
    return InputError(
        f"How {name} wants its pixels cannot be told from it.",
        f"backbone.pixel_scaling one of {', '.join(PIXEL_SCALINGS)}: what was done to raw 0..255 pixels in training",
        "for example --set backbone.pixel_scaling=unit; none: nothing; unit: / 255; tf: / 127.5 - 1; "
        "torch: ImageNet mean and deviation; caffe: BGR minus ImageNet means",
    )
