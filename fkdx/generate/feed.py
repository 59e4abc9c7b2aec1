"""The crops that teachers label: every image is decoded once for all its M crops, ahead of the teachers.

The loader's `ImagePool` cuts them, so that a teacher sees the very pixels that a student will see. A chunk is
one batch of the teachers: a part of one image's crops, or all crops of a few images. Chunks depend on the job
alone, so that a crop has the same neighbours whoever labels it and however often.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fkdx.batch.mix import Mix
from fkdx.generate.cut import Cut, Cutter, Pixels, Shape
from fkdx.generate.draw import Draw
from fkdx.generate.pairs import PairedImage, Pairs, joined, part_of
from fkdx.generate.shards import Shard
from fkdx.generate.stored import StoredAugment, StoredPairs, StoredPairsOfImage
from fkdx.image.augment import Augment, augment_rows
from fkdx.image.steps import Step
from fkdx.labels import Mixes
from fkdx.loader.pool import ImagePool, View, Work, default_threads, run_ahead
from fkdx.stores import Store

AHEAD_BYTES = 2 << 30  # of crops that wait for a teacher


@dataclass(frozen=True)
class ImageCrops:
    """The stored crops of one image and what was done to them; `failure` says why there are none."""

    key: str
    image_size: tuple[int, int] = (0, 0)
    boxes: np.ndarray | None = None
    flips: np.ndarray | None = None
    mixes: Mixes | None = None
    steps: list[list[Step]] | None = None
    failure: str = ""
    warned: bool = False  # the file has faults that change no pixel


@dataclass
class Chunk:
    """One batch: crops first ... last - 1 of each of `images`, image after image.

    `crops[shape]` is uint8 (images * (last - first), size, size, 3), black where the image failed. For
    teachers of maps it is the whole images, (images, size, size, 3), and `places` (images, M, 4) are their
    boxes as parts of the image. `mixes[shape]` is the Mixup of mixed crops; their CutMix is done.
    """

    shard: Shard
    images: list[ImageCrops]
    first: int
    last: int
    crops: dict[Shape, Tensor]
    places: Tensor | None = None
    mixes: dict[Shape, Mix | None] = field(default_factory=dict)


def plan_chunks(images: int, crops: int, batch_size: int) -> Iterator[tuple[range, list[tuple[int, int]]]]:
    """Groups of images and the crop ranges (first, last) in which each is labelled, at most `batch_size`.

    Many crops are cut into parts that are equal to one crop, so that no batch is a small remainder.
    """
    group = max(1, batch_size // crops)
    parts = -(-crops // batch_size)
    bounds = [crops * part // parts for part in range(parts + 1)]
    for start in range(0, images, group):
        yield range(start, min(start + group, images)), list(pairwise(bounds))


@dataclass
class _Image:
    """An image under way. `failure` says why it is not."""

    key: str
    cut: Cut | None = None
    partners: PairedImage | StoredPairsOfImage | None = None
    failure: str = ""


@dataclass(frozen=True)
class _Group:
    """Neighbouring images of a shard under way.

    Each of `ranges` of their crops becomes a chunk; `others` are the crops that `crops` are mixed with.
    """

    shard: Shard
    images: list[_Image]
    ranges: list[tuple[int, int]]
    crops: dict[Shape, Tensor]
    others: dict[Shape, Tensor]


class Feed:
    """Chunks of shards, in order, cut ahead by `threads` threads; they end with the feed's `with`.

    Args:
        source: the images.
        draw: which crops of them.
        batch_size: crops of a chunk, at most.
        shapes: (size, interpolation) of the crops that the teachers take.
        threads: default: as many as the loader takes.
        pinned: crops in page-locked memory.
        whole: teachers of maps, who see whole images.
        pairs: how crops are mixed with those of other images.
        augment: how crops are changed further.
        allow_warnings: accept damaged images that libjpeg decodes with a warning.
    """

    def __init__(
        self,
        source: Store,
        draw: Draw,
        batch_size: int,
        shapes: Iterable[Shape],
        threads: int | None = None,
        pinned: bool = False,
        whole: bool = False,
        pairs: Pairs | StoredPairs | None = None,
        augment: Augment | StoredAugment | None = None,
        allow_warnings: bool = False,
    ) -> None:
        self.source, self.draw, self.batch_size = source, draw, batch_size
        self.shapes, self.pinned, self.whole = sorted(set(shapes)), pinned, whole
        self.pairs, self.augment = pairs, augment
        self.crops = draw.crops
        self.seen = 1 if whole else self.crops  # rows of an image that a teacher sees
        threads = threads or default_threads()
        self.ahead = max(2, min(2 * threads, AHEAD_BYTES // self._group_bytes()))
        self._pool = ImagePool(source, View(self.shapes[0][0]), threads)
        self._cutter = Cutter(source, self._pool, allow_warnings)
        self._finishing = ThreadPoolExecutor(threads, thread_name_prefix="fkdx-feed")

    def _group_bytes(self) -> int:
        crop_bytes = sum(3 * size * size for size, _ in self.shapes)
        return max(self.seen, self.batch_size) * crop_bytes * (2 if self.pairs else 1)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()
        self._finishing.shutdown(cancel_futures=True)

    def chunks(self, shards: Iterable[Shard]) -> Iterator[Chunk]:
        for group in run_ahead(self._begin, self._plan(shards), self.ahead):
            yield from group.result()

    def _plan(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Sequence[int], list[tuple[int, int]]]]:
        """Shard, images and the ranges of their crops, group by group."""
        order = self.source.reading_order.tolist() if self.source.sequential else range(len(self.source))
        for shard in shards:
            for group, ranges in plan_chunks(shard.last - shard.first, self.seen, self.batch_size):
                yield shard, order[shard.first + group.start : shard.first + group.stop], ranges

    def _begin(self, step: tuple[Shard, Sequence[int], list[tuple[int, int]]]) -> Future[list[Chunk]]:
        """Hand a group of images to the pool; the rest is done once their crops are there."""
        shard, numbers, ranges = step
        crops = self._memory(len(numbers))
        others = self._memory(len(numbers)) if self.pairs else {}
        images = [
            self._begin_image(image, self._rows(crops, place), self._rows(others, place))
            for place, image in enumerate(numbers)
        ]
        return self._finishing.submit(self._finish, _Group(shard, images, ranges, crops, others))

    def _memory(self, images: int) -> dict[Shape, Tensor]:
        """Room for the crops of so many images, of any content."""
        return {
            shape: torch.empty(
                (images * self.seen, shape[0], shape[0], 3), dtype=torch.uint8, pin_memory=self.pinned
            )
            for shape in self.shapes
        }

    def _rows(self, crops: dict[Shape, Tensor], place: int) -> Pixels:
        """Those of one image of a group."""
        rows = slice(place * self.seen, (place + 1) * self.seen)
        return {shape: pixels[rows].numpy() for shape, pixels in crops.items()}

    def _begin_image(self, image: int, crops: Pixels, others: Pixels) -> _Image:
        started = _Image(self.source.keys[image])
        try:
            if self.whole:
                started.cut = self._cutter.begin({"boxes": "ratios"}, _whole(image), crops)
            else:
                started.cut = self._cutter.begin(self.draw.view, self.draw.work(self.source, image), crops)
            if self.pairs:
                started.partners = self.pairs.begin(self._cutter, image, others)
        except (OSError, ValueError) as error:
            started.failure = str(error)
        return started

    def _finish(self, group: _Group) -> list[Chunk]:
        """All chunks of a group, once its crops are there."""
        images = [self._finish_image(image) for image in group.images]
        for place, image in enumerate(images):
            for rows in self._rows(group.crops, place).values() if image.failure else ():
                rows[:] = 0
        if self.augment:
            steps = [one for image in images for one in image.steps or [[]] * self.seen]
            for crops in group.crops.values():
                augment_rows(crops.numpy(), steps, threads=1)
        if self.whole:
            return [Chunk(group.shard, images, 0, self.crops, group.crops, self._places(images))]
        return [self._chunk(group, images, first, last) for first, last in group.ranges]

    def _chunk(self, group: _Group, images: list[ImageCrops], first: int, last: int) -> Chunk:
        """Crops first ... last - 1 of every image; of several images these are always all."""
        chunk = Chunk(group.shard, images, first, last, {})
        stop = first + len(images) * (last - first)
        chunk.crops.update({shape: crops[first:stop] for shape, crops in group.crops.items()})
        if self.pairs:
            mixes = [None if image.failure else own.partners.mix for image, own in zip(images, group.images)]
            mix, needed = part_of(joined(mixes, self.crops), first, stop)
            for shape, crops in chunk.crops.items():
                others = group.others[shape][needed]
                mixup = mix.apply(crops.numpy(), others.numpy())
                chunk.mixes[shape] = mixup and self._pin(replace(mixup, others=others))
        return chunk

    def _pin(self, mixup: Mix) -> Mix:
        return mixup.pin_memory() if self.pinned else mixup

    def _finish_image(self, image: _Image) -> ImageCrops:
        key, mixes, steps = image.key, None, None
        if image.failure:
            return ImageCrops(key, failure=image.failure)
        try:
            for error in image.cut.finish().values():
                raise error
            size, work = image.cut.image_size, image.cut.work
            boxes, flips = self.draw(key, size) if self.whole else (work.boxes, work.flips.view(bool))
            if self.augment:
                steps = self.augment.draw(key, self.crops)
            if image.partners:
                mixes = image.partners.finish()
        except (OSError, ValueError) as error:
            return ImageCrops(key, failure=str(error))
        return ImageCrops(key, size, boxes, flips, mixes, steps, warned=image.cut.warned)

    def _places(self, images: list[ImageCrops]) -> Tensor:
        places = np.zeros((len(images), self.crops, 4), np.float32)
        for place, image in zip(places, images):
            if not image.failure:
                place[:] = image.boxes / np.tile(image.image_size, 2)
        return torch.from_numpy(places)


def _whole(image: int) -> Work:
    """An image as one crop, whatever its size."""
    return Work(
        images=[image],
        counts=[1],
        boxes=np.empty((1, 4), np.int32),
        flips=np.zeros(1, np.uint8),
        ratios=np.array([[0, 0, 1, 1]], np.float32),
    )
