"""The data set's image folder as importers need it: which image a label belongs to, and its size."""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from fkdx._C import FormatError, ImageError
from fkdx.errors import refuse
from fkdx.image import image_size
from fkdx.stores import class_folders

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of ImageFolder

HEADER_BYTES = 16_384  # most images state their size within


class Images:
    """An image folder, read as torchvision's `ImageFolder` reads it: `root/<class>/**/<image>`.

    `samples` are the keys (paths relative to `root`) in the order of `ImageFolder`, by which other tools
    number images; `keys` are the same, sorted; `classes` are the class folders in order. Raises OSError if
    the folder cannot be read, ValueError if it holds no image.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.classes = class_folders(self.root)
        self.samples = [key for name in sorted(self.classes) for key in self._of_class(name)]
        self.keys = sorted(self.samples)
        if not self.keys:
            raise ValueError(f"Images: folder, got no image, expected <class>/<image> files, {root}")

    def _of_class(self, name: str) -> list[str]:
        top = f"{self.root}/"
        return [
            f"{folder}/{file}".removeprefix(top)
            for folder, _, files in sorted(os.walk(f"{top}{name}", followlinks=True))
            for file in sorted(files)
            if file.lower().endswith(SUFFIXES)
        ]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _group(self.keys, lambda key: key.rpartition(".")[0])

    @cached_property
    def _by_first_dot(self) -> dict[str, list[str]]:
        return _group(self.keys, lambda key: key.partition(".")[0])

    def find(self, stems: list[str], label_file: str) -> str | None:
        """Key of the image to which a label file belongs, None if there is none.

        `stems` are paths without a suffix that may be its name, the likeliest first. Some tools cut names at
        the last dot, some at the first dot of the whole path; both are tried. Raises FormatError if more than
        one image fits.
        """
        for stem in stems:
            for keys_of in (self._by_stem, self._by_first_dot):
                keys = keys_of.get(stem, ())
                if len(keys) > 1:
                    got = f"{len(keys)} ({', '.join(keys[:3])})"
                    refuse("Images", f"images for '{stem}'", got, "one", label_file, error=FormatError)
                if keys:
                    return keys[0]
        return None

    def check_some_found(self, keys: Iterable[str], labels: str | Path) -> None:
        """Raises FormatError if none of `keys` is an image of the folder."""
        if not any(key.rpartition(".")[0] in self._by_stem for key in keys):
            raise FormatError(
                f"Images: {self.root} holds none of the labelled images; give the folder that holds them as "
                f"<class>/<image>, {labels}"
            )

    def files(self) -> Iterator[tuple[str, int]]:
        """The key and the size in bytes of every image, for `fkdx.labels.fingerprint`."""
        return ((key, os.path.getsize(self.root / key)) for key in self.keys)

    def size(self, key: str) -> tuple[int, int]:
        """(height, width) from the image's header, without decoding its pixels."""
        path = self.root / key
        with open(path, "rb", buffering=0) as file:
            try:
                return image_size(file.read(HEADER_BYTES))
            except ImageError:  # the header is longer, or it is no image
                return image_size(path)


def _group(keys: list[str], name_of) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(name_of(key), []).append(key)
    return groups
