"""Boxes that other formats store as fractions of the image."""

import numpy as np
from numpy.typing import ArrayLike


def boxes_from_ratios(ratios: ArrayLike, height: int, width: int) -> np.ndarray:
    """The pixel boxes that Pillow cuts for boxes given as fractions of the image.

    Args:
        ratios: (..., 4) floats: top / H, left / W, height / H, width / W.
        height, width: of the decoded image, in pixels.

    Returns:
        (..., 4) int32: top, left, height, width. Each edge is rounded by itself, half to even, in float64, as
        in `PIL.Image.crop`.
    """
    ratios = np.asarray(ratios, np.float64)
    sizes = np.array([height, width], np.float64)
    begin = ratios[..., :2] * sizes
    end = begin + ratios[..., 2:] * sizes
    begin, end = np.rint(begin), np.rint(end)
    return np.concatenate([begin, end - begin], axis=-1).astype(np.int32)
