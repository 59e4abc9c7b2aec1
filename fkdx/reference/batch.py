"""Images as a network gets them: normalised and mixed."""

import numpy as np


def prepare(images, mean, std, partners=None, boxes=None, blend=None) -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float64, normalised; inside its box a row blends with another."""
    pixels = np.asarray(images, np.float64)
    mixed = pixels.copy()
    if partners is not None:
        for row, (top, left, height, width) in enumerate(boxes):
            cut = (slice(top, top + height), slice(left, left + width))
            other = pixels[partners[row]][cut]
            mixed[row][cut] = (1 - float(blend[row])) * pixels[row][cut] + float(blend[row]) * other
    return ((mixed / 255 - np.asarray(mean)) / np.asarray(std)).transpose(0, 3, 1, 2)


def mix_views(own, other, operation: int, lam: float, box) -> np.ndarray:
    """Pixels (H, W, 3) of a stored mix of two crops, float64: Mixup (bit 1) first, then CutMix (bit 2)."""
    own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
    mixed = float(lam) * own + (1 - float(lam)) * other if operation & 1 else own.copy()
    if operation & 2:
        top, left, height, width = box
        mixed[top : top + height, left : left + width] = other[top : top + height, left : left + width]
    return mixed
