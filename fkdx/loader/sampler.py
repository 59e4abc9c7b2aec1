"""Which images and which of their crops form the batch of a step: a pure function of (seed, epoch, step).

Nothing here has a state, so threads, ranks and interruptions cannot change an epoch. A rank takes its part of
the global batch; the batch itself is the same set of (image, crop) pairs for every world size.
"""

from dataclasses import dataclass

import numpy as np

CHOICES = ("independent", "cycle")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Sampler:
    """The plan of every epoch.

    Attributes:
        stored: (N,) int64, how many crops image i has (M).
        batch_images: images of the global batch, G.
        crops_per_image: crops of one image in a batch, m <= M.
        seed: any integer.
        choice: "independent" draws a fresh random m of M for every image and epoch; "cycle" shows every
            stored crop of an image once before any of them again: crops number epoch ... epoch + m - 1
            of an endless row. So an epoch counts the crops of an image shown before it, and a pass with
            m crops is m epochs.
        drop_last: leave out the images that do not fill a batch; otherwise the last batch is filled with the
            epoch's first images.
        shuffle: False keeps the images in order.

    Raises:
        ValueError: m exceeds M for some image, no full batch, an unknown choice.
    """

    stored: np.ndarray
    batch_images: int
    crops_per_image: int
    seed: int = 0
    choice: str = "independent"
    drop_last: bool = True
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"Sampler: choice, got '{self.choice}', expected one of {', '.join(CHOICES)}")
        if len(self.stored) == 0:
            raise ValueError("Sampler: no images")
        if self.stored.min() < self.crops_per_image:
            few = int((self.stored < self.crops_per_image).sum())
            raise ValueError(
                f"Sampler: crops_per_image, got {self.crops_per_image}, expected at most the stored crops; "
                f"{few} of {len(self.stored)} images have fewer (the least: {self.stored.min()})"
            )
        if self.steps == 0:
            raise ValueError(
                f"Sampler: one batch needs {self.batch_images} images, got {len(self.stored)}; "
                "make the batch smaller or set drop_last=False"
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(len(self.stored), self.batch_images)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) the images in the order of this epoch."""
        if not self.shuffle:
            return np.arange(len(self.stored))
        return permutations(stream(self.seed, 0, np.array([epoch])), len(self.stored))[0]

    def positions(self, step: int) -> np.ndarray:
        """(G,) places in the epoch's order, beyond N where the last batch wraps."""
        return np.arange(step * self.batch_images, (step + 1) * self.batch_images)

    def crops(self, epoch: int, images: np.ndarray, laps: np.ndarray) -> np.ndarray:
        """(G, m) int64 crops to show; `laps` counts how often the epoch has come round to an image before."""
        chosen = np.empty((len(images), self.crops_per_image), np.int64)
        for count in np.unique(self.stored[images]):
            rows = self.stored[images] == count
            chosen[rows] = self._crops_of(epoch, images[rows], laps[rows], int(count))
        return chosen

    def _crops_of(self, epoch: int, images: np.ndarray, laps: np.ndarray, count: int) -> np.ndarray:
        if self.choice == "independent":
            fresh = permutations(stream(self.seed, 1, images, epoch, laps), count)
            return fresh[:, : self.crops_per_image]
        shown = epoch + np.arange(self.crops_per_image)
        rounds, places = np.divmod(shown, count)
        chosen = np.empty((len(images), self.crops_per_image), np.int64)
        for number in np.unique(rounds):
            now = rounds == number
            chosen[:, now] = permutations(stream(self.seed, 2, images, number), count)[:, places[now]]
        return chosen


def stream(seed: int, *words: int | np.ndarray) -> np.ndarray:
    """One 64-bit number from many, elementwise."""
    with np.errstate(over="ignore"):
        state = np.zeros(1, np.uint64)
        for word in (seed & (1 << 64) - 1, *words):
            state = _mix((state ^ np.asarray(word).astype(np.uint64)) + _GOLDEN)
    return state


def permutations(streams: np.ndarray, count: int) -> np.ndarray:
    """(n, count) int64: row i is a random permutation of 0 ... count - 1 that depends on streams[i] alone.

    Every element gets 32 random bits above its own number and the rows are sorted: no two keys are equal, so
    the result does not depend on the sort.
    """
    numbers = np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        keys = _mix(streams[:, None] + (numbers + np.uint64(1)) * _GOLDEN)
    keys = keys & ~_LOW | numbers
    keys.sort(axis=1)
    return (keys & _LOW).astype(np.int64)


def _mix(z: np.ndarray) -> np.ndarray:
    # SplitMix64 (Steele, Lea, Flood 2014).
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
