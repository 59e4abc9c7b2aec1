"""Boxes cut, resized and flipped exactly as Pillow does, and boxes drawn at random."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def resize_weights(source: int, target: int, interpolation: str) -> np.ndarray:
    """Pillow's antialiasing weights of one axis, (target, source) integers with 22 fraction bits."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = {"bilinear": 1.0, "bicubic": 2.0}[interpolation] * stretch
    table = np.zeros((target, source), np.int64)
    if source == target:
        np.fill_diagonal(table, 1 << 22)
        return table
    for i in range(target):
        centre = (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), source)
        values = [_filter((x - centre + 0.5) * (1.0 / stretch), interpolation) for x in range(begin, end)]
        total = 0.0
        for value in values:
            total += value
        for x, value in zip(range(begin, end), values):
            weight = (value / total if total != 0.0 else value) * (1 << 22)
            table[i, x] = int(weight + (0.5 if weight >= 0 else -0.5))
    return table


def _filter(x: float, interpolation: str) -> float:
    x = abs(x)
    if interpolation == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


def resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear", resample: str = "pillow12"
) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8 as `Image.resize` does: two passes, rounded to bytes in between."""
    (height, width), (rows, columns) = image.shape[:2], size
    if resample == "pillow12":
        rows_last = rows < height and height > 100 * width
    else:
        rows_last = rows < height and height - rows > 2 * (width - columns)
    for axis in (0, 1) if rows_last else (1, 0):
        table = resize_weights(image.shape[axis], size[axis], interpolation)
        sums = np.moveaxis(np.tensordot(table, image.astype(np.int64), (1, axis)), 0, axis)
        image = np.clip((sums + (1 << 21)) >> 22, 0, 255).astype(np.uint8)
    return image


def cut_crop(
    image: np.ndarray,
    box: Sequence[int],
    flip: bool,
    size: int,
    interpolation: str = "bilinear",
    resample: str = "pillow12",
) -> np.ndarray:
    """One stored crop of a decoded image: (H, W, 3) uint8 -> (size, size, 3) uint8."""
    top, left, height, width = box
    out = resize(image[top : top + height, left : left + width], (size, size), interpolation, resample)
    return out[:, ::-1] if flip else out


def validation_crop(
    image: np.ndarray,
    size: int,
    crop_ratio: float,
    interpolation: str = "bilinear",
    resample: str = "pillow12",
) -> np.ndarray:
    """Shorter side to floor(size / crop_ratio), then the centre, padded with black where it is too small."""
    height, width = image.shape[:2]
    shorter, resized = min(height, width), math.floor(size / crop_ratio)
    target = tuple(resized * side // shorter for side in (height, width))
    image = resize(image, target, interpolation, resample)
    missing = [max(size - side, 0) for side in target]
    image = np.pad(image, [*((n // 2, n - n // 2) for n in missing), (0, 0)])
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


# ---- random boxes and flips -------------------------------------------------------------------------------

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(z: int) -> int:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return z ^ (z >> 31)


def mix_words(words: list[int]) -> int:
    """One 64-bit number from the lowest 64 bits of many."""
    state = 0
    for word in words:
        state = splitmix64((state ^ word & _WORD) + _GOLDEN & _WORD)
    return state


def random_word(stream: int, counter: int) -> tuple[int, int]:
    """Two 32-bit random numbers."""
    word = splitmix64(stream + (counter + 1) * _GOLDEN & _WORD)
    return word >> 32, word & 0xFFFFFFFF


def random_box(
    size: tuple[int, int],
    seed: int,
    key: str,
    crop: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    epoch: int = 0,
) -> tuple[tuple[int, int, int, int], bool]:
    """One crop from counters, as torchvision's RandomResizedCrop: ((top, left, height, width), flip)."""
    name = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    stream = mix_words([seed, name, epoch])
    height, width = size
    first = 16 * crop
    flipped = random_word(stream, first + 11)[0] / 2**32 < flip
    for attempt in range(10):
        share_bits, ratio_bits = random_word(stream, first + attempt)
        share = scale[0] + (scale[1] - scale[0]) * (share_bits / 2**32)
        # aspect = low * (high / low) ** u, with one square root a bit of u, so that every machine agrees
        aspect, root = ratio[0], ratio[1] / ratio[0]
        for bit in reversed(range(32)):
            root = math.sqrt(root)
            if ratio_bits >> bit & 1:
                aspect *= root
        w = round(math.sqrt(float(height) * width * share * aspect))
        h = round(math.sqrt(float(height) * width * share / aspect))
        if 0 < w <= width and 0 < h <= height:
            top_bits, left_bits = random_word(stream, first + 10)
            return (top_bits * (height - h + 1) >> 32, left_bits * (width - w + 1) >> 32, h, w), flipped
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return ((height - h) // 2, (width - w) // 2, h, w), flipped
