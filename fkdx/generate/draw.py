"""Which crops of an image a teacher is to label."""

from dataclasses import dataclass

import numpy as np

from fkdx.crops import random_boxes


@dataclass(frozen=True)
class RandomCrops:
    """`crops` random-resized crops and flips, drawn from (seed, key, crop index) alone.

    `scale` is the range of a crop's share of the image's area, `ratio` that of its width / height, `flip` the
    chance that it is mirrored.
    """

    crops: int
    seed: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float

    def __call__(self, key: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return random_boxes(
            size, self.seed, key, self.crops, scale=self.scale, ratio=self.ratio, flip=self.flip
        )
