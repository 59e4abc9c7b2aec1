"""Find every image that a loader would refuse, by reading and decoding each one completely, in parallel."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import PIL
from tqdm import tqdm

from fkdx._C import ImageError
from fkdx.image import pillow_difference
from fkdx.loader.pool import ImagePool, Pending, View, Work, run_ahead
from fkdx.stores import Store, open_store

_GROUP = 64  # images of one batch


@dataclass(frozen=True)
class BadImage:
    """An unusable image, and the reason, which names its path.

    `differs`: it can be used, but its pixels are not those that Pillow gives.
    """

    key: str
    reason: str
    differs: bool = False


def verify_images(
    root: "str | Store",
    threads: int | None = None,
    allow_warnings: bool = False,
    progress: bool = True,
    compare: bool = False,
) -> Iterator[BadImage]:
    """The images of `root` that are empty, truncated, corrupt, too large, unreadable, or not images at all.

    They come in the order of their keys (of parquet files, in that of their rows), each as soon as it is
    found. JPEG has no checksum, so changed bytes that still decode are found only by comparing a fingerprint
    of the files.

    Args:
        root: where the images are, see `fkdx.stores.open_store`.
        threads: number of decoding threads (default: all cores).
        allow_warnings: accept damaged images that libjpeg decodes with a warning.
        progress: show a progress bar if stderr is a terminal.
        compare: also find images whose pixels differ from Pillow's (`differs`), which takes twice as long.
    """
    store = open_store(root)
    pool = ImagePool(store, View(1, boxes="ratios", allow_warnings=allow_warnings, whole_file=True), threads)

    order = store.reading_order if store.sequential else np.arange(len(store))

    def begin(first: int) -> Pending:
        images = order[first : first + _GROUP].tolist()
        n = len(images)
        whole = np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
        work = Work(images, [1] * n, np.empty((n, 4), np.int32), np.zeros(n, np.uint8), whole)
        return pool.submit(work, np.empty((n, 1, 1, 3), np.uint8))

    def difference(image: int) -> BadImage | None:
        return _difference(store, image, allow_warnings)

    groups = range(0, len(store), _GROUP)
    try:
        with (
            tqdm(total=len(store), unit="image", disable=None if progress else True) as bar,
            ThreadPoolExecutor(pool.threads) as beside,
        ):
            for pending in run_ahead(begin, groups, depth=2):
                images, errors = pending.work.images, pending.finish()
                found = [BadImage(store.keys[images[i]], str(error)) for i, error in errors.items()]
                if compare:
                    good = [image for i, image in enumerate(images) if i not in errors]
                    found += filter(None, beside.map(difference, good))
                yield from sorted(found, key=lambda image: image.key.encode())
                bar.update(len(images))
    finally:
        pool.close()


def _difference(store: Store, image: int, allow_warnings: bool) -> BadImage | None:
    """What is to be said of a readable image beside Pillow; None if nothing is."""
    path, key = store.place(image)[0], store.keys[image]
    try:
        levels = pillow_difference(store.encoded(image), allow_warnings)
    except (ImageError, OSError) as error:
        return BadImage(key, f"Pillow {PIL.__version__}: {error}, {path}", differs=True)
    if not levels:
        return None
    reason = f"pixels differ from those of Pillow {PIL.__version__} by up to {levels} of 255, {path}"
    return BadImage(key, reason, differs=True)
