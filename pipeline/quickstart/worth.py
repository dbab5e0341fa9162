"""What the embedded backbone is worth: `python -m pipeline.quickstart.worth [--photographs DIR] [--weights FILE]`.

A linear probe on its globally pooled features, against two rivals: the same network with random weights, whose
BatchNorm statistics were estimated on the training images (without that a random network gives nearly constant
features, and beating it would mean nothing), and a ridge classifier on the raw pixels at 24 x 24.
"""

import argparse
import pathlib
import sys
import tempfile

import keras
import numpy as np
from PIL import Image, ImageOps

from pipeline.quickstart import WEIGHTS
from pipeline.quickstart.drawings import make_drawings
from pipeline.quickstart.pretraining import build_backbone

SIZE_PX = 96
PIXELS_PX = 24
RIDGES = tuple(10.0**power for power in range(-2, 6))


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a Markdown table on stdout. Out: the exit code, 0."""
    options = _parser().parse_args(arguments)
    print("| images | seed | embedded backbone | random weights, statistics estimated | raw pixels at 24 x 24 |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        make_drawings(pathlib.Path(temporary) / "drawings")
        folders = {"drawings": pathlib.Path(temporary) / "drawings"}
        if options.photographs:
            folders["photographs"] = options.photographs
        for name, folder in folders.items():
            images, pixels, labels = read_folder(folder)
            rows = [measure(images, pixels, labels, options.weights, seed) for seed in range(options.seeds)]
            for seed, row in enumerate(rows):
                print(f"| {name} | {seed} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
            mean = np.mean(rows, axis=0)
            print(f"| {name} | mean | " + " | ".join(f"**{value:.3f}**" for value in mean) + " |", flush=True)
    return 0


def measure(
    images: np.ndarray, pixels: np.ndarray, labels: np.ndarray, weights: pathlib.Path, seed: int
) -> tuple[float, float, float]:
    """Test accuracies (0..1) of the probe on the embedded backbone, on a random network, and on the raw pixels.

    In: images (N, 96, 96, 3) and pixels (N, 24, 24, 3), both uint8, labels (N,), a weights file, and the seed of the
    split and of the random network.
    """
    parts = split(labels, seed)
    backbone = build_backbone(SIZE_PX)
    backbone.load_weights(weights)
    keras.utils.set_random_seed(seed)
    rival = build_backbone(SIZE_PX)
    estimate_statistics(rival, images[parts[0]])
    rooms = (pooled_features(backbone, images), pooled_features(rival, images), pixels.reshape(len(pixels), -1) / 255)
    return tuple(probe_accuracy(features, labels, parts) for features in rooms)


def read_folder(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a folder per class. Out: images (N, 96, 96, 3), the same at 24 px, both uint8 RGB, labels (N,) int64.

    Raises ValueError where `folder` holds no images in subfolders.
    """
    images, pixels, labels = [], [], []
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for label, class_folder in enumerate(classes):
        for path in sorted(class_folder.iterdir()):
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
            images.append(np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR)))
            pixels.append(np.asarray(image.resize((PIXELS_PX, PIXELS_PX), Image.Resampling.BILINEAR)))
            labels.append(label)
    if not images:
        raise ValueError(
            f"found no images in {folder}: expected a folder of images for each class; name another folder"
        )
    return np.stack(images), np.stack(pixels), np.array(labels)


def split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split stratified, 0.7 / 0.15 / 0.15. Out: indices of train, validation and test."""
    generator = np.random.default_rng(seed)
    parts = [], [], []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.array([0.7, 0.85]) * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return tuple(np.concatenate(part) for part in parts)


def estimate_statistics(backbone: keras.Model, images: np.ndarray, batch_size: int = 512) -> None:
    """Replace the BatchNorm statistics of `backbone` by their means over batches of images (N, H, W, 3) uint8."""
    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    # In the order of a folder a batch would hold a class or two, and its statistics would be theirs.
    mixed = np.random.default_rng(0).permutation(len(images))
    batches = np.array_split(mixed, max(round(len(images) / batch_size), 1))
    for number, batch in enumerate(batches):
        for layer in layers:
            layer.momentum = number / (number + 1)
        backbone(_scaled(images[batch]), training=True)


def pooled_features(backbone: keras.Model, images: np.ndarray) -> np.ndarray:
    """In: images (N, H, W, 3) uint8. Out: globally averaged features (N, c) float32."""
    maps = [backbone.predict_on_batch(_scaled(images[at : at + 128])) for at in range(0, len(images), 128)]
    return np.concatenate([np.asarray(features).mean((1, 2)) for features in maps])


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 127.5 - 1


def probe_accuracy(features: np.ndarray, labels: np.ndarray, parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Ridge regression on one-hot labels, its strength chosen on validation. Out: accuracy on test, 0..1."""
    train, validation, test = parts
    features = features.astype(np.float64)
    centre, spread = features[train].mean(0), features[train].std(0)
    features = (features - centre) / np.where(spread > 1e-6, spread, 1.0)
    targets = np.eye(labels.max() + 1)[labels]
    bias = targets[train].mean(0)
    gram = features[train].T @ features[train]
    moment = features[train].T @ (targets[train] - bias)
    best = (-1.0, 0.0)
    for ridge in RIDGES:
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), moment)
        right = (features @ weights + bias).argmax(1) == labels
        best = max(best, (right[validation].mean(), right[test].mean()), key=lambda pair: pair[0])
    return float(best[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.quickstart.worth", description=__doc__)
    parser.add_argument(
        "--photographs", type=pathlib.Path, help="a folder per class of photographs to measure on as well"
    )
    parser.add_argument("--weights", type=pathlib.Path, default=WEIGHTS, help="weights file (default: the shipped one)")
    parser.add_argument("--seeds", type=int, default=3, help="how many splits (default: 3)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
