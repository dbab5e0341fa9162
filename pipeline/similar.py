"""The nearest pictures by an embedding: `cutpoint similar`. Light: artifacts answer in their own runtime, numpy compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.contract import EMBEDDING, Card
from exporters.errors import InputError, nearest
from exporters.inputs import with_cells
from exporters.papers import parse_artifact_name
from exporters.pixels import IMAGE_SUFFIXES, load_images
from exporters.prediction import find_artifact
from exporters.runtimes import open_runner
from pipeline.bundle import GALLERY
from pipeline.splitting import Example, relative_path

# Pictures that are decoded at once.
BATCH = 64


def write_gallery(
    staged: Path, head: str, examples: Sequence[Example], column: str, vectors: np.ndarray, root: Path
) -> None:
    """Keep the embeddings of the pictures that were learned from, in which `similar` looks; paths are those below the data.

    Args:
        staged: a folder, as it will be the result folder.
        head: its name.
        examples: N pictures.
        column: whose cells are told of each; empty for none.
        vectors: float32 (N, width), each of length 1 or 0.
        root: the data's path.
    """
    base = root if root.is_dir() else root.parent
    (staged / GALLERY).mkdir(exist_ok=True)
    paths = [relative_path(each.path, base) for each in examples]
    labels = [each.targets.get(column, "") for each in examples]
    np.savez_compressed(
        staged / GALLERY / f"{head}.npz",
        vectors=vectors.astype(np.float32),
        paths=np.array(paths, str),
        labels=np.array(labels, str),
    )


def find_similar(
    folder_or_artifact: Path, pictures: list[Path], among: Path | None, head: str | None, top: int
) -> list[dict[str, Any]]:
    """Find the pictures that are nearest to each of some pictures.

    Args:
        folder_or_artifact: as in `predict_pictures`.
        pictures: what is looked for.
        among: a folder of pictures to look in; None: those that the model was made with.
        head: which embedding; None: the only one.
        top: how many to give for each.

    Returns:
        `[{"path", "artifact", "head", "similar": [{"path", "cosine", "label"}]}]`, the most alike first, cosine -1..1; `label`
        is empty for pictures of `among`. A picture is never named as similar to itself.

    Raises:
        InputError: no embedding, no gallery, no pictures, or one that cannot be read.
    """
    folder = find_artifact(folder_or_artifact)
    card = Card.read(folder / "card.json")
    name = _head(card, head)
    with open_runner(folder, parse_artifact_name(folder.name).format) as runner:

        def embed(paths: Sequence[Path]) -> np.ndarray:
            parts = [
                # An embedding looks at pictures alone: what other heads take beside them does not matter.
                runner.predict(with_cells(load_images(paths[start : start + BATCH], card.resize), card.columns))[name]
                for start in range(0, len(paths), BATCH)
            ]
            return _unit(np.concatenate(parts))

        wanted = embed(pictures)
        if among is None:
            paths, labels, vectors = _read_gallery(folder, name, wanted.shape[1])
        else:
            found = _pictures_in(among)
            paths, labels, vectors = [str(each) for each in found], [""] * len(found), embed(found)
    likeness = wanted @ vectors.T
    return [
        {
            "path": str(path),
            "artifact": folder.name,
            "head": name,
            "similar": _nearest(row, paths, labels, top, path if among else None),
        }
        for path, row in zip(pictures, likeness, strict=True)
    ]


def _nearest(
    row: np.ndarray, paths: list[str], labels: list[str], top: int, itself: Path | None
) -> list[dict[str, Any]]:
    order = np.argsort(-row, kind="stable")
    kept = [index for index in order if itself is None or Path(paths[index]).resolve() != itself.resolve()]
    return [{"path": paths[index], "cosine": float(row[index]), "label": labels[index]} for index in kept[:top]]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _head(card: Card, head: str | None) -> str:
    known = [output.name for output in card.outputs if output.task == EMBEDDING]
    if not known:
        raise InputError(
            f"The model '{card.name}' has no embedding.",
            'a head of the kind "embedding"',
            'add [heads.near] kind = "embedding" and run again',
        )
    if head is None and len(known) > 1:
        raise InputError("The model has several embeddings.", f"one of {', '.join(known)}", "name it with --head")
    if head is not None and head not in known:
        raise InputError(f"There is no embedding '{head}'.", nearest(head, known), "correct --head")
    return head or known[0]


def _read_gallery(folder: Path, name: str, width: int) -> tuple[list[str], list[str], np.ndarray]:
    path = folder.parent.parent / GALLERY / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vectors, paths, labels = arrays["vectors"], arrays["paths"].tolist(), arrays["labels"].tolist()
        if vectors.shape != (len(paths), width) or len(labels) != len(paths):
            raise ValueError(
                f"it holds {vectors.shape} for {len(paths)} pictures, and the model answers {width} numbers"
            )
    except (OSError, ValueError, KeyError) as fault:
        raise InputError(
            f"There are no pictures to look in: {path} cannot be read ({fault}).",
            "the gallery that `cutpoint run` writes beside artifacts/",
            "name a folder of pictures with --among",
        ) from fault
    return paths, labels, _unit(vectors)


def _pictures_in(among: Path) -> list[Path]:
    found = sorted(path for path in among.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InputError(
            f"{among} holds no pictures.", f"a folder with {', '.join(IMAGE_SUFFIXES)}", "give another --among"
        )
    return found
