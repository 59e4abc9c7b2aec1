"""What every store of images offers."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fkdx._C import ImageError
from fkdx.image import image_size

if TYPE_CHECKING:
    from fkdx.stores.index import DataIndex
    from fkdx.stores.keys import Keys

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
LEFT_BEHIND = {
    *("lost+found", "@eaDir", "__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information"),
    *("#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot"),
}
_HEAD_BYTES = 16_384
Place = tuple[str, int, int]  # file, offset, length; length -1: the whole file


class Store:
    """Images by number, in the byte order of their keys.

    Attributes:
        path: the store as it was named, for messages.
        keys: the images' names, sorted.
        class_names: all classes in order, those without an image too, by the rule of `fkdx.stores.classes`.
        class_of: (N,) int32 number of every image's class, -1 where it has none.
        numbered: classes are numbers in the store; `class_names` are what they were said to mean.
        told: somebody gave the classes in order when the store was opened.
        index: the data index that the store was opened by, if any.
        aliases: other names that label files may have for the images: (names, image of each); None: none.
        complaint: a warning for whoever opens the store; "": none.
        sequential: images do not lie in their files as they are: rows of parquet, compressed archives.
            `encoded` reads them, many in `reading_order` alone fast enough; `place` names them for messages.
    """

    path: str
    keys: Sequence[str]
    class_names: list[str]
    class_of: np.ndarray
    aliases: "tuple[Keys, np.ndarray] | None" = None
    numbered: bool = False
    told: bool = False
    index: "DataIndex | None" = None
    complaint: str = ""
    sequential: bool = False

    def place(self, image: int) -> Place:
        """Where the bytes of an image lie: (file, offset, length); length -1 means the whole file."""
        raise NotImplementedError

    def places(self, images: Sequence[int]) -> list[Place]:
        """Those of several images."""
        return [self.place(image) for image in images]

    def encoded(self, image: int) -> bytes:
        """An image's file, or its part of a larger one."""
        path, offset, length = self.place(image)
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def head(self, image: int) -> bytes:
        """The first bytes of an image's file, at most 16 KiB: most say the image's size within."""
        path, offset, length = self.place(image)
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(_HEAD_BYTES if length < 0 else min(length, _HEAD_BYTES))

    def image_size(self, image: int) -> tuple[int, int]:
        """(height, width) from an image's header. ImageError or OSError where it cannot be read."""
        if self.sequential:
            return image_size(self.encoded(image))
        try:
            return image_size(self.head(image))
        except ImageError:  # a long header, or no image
            return image_size(self.encoded(image))

    @property
    def reading_order(self) -> np.ndarray:
        """The images in the order in which they are read fastest."""
        return np.arange(len(self))

    def sizes(self) -> np.ndarray:
        """(N,) int64 bytes of every image as it is encoded."""
        raise NotImplementedError

    def rough_sizes(self) -> np.ndarray:
        """The same, or, where that would mean to read all images, about the same."""
        return self.sizes()

    def files(self) -> Iterator[tuple[str, int]]:
        """The key and the size in bytes of every image, as `fkdx.labels.fingerprint` wants them."""
        return zip(self.keys, self.sizes().tolist())

    def check_unchanged(self) -> None:
        """Raises RuntimeError where a shard is not the file any more that was read to open the store."""

    def __len__(self) -> int:
        return len(self.keys)


Stamp = tuple[int, int]  # size, time of the last change


def stamp_of(path: str) -> Stamp:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns


def changed(path: str) -> RuntimeError:
    """What to raise where a file, or a folder, changed under a store."""
    what = "folder" if os.path.isdir(path) else "file"
    return RuntimeError(f"the {what} has changed since it was opened; open it again, {path}")


def check_random_access(store: Store) -> None:
    """Raises ValueError, with the remedy, where images cannot be read one by one in any order."""
    if store.sequential:
        raise ValueError(
            "training reads single images in random order, which parquet files and compressed archives "
            f"cannot give; run `fkdx repack {store.path} -o DIR` and train on DIR, {store.path}"
        )


def is_image(name: str) -> bool:
    """Whether a file of this name is an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def hidden(name: str) -> bool:
    """Whether a folder of this name is no part of the data."""
    return name.startswith(".") or name in LEFT_BEHIND


def is_apple_double(path: str) -> bool:
    """Whether a file is macOS's notes on another one: `._1.jpg`, which is no image."""
    return path.rpartition("/")[2].startswith("._")


def left_behind(path: str) -> bool:
    """Whether a file is no part of the data: in a hidden folder, or AppleDouble."""
    folders = path.split("/")[:-1]
    return is_apple_double(path) or any(hidden(folder) for folder in folders if folder not in (".", ".."))


def folder_of(key: str) -> str | None:
    """The first folder of a key; None where it has none."""
    folder, slash, _ = key.partition("/")
    return folder if slash else None
