"""Which layers of a backbone are fine-tuned: named by the user, told apart from those that stay as they were loaded."""

from __future__ import annotations

import keras

from exporters.errors import InputError, nearest
from exporters.opaque import has_opaque
from pipeline.backbones.loading import LoadedBackbone
from pipeline.config import Config
from pipeline.heads import learns


def layers_to_tune(config: Config, backbone: LoadedBackbone, truncated: keras.Model) -> tuple[str, ...]:
    """Return the backbone's layers from `fine_tuning.layer` on, up to the cuts; none where it is empty.

    Raises:
        InputError: there is no such layer, it lies behind the cuts, the backbone is a SavedModel, or no head learns.
    """
    wanted = config.fine_tuning.layer
    if wanted == "":
        return ()
    if has_opaque(backbone.model):
        raise InputError(
            f"The backbone {backbone.name} stays a SavedModel, whose layers cannot be told apart, let alone trained one by one.",
            "a backbone of Keras layers: of the table, or a .keras or .h5 file",
            "take [fine_tuning] out, or take another backbone",
        )
    if not any(learns(section) for section in config.heads.values()):
        raise InputError(
            "There is fine-tuning, and no head that learns.",
            "a head with a loss, which says what is better",
            "take [fine_tuning] out, or give the embedding a dimension",
        )
    names = [layer.name for layer in backbone.model.layers]
    kept = {layer.name for layer in truncated.layers}
    first = _index(wanted, names, backbone.name)
    last = max(index for index, name in enumerate(names) if name in kept)
    if first > last or names[first] not in kept:
        raise InputError(
            f"The backbone is cut at '{names[last]}', and fine_tuning.layer '{names[first]}' is not before it.",
            f"a layer up to '{names[last]}', of index {last}",
            f"`cutpoint layers {backbone.name}` lists them in their order",
        )
    return tuple(name for name in names[first:] if name in kept)


def _index(wanted: str | int, names: list[str], backbone: str) -> int:
    listing = f"`cutpoint layers {backbone}` lists them all"
    text = str(wanted).strip()
    if text.lstrip("-").isdigit():
        index = int(text) + (len(names) if int(text) < 0 else 0)
        if not 1 <= index < len(names):
            raise InputError(
                f"'{backbone}' has no layer {text} to fine-tune from.", f"an index from 1 to {len(names) - 1}", listing
            )
        return index
    if text not in names[1:]:
        raise InputError(f"'{backbone}' has no layer '{text}' to fine-tune from.", nearest(text, names[1:]), listing)
    return names.index(text)
