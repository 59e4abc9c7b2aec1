"""The crops that stored crops were mixed with before a teacher saw them: decoded and mixed again."""

from dataclasses import dataclass

import numpy as np

from fkdx.batch.mix import StoredMix
from fkdx.image.steps import Step
from fkdx.labels import LabelFile
from fkdx.labels.layout import MIXED, PARTNER_FLIPPED
from fkdx.loader.pool import Pending, Work


@dataclass
class Partners:
    """The crops that those of n images, m each, are mixed with; P in all.

    Attributes:
        work: what the threads have to cut, one crop per entry.
        owners: (P,) the place of the image that each is mixed with.
        mix: how the n m crops are mixed.
        pending, pixels: set once decoding has begun; (P, S, S, 3) uint8.
        slot: what pixels are the first rows of; None if they lie elsewhere.
        steps: the augmentation of each of the P crops; None if there is none.
    """

    work: Work
    owners: np.ndarray
    mix: StoredMix
    pending: Pending | None = None
    pixels: np.ndarray | None = None
    slot: np.ndarray | None = None
    steps: list[list[Step]] | None = None

    def finish(self) -> dict[int, Exception]:
        """Wait for all of them; returns the errors by the place of the image that is mixed with a bad one."""
        errors = self.pending.finish() if self.pending else {}
        return {int(self.owners[row]): error for row, error in errors.items()}

    def replace(self, i: int, other: "Partners") -> None:
        """Replaces image i by the only image of `other`."""
        m = len(other.mix.rows)
        rows = slice(i * m, (i + 1) * m)
        self.mix.rows[rows] = other.mix.rows + len(self.pixels)
        self.mix.operations[rows] = other.mix.operations
        self.mix.lambdas[rows] = other.mix.lambdas
        self.mix.boxes[rows] = other.mix.boxes
        self.pixels, self.slot = np.concatenate([self.pixels, other.pixels]), None
        if self.steps is not None:
            self.steps = self.steps + other.steps


def find_partners(
    labels: LabelFile, image_of: np.ndarray, numbers: np.ndarray, crops: np.ndarray, size: int
) -> Partners:
    """The partners of crops (n, m) of the labels with these numbers (n,).

    `image_of` (N,) is the store's image for every label, -1 if it has none; `size` is the side of the crops.
    Raises ValueError if a partner has no image.
    """
    partners, boxes, operations, lambdas, mix_boxes = labels.gather_mixes(numbers, crops)
    mixed = (operations & MIXED) > 0
    numbers = partners[mixed].astype(np.int64)
    images, boxes = image_of[numbers], boxes[mixed]
    if len(images) and images.min() < 0:
        absent = labels.keys[int(numbers[images.argmin()])]
        raise ValueError(
            f"CropLoader: a crop is mixed with {absent}, which is not among the images; give the folder "
            f"that the labels were made for, {labels.path}"
        )
    work = Work(
        images=images.tolist(),
        counts=[1] * len(images),
        boxes=np.ascontiguousarray(boxes, np.int32),
        flips=np.ascontiguousarray((operations[mixed] & PARTNER_FLIPPED) > 0).view(np.uint8),
        ratios=np.ascontiguousarray(boxes) if labels.ratios else None,
        sizes=[tuple(one) for one in labels.image_sizes[numbers].tolist()],
    )
    mix = StoredMix(
        np.cumsum(mixed) - 1,
        operations.reshape(-1) & MIXED,
        lambdas.reshape(-1),
        scale_boxes(mix_boxes.reshape(-1, 4), labels.mix_size, size),
    )
    return Partners(work, np.argwhere(mixed)[:, 0], mix)


def scale_boxes(boxes: np.ndarray, side: int, other: int) -> np.ndarray:
    """Boxes (..., 4) in a square of `side` pixels, scaled to one of `other` pixels; edges are rounded, halves
    up."""
    ends = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1).astype(np.int64)
    ends = (2 * ends * other + side) // (2 * side)
    return np.concatenate([ends[..., :2], ends[..., 2:] - ends[..., :2]], axis=-1)
