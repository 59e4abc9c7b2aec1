"""What the crops of another label file went through before its teacher saw them, for a new teacher."""

import numpy as np

from fkdx.generate.cut import Cutter, Pixels
from fkdx.image.steps import Step, decode
from fkdx.labels import LabelFile, Mixes
from fkdx.loader.partners import find_partners
from fkdx.stores import Store


class StoredPairs:
    """The mixes of a label file; as `Pairs`."""

    def __init__(self, labels: LabelFile, source: Store) -> None:
        self.labels, self.size = labels, labels.mix_size
        number_of = {key: number for number, key in enumerate(source.keys)}
        self._image_of = np.array([number_of.get(key, -1) for key in labels.keys])

    def begin(self, cutter: Cutter, image: int, pixels: Pixels) -> "StoredPairsOfImage":
        """Start to fill `pixels` with the crops that those of an image are mixed with.

        Raises ValueError where a partner is absent.
        """
        number = self.labels.find(cutter.source.keys[image])
        return StoredPairsOfImage(self.labels, self._image_of, number, cutter, pixels)

    def provenance(self) -> dict:
        return {}  # the label file is named with its crops


class StoredPairsOfImage:
    """The partners of one image's crops under way, found as the loader finds them for a student."""

    def __init__(
        self, labels: LabelFile, image_of: np.ndarray, number: int, cutter: Cutter, pixels: Pixels
    ) -> None:
        every = np.arange(labels.crop_counts[number])[None]
        found = find_partners(labels, image_of, np.array([number]), every, labels.mix_size)
        self.mix, self._mixes = found.mix, labels[number].mixes
        rows = {shape: crops[: len(found.work.images)] for shape, crops in pixels.items()}
        view = {"boxes": "ratios" if labels.ratios else "pixels"}
        self._cut = cutter.begin(view, found.work, rows) if found.work.images else None

    def finish(self) -> Mixes:
        """How the crops are mixed, once the partners' crops are there. Raises the error of a bad partner."""
        boxes = np.zeros((len(self._mixes.partners), 4), np.int32)
        if self._cut:
            for error in self._cut.finish().values():
                raise error
            boxes[[partner is not None for partner in self._mixes.partners]] = self._cut.work.boxes
        return Mixes(
            partners=self._mixes.partners,
            boxes=boxes,
            flips=self._mixes.flips,
            operations=self._mixes.operations,
            lambdas=self._mixes.lambdas,
            mix_boxes=self._mixes.mix_boxes,
        )


class StoredAugment:
    """The steps of a label file; as `Augment`."""

    def __init__(self, labels: LabelFile) -> None:
        self.labels = labels

    def draw(self, key: str, crops: int) -> list[list[Step]]:
        return decode(self.labels.extra(self.labels.find(key)))[:crops]

    def extra(self) -> dict:
        return self.labels.header["extra"]
