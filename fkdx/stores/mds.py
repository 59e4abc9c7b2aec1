"""Images in MosaicML's MDS shards: byte ranges of a column that holds encoded images, read in place unless
shards are compressed."""

import hashlib
import io
import json
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from threading import Lock
from typing import Any, BinaryIO

from fkdx.errors import expect, refuse
from fkdx.stores.classes import class_folders
from fkdx.stores.shards import Entry, Shards
from fkdx.stores.store import Place
from fkdx.stores.unpacking import unpack

_IMAGES = ("jpeg", "png", "bytes")  # encodings whose bytes are an image file
_NUMBERS = ("int", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "str_int")
_IMAGE_COLUMNS, _CLASS_COLUMNS = (
    ("image", "img", "jpg", "jpeg", "x"),
    ("label", "class", "cls", "target", "y"),
)
_COMPRESSIONS = ("br", "bz2", "gz", "snappy", "zstd")
_LARGEST_SHARD = 1 << 32  # bytes: offsets in it are u32
_KEPT_SHARDS = 2  # unpacked, in memory
_KEY_COLUMNS = ("filename", "file_name", "path", "key", "__key__")


class MdsShards(Shards):
    """A folder with `index.json`, version 2, and its shards.

    Shards may lie in folders of their own, as `streaming.base.util.merge_index` leaves them.

    The key is the text column `filename`, `file_name`, `path` or `key`; without one it is the number of the
    sample, in the order of `index.json`, such as `00000017.jpg`. The class is the number column `label`,
    `class`, `cls` or `target`.

    A compressed shard, `shard.00000.mds.zstd`, is unpacked in memory and read from there, unless
    `shard.00000.mds` lies beside it, where mosaicml-streaming unpacked it. The store then is sequential.
    """

    def __init__(self, folder: str | os.PathLike, part: str = "", classes: list[str] | None = None) -> None:
        folder = self._folder = os.fspath(folder)
        self._shards = {_shard_file(folder, shard): shard for shard in _read_index(folder)}
        if absent := [path for path in self._shards if not os.path.exists(path)]:
            raise FileNotFoundError(
                f"MdsShards: the index names {len(absent)} shards that are not there, such as {absent[0]}"
            )
        self._unpacked: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()
        self.sequential = any(map(self._is_packed, self._shards))
        self._first: dict[str, int] = {}  # number of each shard's first sample
        number = 0
        for path, shard in self._shards.items():
            self._first[path] = number
            number += shard["samples"]
        super().__init__(folder, list(self._shards), self._scan, part, classes)
        kinds = {
            encoding
            for shard in self._shards.values()
            for name, encoding in zip(shard["column_names"], shard["column_encodings"])
            if name in _CLASS_COLUMNS
        }
        self._say_what_labels_are(", ".join(sorted(kinds - {*_NUMBERS, "str"})))

    def __getstate__(self) -> dict:
        """For a worker process that is not a fork: what was unpacked stays here."""
        return {**self.__dict__, "_unpacked": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=Lock())

    def _scan(self, path: str) -> Iterator[Entry]:
        shard, size = self._shards[path], os.path.getsize(path)
        told = shard["zip_data" if self._is_packed(path) else "raw_data"]["bytes"]
        expect(
            "MdsShards", size == told, "shard", f"{size} bytes", f"{told} by the index; copy it again", path
        )
        names, encodings = shard["column_names"], shard["column_encodings"]
        image = _column(names, encodings, _IMAGE_COLUMNS, _IMAGES)
        if image is None:
            raise ValueError(
                f"MdsShards: columns, got {dict(zip(names, encodings))}, expected an 'image' encoded as "
                f"{', '.join(_IMAGES)}; other encodings hold no image file, {path}"
            )
        key = _column(names, encodings, _KEY_COLUMNS, ("str",))
        label = _column(names, encodings, _CLASS_COLUMNS, (*_NUMBERS, "str"))
        with self._open(path) as file:
            samples = _samples(file, shard["raw_data"]["bytes"], shard["column_sizes"], path)
            for number, columns in enumerate(samples):
                name = f"{self._first[path] + number:08}.{'png' if encodings[image] == 'png' else 'jpg'}"
                if key is not None:
                    name = _read(file, columns[key]).decode()
                of_class = None if label is None else _value(encodings[label], _read(file, columns[label]))
                yield Entry(name, *columns[image], label=of_class)

    def _is_packed(self, path: str) -> bool:
        return path != os.path.join(self._folder, self._shards[path]["raw_data"]["basename"])

    def _open(self, path: str) -> BinaryIO:
        return io.BytesIO(self._unpack(path)) if self._is_packed(path) else open(path, "rb")

    def _unpack(self, path: str) -> bytes:
        """A compressed shard as it was; the last few are kept."""
        with self._lock:
            if path not in self._unpacked:
                self.check_unchanged()
                with open(path, "rb") as file:
                    self._unpacked[path] = _unpacked(file.read(), self._shards[path], path)
                if len(self._unpacked) > _KEPT_SHARDS:
                    self._unpacked.popitem(last=False)
            self._unpacked.move_to_end(path)
            return self._unpacked[path]

    def place(self, image: int) -> Place:
        path, offset, length = super().place(image)
        return (f"{self.keys[image]} in {path}", 0, -1) if self.sequential else (path, offset, length)

    def encoded(self, image: int) -> bytes:
        path, offset, length = super().place(image)
        with self._open(path) as file:
            return _read(file, (offset, length))

    def head(self, image: int) -> bytes:
        return self.encoded(image) if self.sequential else super().head(image)


