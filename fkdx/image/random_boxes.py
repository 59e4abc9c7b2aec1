"""Random boxes and flips that depend only on (seed, key, crop index) and the image's size.

The distribution is that of torchvision's `RandomResizedCrop.get_params` (ten attempts, then the centre) with
a flip. The numbers come from counters instead of a generator with a state, so any crop of any image can be
drawn by itself, in C++ threads or here, and is the same on every machine.
"""

from enum import IntEnum
from hashlib import blake2b

import numpy as np

from fkdx import _C

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


class Draws(IntEnum):
    """What is drawn for an image when labels are generated, each from a separate stream of numbers."""

    CROPS = 0
    PARTNER_CROPS = 1
    MIX_PARAMETERS = 2
    PARTNERS = 3
    AUGMENTS = 4


def crop_stream(seed: int, key: str, draws: int = Draws.CROPS) -> int:
    """The 64-bit number that determines everything drawn for one image.

    `draws` is one of `Draws`, or the epoch of crops that are drawn on the fly.
    """
    digest = blake2b(key.encode(), digest_size=8).digest()
    return _C.mix_words([seed & (1 << 64) - 1, int.from_bytes(digest, "little"), draws])


def random_boxes(
    size: tuple[int, int],
    seed: int,
    key: str,
    count: int,
    *,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
    flip: float = 0.5,
    draws: int = Draws.CROPS,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Crops `first`, ..., `first + count - 1` of one image.

    Args:
        size: (height, width) of the decoded image in pixels.
        key: the image's key, for example `n01440764/n01440764_10026.JPEG`.
        scale: smallest and largest share of the image's area, in (0, 1].
        ratio: smallest and largest width / height; log-uniform in between.
        flip: probability of a horizontal flip.
        draws: see `crop_stream`.

    Returns:
        boxes (count, 4) int32 as top, left, height, width, all inside the image; flips (count,) bool.

    Raises:
        ValueError: a range that is empty or out of bounds.
    """
    return _C.RandomCrops(scale, ratio, flip).draw(crop_stream(seed, key, draws), *size, first, count)
