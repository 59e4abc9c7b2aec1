"""The data set's images as importers need them: which image a label belongs to, and its size."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np

from fkdx import _C
from fkdx._C import FormatError, ImageError
from fkdx.errors import refuse
from fkdx.stores import Store, composed_otherwise, open_store

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of ImageFolder


class Images:
    """The images of a store in the order in which torchvision reads an image folder, `<class>/**/<image>`.

    `samples` are the keys in the order of `ImageFolder`, by which other tools number images; `keys` are the
    same, sorted; `classes` are the classes in order. Of keys without a folder, the canonical key says the
    class. Raises OSError if the images cannot be read, ValueError if there are none in a class.
    """

    def __init__(self, root: "str | os.PathLike | Store", classes: list[str] | None = None) -> None:
        self.store = open_store(root, classes)
        self.root, self.classes = Path(self.store.path), self.store.class_names
        paths = [(*_split(self._path(i, key)), key) for i, key in enumerate(self.store.keys)]
        kept = sorted(path for path in paths if path[0] and path[-1].lower().endswith(SUFFIXES))
        self.samples = [key for *_, key in kept]
        self.keys = sorted(self.samples)
        if not self.keys:
            raise ValueError(f"Images: images, got none in a class, expected <class>/<image>, {self.root}")

    def _path(self, image: int, key: str) -> str:
        """`<class>/<image>`, whatever the store calls it."""
        return key if "/" in key else f"{self._canonical(image, key).rpartition('/')[0]}/{key}"

    def _canonical(self, image: int, key: str) -> str:
        number = -1 if "/" in key else int(self.store.class_of[image])
        return _C.canonical_key(key, self.classes[number] if number >= 0 else "")

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self.store.keys)}

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _group(self.keys, lambda key: key.rpartition(".")[0])

    @cached_property
    def _by_first_dot(self) -> dict[str, list[str]]:
        return _group(self.keys, lambda key: key.partition(".")[0])

    @cached_property
    def _by_canonical(self) -> dict[str, list[str]]:
        return _group(self.keys, lambda key: self._canonical(self._number_of[key], key))

    @cached_property
    def _by_composed(self) -> dict[str, str]:
        stems = (key.rpartition(".")[0] for key in self.keys if not key.isascii())
        return {normalize("NFC", stem): stem for stem in stems}

    def _alike(self, key: str) -> str:
        """What to say of an image whose name only looks the same."""
        stem = key.rpartition(".")[0]
        other = self._by_composed.get(normalize("NFC", stem))
        said = composed_otherwise(stem, [] if other is None else [other])
        return f" ({said})" if said else ""

    def find(self, stems: list[str], label_file: str) -> str | None:
        """Key of the image to which a label file belongs, None if there is none.

        `stems` are paths without a suffix that may be its name, the likeliest first. Some tools cut names at
        the last dot, some at the first dot of the whole path; both are tried, and canonical keys after them.
        Raises FormatError if more than one image fits.
        """
        tables = [(stem, name) for stem in stems for name in ("_by_stem", "_by_first_dot")]
        for stem, name in tables + [(stem, "_by_canonical") for stem in stems]:
            keys = getattr(self, name).get(stem, ())
            if len(keys) > 1:
                got = f"{len(keys)} ({', '.join(keys[:3])})"
                refuse(
                    "Images",
                    f"images for '{stem}'",
                    got,
                    "one; give the images of one split",
                    label_file,
                    error=FormatError,
                )
            if keys:
                return keys[0]
        return None

    def check_some_found(self, keys: Iterable[str], labels: str | os.PathLike) -> None:
        """Raises FormatError if none of `keys` is an image of the folder."""
        if not any(key.rpartition(".")[0] in self._by_stem for key in keys):
            raise FormatError(
                f"Images: {self.root} holds none of the labelled images; give the images that were labelled, "
                f"{labels}"
            )

    def files(self) -> Iterator[tuple[str, int]]:
        """The key and the size in bytes of every image, for `fkdx.labels.fingerprint`."""
        numbers = np.array([self._number_of[key] for key in self.keys])
        return zip(self.keys, self.store.sizes()[numbers].tolist())

    def size(self, key: str) -> tuple[int, int]:
        """(height, width) from the image's header, without decoding it. OSError where there is none."""
        image = self._number_of.get(key, -1)
        if image < 0:
            raise FileNotFoundError(f"No such file{self._alike(key)}, {self.root}/{key}")
        try:
            return self.store.image_size(image)
        except ImageError as error:
            raise ImageError(f"{error}, {self.store.place(image)[0]}: {key}") from None


def _split(path: str) -> tuple[str, str, str]:
    """First folder, all folders and name: what ImageFolder sorts by."""
    folder, _, name = path.rpartition("/")
    return folder.partition("/")[0], folder, name


def _group(keys: list[str], name_of: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(name_of(key), []).append(key)
    return groups