def is_mds(folder: str) -> bool:
    """Whether a folder's `index.json` is that of MDS shards; class folders may have another beside them."""
    path = os.path.join(folder, "index.json")
    if not os.path.exists(path):
        return False
    with open(path, "rb") as file:
        return b'"shards"' in file.read() or not class_folders(folder)


def files_of_index(folder: str) -> list[str]:
    """The shards that `index.json` names."""
    return [_shard_file(folder, shard) for shard in _read_index(folder)]


def _shard_file(folder: str, shard: dict[str, Any]) -> str:
    """The file of a shard: unpacked, or compressed where there is no other."""
    plain = os.path.join(folder, shard["raw_data"]["basename"])
    packed = os.path.join(folder, shard["zip_data"]["basename"]) if shard.get("compression") else plain
    return packed if os.path.exists(packed) and not os.path.exists(plain) else plain


def _unpacked(data: bytes, shard: dict[str, Any], path: str) -> bytes:
    """The bytes of a compressed shard. ValueError where they are not those that the index tells of."""
    raw = shard["raw_data"]
    expect("MdsShards", raw["bytes"] < _LARGEST_SHARD, "bytes", raw["bytes"], f"below {_LARGEST_SHARD}", path)
    data = unpack(data, shard["compression"].partition(":")[0], raw["bytes"], path)
    for name, said in (raw.get("hashes") or {}).items():
        if name in hashlib.algorithms_guaranteed and not name.startswith("shake"):
            found = hashlib.new(name, data).hexdigest()
            expect("MdsShards", found == said, name, found, f"{said} by the index; copy it again", path)
    return data


def _read_index(folder: str) -> list[dict[str, Any]]:
    path = os.path.join(folder, "index.json")
    try:
        with open(path, "rb") as file:
            index = json.load(file)
        version, shards = index["version"], index["shards"]
        formats = {shard["format"] for shard in shards}
        for shard in shards:
            _check_shard(shard)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"MdsShards: not an index of MDS shards ({error!r}), {path}") from None
    if version != 2 or formats - {"mds"}:
        got = f"version {version} of {', '.join(sorted(map(str, formats)))}"
        raise ValueError(f"MdsShards: index, got {got}, expected version 2 of mds, {path}")
    ways = {shard["compression"].partition(":")[0] for shard in shards if shard.get("compression")}
    if unknown := ways - set(_COMPRESSIONS):
        expected = f"one of {', '.join(_COMPRESSIONS)}; write them again without compression"
        refuse("MdsShards", "compression", ", ".join(sorted(unknown)), expected, path)
    return shards


def _check_shard(shard: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where the index says something that no shard can be."""
    columns = [shard[f"column_{what}"] for what in ("names", "encodings", "sizes")]
    numbers = [shard["samples"], shard["raw_data"]["bytes"], *(size or 0 for size in columns[2])]
    names = [shard["raw_data"]["basename"]]
    if shard.get("compression"):
        numbers.append(shard["zip_data"]["bytes"])
        names.append(shard["zip_data"]["basename"])
    if len({len(column) for column in columns}) > 1 or not all(isinstance(c, list) for c in columns):
        raise ValueError("columns")
    texts = [*names, *columns[0], *columns[1], shard.get("compression") or ""]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise TypeError("numbers")
    strange = next((name for name in names if {"", ".", ".."} & set(name.split("/"))), None)
    if strange is not None:
        raise ValueError(f"file name {strange!r}")


def _column(
    names: list[str], encodings: list[str], wanted: tuple[str, ...], kinds: tuple[str, ...]
) -> int | None:
    """The first of the wanted columns that is encoded as one of these kinds."""
    fits = [name for name in wanted if name in names and encodings[names.index(name)] in kinds]
    return names.index(fits[0]) if fits else None


def _samples(
    file: BinaryIO, size: int, sizes: list[int | None], path: str
) -> Iterator[list[tuple[int, int]]]:
    """(offset, length) of every column of every sample."""
    count = int.from_bytes(file.read(4), "little")
    table = file.read(4 * (count + 1)) if 4 * (count + 2) <= size else b""
    if len(table) < 4 * (count + 1):
        raise ValueError(f"MdsShards: the table of samples is cut off, copy the shard again, {path}")
    places = struct.unpack(f"<{count + 1}I", table)
    varying = sizes.count(None)
    for begin, end in pairwise(places):
        file.seek(begin)
        told = file.read(4 * varying)
        at, columns = begin + 4 * varying, []
        lengths = iter(struct.unpack(f"<{varying}I", told) if len(told) == 4 * varying else ())
        for fixed in sizes:
            length = next(lengths, -1) if fixed is None else fixed
            columns.append((at, length))
            at += length
        if at != end or end > size or any(length < 0 for _, length in columns):
            raise ValueError(f"MdsShards: a sample does not fill its place at offset {begin}, {path}")
        yield columns


def _read(file: BinaryIO, place: tuple[int, int]) -> bytes:
    file.seek(place[0])
    return file.read(place[1])


def _value(encoding: str, data: bytes) -> int | str:
    if encoding == "str":
        return data.decode()
    if encoding == "str_int":
        return int(data)
    return int.from_bytes(data, "little", signed=not encoding.startswith("u"))
