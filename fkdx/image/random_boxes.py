"""Random boxes and flips that depend on (seed, key, crop index) and the image's size alone.

The distribution is torchvision's `RandomResizedCrop.get_params` (ten attempts, then the centre) with a
flip. The numbers come from counters, not from a generator with a state, so any crop of any image can be
drawn alone, on any machine, by C++ threads or from here, and comes out the same.
"""

from hashlib import blake2b

import numpy as np

from fkdx import _C

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


def crop_stream(seed: int, key: str, epoch: int = 0) -> int:
    """The 64-bit number that names the crops of one image: those of label generation have epoch 0."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return _C.mix_words([seed & (1 << 64) - 1, int.from_bytes(digest, "little"), epoch])


def random_boxes(
    size: tuple[int, int],
    seed: int,
    key: str,
    count: int,
    *,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
    flip: float = 0.5,
    epoch: int = 0,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Crops `first`, ..., `first + count - 1` of one image.

    Args:
        size: (height, width) of the decoded image in pixels.
        key: the image's key, for example `n01440764/n01440764_10026.JPEG`.
        scale: least and greatest share of the image's area, in (0, 1].
        ratio: least and greatest width / height; log-uniform in between.
        flip: probability of a horizontal flip.

    Returns:
        boxes (count, 4) int32 as top, left, height, width, all inside the image; flips (count,) bool.

    Raises:
        ValueError: a range that is empty or out of bounds.
    """
    return _C.RandomCrops(scale, ratio, flip).draw(crop_stream(seed, key, epoch), *size, first, count)
