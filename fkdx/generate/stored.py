"""What the crops of another label file went through before its teacher saw them, for a new teacher."""

from itertools import groupby

import numpy as np

from fkdx.generate.pairs import Shape
from fkdx.image import decode_crops, image_size
from fkdx.image.augment import Step, decode
from fkdx.labels import LabelFile, Mixes, boxes_from_ratios
from fkdx.stores.sources import Source


class StoredPairs:
    """The mixes of a label file; as `Pairs`."""

    def __init__(self, labels: LabelFile, source: Source) -> None:
        self.labels, self.size = labels, labels.mix_size
        self._number = {key: number for number, key in enumerate(source.keys)}

    def cut(self, source: Source, image: int, pixels: dict[Shape, np.ndarray]) -> Mixes:
        """How the crops of an image are mixed; `pixels[shape]` (M, size, size, 3) get their partners' crops.

        OSError or ValueError where a partner is absent or cannot be read.
        """
        mixes = self.labels[source.keys[image]].mixes
        boxes = np.zeros((len(mixes.partners), 4), np.int32)
        for partner, crops in groupby(range(len(boxes)), key=lambda crop: mixes.partners[crop]):
            if partner is None:
                continue
            if partner not in self._number:
                raise ValueError(f"it is mixed with {partner}, which is not there")
            part, data = list(crops), source.encoded(self._number[partner])
            own = mixes.boxes[part]
            boxes[part] = boxes_from_ratios(own, *image_size(data)) if self.labels.ratios else own
            for shape, rows in pixels.items():
                rows[part] = decode_crops(data, boxes[part], mixes.flips[part], *shape)
        return Mixes(mixes.partners, boxes, mixes.flips, mixes.operations, mixes.lambdas, mixes.mix_boxes)

    def provenance(self) -> dict:
        return {}  # the label file is named with its crops


class StoredAugment:
    """The steps of a label file; as `Augment`."""

    def __init__(self, labels: LabelFile) -> None:
        self.labels = labels

    def draw(self, key: str, crops: int) -> list[list[Step]]:
        return decode(self.labels.extra(self.labels.find(key)))[:crops]

    def extra(self) -> dict:
        return self.labels.header["extra"]
