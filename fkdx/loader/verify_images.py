"""Find every image that a loader would refuse, by reading and decoding each one completely, in parallel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from fkdx.loader.pool import ImagePool, Pending, View, Work, run_ahead
from fkdx.stores import Store, open_store

_GROUP = 64  # images of one batch


@dataclass(frozen=True)
class BadImage:
    """An unusable image, and the reason, which names its path."""

    key: str
    reason: str


def verify_images(
    root: "str | Store", threads: int | None = None, allow_warnings: bool = False, progress: bool = True
) -> Iterator[BadImage]:
    """The images of `root` that are empty, truncated, corrupt, too large, unreadable, or not images at all.

    They come in the order of their keys, each as soon as it is found. JPEG has no checksum, so changed bytes
    that still decode are found only by comparing a fingerprint of the files.

    Args:
        root: where the images are, see `fkdx.stores.open_store`.
        threads: number of decoding threads (default: all cores).
        allow_warnings: accept damaged images that libjpeg decodes with a warning.
        progress: show a progress bar if stderr is a terminal.
    """
    store = open_store(root)
    pool = ImagePool(store, View(1, boxes="ratios", allow_warnings=allow_warnings, whole_file=True), threads)

    def begin(first: int) -> Pending:
        images = list(range(first, min(first + _GROUP, len(store))))
        n = len(images)
        whole = np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
        work = Work(images, [1] * n, np.empty((n, 4), np.int32), np.zeros(n, np.uint8), whole)
        return pool.submit(work, np.empty((n, 1, 1, 3), np.uint8))

    groups = range(0, len(store), _GROUP)
    try:
        with tqdm(total=len(store), unit="image", disable=None if progress else True) as bar:
            for pending in run_ahead(begin, groups, depth=2):
                errors = pending.finish()
                for i in sorted(errors):
                    yield BadImage(store.keys[pending.work.images[i]], str(errors[i]))
                bar.update(len(pending.work.images))
    finally:
        pool.close()
