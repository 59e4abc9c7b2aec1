"""Stores that are not scanned, because an index beside them says what is in them."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.stores.classes import numbers_as_told
from fkdx.stores.folder import FileList, ImageFolder, list_folder
from fkdx.stores.index import DataIndex, read_pixels, write_index
from fkdx.stores.keys import Keys
from fkdx.stores.mds import files_of_index, is_mds
from fkdx.stores.parquet import ParquetFiles
from fkdx.stores.row_groups import RowGroups
from fkdx.stores.shards import Shards
from fkdx.stores.store import Place, Store, changed, stamp_of

SUFFIX = ".fkdi"
_LARGEST = 2**32 - 1  # bytes of an image, a u32


class IndexedImages(Store):
    """Shards as their index describes them.

    Attributes:
        index: the DataIndex; `index.column("pixels")` is the size of every image, where it was read.
        shards: the files.
    """

    def __init__(self, index: DataIndex, path: str, shards: Sequence[str], classes: list[str] | None) -> None:
        self.index, self.path, self.shards = index, path, list(shards)
        self.keys = index.keys()
        self.offsets, self._lengths = index.column("offset"), index.column("length")
        one = np.zeros(len(self.keys), np.uint32)  # where all images are in one file
        self.shard_of = index.column("shard") if "shard" in index else one
        self.numbered, self.complaint = bool(index.about.get("numbered")), index.about.get("complaint", "")
        self.class_names, self.class_of = list(index.about["classes"]), index.column("class")
        if "aliases" in index:
            self.aliases = index.keys("aliases"), index.column("alias of").astype(np.int64)
        self._check()
        if classes is not None:
            self._rename(classes)

    def _check(self) -> None:
        """Every number is one of a shard, of bytes inside it, of a class, of an image. Raises FormatError."""
        sizes = np.array([file["bytes"] for file in self.index.about["files"]], np.uint64)
        expected = {
            "shard": (self.shard_of < len(sizes)).all(),
            "class": ((self.class_of >= -1) & (self.class_of < len(self.class_names))).all(),
            "alias of": self.aliases is None
            or (len(self.aliases[0]) == len(self.aliases[1]) and (self.aliases[1] < len(self)).all()),
        }
        if expected["shard"]:
            expected["offset"] = self._inside(sizes[self.shard_of])
        for name, right in expected.items():
            if not right:
                raise FormatError(
                    f"DataIndex: numbers of '{name}', expected existing ones, {self.index.path}"
                )

    def _inside(self, ends: np.ndarray) -> bool:
        """Whether the bytes of every image lie before the end of its shard."""
        return bool(((self.offsets <= ends) & (self._lengths <= ends - np.minimum(self.offsets, ends))).all())

    def _rename(self, classes: list[str]) -> None:
        numbers = np.arange(int(self.class_of.max()) + 1) if self.numbered else None
        if numbers is None:
            numbers = numbers_as_told(self.class_names, classes)
        numbers = np.where(numbers < len(classes), numbers, -1).astype(np.int32)
        class_of = np.append(numbers, np.int32(-1))[self.class_of]
        strange = np.flatnonzero((class_of < 0) & (self.class_of >= 0))
        if len(strange):
            image = int(strange[0])
            got = int(self.class_of[image]) if self.numbered else self.class_names[self.class_of[image]]
            expected = f"0 to {len(classes) - 1}" if self.numbered else f"names such as '{classes[0]}'"
            refuse("open_store", f"class of {self.keys[image]}", got, expected, self.path)
        self.class_names, self.class_of = classes, class_of

    def place(self, image: int) -> Place:
        return self.shards[self.shard_of[image]], int(self.offsets[image]), int(self._lengths[image])

    def image_size(self, image: int) -> tuple[int, int]:
        """(height, width), of the index where it has them."""
        if "pixels" in self.index and (known := self.index.column("pixels")[image]).any():
            return int(known[0]), int(known[1])
        return super().image_size(image)

    def sizes(self) -> np.ndarray:
        return self._lengths.astype(np.int64)

    def check_unchanged(self) -> None:
        for path, file in zip(self.shards, self.index.about["files"]):
            if stamp_of(path) != (file["bytes"], file["mtime_ns"]):
                raise changed(path)

    @property
    def reading_order(self) -> np.ndarray:
        return np.lexsort((self.offsets, self.shard_of))


class IndexedRows(IndexedImages):
    """Images in parquet files as their index describes them; offsets are rows."""

    sequential = True

    def __init__(self, index: DataIndex, path: str, shards: Sequence[str], classes: list[str] | None) -> None:
        super().__init__(index, path, shards, classes)
        self._groups = RowGroups()

    def _inside(self, ends: np.ndarray) -> bool:
        return bool((self.offsets < ends).all())  # rows, of which a file has fewer than bytes

    def place(self, image: int) -> Place:
        """Names the row for messages; no file lies there."""
        path, row, _ = super().place(image)
        return f"{path}, row {row}", 0, -1

    def encoded(self, image: int) -> bytes:
        path, row, _ = super().place(image)
        return self._groups.read(path, row)

    def head(self, image: int) -> bytes:
        return self.encoded(image)


def index_path(paths: Sequence[str]) -> str:
    """Where the index of a folder, a file or several files lies, unless somebody names another place."""
    if len(paths) == 1:
        path = re.sub(r"(/\.?)+$", "", paths[0])
        return (os.path.realpath(path) if os.path.basename(path) in (".", "..") else path) + SUFFIX
    names = [os.path.basename(path) for path in paths]
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(min(names), max(names)))
    shared = "".join(one for one, _ in pairs).rstrip("-_.0123456789")
    return os.path.join(os.path.dirname(paths[0]), (shared or "shards") + SUFFIX)


def own_index_path(store: Store) -> str:
    """Where the index of a store lies. ValueError for a store that has none."""
    kind, files = _kind_of(store)
    return index_path([store.path] if kind == "folder" or is_mds(store.path) else files)


def indexed(
    scan: Callable[[], Shards], paths: Sequence[str], part: str, classes: list[str] | None
) -> Shards | IndexedImages:
    """The shards behind `paths`: from their index where it fits, else scanned.

    An index that does not fit any more is written anew, with a line; one that fits other images, such as more
    shards or another part of an archive, is left alone.
    """
    path = index_path(paths)
    if not os.path.exists(path):
        return scan()
    of_others = False
    try:
        index = DataIndex(path)
        fault = misfit(index, paths, part)
        if fault is None:
            return _opened(index, _common_path(paths), classes)
        of_others = _fits_others(index, paths, part)
    except FormatError as error:
        fault = str(error)
    warnings.warn(f"index: {fault}; the files are read again, {path}", stacklevel=2)
    store = scan()
    if of_others:
        return store
    try:
        write_store_index(store, path, part, pixels=False)
    except (OSError, ValueError, RuntimeError) as error:
        warnings.warn(f"index: cannot be written ({error}), {path}", stacklevel=2)
    return store


def _fits_others(index: DataIndex, paths: Sequence[str], part: str) -> bool:
    """Whether an index still fits its own files, which are not all among `paths`, or its own part."""
    if os.path.isdir(paths[0]):
        return False
    files, own_part = _shards(index), index.about.get("part", "")
    left_out = set(map(os.path.realpath, files)) - set(map(os.path.realpath, paths))
    return (own_part != part or bool(left_out)) and misfit(index, files, own_part) is None


def _opened(index: DataIndex, path: str, classes: list[str] | None) -> IndexedImages:
    kind = IndexedRows if index.about["store"] == "parquet" else IndexedImages
    return kind(index, path, _shards(index), classes)


def listed(path: str, classes: list[str] | None) -> FileList:
    """The files that a text file lists: from the index beside it where it fits, else read."""
    beside = index_path([path])
    if not os.path.exists(beside):
        return FileList.read(path, classes)
    try:
        index = DataIndex(beside)
        fault = misfit(index, [path]) if index.about["store"] == "list" else "it is of no list"
        if fault is None:
            return _files(index, path, classes)
    except FormatError as error:
        fault = str(error)
    warnings.warn(
        f"index: {fault}; the list is read again (`fkdx index` renews its index), {beside}", stacklevel=2
    )
    return FileList.read(path, classes)


def _files(index: DataIndex, path: str, classes: list[str] | None) -> FileList:
    files = FileList(os.path.dirname(path) or ".", index.keys(), classes)
    files.listed, files.index = path, index
    return files


def keys_of_folder(folder: str) -> Keys:
    """The keys of an image folder: from the index beside it where it fits, else listed."""
    path = index_path([folder])
    if not os.path.exists(path):
        return list_folder(folder)
    try:
        index = DataIndex(path)
        fault = misfit(index, [folder]) if index.about["store"] == "folder" else "it is of shards"
        if fault is None:
            return index.keys()
    except FormatError as error:
        fault = str(error)
    warnings.warn(
        f"index: {fault}; the folder is listed again (`fkdx index` renews its index), {path}", stacklevel=2
    )
    return list_folder(folder)


def open_index(path: str, classes: list[str] | None) -> Store:
    """The store that an index, wherever it lies, is of. ValueError where it does not fit any more."""
    index = DataIndex(path)
    files, kind = _shards(index), index.about["store"]
    fault = misfit(index, [files[0]] if kind == "folder" else files, index.about.get("part", ""))
    if fault is not None:
        raise ValueError(f"index: {fault}; run `fkdx index` again, {path}")
    if kind == "folder":
        folder = ImageFolder(files[0], classes, partial(_keys_in, index))
        folder.index = index
        return folder
    return (
        _files(index, files[0], classes) if kind == "list" else _opened(index, _common_path(files), classes)
    )


def _keys_in(index: DataIndex, folder: str) -> Keys:
    return index.keys()


def misfit(index: DataIndex, paths: Sequence[str], part: str = "") -> str | None:
    """Why an index is not that of these files any more; None where it is."""
    if index.about.get("part", "") != part:
        return f"it is of the part '{index.about.get('part', '')}', not of '{part}'"
    files = index.about["files"]
    root = _root(index)
    named = [os.path.join(root, file["path"]) for file in files]
    if index.about["store"] == "folder":
        own = os.path.realpath(named[0]) == os.path.realpath(paths[0])
    else:
        own = _covers({os.path.realpath(path) for path in named}, paths)
    if not own:
        return "it is of other files"
    for path, file in zip(named, files):
        try:
            facts = os.stat(path)
        except OSError:
            return f"{path} is not there"
        size = 0 if os.path.isdir(path) else facts.st_size
        if (size, facts.st_mtime_ns) != (file["bytes"], file["mtime_ns"]):
            return f"{path} has changed"
    return None


def write_store_index(
    store: Store,
    path: str,
    part: str = "",
    pixels: bool = True,
    entries: tuple[np.ndarray, bytes] | None = None,
) -> None:
    """Writes the index of an image folder or of shards.

    Args:
        pixels: read every image's header for its height and width.
        entries: what `make_entry_points` gave.

    Raises ValueError for a store that has none, and for a place among the images; RuntimeError where these
    have changed since the store was opened.
    """
    kind, files = _kind_of(store)
    home = os.path.dirname(os.path.abspath(path))
    if kind == "folder" and os.path.realpath(home) in map(os.path.realpath, files):
        expected = "one outside: a new file in a folder changes the folder"
        refuse("index", "place", "a folder of the images", expected, path)
    columns = _columns(store, kind, pixels)
    beside = os.path.commonpath([home, *map(os.path.abspath, files)]) == home
    root = home if beside else os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    about = {
        "store": kind,
        "root": "." if beside else root,
        "part": part,
        "numbered": store.numbered,
        "classes": store.class_names,
        "files": [_facts(file, root) for file in files],
    }
    if store.complaint:
        about["complaint"] = store.complaint
    _check_unchanged(store)
    aliases = store.aliases[0] if store.aliases else None
    write_index(path, about, store.keys, columns, aliases, entries)


def _columns(store: Store, kind: str, pixels: bool) -> dict[str, np.ndarray]:
    """What the index says of every image."""
    sizes = store.sizes()
    largest = int(sizes.argmax())
    if sizes[largest] > _LARGEST:
        refuse("index", f"bytes of {store.keys[largest]}", sizes[largest], f"at most {_LARGEST}", store.path)
    columns = {"length": sizes}
    if kind in ("shards", "parquet"):
        columns |= {"offset": store.offsets, "shard": store.shard_of}
    columns["class"] = store.class_of
    if pixels:
        columns["pixels"] = read_pixels(len(store), store.image_size, store.reading_order)
    if store.aliases:
        columns["alias of"] = store.aliases[1]
    return columns


def _check_unchanged(store: Store) -> None:
    """After sizes and times of its files were taken: RuntimeError where they are not those of the files that
    were read to open the store, which may be hours ago."""
    if not isinstance(store, FileList):
        store.check_unchanged()
        return
    now = FileList.read(store.listed).keys if store.listed else list_folder(store.path)
    if now != store.keys:
        raise changed(store.listed or store.path)


def _kind_of(store: Store) -> tuple[str, list[str]]:
    """What an index says of a store, and the files that it depends on."""
    if isinstance(store, ImageFolder):
        return "folder", _folders(store)
    if isinstance(store, FileList) and store.listed:
        return "list", [store.listed]
    if isinstance(store, ParquetFiles | IndexedRows):
        return "parquet", list(store.shards)
    if isinstance(store, Shards | IndexedImages):
        if store.sequential:
            expected = (
                "ones that lie in their files as they are; `fkdx repack` makes shards of them, with an index"
            )
            refuse("index", "images", "compressed ones", expected, store.path)
        return "shards", list(store.shards)
    raise ValueError(
        "index: got images under the names of a file, or a list in memory, expected a store by itself; `fkdx "
        f"repack` makes shards under these names, with an index, {store.path}"
    )


def _facts(path: str, root: str) -> dict[str, Any]:
    facts = os.stat(path)
    size = 0 if os.path.isdir(path) else facts.st_size
    where = os.path.relpath(os.path.abspath(path), root)
    return {"path": where, "bytes": size, "mtime_ns": facts.st_mtime_ns}


def _folders(store: ImageFolder) -> list[str]:
    """The folder and all folders in it: their times change with every file that comes or goes."""
    found = {"", *store.folders}
    for key in store.keys:
        folder = key.rpartition("/")[0]
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return [os.path.join(store.path, folder) if folder else store.path for folder in sorted(found)]


def _root(index: DataIndex) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(index.path)), index.about["root"]))


def _shards(index: DataIndex) -> list[str]:
    root = _root(index)
    return [os.path.join(root, file["path"]) for file in index.about["files"]]


def _covers(expected: set[str], paths: Sequence[str]) -> bool:
    """Whether these are the files themselves, or the folder of MDS shards that names them."""
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return expected == {os.path.realpath(path) for path in files_of_index(paths[0])}
    return expected == {os.path.realpath(path) for path in paths}


def _common_path(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else os.path.dirname(paths[0]) or "."
