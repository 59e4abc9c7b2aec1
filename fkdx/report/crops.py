"""Crops of some images of a label file as arrays of probabilities, the likeliest class first."""

from dataclasses import dataclass

import numpy as np

from fkdx.labels import LabelFile
from fkdx.labels.distributions import gather_with_tails, probabilities


@dataclass
class Crops:
    """m crops of each of n images.

    Attributes:
        images: (n,) numbers in the file; `crops`, (n, m) numbers of their crops.
        boxes, flips: (n, m, 4) and (n, m), as `LabelFile.gather` gives them.
        ids, values: (n, m, K) classes and float32 probabilities in descending order.
        kept: K.
        entropy: (n, m) float32 in nats; what lies outside the top K counts as spread evenly over the rest.
        area: (n, m) parts of the image, `centres`, (n, m, 2) row and column of the centres in [0, 1]; None
            where the size of the images is unknown.
        mixed: crops of two images.
        alike: of embeddings, which have no classes (K = 0): (n, m) cosine of each with the mean of its
            image's, all dimensions standardised; NaN for zero vectors. None of labels of classes.
    """

    images: np.ndarray
    crops: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    kept: int
    entropy: np.ndarray
    area: np.ndarray | None
    centres: np.ndarray | None
    mixed: bool
    alike: np.ndarray | None = None


def read_crops(labels: LabelFile, images: np.ndarray, part: int = 0) -> Crops:
    """All crops of images that have equally many, or `part` evenly spread ones of each."""
    count = int(labels.crop_counts[images[0]])
    numbers = (
        np.arange(count) if not part or part >= count else np.linspace(0, count - 1, part).round().astype(int)
    )
    crops = np.broadcast_to(numbers, (len(images), len(numbers)))
    boxes, flips, ids, values, tails = gather_with_tails(labels, images, crops)
    alike = _alike(labels, values) if labels.embeddings else None
    if labels.embeddings:
        ids, values = np.zeros((2, *values.shape[:2], 0))
    ids, values = _sorted(labels, ids, probabilities(labels.kind, values, tails))
    return Crops(
        images=images,
        crops=crops,
        boxes=boxes,
        flips=flips,
        ids=ids,
        values=values,
        kept=values.shape[2],
        entropy=entropy(values, labels.num_classes),
        mixed=bool(labels.mix_size),
        alike=alike,
        **_geometry(labels, images, boxes),
    )


def _alike(labels: LabelFile, values: np.ndarray) -> np.ndarray:
    """(n, m) cosines of embeddings (n, m, K), see `Crops`; of two embeddings a crop, their mean."""
    places = np.cumsum(list(labels.embeddings.values()))[:-1]
    cosines = []
    for part, moments in zip(np.split(values, places, axis=2), labels.moments.values()):
        there = part.any(axis=2, keepdims=True)
        rows = np.where(there, (part - moments.mean) / moments.divisor, 0)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), 1e-12)
        middle = rows.sum(axis=1, keepdims=True)
        middle /= np.maximum(np.linalg.norm(middle, axis=2, keepdims=True), 1e-12)
        cosines.append(np.where(there, rows * middle, np.nan).sum(axis=2))
    return np.mean(cosines, axis=0)


def entropy(values: np.ndarray, num_classes: int) -> np.ndarray:
    """(..., ) entropy in nats of probabilities (..., K), the rest spread evenly over the other classes."""
    kept = -(values * np.log(np.maximum(values, 1e-12))).sum(axis=-1)
    others = num_classes - values.shape[-1]
    if others <= 0:
        return kept
    rest = np.maximum(1 - values.sum(axis=-1), 1e-12)
    return kept - rest * np.log(rest / others)


def _sorted(labels: LabelFile, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense labels by descending probability; others lie that way already."""
    if not labels.kind.startswith("dense"):
        return ids, values
    ids = np.argsort(-values, axis=2, kind="stable")
    return ids, np.take_along_axis(values, ids, axis=2)


def _geometry(labels: LabelFile, images: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray | None]:
    """Areas and centres as parts of the image."""
    if labels.ratios:
        whole = boxes.astype(np.float64)
    else:
        size = labels.image_sizes[images].astype(np.float64)[:, None]
        if not size.all():
            return {"area": None, "centres": None}
        whole = boxes / np.concatenate([size, size], axis=2)
    return {"area": whole[..., 2] * whole[..., 3], "centres": whole[..., :2] + whole[..., 2:] / 2}
