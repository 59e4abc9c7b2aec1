"""The crops that teachers label: every image is decoded once for all its M crops, ahead of the teachers.

A chunk is one batch of the teachers: a part of one image's crops, or all crops of a few images. Which, is
settled by the job alone, so that a crop has the same neighbours whoever labels it and however often.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fkdx.batch.mix import Mix
from fkdx.generate.pairs import Pairs, Shape, stored_mix
from fkdx.generate.shards import Shard
from fkdx.generate.stored import StoredAugment, StoredPairs
from fkdx.image import decode_crops, image_size
from fkdx.image.augment import Augment, Step, augment_rows
from fkdx.labels import Mixes
from fkdx.stores.sources import Source

AHEAD_BYTES = 2 << 30  # of crops that wait for a teacher

# (key, (H, W)) -> boxes (M, 4), flips (M,)
Draw = Callable[[str, tuple[int, int]], tuple[np.ndarray, np.ndarray]]
Pixels = dict[Shape, np.ndarray]  # (images, M, size, size, 3) uint8


@dataclass(frozen=True)
class View:
    """The stored crops of one image and what was done to them; `failure` says why there are none."""

    key: str
    image_size: tuple[int, int] = (0, 0)
    boxes: np.ndarray | None = None
    flips: np.ndarray | None = None
    mixes: Mixes | None = None
    steps: list[list[Step]] | None = None
    failure: str = ""


@dataclass
class Chunk:
    """One batch: crops first ... last - 1 of each of `views`, image after image.

    `crops[shape]` is uint8 (images * (last - first), size, size, 3), black where the image failed. For
    teachers of maps it is the whole images, (images, size, size, 3), and `places` (images, M, 4) are their
    boxes as parts of the image. `mixes[shape]` is the Mixup of mixed crops; their CutMix is done.
    """

    shard: Shard
    views: list[View]
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


class Feed:
    """Chunks of shards, in order, cut ahead by `threads` threads; they end with the feed's `with`."""

    def __init__(
        self,
        source: Source,
        draw: Draw,
        crops: int,
        batch_size: int,
        shapes: Iterable[Shape],
        threads: int | None = None,
        pinned: bool = False,
        whole: bool = False,
        pairs: Pairs | StoredPairs | None = None,
        augment: Augment | StoredAugment | None = None,
    ) -> None:
        self.source, self.draw, self.crops, self.batch_size = source, draw, crops, batch_size
        self.shapes, self.pinned, self.whole = sorted(set(shapes)), pinned, whole
        self.pairs, self.augment = pairs, augment
        self.seen = 1 if whole else crops  # views of an image that a teacher sees
        threads = threads or len(os.sched_getaffinity(0))
        group_bytes = max(self.seen, batch_size) * sum(3 * size * size for size, _ in self.shapes)
        group_bytes *= 2 if pairs else 1
        self.ahead = max(2, min(2 * threads, AHEAD_BYTES // group_bytes))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fkdx-feed")

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def chunks(self, shards: Iterable[Shard]) -> Iterator[Chunk]:
        waiting: deque[Future] = deque()
        for group in self._submitted(shards):
            waiting.append(group)
            if len(waiting) > self.ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def _submitted(self, shards: Iterable[Shard]) -> Iterator[Future]:
        for shard in shards:
            for group, ranges in plan_chunks(shard.last - shard.first, self.seen, self.batch_size):
                images = range(shard.first + group.start, shard.first + group.stop)
                yield self._pool.submit(self._cut, shard, images, ranges)

    def _cut(self, shard: Shard, images: range, ranges: list[tuple[int, int]]) -> list[Chunk]:
        """All chunks of one group of images."""
        crops = self._blank(len(images))
        others = self._blank(len(images)) if self.pairs else {}
        views = [self._cut_image(image, place, crops, others) for place, image in enumerate(images)]
        if self.whole:
            whole = {shape: self._tensor(_in_a_row(pixels)) for shape, pixels in crops.items()}
            return [Chunk(shard, views, 0, self.crops, whole, self._places(views))]
        return [self._fill(Chunk(shard, views, first, last, {}), crops, others) for first, last in ranges]

    def _blank(self, images: int) -> Pixels:
        return {
            (size, interpolation): np.zeros((images, self.seen, size, size, 3), np.uint8)
            for size, interpolation in self.shapes
        }

    def _cut_image(self, image: int, place: int, crops: Pixels, others: Pixels) -> View:
        key, mixes, steps = self.source.keys[image], None, None
        try:
            data = self.source.encoded(image)
            size = image_size(data)
            boxes, flips = self.draw(key, size)
            cut = (np.array([[0, 0, *size]]), np.zeros(1, bool)) if self.whole else (boxes, flips)
            for shape, pixels in crops.items():
                pixels[place] = decode_crops(data, *cut, *shape)
            if self.augment:
                steps = self.augment.draw(key, self.crops)
                for pixels in crops.values():
                    augment_rows(pixels[place], steps, threads=1)
            if self.pairs:
                own = {shape: pixels[place] for shape, pixels in others.items()}
                mixes = self.pairs.cut(self.source, image, own)
        except (OSError, ValueError) as error:
            return View(key, failure=str(error))
        return View(key, size, boxes, flips, mixes, steps)

    def _fill(self, chunk: Chunk, crops: Pixels, others: Pixels) -> Chunk:
        """A chunk with its pixels, out of those of all crops of its images."""
        part = slice(chunk.first, chunk.last)
        for shape in crops:
            own = _in_a_row(crops[shape][:, part])
            if self.pairs:
                stored = stored_mix([view.mixes and view.mixes[part] for view in chunk.views], len(own))
                mix = stored.apply(own, _in_a_row(others[shape][:, part]))
                chunk.mixes[shape] = mix.pin_memory() if mix and self.pinned else mix
            chunk.crops[shape] = self._tensor(own)
        return chunk

    def _places(self, views: list[View]) -> Tensor:
        places = np.zeros((len(views), self.crops, 4), np.float32)
        for place, view in zip(places, views):
            if not view.failure:
                place[:] = view.boxes / np.tile(view.image_size, 2)
        return torch.from_numpy(places)

    def _tensor(self, crops: np.ndarray) -> Tensor:
        batch = torch.from_numpy(crops)
        return batch.pin_memory() if self.pinned else batch


def _in_a_row(crops: np.ndarray) -> np.ndarray:
    """(images, crops, ...) -> (images * crops, ...)"""
    return crops.reshape(-1, *crops.shape[2:])
