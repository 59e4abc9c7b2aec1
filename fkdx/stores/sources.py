"""Where encoded images lie: an image folder, a list of files, or tar shards.

A source has `keys` (the images' names, sorted) and `place(i)` -> (path, offset, length); length -1 means
the whole file. Everything is keyed by relative path, so the order in which a file system lists its files
is of no account.
"""

import glob
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
Place = tuple[str, int, int]


class Source:
    """Images by number. `classes[i]` is the name of image i's class, or None where nobody says."""

    keys: list[str]
    classes: list[str | None]

    def place(self, image: int) -> Place:
        raise NotImplementedError

    def encoded(self, image: int) -> bytes:
        """An image's file, or its part of a larger one."""
        path, offset, length = self.place(image)
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def files(self) -> Iterator[tuple[str, int]]:
        """The key and the size in bytes of every image, as `fkdx.labels.fingerprint` wants them."""
        for image, key in enumerate(self.keys):
            path, _, length = self.place(image)
            yield key, os.path.getsize(path) if length < 0 else length

    def __len__(self) -> int:
        return len(self.keys)


class FileList(Source):
    """Files named by their paths relative to `root`; the first folder of a path is its class."""

    def __init__(self, root: str | os.PathLike, keys: list[str]) -> None:
        self.root = os.fspath(root)
        self.keys = sorted(keys)
        _check_text(self.keys, self.root)
        repeated = [key for key, times in Counter(self.keys).items() if times > 1]
        if repeated:
            raise ValueError(f"FileList: {len(repeated)} paths listed twice, for example {repeated[0]}")
        self.classes = [folder_of(key) for key in self.keys]

    @classmethod
    def read(cls, path: str | os.PathLike) -> "FileList":
        """A text file with one path a line, relative to the text file's own folder."""
        return cls(Path(path).parent, read_lines(path))

    def place(self, image: int) -> Place:
        return f"{self.root}/{self.keys[image]}", 0, -1


class ImageFolder(FileList):
    """All image files under `root`, in whatever depth: `root/<class>/.../<file>`."""

    def __init__(self, root: str | os.PathLike) -> None:
        root = os.fspath(root)
        if not os.path.isdir(root):
            raise FileNotFoundError(f"ImageFolder: no such folder, {root}")
        keys = list(_walk(root, ""))
        if not keys:
            raise FileNotFoundError(
                f"ImageFolder: no images, expected files such as <class>/<name>.jpg, {root}"
            )
        super().__init__(root, keys)


class TarShards(Source):
    """Images inside tar files (WebDataset layout), read by offset; a key is the member's name.

    The class is a sibling `.cls` member where there is one (its text), otherwise the first folder of the key.
    """

    def __init__(self, shards: list[str | os.PathLike]) -> None:
        self.shards = [os.fspath(shard) for shard in shards]
        found: dict[str, tuple[Place, str | None]] = {}
        for shard in self.shards:
            for key, place, name in _scan_tar(shard):
                if key in found:
                    raise ValueError(f"TarShards: '{key}' is in two shards, {found[key][0][0]} and {shard}")
                found[key] = place, name
        if not found:
            raise FileNotFoundError(f"TarShards: no images in {len(self.shards)} shards, {self.shards[:1]}")
        self.keys = sorted(found)
        self._places = [found[key][0] for key in self.keys]
        self.classes = [found[key][1] or folder_of(key) for key in self.keys]

    def place(self, image: int) -> Place:
        return self._places[image]


def open_source(root: "str | os.PathLike | list | Source") -> Source:
    """The source that `root` means: a folder of images or of tar files, a tar file, a pattern
    (`train-*.tar`), a text file with one path a line, a list of tar files, or a source.

    Raises:
        FileNotFoundError: nothing there, or no images in it.
    """
    if isinstance(root, Source):
        return root
    if isinstance(root, list | tuple):
        return TarShards(list(root))
    path = os.fspath(root)
    if os.path.isdir(path):
        shards = sorted(glob.glob(os.path.join(glob.escape(path), "*.tar")))
        return TarShards(shards) if shards else ImageFolder(path)
    if path.endswith(".txt"):
        return FileList.read(path)
    shards = sorted(glob.glob(path))
    if not shards:
        raise FileNotFoundError(f"open_source: no such folder, file or pattern, {path}")
    return TarShards(shards)


def class_numbers(source: Source, names: list[str] | None) -> tuple[list[str], np.ndarray]:
    """The class names in order and the class (N,) int64 of every image, -1 where it has none.

    Without `names` the order is that of the sorted names, as torchvision's ImageFolder has it.

    Raises:
        ValueError: an image's class is not among `names`.
    """
    present = sorted({name for name in source.classes if name is not None})
    names = list(names) if names else present
    number_of = {name: number for number, name in enumerate(names)}
    unknown = [name for name in present if name not in number_of]
    if unknown:
        raise ValueError(
            f"loader: {len(unknown)} class folders are not among the {len(names)} classes, for example "
            f"'{unknown[0]}'; expected names such as '{names[0]}'"
        )
    return names, np.array([number_of.get(name, -1) for name in source.classes], np.int64)


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a UTF-8 text file that are not empty, such as class names or paths."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def folder_of(key: str) -> str | None:
    """The first folder of a key; None where it has none."""
    folder, slash, _ = key.partition("/")
    return folder if slash else None


def _check_text(keys: list[str], root: str) -> None:
    try:
        "\n".join(keys).encode()
    except UnicodeEncodeError as error:
        name = os.fsencode(error.object[: error.end].rpartition("\n")[2])
        raise ValueError(
            f"FileList: name, got {name!r}..., expected UTF-8; rename the file, or set LC_ALL=C.UTF-8, {root}"
        ) from None


def _walk(root: str, prefix: str) -> Iterator[str]:
    with os.scandir(os.path.join(root, prefix)) as entries:
        for entry in entries:
            key = f"{prefix}{entry.name}"
            if entry.is_dir():
                yield from _walk(root, f"{key}/")
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield key


def _scan_tar(shard: str) -> Iterator[tuple[str, Place, str | None]]:
    """(key, place, class name) of every image of one shard."""
    images: list[tuple[str, Place]] = []
    classes: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                stem, suffix = os.path.splitext(member.name.removeprefix("./"))
                if suffix.lower() in SUFFIXES:
                    images.append((stem + suffix, (shard, member.offset_data, member.size)))
                elif suffix == ".cls":
                    classes[stem] = tar.extractfile(member).read().decode().strip()
            # tarfile takes a broken header for the end of the archive; a whole archive ends with zeros.
            tar.fileobj.seek(tar.offset)
            if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"broken header at offset {tar.offset}")
    except tarfile.TarError as error:
        raise ValueError(f"TarShards: not a whole tar file ({error}), {shard}") from error
    for key, place in images:
        yield key, place, classes.get(os.path.splitext(key)[0])
