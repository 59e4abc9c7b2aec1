"""Images that are files of their own: a list of files, or all files of a folder."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fkdx import _C
from fkdx.stores.classes import class_folders, in_order, numbers_as_told, read_lines
from fkdx.stores.keys import Keys
from fkdx.stores.store import Place, Store, is_apple_double
from fkdx.system import available_cores

_TURN_SECONDS = 0.1  # between two looks at threads that list
_SIZES_AT_ONCE = 50_000


class FileList(Store):
    """Files named by their paths relative to `root`; the first folder of a path is its class.

    Attributes:
        folders: their first folders in order, which are the classes unless these are given.
        listed: the text file that names them, where one does.
    """

    listed: str | None = None

    def __init__(
        self,
        root: str | os.PathLike,
        keys: "list[str] | Keys",
        classes: list[str] | None = None,
        folders: list[str] | None = None,
    ) -> None:
        self.path = os.fspath(root)
        self.keys = keys if isinstance(keys, Keys) else Keys.sort(keys, self.path)[0]
        self.folders = in_order(self.keys.table.first_folders()) if folders is None else folders
        self.class_names = self.folders if classes is None else classes

    @classmethod
    def read(cls, path: str | os.PathLike, classes: list[str] | None = None) -> "FileList":
        """A text file with one path a line, relative to the text file's own folder."""
        lines = [line.removeprefix("./") for line in read_lines(path) if not is_apple_double(line)]
        if not lines:
            raise FileNotFoundError(f"FileList: no images, expected one path a line, {path}")
        files = cls(Path(path).parent, lines, classes)
        files.listed = os.fspath(path)
        return files

    @cached_property
    def class_of(self) -> np.ndarray:
        if self.folders == self.class_names:
            return self.keys.table.classes_of(self.class_names)
        numbers = numbers_as_told(self.folders, self.class_names)
        folder_of = self.keys.table.classes_of(self.folders)
        class_of = np.append(numbers, np.int32(-1))[folder_of]
        strange = np.flatnonzero((class_of < 0) & (folder_of >= 0))
        if len(strange):
            image = int(strange[0])
            raise ValueError(
                f"classes: got '{self.folders[folder_of[image]]}' of {self.keys[image]}, expected one of "
                f"{len(self.class_names)} names such as '{self.class_names[0]}', {self.path}"
            )
        return class_of

    def place(self, image: int) -> Place:
        return f"{self.path}/{self.keys[image]}", 0, -1

    def places(self, images: Sequence[int]) -> list[Place]:
        path, key = self.path, self.keys.table.key
        return [(f"{path}/{key(image)}", 0, -1) for image in images]

    def sizes(self) -> np.ndarray:
        """Bytes of every file, with a bar where it takes long. FileNotFoundError where one is not there."""
        parts, count = [np.zeros(0, np.int64)], len(self.keys)
        with tqdm(total=count, unit="file", desc="sizes of files", delay=2, disable=None) as bar:
            for begin in range(0, count, _SIZES_AT_ONCE):
                end = min(begin + _SIZES_AT_ONCE, count)
                parts.append(_C.file_sizes(self.path, self.keys.table, begin, end, listing_threads()))
                bar.update(end - begin)
        sizes = np.concatenate(parts)
        absent = np.flatnonzero(sizes < 0)
        if len(absent):
            path = self.place(int(absent[0]))[0]
            raise FileNotFoundError(f"images: {len(absent)} of {count} files are not there, such as {path}")
        return sizes


class ImageFolder(FileList):
    """All image files under `root`, in whatever depth: `root/<class>/.../<file>`.

    `keys_of` lists them when somebody first asks for `keys`; the class folders alone tell the classes.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        classes: list[str] | None = None,
        keys_of: Callable[[str], Keys] | None = None,
    ) -> None:
        self.path, self._list = os.fspath(root), keys_of or list_folder
        if not os.path.isdir(self.path):
            raise FileNotFoundError(f"ImageFolder: no such folder, {self.path}")
        self.folders = class_folders(self.path)
        self.class_names = self.folders if classes is None else classes

    @cached_property
    def keys(self) -> Keys:
        keys = self._list(self.path)
        if not len(keys):
            raise FileNotFoundError(
                "ImageFolder: no images, expected files such as <class>/<name>.jpg"
                f"{_advice(self.path)}, {self.path}"
            )
        return keys

    def followed(self, keys: Keys) -> FileList:
        """The files with these keys, which somebody else knows; nothing is listed."""
        files = FileList(self.path, keys, self.class_names, self.folders)
        files.index, files.told = self.index, self.told
        return files


def list_folder(path: str, threads: int | None = None) -> Keys:
    """The keys of all images under a folder, with a bar where it takes long.

    Raises OSError where a folder cannot be read; ValueError for an image that is no file, and for a name that
    a label file cannot hold.
    """
    walk = _C.FolderWalk(os.fsencode(path), threads or listing_threads())
    with tqdm(unit="image", desc="listing", delay=2, disable=None) as bar:
        while not walk.wait(_TURN_SECONDS):
            bar.update(walk.found() - bar.n)
    table = walk.keys()
    table.check(path)
    return Keys(table)


def _advice(path: str) -> str:
    """What to do about a folder without images, by the files in it or one level deeper."""
    for folder in (path, *(os.path.join(path, name) for name in class_folders(path))):
        suffixes = {os.path.splitext(name)[1] for name in os.listdir(folder)}
        if ".arrow" in suffixes:
            return "; write Arrow files of `datasets` again as parquet (`to_parquet`)"
        if folder != path and suffixes & {".tar", ".zip", ".parquet", ".mds"}:
            return f"; give one of its folders, such as {folder}"
    return ""


def listing_threads() -> int:
    """Threads that list: on a network file system more than there are cores pay."""
    return max(4, available_cores())
