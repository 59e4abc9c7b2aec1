"""One pass over a label file: how sure the teacher was, of what, and where its crops lie."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fkdx.calibration.rule import true_classes
from fkdx.labels import LabelFile
from fkdx.report.crops import Crops, read_crops
from fkdx.system import available_cores

BINS = 200  # of quantities in [0, 1]
GRID = 24  # cells a side of the map of box positions
MOST_COVERED = 20  # the largest K whose coverage is counted
TINY = 32  # pixels: crops with a shorter side hold less than most teachers' first layers look at
FLAT = 0.95  # part of log C: with a larger entropy a teacher says nearly nothing
CHUNK = 40_000  # crops read at a time


@dataclass
class Tally:
    """Counts over crops; those of two parts of a file add up.

    Attributes:
        crops: how many were looked at.
        largest, margin, entropy, outside: (BINS,) crops by their largest probability, by its distance to the
            second largest, by entropy / log C, and by the probability outside the top K.
        alike: (BINS,) crops by the cosine of their embedding with the mean of their image's, see `Crops`.
        area: (BINS,) crops by their part of the image; `centres`, (GRID, GRID) by row and column of their
            centres. All zeros where the size of the images is unknown.
        coverage: (k,) sums of the 1, 2, ... k largest probabilities.
        likeliest, named: (C,) crops whose likeliest class is c, and crops with c in their top K.
        of_class, agreed: (C,) crops of images of class c, and those of them whose likeliest class is c.
        confused: crops by (true class, another likeliest class).
        duplicates, tiny, flat: crops that repeat another one of their image, with a side below TINY pixels,
            and with an entropy above FLAT.
    """

    crops: int
    largest: np.ndarray
    margin: np.ndarray
    entropy: np.ndarray
    outside: np.ndarray
    alike: np.ndarray
    area: np.ndarray
    centres: np.ndarray
    coverage: np.ndarray
    likeliest: np.ndarray
    named: np.ndarray
    of_class: np.ndarray
    agreed: np.ndarray
    confused: Counter[tuple[int, int]]
    duplicates: int
    tiny: int
    flat: int

    def __iadd__(self, other: "Tally") -> "Tally":
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                self.confused.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)
        return self


@dataclass
class PerImage:
    """One number an image (N,), in the order of the file.

    Attributes:
        score, spread: mean and standard deviation of the largest probabilities of its crops; `lowest`,
            `highest`, the smallest and the largest of them.
        entropy: mean, in [0, 1].
        majority: the likeliest class of most crops; -1 without crops.
        unity: part of the crops that agree on it; of embeddings the mean of the cosines of `Crops`, and
            `spread` their standard deviation.
        agreement: part of the crops whose likeliest class is the true one; NaN where that is unknown.
    """

    score: np.ndarray
    spread: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    entropy: np.ndarray
    majority: np.ndarray
    unity: np.ndarray
    agreement: np.ndarray

    @classmethod
    def empty(cls, images: int) -> "PerImage":
        numbers = {name: np.full(images, np.nan, np.float32) for name in cls.__dataclass_fields__}
        numbers["majority"] = np.full(images, -1, np.int32)
        return cls(**numbers)


@dataclass
class Survey:
    """What one pass over a label file found; `crops_of` crops at most were read of each image (0: all)."""

    tally: Tally
    per_image: PerImage
    truth: np.ndarray
    crops_of: int = 0


def survey(
    labels: LabelFile,
    truth: np.ndarray | None = None,
    most_crops: int = 40_000_000,
    advance=lambda images: None,
) -> Survey:
    """Reads all crops, or evenly spread ones of each image where the file holds more than `most_crops`.

    Args:
        labels: of any kind; of embeddings only what needs no classes is counted.
        truth: (N,) true classes, -1 where unknown; None if all are.
        most_crops: at least 1.
        advance: called with the number of images of each step.
    """
    counts = labels.crop_counts.astype(np.int64)
    total = int(counts.sum())
    part = 0 if total <= most_crops else max(1, most_crops // max(len(labels), 1))
    truth = np.full(len(labels), -1, np.int64) if truth is None else np.asarray(truth, np.int64)
    per_image = PerImage.empty(len(labels))
    tally = empty_tally(labels)

    def look(images: np.ndarray) -> tuple[int, Tally]:
        crops = read_crops(labels, images, part)
        if labels.embeddings:
            return len(images), tally_of_embeddings(crops, per_image, empty_tally(labels))
        return len(images), tally_of(crops, truth, per_image, labels.num_classes)

    with ThreadPoolExecutor(available_cores()) as threads:
        for images, found in _in_order(threads, look, chunks(counts, part)):
            tally += found
            labels.forget()  # a map of 18 GB that is read once would count as memory of this process
            advance(images)
    return Survey(tally, per_image, truth, part)


def chunks(counts: np.ndarray, part: int) -> Iterator[np.ndarray]:
    """Runs of images with equal numbers of crops, CHUNK crops or one image at a time."""
    used = np.minimum(counts, part) if part else counts
    edges = np.flatnonzero(np.diff(used, prepend=-1, append=-1))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist()):
        step = max(1, CHUNK // max(1, int(used[start])))
        for first in range(start, end, step):
            if used[start]:
                yield np.arange(first, min(end, first + step))


def agreement(labels: LabelFile, most_crops: int = 10_000_000) -> dict[str, float]:
    """In percent, by class: crops whose likeliest class is the class of their image's folder.

    Raises ValueError where the keys name no classes of the file.
    """
    names, truth = true_classes(labels)
    found = survey(labels, truth, most_crops).tally
    return {
        name: 100 * int(agreed) / int(crops)
        for name, crops, agreed in zip(names, found.of_class, found.agreed, strict=True)
        if crops
    }


def _in_order(threads: ThreadPoolExecutor, function, items, ahead: int = 4):
    """Results in the order of the items, a few computed ahead: memory stays flat."""
    waiting: list = []
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for one in waiting:
        yield one.result()


def empty_tally(labels: LabelFile) -> Tally:
    classes, kept = labels.num_classes, min(labels.k, MOST_COVERED)
    names = ("largest", "margin", "entropy", "outside", "alike", "area")
    by_bin = {name: np.zeros(BINS, np.int64) for name in names}
    by_class = {name: np.zeros(classes, np.int64) for name in ("likeliest", "named", "of_class", "agreed")}
    return Tally(
        crops=0,
        centres=np.zeros((GRID, GRID), np.int64),
        coverage=np.zeros(kept),
        confused=Counter(),
        duplicates=0,
        tiny=0,
        flat=0,
        **by_bin,
        **by_class,
    )


def tally_of(crops: Crops, truth: np.ndarray, per_image: PerImage, classes: int) -> Tally:
    """Counts of some images' crops (n, m); fills in their rows of `per_image`."""
    n, m, _ = crops.ids.shape
    values, top = crops.values, crops.ids[..., 0]
    entropy = crops.entropy / max(np.log(classes), 1e-9)
    true = truth[crops.images][:, None]
    right = top == true
    known = np.broadcast_to(true >= 0, top.shape)
    second = values[..., 1] if values.shape[2] > 1 else 1 - values[..., 0]
    _fill(per_image, crops, entropy, right, known)
    return Tally(
        largest=histogram(values[..., 0]),
        margin=histogram(values[..., 0] - second),
        entropy=histogram(entropy),
        outside=histogram(1 - values.sum(axis=2)),
        alike=np.zeros(BINS, np.int64),
        coverage=values.cumsum(axis=2)[..., :MOST_COVERED].sum(axis=(0, 1), dtype=np.float64),
        likeliest=np.bincount(top.ravel(), minlength=classes),
        named=np.bincount(crops.ids.ravel(), minlength=classes) if crops.kept < classes else n * m,
        of_class=np.bincount(np.broadcast_to(true, top.shape)[known], minlength=classes),
        agreed=np.bincount(top[right & known], minlength=classes),
        confused=_pairs(np.broadcast_to(true, top.shape)[known & ~right], top[known & ~right], classes),
        flat=int((entropy > FLAT).sum()),
        **_places(crops),
    )


