"""A calibrated label file, without rewriting it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fkdx.calibration.rule import Calibration
from fkdx.calibration.statistics import Statistics
from fkdx.labels import ImageLabels, LabelFile
from fkdx.labels.distributions import gather_with_tails, scores
from fkdx.labels.rounding import stored_values


@dataclass(frozen=True, eq=False)
class Kept:
    """The crops of N images that may be shown: `counts` (N,) of them, and their bits (N, bytes), packed."""

    counts: np.ndarray
    bits: np.ndarray

    def stored(self, images: np.ndarray, crops: np.ndarray) -> np.ndarray:
        """(n, m) numbers among the stored crops of crops (n, m) counted among those that may be shown."""
        rows = np.unpackbits(self.bits[images], axis=1, bitorder="little")
        return np.stack([np.flatnonzero(row)[chosen] for row, chosen in zip(rows, crops)])


class CalibratedLabels(Sequence[ImageLabels]):
    """A label file without its discarded crops, with classes in place of weak labels.

    Made by `calibrated`. It is used like a `LabelFile` and has the same attributes. Crops count from 0 among
    those that are left, in their stored order; values are rounded as the file's own are. So this and the file
    that `fkdx calibrate` writes give the same labels.

    Attributes:
        rule: the `Calibration`.
        statistics: what it did.
        crops: number of crops left of every image; None if it varies, see `crop_counts`.
        header: the file's header, with the rule in its provenance.
    """

    def __init__(
        self, labels: LabelFile, rule: Calibration, kept: Kept, truth: np.ndarray, statistics: Statistics
    ) -> None:
        self._labels, self.rule, self.statistics = labels, rule, statistics
        self._kept, self._truth = kept, truth
        self._row, self._tail = _smoothed_row(labels, rule.epsilon)
        counts = np.unique(kept.counts)
        self.crops = int(counts[0]) if len(counts) == 1 else None
        provenance = {**labels.header.get("provenance", {}), "calibration": asdict(rule)}
        self.header = {**labels.header, "provenance": provenance}

    def __getattr__(self, name: str) -> Any:
        """All other public attributes are those of the file. Private ones are not, because they ignore the
        rule."""
        if name.startswith("_"):
            raise AttributeError(f"'CalibratedLabels' object has no attribute '{name}'")
        return getattr(self._labels, name)

    @property
    def crop_counts(self) -> np.ndarray:
        """(N,) crops of each image that are left."""
        return self._kept.counts

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[ImageLabels]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, key: object) -> bool:
        return key in self._labels

    def __getitem__(self, image: int | str) -> ImageLabels:
        image = self.find(image) if isinstance(image, str) else range(len(self))[image]
        every = np.arange(self._kept.counts[image])[None]
        boxes, flips, ids, values = (part[0] for part in self.gather([image], every))
        tails = self.gather_tails([image], every)[0] if self.kind == "topk_logits" else None
        size = None if self.ratios else tuple(self.image_sizes[image].tolist())
        return ImageLabels(self.keys[image], boxes, flips, ids, values, size, tails)

    def gather(
        self, images: ArrayLike, crops: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Some crops of some images; see `LabelFile.gather`. IndexError for a crop that is not left."""
        boxes, flips, ids, values, tails = self._stored(images, crops)
        weak, truth = self._weak(images, ids, values, tails)
        if self.kind.startswith("dense"):
            values[weak] = self._row[1:2]
            values[(*np.nonzero(weak), truth)] = self._row[0]
        else:
            ids[weak] = put_first(ids[weak], truth)
            values[weak] = self._row
        return boxes, flips, ids, values

    def gather_tails(self, images: ArrayLike, crops: ArrayLike) -> np.ndarray:
        """(n, m) tails of `topk_logits`; arguments and errors as in `gather`."""
        _, _, ids, values, tails = self._stored(images, crops)
        tails[self._weak(images, ids, values, tails)[0]] = self._tail
        return tails

    def _stored(self, images: ArrayLike, crops: ArrayLike) -> tuple[np.ndarray, ...]:
        """The crops' labels as they lie in the file, and tails."""
        images, crops = np.asarray(images), np.asarray(crops)
        beyond = (crops < 0) | (crops >= self._kept.counts[images][:, None])
        if beyond.any():
            got = f"got {crops[beyond][0]}, expected one that is left"
            raise IndexError(f"CalibratedLabels.gather: crop, {got}, {self.path}")
        return gather_with_tails(self._labels, images, self._kept.stored(images, crops))

    def _weak(
        self, images: ArrayLike, ids: np.ndarray, values: np.ndarray, tails: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where (n, m) the class takes the label's place, and which class it is there."""
        truth = self._truth[np.asarray(images)]
        weak = scores(self._labels, self.rule.score, ids, values, tails, truth) < self.rule.middle
        weak &= self.rule.smooths
        return weak, np.broadcast_to(truth[:, None], weak.shape)[weak]

    def __reduce__(self) -> tuple:
        return CalibratedLabels, (self._labels, self.rule, self._kept, self._truth, self.statistics)

    def __repr__(self) -> str:
        return f"CalibratedLabels({self._labels!r}, {self.rule})"


def put_first(ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """ids (n, K) with classes (n,) put in front: a class that was there already moves up, otherwise the last
    one leaves."""
    wide = np.concatenate([classes[:, None], ids], axis=1)
    again = wide == classes[:, None]
    again[:, 0] = False
    order = np.argsort(again, axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(wide, order, axis=1)


def _smoothed_row(labels: LabelFile, epsilon: float) -> tuple[np.ndarray, float]:
    """Values (K,), the class in front, and tail of a smoothed class, rounded as the file stores them."""
    others = epsilon / max(labels.num_classes - 1, 1)
    row, tail = np.array([1 - epsilon, *[others] * (labels.k - 1)]), others * (labels.num_classes - labels.k)
    if labels.kind.endswith("logits"):
        row, tail = np.log(np.maximum(row, 1e-7)), np.log(max(tail, 1e-7))
        tail = tail if labels.k < labels.num_classes else -np.inf
    values, tails = stored_values(labels, row[None], [tail] if labels.kind == "topk_logits" else None)
    return values[0], -np.inf if tails is None else tails[0]
