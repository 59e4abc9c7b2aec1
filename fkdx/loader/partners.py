"""What stored crops were mixed with before a teacher saw them: decoded beside them, mixed once more."""

from dataclasses import dataclass

import numpy as np
import torch

from fkdx.labels import LabelFile
from fkdx.mix import Mix
from fkdx.pool import Pending, Work

MIXUP, CUTMIX, FLIPPED = 1, 2, 4


@dataclass
class Partners:
    """The partner crops of n images with m crops each, P in all.

    work: what cuts them, one crop an entry
    rows: (n, m) which of them a crop is mixed with; -1: none
    operations, lambdas, boxes: (n, m), (n, m) and (n, m, 4) as in docs/format.md, boxes in pixels of the crop
    pending, pixels: set once they are under way; (P, S, S, 3) uint8
    """

    work: Work
    rows: np.ndarray
    operations: np.ndarray
    lambdas: np.ndarray
    boxes: np.ndarray
    pending: Pending | None = None
    pixels: np.ndarray | None = None

    def finish(self) -> dict[int, Exception]:
        """Wait for all of them; the errors by the place of the image that is mixed with a bad one."""
        owners = np.argwhere(self.rows >= 0)[:, 0]
        errors = self.pending.finish() if self.pending else {}
        return {int(owners[row]): error for row, error in errors.items()}

    def replace(self, i: int, other: "Partners") -> None:
        """Image i gives way to the only image of `other`."""
        self.rows[i] = np.where(other.rows[0] >= 0, other.rows[0] + len(self.pixels), -1)
        for mine, theirs in zip(self._parameters(), other._parameters()):
            mine[i] = theirs[0]
        self.pixels = np.concatenate([self.pixels, other.pixels])

    def _parameters(self) -> tuple[np.ndarray, ...]:
        return self.operations, self.lambdas, self.boxes

    def paste(self, crops: np.ndarray) -> None:
        """CutMix of crops (n m, S, S, 3), in place: bytes are copied, so nothing is rounded."""
        rows, boxes = self.rows.reshape(-1), self.boxes.reshape(-1, 4).tolist()
        for crop in np.flatnonzero(self.operations & CUTMIX):
            top, left, height, width = boxes[crop]
            inside = slice(top, top + height), slice(left, left + width)
            crops[crop][inside] = self.pixels[rows[crop]][inside]

    def mix(self) -> Mix | None:
        """Mixup, which the device does; None where there is none.

        After `paste` a pixel of CutMix's box equals its partner's, so that Mixup leaves it as it is.
        """
        mixed = ((self.operations & MIXUP) > 0).reshape(-1)
        if not mixed.any():
            return None
        side = self.pixels.shape[1]
        blend = np.where(mixed, np.float32(1) - self.lambdas.reshape(-1), np.float32(0))
        return Mix(
            torch.from_numpy(np.where(mixed, self.rows.reshape(-1), 0)),
            torch.from_numpy(np.where(mixed[:, None], [0, 0, side, side], 0).astype(np.int32)),
            torch.from_numpy(blend.astype(np.float32)),
            lam=None,
            partners=torch.from_numpy(self.pixels),
        )


def find_partners(
    labels: LabelFile, image_of: np.ndarray, numbers: np.ndarray, crops: np.ndarray, size: int
) -> Partners:
    """The partners of crops (n, m) of the labels with these numbers (n,).

    `image_of` (N,) is the source's image of every label, -1 where it has none; `size` is the side of the
    crops. Raises ValueError where a partner has no image.
    """
    partners, boxes, operations, lambdas, mix_boxes = labels.gather_mixes(numbers, crops)
    mixed = (operations & (MIXUP | CUTMIX)) > 0
    numbers = partners[mixed].astype(np.int64)
    images, boxes = image_of[numbers], boxes[mixed]
    if len(images) and images.min() < 0:
        absent = labels.keys[int(numbers[images.argmin()])]
        raise ValueError(
            f"CropLoader: a crop is mixed with {absent}, expected it among the images, {labels.path}"
        )
    work = Work(
        images=images.tolist(),
        counts=[1] * len(images),
        boxes=np.ascontiguousarray(boxes, np.int32),
        flips=np.ascontiguousarray((operations[mixed] & FLIPPED) > 0).view(np.uint8),
        ratios=np.ascontiguousarray(boxes) if labels.ratios else None,
        sizes=[tuple(one) for one in labels.image_sizes[numbers].tolist()],
    )
    rows = np.where(mixed, np.cumsum(mixed).reshape(mixed.shape) - 1, -1)
    scaled = scale_boxes(mix_boxes, labels.mix_size, size)
    return Partners(work, rows, operations & (MIXUP | CUTMIX), lambdas, scaled)


def scale_boxes(boxes: np.ndarray, side: int, other: int) -> np.ndarray:
    """Boxes (..., 4) of a square of `side` pixels in one of `other` pixels: edges rounded, halves up."""
    ends = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1).astype(np.int64)
    ends = (2 * ends * other + side) // (2 * side)
    return np.concatenate([ends[..., :2], ends[..., 2:] - ends[..., :2]], axis=-1)
