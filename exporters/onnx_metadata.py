"""What an ONNX file says of itself: its labels and its card, in `metadata_props`, which every runtime hands out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exporters.contract import Card
from exporters.papers import labels_files

if TYPE_CHECKING:
    import onnx

CARD = "card"


def describe(model: onnx.ModelProto, card: Card) -> None:
    """Put JSON into the model's metadata, in place: `card` as in card.json, and the labels, in index order.

    The labels' keys are the names of the text files beside the model without their endings: `labels`, or `labels.<head>` each.
    """
    entries: dict[str, Any] = {CARD: card.to_json()}
    entries |= {name.removesuffix(".txt"): list(labels) for name, labels in labels_files(card).items()}
    del model.metadata_props[:]
    for key, value in sorted(entries.items()):
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False, separators=(",", ":")))
