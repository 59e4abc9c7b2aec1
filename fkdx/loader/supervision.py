"""Where the boxes and targets of crops come from: label files, or random boxes and the images' classes."""

from typing import Any

import numpy as np
import torch

from fkdx import _C
from fkdx.image.augment import Step
from fkdx.image.random_boxes import crop_stream
from fkdx.labels import LabelFile
from fkdx.loader.partners import Partners, find_partners
from fkdx.loader.pool import Work
from fkdx.loader.sampler import Sampler
from fkdx.loader.soft_labels import SoftLabels
from fkdx.loss.target import SparseTarget
from fkdx.stores.sources import Source, class_numbers

Labels = tuple[np.ndarray, ...]  # arrays of n images, whatever `target` needs of them


class StoredCrops:
    """Crops and soft labels of a label file, or of several files for the same crops.

    Attributes:
        images: (n,) numbers of the images that have labels, in the order of their keys.
        stored: (n,) crops of each.
        classes: the class names, in the label file's order if it has one.
        view: what the crops need of a `View`.
    """

    def __init__(self, source: Source, labels: SoftLabels, on_missing: str) -> None:
        first = labels.first
        self._labels = labels
        self.images, self._label_of = _match(source, first, on_missing)
        if first.mix_size:
            number_of = {key: number for number, key in enumerate(source.keys)}
            self._image_of = np.array([number_of.get(key, -1) for key in first.keys])
        self.stored = first.crop_counts[self._label_of].astype(np.int64)
        self._sizes = first.image_sizes[self._label_of].astype(np.int64)
        self.classes, self._class_of = class_numbers(source, first.classes)
        self.view: dict[str, Any] = {"boxes": "ratios" if first.ratios else "pixels"}

    def choose(self, sampler: Sampler, epoch: int, places: np.ndarray, laps: np.ndarray) -> np.ndarray:
        """(n, m) crops to show of the images at these places of `images`."""
        crops = sampler.crops(epoch, places, laps)
        if not sampler.by_rank:
            return crops
        orders = self._labels.easiest_first(self._label_of[places])
        return np.stack([order[ranks] for order, ranks in zip(orders, crops)])

    def begin(self, epoch: int, places: np.ndarray, crops: np.ndarray) -> tuple[Work, Labels]:
        boxes, flips, labels = self._labels.gather(self._label_of[places], crops)
        work = Work(
            images=self.images[places].tolist(),
            counts=[crops.shape[1]] * len(places),
            boxes=np.ascontiguousarray(boxes.reshape(-1, 4), np.int32),
            flips=np.ascontiguousarray(flips.reshape(-1)).view(np.uint8),
            ratios=boxes.reshape(-1, 4) if self._labels.first.ratios else None,
            sizes=[tuple(size) for size in self._sizes[places].tolist()],
        )
        return work, tuple(labels)

    def steps(self, places: np.ndarray, crops: np.ndarray) -> list[list[Step]] | None:
        """The augmentation of each of these crops; None where there is none."""
        return self._labels.steps(self._label_of[places], crops)

    def partners(self, places: np.ndarray, crops: np.ndarray, size: int) -> Partners | None:
        """What these crops, cut to `size` pixels, are mixed with; None where nothing is mixed."""
        if not self._labels.first.mix_size:
            return None
        return find_partners(self._labels.first, self._image_of, self._label_of[places], crops, size)

    def target(self, classes: torch.Tensor, labels: Labels) -> SparseTarget | torch.Tensor:
        return self._labels.target(len(classes), labels)

    def class_of(self, images: np.ndarray) -> np.ndarray:
        return self._class_of[images]


class DrawnCrops:
    """Random crops drawn on the fly, with one-hot targets of the images' classes; else as `StoredCrops`."""

    def __init__(self, source: Source, crops_per_image: int, seed: int, rule: _C.RandomCrops) -> None:
        self._keys, self._seed, self._m = source.keys, seed, crops_per_image
        self.images = np.arange(len(source))
        self.stored = np.full(len(source), crops_per_image)
        self.classes, self._class_of = class_numbers(source, None)
        if self._class_of.min() < 0:
            bare = source.keys[int(self._class_of.argmin())]
            raise ValueError(f"CropLoader: an image without a class, expected <class>/<name>, got {bare}")
        self.view: dict[str, Any] = {"boxes": "random", "random": rule}

    def choose(self, sampler: Sampler, epoch: int, places: np.ndarray, laps: np.ndarray) -> np.ndarray:
        return laps[:, None] * self._m + np.arange(self._m)

    def begin(self, epoch: int, places: np.ndarray, crops: np.ndarray) -> tuple[Work, Labels]:
        n = len(places)
        work = Work(
            images=places.tolist(),
            counts=[self._m] * n,
            boxes=np.empty((n * self._m, 4), np.int32),
            flips=np.empty(n * self._m, np.uint8),
            streams=[crop_stream(self._seed, self._keys[place], epoch) for place in places],
            first_crops=crops[:, 0].tolist(),
        )
        return work, ()

    def steps(self, places: np.ndarray, crops: np.ndarray) -> None:
        return None

    def partners(self, places: np.ndarray, crops: np.ndarray, size: int) -> None:
        return None

    def target(self, classes: torch.Tensor, labels: Labels) -> SparseTarget:
        return SparseTarget.from_classes(classes, len(self.classes))

    def class_of(self, images: np.ndarray) -> np.ndarray:
        return self._class_of[images]


def _match(source: Source, labels: LabelFile, on_missing: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n,) that have labels, in the order of their keys, and the numbers (n,) of their labels.

    Images that are only partners of mixed crops are left out; nothing is missing of them.
    """
    names = labels.keys[:]
    number_of = {names[number]: number for number in np.flatnonzero(labels.crop_counts).tolist()}
    images = [i for i, key in enumerate(source.keys) if key in number_of]
    unknown, absent = set(source.keys).difference(names), set(number_of).difference(source.keys)
    if not images or (on_missing == "raise" and (unknown or absent)):
        raise ValueError(
            f"CropLoader: images and labels do not match: {len(unknown)} of {len(source)} images have no "
            f"label (such as {min(unknown, default=None)}), {len(absent)} of {len(number_of)} labels have no "
            f"image (such as {min(absent, default=None)}), {labels.path}; give the folder the labels were "
            "made for, or set on_missing='ignore'"
        )
    return np.array(images), np.array([number_of[source.keys[i]] for i in images])
