"""A label file as a calibration leaves it, without a byte rewritten."""

import os
import tempfile
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from fkdx.calibration.rule import Calibration, scores_of
from fkdx.calibration.statistics import Statistics
from fkdx.labels import ImageLabels, LabelFile, LabelWriter


@dataclass(frozen=True, eq=False)
class Kept:
    """The crops of N images that may be shown: `counts` (N,) of them, and their bits (N, bytes), packed."""

    counts: np.ndarray
    bits: np.ndarray

    def stored(self, images: np.ndarray, crops: np.ndarray) -> np.ndarray:
        """(n, m) numbers among the stored crops of crops (n, m) counted among those that may be shown."""
        rows = np.unpackbits(self.bits[images], axis=1, bitorder="little")
        return np.stack([np.flatnonzero(row)[chosen] for row, chosen in zip(rows, crops)])


class CalibratedLabels(LabelFile):
    """A `LabelFile` of which discarded crops are gone, and weak labels have given way to classes.

    Made by `calibrated`. Crops count from 0 among those that are left, in their stored order; values are
    rounded as the file's own are. So this and the file that `fkdx calibrate` writes give the same labels.

    Attributes:
        rule: the `Calibration`.
        statistics: what it did.
    """

    def __init__(
        self, path: str, io: str, rule: Calibration, kept: Kept, truth: np.ndarray, statistics: Statistics
    ) -> None:
        super().__init__(path, io)
        self.rule, self.statistics = rule, statistics
        self._kept, self._truth = kept, truth
        self._row, self._tail = _smoothed_row(self, rule.epsilon)
        counts = np.unique(kept.counts)
        self.crops = int(counts[0]) if len(counts) == 1 else None
        provenance = {**self.header.get("provenance", {}), "calibration": asdict(rule)}
        self.header = {**self.header, "provenance": provenance}

    @property
    def crop_counts(self) -> np.ndarray:
        return self._kept.counts

    def gather(
        self, images: ArrayLike, crops: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        boxes, flips, ids, values, tails = self._stored(images, crops)
        weak, truth = self._weak(images, ids, values, tails)
        if self.kind.startswith("dense"):
            values[weak] = self._row[1:2]
            values[(*np.nonzero(weak), truth)] = self._row[0]
        else:
            ids[weak] = first_in(ids[weak], truth)
            values[weak] = self._row
        return boxes, flips, ids, values

    def gather_tails(self, images: ArrayLike, crops: ArrayLike) -> np.ndarray:
        _, _, ids, values, tails = self._stored(images, crops)
        tails[self._weak(images, ids, values, tails)[0]] = self._tail
        return tails

    def _stored(self, images: ArrayLike, crops: ArrayLike) -> tuple[np.ndarray, ...]:
        images, crops = np.asarray(images), np.asarray(crops)
        beyond = (crops < 0) | (crops >= self._kept.counts[images][:, None])
        if beyond.any():
            got = f"got {crops[beyond][0]}, expected one that is left"
            raise IndexError(f"CalibratedLabels.gather: crop, {got}, {self.path}")
        return stored_labels(self, images, self._kept.stored(images, crops))

    def _weak(
        self, images: ArrayLike, ids: np.ndarray, values: np.ndarray, tails: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where (n, m) the class takes the label's place, and which class it is there."""
        truth = self._truth[np.asarray(images)]
        weak = scores_of(self, self.rule.score, ids, values, tails, truth) < self.rule.middle
        weak &= self.rule.smooths
        return weak, np.broadcast_to(truth[:, None], weak.shape)[weak]

    def __getitem__(self, image: int | str) -> ImageLabels:
        image = self.find(image) if isinstance(image, str) else range(len(self))[image]
        every = np.arange(self._kept.counts[image])[None]
        boxes, flips, ids, values = (part[0] for part in self.gather([image], every))
        tails = self.gather_tails([image], every)[0] if self.kind == "topk_logits" else None
        size = None if self.ratios else tuple(self.image_sizes[image].tolist())
        return ImageLabels(self.keys[image], boxes, flips, ids, values, size, tails)

    def __reduce__(self) -> tuple:
        parts = (self.path, self.io, self.rule, self._kept, self._truth, self.statistics)
        return CalibratedLabels, parts


def stored_labels(labels: LabelFile, images: ArrayLike, crops: ArrayLike) -> tuple[np.ndarray, ...]:
    """Boxes, flips, ids, values and tails (None but for `topk_logits`) as they lie in the file."""
    tails = LabelFile.gather_tails(labels, images, crops) if labels.kind == "topk_logits" else None
    return (*LabelFile.gather(labels, images, crops), tails)


def first_in(ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """ids (n, K) with classes (n,) put in front: whichever was there moves up, else the last one leaves."""
    wide = np.concatenate([classes[:, None], ids], axis=1)
    again = wide == classes[:, None]
    again[:, 0] = False
    order = np.argsort(again, axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(wide, order, axis=1)


def _smoothed_row(labels: LabelFile, epsilon: float) -> tuple[np.ndarray, float]:
    """Values (K,), the class in front, and tail of a smoothed class, as a file of this layout stores them."""
    others = epsilon / max(labels.num_classes - 1, 1)
    row, tail = np.array([1 - epsilon, *[others] * (labels.k - 1)]), others * (labels.num_classes - labels.k)
    if labels.kind.endswith("logits"):
        row, tail = np.log(np.maximum(row, 1e-7)), np.log(max(tail, 1e-7))
        tail = tail if labels.k < labels.num_classes else -np.inf
    layout = {"num_classes": labels.num_classes, "k": labels.k}
    layout |= {"encoding": labels.encoding, "value_type": labels.value_type}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "row.fkdl")
        with LabelWriter(path, labels.kind, **layout) as writer:
            tails = [tail] if labels.kind == "topk_logits" else None
            writer.add("row", [[0, 0, 1, 1]], [False], [range(labels.k)], row[None], (1, 1), tails=tails)
        stored = LabelFile(path, io="preload")
        _, _, _, values, tails = stored_labels(stored, [0], [[0]])
    return values[0, 0], -np.inf if tails is None else tails[0, 0]
