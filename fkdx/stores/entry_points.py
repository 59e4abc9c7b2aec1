"""Entry points: places in a JPEG's data where a decoder may begin, so that a crop costs little more than its
own part of the image. They are kept in the data index, see docs/format.md.
"""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from fkdx import _C
from fkdx.stores.folder import FileList
from fkdx.stores.index import DataIndex
from fkdx.stores.indexed import IndexedImages, index_path
from fkdx.stores.selection import Selection
from fkdx.stores.store import Store
from fkdx.system import available_cores

_IMAGES_AT_ONCE = 1000


def make_entry_points(store: Store, threads: int | None = None) -> tuple[np.ndarray, bytes]:
    """Reads all images and codes their entry points, with a bar.

    Returns (N + 1,) uint64 where those of each image begin in the bytes that follow, and these. Images that
    are damaged, or no baseline JPEG files, have none.
    """
    decoders = threading.local()

    def make(image: int) -> bytes:
        if not hasattr(decoders, "one"):
            decoders.one = _C.CropDecoder()
        try:
            encoded = store.encoded(image)
        except OSError:
            return b""
        return decoders.one.make_entry_points(encoded) if _C.is_jpeg(encoded) else b""

    coded = [b""] * len(store)
    with (
        ThreadPoolExecutor(threads or available_cores()) as pool,
        tqdm(total=len(store), unit="image", desc="entry points", disable=None) as bar,
    ):
        for first in range(0, len(store), _IMAGES_AT_ONCE):
            images = store.reading_order[first : first + _IMAGES_AT_ONCE].tolist()
            for image, points in zip(images, pool.map(make, images)):
                coded[image] = points
            bar.update(len(images))
    starts = np.cumsum([0, *map(len, coded)], dtype=np.uint64)
    return starts, b"".join(coded)


def entry_table(store: Store) -> _C.EntryTable | None:
    """The entry points of a store's images by their numbers; None where no index beside it has any.

    An index that is out of date is used all the same: the points of each image are checked against its bytes.
    """
    images = None
    while isinstance(store, Selection):
        if store.images is not None:
            images = store.images if images is None else store.images[images]
        store = store.store
    try:
        index = _index_of(store)
        if index is None or "entry points" not in index:
            return None
        starts, coded = index.entry_points()
        numbers = _numbers_in(index, store)
    except _C.FormatError as error:
        warnings.warn(f"index: {error}; images are decoded without its entry points", stacklevel=2)
        return None
    if images is not None:
        numbers = images if numbers is None else numbers[images]
    return _C.EntryTable(starts, coded, None if numbers is None else numbers.astype(np.int32))


def _index_of(store: Store) -> DataIndex | None:
    if store.index is None and isinstance(store, FileList):
        path = index_path([store.path])
        return DataIndex(path) if os.path.exists(path) else None
    return store.index


def _numbers_in(index: DataIndex, store: Store) -> np.ndarray | None:
    """(N,) int32 the number in the index of every image, -1 where it has none; None: the same."""
    if isinstance(store, IndexedImages):
        return None
    numbers = store.keys.table.join(index.keys().table)
    return None if np.array_equal(numbers, np.arange(index.images)) else numbers
