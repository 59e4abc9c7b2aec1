"""Images in MosaicML's MDS shards, read in place: byte ranges of a column that holds encoded images."""

import json
import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, BinaryIO

from fkdx.stores.shards import Entry, Shards

_IMAGES = ("jpeg", "png", "bytes")  # encodings whose bytes are an image file
_NUMBERS = ("int", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "str_int")
_IMAGE_COLUMNS, _CLASS_COLUMNS = (
    ("image", "img", "jpg", "jpeg", "x"),
    ("label", "class", "cls", "target", "y"),
)
_KEY_COLUMNS = ("filename", "file_name", "path", "key", "__key__")


class MdsShards(Shards):
    """A folder with `index.json`, version 2, and its shards.

    The key is the text column `filename`, `file_name`, `path` or `key`; without one it is the number of the
    sample, in the order of `index.json`, such as `00000017.jpg`. The class is the number column `label`,
    `class`, `cls` or `target`.
    """

    def __init__(self, folder: str | os.PathLike, part: str = "", classes: list[str] | None = None) -> None:
        folder = os.fspath(folder)
        self._shards = {os.path.join(folder, s["raw_data"]["basename"]): s for s in _read_index(folder)}
        self._first: dict[str, int] = {}  # number of each shard's first sample
        number = 0
        for path, shard in self._shards.items():
            self._first[path] = number
            number += shard["samples"]
        super().__init__(folder, list(self._shards), self._scan, part, classes)

    def _scan(self, path: str) -> Iterator[Entry]:
        if not os.path.exists(path):
            raise FileNotFoundError(f"MdsShards: the index names a shard that is not there, {path}")
        shard, size = self._shards[path], os.path.getsize(path)
        if size != shard["raw_data"]["bytes"]:
            raise ValueError(
                f"MdsShards: shard, got {size} bytes, expected {shard['raw_data']['bytes']} by the index; "
                f"copy it again, {path}"
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
        with open(path, "rb") as file:
            for number, columns in enumerate(_samples(file, size, shard["column_sizes"], path)):
                name = f"{self._first[path] + number:08}.{'png' if encodings[image] == 'png' else 'jpg'}"
                if key is not None:
                    name = _read(file, columns[key]).decode()
                of_class = None if label is None else _value(encodings[label], _read(file, columns[label]))
                yield Entry(name, *columns[image], label=of_class)


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
    zipped = next((shard["compression"] for shard in shards if shard.get("compression")), None)
    if zipped:
        raise ValueError(
            f"MdsShards: shards, got compressed ones ({zipped}), expected plain ones; write them without "
            f"compression, or make shards of image files and `fkdx repack` these, {path}"
        )
    return shards


def _check_shard(shard: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where the index says something that no shard can be."""
    columns = [shard[f"column_{what}"] for what in ("names", "encodings", "sizes")]
    numbers = [shard["samples"], shard["raw_data"]["bytes"], *(size or 0 for size in columns[2])]
    name = shard["raw_data"]["basename"]
    if len({len(column) for column in columns}) > 1 or not all(isinstance(c, list) for c in columns):
        raise ValueError("columns")
    if not all(isinstance(text, str) for text in (name, *columns[0], *columns[1])):
        raise TypeError("names")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise TypeError("numbers")
    if not name or os.path.basename(name) != name:
        raise ValueError(f"file name {name!r}")


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
