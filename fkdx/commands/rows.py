"""Labels of one image as distributions that can be compared and averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fkdx.labels import ImageLabels, LabelFile

TAILS = ("smoothing", "renorm")


@dataclass(frozen=True, slots=True)
class Rows:
    """M distributions over C classes: `values` (M, K) float64 at `ids` (M, K), `base` (M,) at every other
    class."""

    ids: np.ndarray
    values: np.ndarray
    base: np.ndarray
    num_classes: int

    def at(self, ids: np.ndarray) -> np.ndarray:
        """Probabilities (M, U) of classes (M, U)."""
        if self.ids.shape[1] == self.num_classes:
            dense = np.empty_like(self.values)
            np.put_along_axis(dense, self.ids, self.values, axis=1)
            return np.take_along_axis(dense, ids, axis=1)
        same = ids[:, :, None] == self.ids[:, None, :]
        found = np.einsum("muk,mk->mu", same, self.values)
        return np.where(same.any(axis=2), found, self.base[:, None])


def recover(labels: LabelFile, image: ImageLabels, tail: str = "smoothing") -> Rows:
    """The distributions that an image's labels stand for.

    `tail` says what the classes that are not kept get: `smoothing`, the rest of the probability in equal
    parts (marginal smoothing, FKD section 3.2); `renorm`, nothing, and the others are scaled to sum to 1
    (marginal re-normalisation). Logits become probabilities at temperature 1 first.
    """
    ids, values = image.ids.astype(np.int64), probabilities(labels, image)
    if labels.kind.startswith("dense"):
        ids = np.broadcast_to(np.arange(labels.num_classes), values.shape)
    sums = values.sum(axis=1)
    others = labels.num_classes - values.shape[1]
    if tail == "renorm" or others == 0:
        return Rows(ids, values / np.maximum(sums, 1e-12)[:, None], np.zeros(len(ids)), labels.num_classes)
    return Rows(ids, values, np.maximum(1 - sums, 0) / others, labels.num_classes)


def probabilities(labels: LabelFile, image: ImageLabels) -> np.ndarray:
    """(M, K) float64 probabilities of the kept classes."""
    values = image.values.astype(np.float64)
    if not labels.kind.endswith("logits"):
        return values
    tails = np.full(len(values), -np.inf) if image.tails is None else image.tails.astype(np.float64)
    total = np.logaddexp(np.logaddexp.reduce(values, axis=1), tails)
    return np.exp(values - total[:, None])


def union(rows: Sequence[Rows]) -> tuple[np.ndarray, np.ndarray]:
    """All classes that some of the distributions name: ids (M, U), and where (M, U) one comes first."""
    num_classes = rows[0].num_classes
    if any(row.ids.shape[1] == num_classes for row in rows):
        ids = np.broadcast_to(np.arange(num_classes), (len(rows[0].ids), num_classes))
        return ids, np.ones(ids.shape, bool)
    ids = np.sort(np.concatenate([row.ids for row in rows], axis=1), axis=1)
    first = np.ones(ids.shape, bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    return ids, first


def check_same_crops(files: Sequence[LabelFile], images: Sequence[ImageLabels]) -> None:
    """Raises ValueError where the images' crops differ between files."""
    for file, image in zip(files, images):
        for name in ("boxes", "flips"):
            if not np.array_equal(getattr(image, name), getattr(images[0], name)):
                raise ValueError(
                    f"labels: {name} of '{image.key}' differ from those in {files[0].path}, expected the "
                    f"same crops, {file.path}"
                )


def check_same_classes(files: Sequence[LabelFile]) -> None:
    """Raises ValueError where files have other classes, another order of classes, or no plain crops."""
    for file in files:
        if file.num_classes != files[0].num_classes:
            got = f"got {file.num_classes}, expected {files[0].num_classes} as in {files[0].path}"
            raise ValueError(f"labels: number of classes, {got}, {file.path}")
        if file.classes and files[0].classes and file.classes != files[0].classes:
            raise ValueError(f"labels: class names differ from those of {files[0].path}, {file.path}")
        if file.mix_size or file.extra_operations:
            raise ValueError(f"labels: expected plain crops, got mixed or further changed ones, {file.path}")