def tally_of_embeddings(crops: Crops, per_image: PerImage, empty: Tally) -> Tally:
    """Counts of some images' crops (n, m); fills in their rows of `per_image`."""
    known = np.isfinite(crops.alike)
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.nansum(crops.alike, axis=1) / count
    off = np.where(known, crops.alike - mean[:, None], 0)
    per_image.unity[crops.images] = np.where(known.any(axis=1), mean, np.nan)
    per_image.spread[crops.images] = np.where(
        known.any(axis=1), np.sqrt((off**2).sum(axis=1) / count), np.nan
    )
    return replace(empty, alike=histogram(crops.alike[known]), **_places(crops))


def _places(crops: Crops) -> dict[str, Any]:
    """The counts that boxes alone tell."""
    return {
        "crops": crops.flips.size,
        "area": histogram(crops.area) if crops.area is not None else np.zeros(BINS, np.int64),
        "centres": _centres(crops),
        "duplicates": _duplicates(crops),
        "tiny": int((crops.boxes[..., 2:].min(axis=2) < TINY).sum()) if crops.area is not None else 0,
    }


def histogram(values: np.ndarray) -> np.ndarray:
    """(BINS,) counts of values in [0, 1]."""
    places = (values.ravel() * BINS).astype(np.int64).clip(0, BINS - 1)
    return np.bincount(places, minlength=BINS)


