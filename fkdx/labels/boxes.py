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


def boxes_from_half_ratios(ratios: ArrayLike, height: int, width: int) -> np.ndarray:
    """The pixel boxes whose fractions of the image, rounded to float16, are `ratios`.

    Each number is found by itself: the only whole number of pixels that rounds to the stored one, through
    float32 as in LPQLD's writer. Arguments and result are those of `boxes_from_ratios`.

    Raises ValueError where no number of pixels fits, or more than one, as in images of more than about 2,048
    pixels.
    """
    ratios = np.asarray(ratios, np.float16)
    sizes = np.array([height, width, height, width], np.float64)
    nearest = np.rint(ratios * sizes)
    near = nearest[..., None] + np.array([-1, 0, 1])  # the fractions that round alike are neighbours
    rounded = (near / sizes[:, None]).astype(np.float32).astype(np.float16)
    fits = (rounded == ratios[..., None]) & (near >= 0) & (near <= sizes[:, None])
    counts = fits.sum(axis=-1)
    if (counts != 1).any():
        got = "fit no pixel" if (counts == 0).any() else "fit several pixels"
        raise ValueError(
            f"boxes_from_half_ratios: box, got float16 fractions that {got} of an image of {height} x "
            f"{width}, expected those of one box"
        )
    return (near * fits).sum(axis=-1).astype(np.int32)
