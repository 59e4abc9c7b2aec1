"""TinyViT: top-K probabilities of every image in every epoch, with the seed of the view instead of the view.

    <root>/logits_top<K>_epoch<e>/rank<r>-keys.txt     one key per line: name or number of the image
    <root>/logits_top<K>_epoch<e>/rank<r>-values.bin   as many records of int32 seed, int16[K] ids,
                                                       float16[K] probabilities, little-endian

The seed starts a PCG64 generator that draws the crop, then the flip, then everything else; crop and flip are
drawn again here from the seed and the image's size. RandAugment and random erasing came after them and cannot
be replayed; the files do not say whether they were on. (Wu et al., "TinyViT: Fast Pretraining
Distillation for Small Vision Transformers", ECCV 2022.)
"""

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers.foreign_labels import (
    UNREADABLE,
    ForeignLabels,
    Layout,
    Settings,
    Unreadable,
    number_samples,
)
from fkdx.labels import ImageLabels

_refuse = partial(refuse, "TinyVitLabels", error=FormatError)

BLOCK_BYTES = 1 << 28  # records gathered at a time
FOLDER = re.compile(r"logits_top(\d+)_epoch(\d+)")


class TinyVitLabels(ForeignLabels):
    name = "tinyvit"
    about = "TinyViT: logits_top<K>_epoch<e>/rank<r>-keys.txt and -values.bin"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return path.is_dir() and any(FOLDER.fullmatch(folder.name) for folder in path.iterdir())

    def __init__(self, path: Path, settings: Settings) -> None:
        if settings.images is None:
            _refuse("labels", "no images", "--images: views are drawn again from the images' sizes", path)
        if settings.lost_operations is None:
            expected = "--lost-operations none (they were off) or accept (labels of other pixels)"
            _refuse("RandAugment and erasing", "files that do not say whether they were on", expected, path)
        self.root, self.images, self.settings = path, settings.images, settings
        self.keys = self.images.keys
        num_classes = settings.num_classes or len(settings.classes or self.images.classes)
        self.classes = settings.classes or self.images.classes
        if len(self.classes) != num_classes:
            self.classes = None
        folders, k = _epochs(path)
        self.record = np.dtype([("seed", "<i4"), ("ids", "<i2", k), ("values", "<f2", k)])
        self.epochs = [_Epoch(folder, self.record) for folder in folders]
        self.place = self._places()
        counts = np.unique((self.place >= 0).sum(axis=0))
        self.layout = Layout("topk", num_classes, k, int(counts[0]) if len(counts) == 1 else None)
        self.provenance = {
            "source": {"format": self.name, "epochs": len(self.epochs)},
            "tail": "uniform",
            "crop": {"scale": list(settings.scale), "ratio": list(settings.ratio), "flip": 0.5},
            "lost_operations": settings.lost_operations,
        }

    def _places(self) -> np.ndarray:
        """[epoch, image]: number of the record, -1 if there is none."""
        image_of = self._images_by_name()
        place = np.full((len(self.epochs), len(self.keys)), -1, np.int32)
        for epoch, row in zip(self.epochs, place):
            for record, name in enumerate(epoch.names):
                image = image_of.get(name)
                if image is None:
                    _refuse("key", f"'{name[:80]}'", "name or number of an image of the folder", epoch.folder)
                if row[image] < 0:  # padding repeats images on other ranks: the first one counts
                    row[image] = record
        return place

    def _images_by_name(self) -> dict[str, int]:
        """The image of every key: a number in the order of an image folder, or a file name without folder and
        suffix."""
        if all(name.isdigit() for name in self.epochs[0].names):
            return {str(sample): image for sample, image in enumerate(number_samples(self.images).tolist())}
        names: dict[str, int] = {}
        for image, key in enumerate(self.keys):
            if names.setdefault(Path(key).stem, image) != image:
                got = f"two of name '{Path(key).stem}'"
                _refuse(
                    "images", got, "every name once, because the labels name no folders", self.images.root
                )
        return names

    def read(self, numbers: range) -> Iterator[ImageLabels | Unreadable]:
        step = max(1, BLOCK_BYTES // (self.record.itemsize * len(self.epochs)))
        for first in range(numbers.start, numbers.stop, step):
            images = np.arange(first, min(first + step, numbers.stop))
            records = np.zeros((len(images), len(self.epochs)), self.record)
            for number, epoch in enumerate(self.epochs):
                there = np.flatnonzero(self.place[number, images] >= 0)
                records[there, number] = epoch.read(self.place[number, images[there]])
            for image, rows in zip(images.tolist(), records):
                yield self._labels(image, rows[self.place[:, image] >= 0])

    def _labels(self, image: int, records: np.ndarray) -> ImageLabels | Unreadable:
        key = self.keys[image]
        if len(records) == 0:
            return Unreadable(key, "no labels of this image are stored")
        try:
            size = self.images.size(key)
        except UNREADABLE as error:
            return Unreadable(key, str(error))
        if records["seed"].min() < 0:
            return Unreadable(key, f"seed, got {records['seed'].min()}, expected 0 or more")
        views = [
            replay_view(seed, size, self.settings.scale, self.settings.ratio)
            for seed in records["seed"].tolist()
        ]
        boxes = np.array([box for box, _ in views], np.int32)
        flips = np.array([flip for _, flip in views])
        return ImageLabels(key, boxes, flips, records["ids"], records["values"], size)


class _Epoch:
    """The files of all ranks of one epoch; records are numbered rank after rank."""

    def __init__(self, folder: Path, record: np.dtype) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.ranks: list[np.ndarray] = []
        for rank in _ranks(folder):
            keys, values = (folder / f"rank{rank}-{what}" for what in ("keys.txt", "values.bin"))
            names = keys.read_text("utf-8", "replace").split("\n")
            expected = (len(names) - 1) * record.itemsize
            if names[-1] or values.stat().st_size != expected:
                _refuse(
                    "size", f"{values.stat().st_size} bytes", f"{expected} for the keys of {keys}", values
                )
            self.names += names[:-1]
            if expected:
                self.ranks.append(np.memmap(values, record, "r"))
        self.starts = np.cumsum([0, *(len(rank) for rank in self.ranks)])

    def read(self, numbers: np.ndarray) -> np.ndarray:
        ranks = np.searchsorted(self.starts, numbers, side="right") - 1
        out = np.empty(len(numbers), self.ranks[0].dtype if self.ranks else "i4")
        for rank in np.unique(ranks):
            out[ranks == rank] = self.ranks[rank][numbers[ranks == rank] - self.starts[rank]]
        return out


def _ranks(folder: Path) -> list[int]:
    """The ranks of an epoch, in order. FormatError where there are none, or one has half of its files."""
    found = [
        {int(name[1]) for file in folder.iterdir() if (name := re.fullmatch(rf"rank(\d+)-{what}", file.name))}
        for what in (r"keys\.txt", r"values\.bin")
    ]
    if found[0] != found[1] or not found[0]:
        alone = sorted(found[0] ^ found[1])
        got = f"one of the two of rank {alone[0]}" if alone else "none"
        _refuse(
            "files", got, "rank<r>-keys.txt and rank<r>-values.bin of every rank; copy them again", folder
        )
    return sorted(found[0])


def replay_view(
    seed: int, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[tuple[int, int, int, int], bool]:
    """The box (top, left, height, width) and the flip that TinyViT's augmentation draws from a seed.

    `size` is (height, width) in pixels. There are ten tries for a random-resized crop before it falls back to
    the central one; then comes the flip.
    """
    rng = np.random.Generator(np.random.PCG64(seed))

    def uniform(low: float, high: float) -> float:
        return rng.random() * (high - low) + low

    height, width = size
    for _ in range(10):
        area = uniform(*scale) * (height * width)
        aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            top = min(int(rng.random() * (height - h + 1)), height - h)
            left = min(int(rng.random() * (width - w + 1)), width - w)
            break
    else:
        h, w = height, width
        if width / height < min(ratio):
            h = round(width / min(ratio))
        elif width / height > max(ratio):
            w = round(height * max(ratio))
        top, left = (height - h) // 2, (width - w) // 2
    return (top, left, h, w), rng.random() < 0.5


def _epochs(root: Path) -> tuple[list[Path], int]:
    """Folders of the epochs in order, and K."""
    epochs = [
        (int(name[2]), int(name[1]), folder)
        for folder in root.iterdir()
        if (name := FOLDER.fullmatch(folder.name))
    ]
    kept = {k for _, k, _ in epochs}
    if len(kept) != 1 or not 1 <= min(kept) <= 4096:
        _refuse("folders", f"K of {sorted(kept)}", "logits_top<K>_epoch<e> of one K", root)
    return [folder for _, _, folder in sorted(epochs)], kept.pop()