def _centres(crops: Crops) -> np.ndarray:
    if crops.centres is None:
        return np.zeros((GRID, GRID), np.int64)
    cells = (crops.centres * GRID).astype(np.int64).clip(0, GRID - 1)
    places = cells[..., 0] * GRID + cells[..., 1]
    return np.bincount(places.ravel(), minlength=GRID * GRID).reshape(GRID, GRID)


def _pairs(true: np.ndarray, top: np.ndarray, classes: int) -> Counter[tuple[int, int]]:
    pairs, times = np.unique(true * classes + top, return_counts=True)
    return Counter(
        {(pair // classes, pair % classes): count for pair, count in zip(pairs.tolist(), times.tolist())}
    )


def _duplicates(crops: Crops) -> int:
    """Crops with the box and flip of an earlier one of their image; mixed crops differ by their partners."""
    if crops.mixed:
        return 0
    words = np.ascontiguousarray(crops.boxes).view(np.uint32).astype(np.uint64)
    marks = crops.flips.astype(np.uint64)
    for word in np.moveaxis(words, 2, 0):  # a polynomial modulo 2 ** 64
        marks = marks * np.uint64(0x9E3779B97F4A7C15) + word
    marks = np.sort(marks, axis=1)
    return int((marks[:, 1:] == marks[:, :-1]).sum())


def _fill(
    per_image: PerImage, crops: Crops, entropy: np.ndarray, right: np.ndarray, known: np.ndarray
) -> None:
    images, top = crops.images, np.sort(crops.ids[..., 0], axis=1)
    per_image.score[images] = crops.values[..., 0].mean(axis=1)
    per_image.spread[images] = crops.values[..., 0].std(axis=1)
    per_image.lowest[images] = crops.values[..., 0].min(axis=1)
    per_image.highest[images] = crops.values[..., 0].max(axis=1)
    per_image.entropy[images] = entropy.mean(axis=1)
    # In a sorted row the crops of a class lie side by side: the longest run is the majority.
    n, m = top.shape
    starts = np.ones((n, m), bool)
    starts[:, 1:] = top[:, 1:] != top[:, :-1]
    begin = np.maximum.accumulate(np.where(starts, np.arange(m), 0), axis=1)
    length = np.arange(m) - begin + 1
    longest = length.argmax(axis=1)
    per_image.majority[images] = np.take_along_axis(top, longest[:, None], axis=1)[:, 0]
    per_image.unity[images] = np.take_along_axis(length, longest[:, None], axis=1)[:, 0] / m
    per_image.agreement[images] = np.where(known[:, 0], right.mean(axis=1), np.nan)
