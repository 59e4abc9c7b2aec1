"""Batches of images from threads: submitted ahead, finished in order; errors wait for the batch to which they
belong."""

import math
import os
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from fkdx import _C
from fkdx.errors import refuse, whole
from fkdx.image import decode_crops, image_size, validation_crop
from fkdx.image.crops import Interpolation, Resample
from fkdx.labels import boxes_from_ratios
from fkdx.stores import Store, entry_table
from fkdx.system import available_cores, called, rest_at_exit, submit

Step = TypeVar("Step")
Begun = TypeVar("Begun")

_TURN_SECONDS = 0.05  # between two checks for signals
_STUCK_SECONDS = 60.0


def default_threads() -> int:
    """The number of cores of this process, shared among the processes that torchrun started on this
    machine."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def run_ahead(begin: Callable[[Step], Begun], steps: Iterable[Step], depth: int) -> Iterator[Begun]:
    """Yields begin(step) for every step, in order; each is called `depth` steps before its result is yielded.

    An exception of `begin` waits for its turn, so that it reaches the caller at the step to which it belongs.
    """
    waiting: deque[Future[Begun]] = deque()
    for step in steps:
        waiting.append(called(begin, step))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass
class View:
    """How images are cut and resized; see CropLoader for the options."""

    size: int
    interpolation: Interpolation = "bilinear"
    resample: Resample = "pillow12"
    allow_warnings: bool = False
    boxes: Literal["pixels", "ratios", "random", "centre"] = "pixels"
    crop_ratio: float = 0.875  # for "centre"
    random: _C.RandomCrops | None = None  # for "random"
    whole_file: bool = False  # see decode_crops

    def native(self) -> _C.View:
        """The same for the extension, checked. Raises ValueError."""
        if self.boxes == "centre" and not 0 < self.crop_ratio <= self.size:
            refuse("View", "crop_ratio", self.crop_ratio, f"above 0 and at most {self.size}")
        resize = math.floor(self.size / self.crop_ratio)
        return _C.View(
            self.size,
            str(self.interpolation),
            str(self.resample),
            self.allow_warnings,
            self.boxes,
            resize,
            self.random,
            self.whole_file,
        )


@dataclass
class Work:
    """What to do for one batch: counts[i] crops of images[i], row after row.

    boxes (B, 4) int32 and flips (B,) uint8 are read, or written if the view draws or converts them; ratios
    are (B, 4) float32. sizes[i] is the (height, width) that images[i] must have; (0, 0), or an empty list,
    accepts any. With random boxes, streams[i] and first_crops[i] identify the crops of images[i].
    """

    images: list[int]
    counts: list[int]
    boxes: np.ndarray
    flips: np.ndarray
    ratios: np.ndarray | None = None
    sizes: list[tuple[int, int]] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    first_crops: list[int] = field(default_factory=list)


class ImagePool:
    """Threads that read, decode and cut the images of a store.

    The threads belong to the process that made the pool: in a forked child, every call raises RuntimeError.
    They end with `close()`, with the pool's last reference, or at interpreter exit.
    """

    def __init__(self, store: Store, view: View, threads: int | None = None, cache_bytes: int = 0) -> None:
        self.store, self.view = store, view
        self._native_view = view.native()
        self._entries = entry_table(store)
        self._warned = False
        threads = default_threads() if threads is None else whole("loader", "threads", threads)
        self._pool = _C.Pool(threads, whole("loader", "cache_bytes", cache_bytes))
        self.foreign = 0  # images that are not JPEG, decoded by Pillow
        self.close = weakref.finalize(self, self._pool.close)

    @property
    def threads(self) -> int:
        return self._pool.threads

    def check_process(self) -> None:
        """RuntimeError in a process that was forked from that of the pool."""
        self._pool.check_process()

    def stages(self) -> dict[str, int]:
        """Nanoseconds of each stage, and counts, summed over all threads since the pool was made.

        `entered` counts images that were decoded from entry points of the data index, `misfits` those whose
        points were not theirs, so that they were decoded without. `cold` counts images whose bytes a thread
        had to wait for (on Linux); the system is then asked in advance for the next ones.
        """
        return self._pool.stages()

    def warn_of_misfits(self) -> None:
        """Warns, once, if entry points of the index were not those of their images."""
        misfits = self.stages()["misfits"]
        if misfits and not self._warned:
            self._warned = True
            warnings.warn(
                f"index: the entry points of {misfits} image{'s' * (misfits > 1)} are of other files and "
                f"were not used; run `fkdx index` again, {self.store.path}",
                stacklevel=3,
            )

    def submit(
        self, work: Work, slot: np.ndarray, urgent: bool = False, view: View | None = None
    ) -> "Pending":
        """Starts a batch that fills the rows of `slot` and returns at once. Urgent batches go first.

        `view` is for this batch; the default is that of the pool.
        """
        places = self.store.places(work.images)
        encoded, unread = self._read(work.images) if self.store.sequential else ([], {})
        try:
            native = self._pool.submit(
                self._native_view if view is None else view.native(),
                places,
                work.images,
                work.counts,
                slot[: len(work.flips)],
                work.boxes,
                work.flips,
                work.ratios,
                work.sizes,
                work.streams,
                work.first_crops,
                urgent,
                self._entries,
                encoded,
            )
        except RuntimeError:  # it is closed, or of another process
            rest_at_exit()
            raise
        return Pending(self, native, work, slot, view or self.view, unread)

    def _read(self, images: list[int]) -> tuple[list[bytes], dict[int, Exception]]:
        """The files of a sequential store; nothing, and an error by its place, for those that are damaged."""
        encoded, unread = [], {}
        for i, image in enumerate(images):
            try:
                encoded.append(self.store.encoded(image))
            except ValueError as error:
                encoded.append(b"")
                unread[i] = _C.ImageError(str(error))
        return encoded, unread


class Pending:
    """A batch that is being made. Dropping it cancels what no thread has started and waits for the rest."""

    def __init__(
        self,
        pool: ImagePool,
        native: _C.Pending,
        work: Work,
        slot: np.ndarray,
        view: View,
        unread: dict[int, Exception],
    ) -> None:
        self._pool, self._native, self._view, self._unread = pool, native, view, unread
        self.work, self.slot = work, slot
        self._foreign_sizes: dict[int, tuple[int, int]] = {}

    def finish(self) -> dict[int, Exception]:
        """Waits until all rows are written; returns the errors by the image's place in the batch, in order.

        RuntimeError if the pool was closed before they were.
        """
        begun = time.monotonic()
        while not self._native.wait(_TURN_SECONDS):
            if time.monotonic() - begun > _STUCK_SECONDS:
                begun = time.monotonic()
                waiting = [self._pool.store.place(self.work.images[i])[0] for i in self._native.waiting()]
                warnings.warn(
                    f"loader: no image arrived for {_STUCK_SECONDS:.0f} s; still waiting for {waiting[:3]}",
                    stacklevel=2,
                )
        if self._native.cancelled():
            rest_at_exit()
            raise RuntimeError("loader: closed while it was being used, make another one")
        errors = {}
        for i in self._native.failed():
            try:
                self._native.raise_error(i)
            except Exception as error:
                errors[i] = error.with_traceback(None)  # a traceback would keep the pool alive
        errors |= self._unread
        foreign = self._native.foreign()
        self._pool.foreign += len(foreign)
        with ThreadPoolExecutor(self._pool.threads) if foreign else nullcontext() as threads:
            for i, done in [(i, submit(threads, self._decode_foreign, i)) for i in foreign]:
                if isinstance(error := done.exception(), _C.ImageError):
                    errors[i] = _C.ImageError(f"{error}, {self._path(i)}")
                elif error:
                    raise error
        return dict(sorted(errors.items()))

    def ready(self) -> bool:
        """Whether all rows are written already, with no error and nothing left for Pillow."""
        native = self._native
        return native.wait(0) and not (native.failed() or native.foreign() or native.cancelled())

    def warned(self) -> list[int]:
        """The images of whose file libjpeg said something that changes no pixel; after `finish`."""
        return self._native.warned()

    def sizes(self) -> np.ndarray:
        """(n, 2) int32 height and width of the images; (0, 0) for unreadable ones."""
        sizes = self._native.sizes()
        for i, size in self._foreign_sizes.items():
            sizes[i] = size
        return sizes

    def _decode_foreign(self, i: int) -> None:
        """Pillow decodes what is not JPEG; the resize is ours all the same."""
        view, work, encoded = self._view, self.work, self._native.encoded(i)
        options = view.interpolation, view.resample
        first = sum(work.counts[:i])
        rows = slice(first, first + work.counts[i])
        if view.boxes == "centre":
            self.slot[rows] = validation_crop(encoded, view.size, view.crop_ratio, *options)
            return
        size = self._foreign_sizes[i] = image_size(encoded)
        if work.sizes and work.sizes[i] not in ((0, 0), size):
            raise _C.ImageError(
                f"loader: image of another size than its labels, got {size}, expected {work.sizes[i]}"
            )
        if view.boxes == "ratios":
            work.boxes[rows] = boxes_from_ratios(work.ratios[rows], *size)
        elif view.boxes == "random":
            drawn = view.random.draw(work.streams[i], *size, work.first_crops[i], work.counts[i])
            work.boxes[rows], work.flips[rows] = drawn
        flips = work.flips[rows].view(bool)
        self.slot[rows] = decode_crops(encoded, work.boxes[rows], flips, view.size, *options)

    def _path(self, i: int) -> str:
        return self._pool.store.place(self.work.images[i])[0]
