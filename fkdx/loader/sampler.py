"""Which images and which of their crops form the batch of a step: a pure function of (seed, epoch, step).

There is no state, so threads, ranks and interruptions cannot change an epoch. A rank takes its part of the
global batch; the batch itself is the same set of (image, crop) pairs for every world size.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fkdx.errors import refuse

Choice = Literal["independent", "cycle", "easy_to_hard", "hard_to_easy", "range"]
CHOICES = get_args(Choice)
CURRICULA = ("easy_to_hard", "hard_to_easy", "range")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Sampler:
    """The plan of every epoch.

    Attributes:
        stored: (N,) int64, the number M of crops of each image.
        batch_images: images in the global batch, G.
        crops_per_image: crops of each image in a batch, m <= M.
        seed: any integer.
        choice: "independent" draws m of M anew for every image and epoch. "cycle" shows every stored crop of
            an image once before any of them again: crops number epoch ... epoch + m - 1 of an endless
            sequence. So the epoch is the number of crops of an image that were shown before, and a pass with
            m crops is m epochs. The curricula draw m anew from a window of the image's crops, which are then
            numbered from the easiest (0) to the hardest; see `window_at`.
        drop_last: leave out the images that do not fill a batch; otherwise fill the last batch with the
            epoch's first images.
        shuffle: False keeps the images in order.
        window: part of an image's crops that a curriculum shows at a time, 0 <= low < high <= 1.
        epochs: epochs of the whole run, over which a window moves.
        drawn: crops are drawn on the fly, not stored: an epoch shows crops 0 ... m - 1 of an image, and the
            next m if it shows the image again.

    Raises:
        ValueError: m exceeds M for some image, there is no full batch, the choice is unknown, or window and
            epochs do not make a curriculum.
    """

    stored: np.ndarray
    batch_images: int
    crops_per_image: int
    seed: int = 0
    choice: Choice = "independent"
    drop_last: bool = True
    shuffle: bool = True
    window: tuple[float, float] = (0.0, 0.25)
    epochs: int = 0
    drawn: bool = False

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            refuse("Sampler", "choice", f"'{self.choice}'", f"one of {', '.join(CHOICES)}")
        if self.choice in CURRICULA:
            self._check_curriculum()
        if len(self.stored) == 0:
            raise ValueError("Sampler: there are no images")
        if self.stored.min() < self.crops_per_image:
            few = int((self.stored < self.crops_per_image).sum())
            raise ValueError(
                f"Sampler: crops_per_image, got {self.crops_per_image}, expected at most the stored crops; "
                f"{few} of {len(self.stored)} images have fewer (the fewest: {self.stored.min()})"
            )
        if self.steps == 0:
            raise ValueError(
                f"Sampler: a batch needs {self.batch_images} images, but there are only {len(self.stored)}; "
                "choose a smaller batch_size"
            )

    def _check_curriculum(self) -> None:
        if len(self.window) != 2 or not 0 <= self.window[0] < self.window[1] <= 1:
            refuse("Sampler", "window", self.window, "0 <= low < high <= 1")
        if self.choice != "range" and self.epochs < 1:
            refuse("Sampler", "epochs", self.epochs, "those of the whole run")

    @property
    def by_rank(self) -> bool:
        """Whether crops are numbered from the easiest to the hardest."""
        return self.choice in CURRICULA

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(len(self.stored), self.batch_images)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) the images in this epoch's order."""
        if not self.shuffle:
            return np.arange(len(self.stored))
        return permutations(stream(self.seed, 0, np.array([epoch])), len(self.stored))[0]

    def positions(self, step: int) -> np.ndarray:
        """(G,) positions in the epoch's order; N and more where the last batch is filled up."""
        return np.arange(step * self.batch_images, (step + 1) * self.batch_images)

    def crops(self, epoch: int, images: np.ndarray, laps: np.ndarray) -> np.ndarray:
        """(G, m) int64 crops to show; `laps` is how often the epoch has already shown an image."""
        m, counts = self.crops_per_image, self.stored[images]
        if self.drawn:
            return laps[:, None] * m + np.arange(m)
        if self.choice == "cycle":
            return self._cycled(epoch + np.arange(m), images, counts)
        first = np.zeros_like(counts)
        if self.by_rank:
            first, last = (np.rint(edge * counts).astype(np.int64) for edge in self.window_at(epoch))
            last = np.minimum(np.maximum(last, first + m), counts)  # wide enough for m crops
            first = np.minimum(first, last - m)
            counts = last - first
        return first[:, None] + permutations(stream(self.seed, 1, images, epoch, laps), counts)[:, :m]

    def _cycled(self, shown: np.ndarray, images: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(G, m) crops at places `shown` (m,) of each image's endless sequence of permutations."""
        rounds, places = np.divmod(shown, counts[:, None])
        chosen = np.empty(places.shape, np.int64)
        for later in (0, 1):  # m <= M, so the crops come from at most two rounds
            number = rounds[:, 0] + later
            now = rounds == number[:, None]
            if now.any():
                whole = permutations(stream(self.seed, 2, images, number), counts)
                chosen[now] = np.take_along_axis(whole, places, axis=1)[now]
        return chosen

    def window_at(self, epoch: int) -> tuple[float, float]:
        """The part of an image's crops, from the easiest (0) to the hardest (1), that a curriculum shows.

        easy_to_hard begins with `window` and ends, in the last epoch, with its mirror image, [1 - high, 1 -
        low]; hard_to_easy goes the other way; range does not move. A window is widened to m crops if it is
        narrower.
        """
        done = min(epoch / max(self.epochs - 1, 1), 1.0)
        moved = {"easy_to_hard": done, "hard_to_easy": 1 - done, "range": 0.0}[self.choice]
        low, high = self.window
        shift = (1 - low - high) * moved
        return low + shift, high + shift


def stream(seed: int, *words: int | np.ndarray) -> np.ndarray:
    """Mixes several numbers into one of 64 bits, elementwise."""
    with np.errstate(over="ignore"):
        state = np.zeros(1, np.uint64)
        for word in (seed & (1 << 64) - 1, *words):
            state = _mix((state ^ np.asarray(word).astype(np.uint64)) + _GOLDEN)
    return state


def permutations(streams: np.ndarray, counts: int | np.ndarray) -> np.ndarray:
    """(n, largest count) int64: row i begins with a random permutation of 0 ... counts[i] - 1 that depends
    only on streams[i]; what follows in a shorter row has no meaning.

    Every element gets 32 random bits above its number, and the rows are sorted. No two keys are equal, so the
    result does not depend on the sorting algorithm.
    """
    numbers = np.arange(np.max(counts, initial=0), dtype=np.uint64)
    with np.errstate(over="ignore"):
        keys = _mix(streams[:, None] + (numbers + np.uint64(1)) * _GOLDEN)
    keys = keys & ~_LOW | numbers
    if np.ndim(counts):
        keys[numbers >= counts[:, None]] = ~np.uint64(0)
    keys.sort(axis=1)
    return (keys & _LOW).astype(np.int64)


def _mix(z: np.ndarray) -> np.ndarray:
    # SplitMix64 (Steele, Lea, Flood 2014).
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
