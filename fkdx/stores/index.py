"""The data index: where every image of a store lies, what its class is and how large it is, in a small file.

Byte by byte in docs/format.md. It is mapped, checked part by part when a part is first used, and written
whole or not at all.
"""

import json
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from fkdx import _C
from fkdx._version import __version__
from fkdx.files import AtomicFile
from fkdx.stores.keys import Keys
from fkdx.system import available_cores

MAGIC, VERSION = b"\x89FKDI\r\n\x1a", (1, 0)
PREAMBLE = struct.Struct(
    "<8sHHIQQ24xII"
)  # magic, version, sections, images, length, CRC of the table, own CRC
SECTION = struct.Struct("<16sQQII8x")  # name, offset, bytes, CRC, flags
_LEAST_KEY = 4  # bytes of a coded key
REQUIRED = 1  # flag of a section that no reader may overlook
ALIGN = 64

COLUMNS = {  # one entry an image
    "offset": np.dtype("<u8"),
    "length": np.dtype("<u4"),
    "shard": np.dtype("<u4"),
    "class": np.dtype("<i4"),
    "pixels": np.dtype(("<u2", 2)),  # height, width; 0 where nobody could read them
    "alias of": np.dtype("<u4"),
}
KINDS = ("folder", "list", "shards", "parquet")  # of stores
_REQUIRED_SECTIONS = ("about", "keys", "key blocks")
_KNOWN = {*COLUMNS, *_REQUIRED_SECTIONS, "aliases", "alias blocks", "entry points", "entry starts"}


class DataIndex:
    """An index file, read-only.

    Attributes:
        path: of the index.
        about: its JSON part.
        images: N.

    Raises OSError; FormatError, a ValueError, where the file is incomplete, damaged or of another format.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._expect(size >= PREAMBLE.size, f"size, got {size}, expected at least {PREAMBLE.size} bytes")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        head = self._map[: PREAMBLE.size]
        magic, major, _, sections, self.images, length, table_crc, crc = PREAMBLE.unpack(head)
        self._expect(magic == MAGIC, "magic, expected that of a data index")
        self._expect(crc == _C.crc32c(head[:60]), "CRC of the preamble does not hold")
        self._expect(major == VERSION[0], f"version, got {major}, expected {VERSION[0]}")
        self._expect(length == size, f"size, got {size}, expected {length}; the file is incomplete")
        end = PREAMBLE.size + sections * SECTION.size
        self._expect(end <= size, "section table, expected inside the file")
        table = self._map[PREAMBLE.size : end]
        self._expect(table_crc == _C.crc32c(table), "CRC of the section table does not hold")
        self._sections: dict[str, tuple[int, int, int]] = {}
        self._checked: set[str] = set()
        for raw, offset, length, crc, flags in SECTION.iter_unpack(table):
            name = raw.rstrip(b"\0").decode("ascii", "replace")
            self._expect(
                offset % ALIGN == 0 and end <= offset <= size and length <= size - offset,
                f"place of '{name}'",
            )
            self._expect(
                name in _KNOWN or not flags & REQUIRED, f"section, got '{name}', expected a newer fkdx for it"
            )
            self._sections[name] = offset, length, crc
        for name in _REQUIRED_SECTIONS:
            self._expect(name in self._sections, f"section '{name}', expected one")
        self.about: dict[str, Any] = self._read_about()

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def __reduce__(self) -> tuple:
        """Opened again, for a worker process that is not a fork."""
        return DataIndex, (self.path,)

    def section(self, name: str, check: bool = True) -> np.ndarray:
        """The bytes of a section (uint8), its CRC checked on first use."""
        self._expect(name in self._sections, f"section '{name}', expected one")
        offset, length, crc = self._sections[name]
        data = np.frombuffer(self._map, np.uint8, length, offset)
        if check and name not in self._checked:
            self._expect(_C.crc32c(data) == crc, f"CRC of '{name}' does not hold; the file is damaged")
            self._checked.add(name)
        return data

    def column(self, name: str) -> np.ndarray:
        """A section of one entry an image, (N,) or (N, 2)."""
        kind = COLUMNS[name]
        data = self.section(name)
        count = len(data) // kind.itemsize
        self._expect(len(data) == count * kind.itemsize, f"size of '{name}'")
        self._expect(
            count == self.images or name == "alias of", f"entries of '{name}', expected {self.images}"
        )
        return data.view(kind.base).reshape(count, *kind.shape)

    def keys(self, name: str = "keys") -> Keys:
        """The keys, decoded and checked."""
        coded = self.section(name)
        images = self.images if name == "keys" else len(self.column("alias of"))
        self._expect(images <= len(coded) // _LEAST_KEY, f"number of keys, got {images}")
        table = _C.KeyTable.decode(coded, images, self.path)
        table.check(self.path)
        return Keys(table)

    def entry_points(self) -> tuple[np.ndarray, np.ndarray]:
        """(N + 1,) uint64 where the entry points of each image begin in the bytes that follow, and these.

        These may be gigabytes, so their CRC is left to `verify`: those of each image have one of their own.
        """
        coded, data = self.section("entry points", check=False), self.section("entry starts")
        self._expect(len(data) == 8 * (self.images + 1), "size of 'entry starts', expected N + 1 numbers")
        starts = data.view("<u8")
        ascend = starts[0] == 0 and starts[-1] == len(coded) and (starts[:-1] <= starts[1:]).all()
        self._expect(bool(ascend), "numbers of 'entry starts', expected places in 'entry points'")
        return starts, coded

    def verify(self) -> None:
        """Checks every section. Raises FormatError for the first fault."""
        for name in self._sections:
            self.section(name)
        self.keys()
        for name in COLUMNS.keys() & self._sections.keys():
            self.column(name)
        if "entry points" in self:
            self.entry_points()

    def _read_about(self) -> dict[str, Any]:
        try:
            about = json.loads(self.section("about").tobytes())
            texts = [about["store"], about.get("root"), *about["classes"]]
            texts += [about.get(name, "") for name in ("part", "complaint")]
            for file in about["files"]:
                texts.append(file["path"])
                _ = file["bytes"] + file["mtime_ns"]
            if not about["files"] or not all(isinstance(text, str) for text in texts):
                raise TypeError("texts and files")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._expect(False, f"part 'about', expected JSON with its names ({error!r})")
        kind = about["store"]
        self._expect(kind in KINDS, f"store, got {kind!r}, expected one of {', '.join(KINDS)}")
        return about

    def _expect(self, right: bool, what: str) -> None:
        if not right:
            raise _C.FormatError(f"DataIndex: {what}, {self.path}")


def write_index(
    path: str | os.PathLike,
    about: dict[str, Any],
    keys: Keys,
    columns: dict[str, np.ndarray],
    aliases: Keys | None = None,
    entries: tuple[np.ndarray, bytes] | None = None,
) -> None:
    """Writes a data index; a file that is there gives way when the new one is complete.

    Args:
        about: `store`, `classes`, `files` and more, as docs/format.md has them.
        columns: by the names of COLUMNS.
        entries: where the entry points of each image begin, and all of them.
    """
    about = {"created_by": f"fkdx {__version__}", **about}
    sections = {"about": json.dumps(about, ensure_ascii=False).encode()}
    for name, blocks, table in (("keys", "key blocks", keys), ("aliases", "alias blocks", aliases)):
        if table is not None:
            coded, starts = table.table.code()
            sections |= {name: coded.tobytes(), blocks: starts.astype("<u8").tobytes()}
    sections |= {name: column.astype(COLUMNS[name].base).tobytes() for name, column in columns.items()}
    if entries is not None:
        sections |= {"entry points": entries[1], "entry starts": entries[0].astype("<u8").tobytes()}
    table, at = b"", PREAMBLE.size + len(sections) * SECTION.size
    for name, data in sections.items():
        at = -(-at // ALIGN) * ALIGN
        flags = REQUIRED if name in _REQUIRED_SECTIONS else 0
        table += SECTION.pack(name.encode(), at, len(data), _C.crc32c(data), flags)
        at += len(data)
    head = PREAMBLE.pack(MAGIC, *VERSION, len(sections), len(keys), at, _C.crc32c(table), 0)
    head = head[:60] + struct.pack("<I", _C.crc32c(head[:60]))
    target = AtomicFile(path, overwrite=True)
    try:
        done = 0
        for data in (head + table, *sections.values()):
            padding = -done % ALIGN if done else 0
            target.write(b"\0" * padding + data)
            done += padding + len(data)
        target.commit()
    except BaseException:
        target.abort()
        raise


def read_pixels(
    count: int, size_of: Callable[[int], tuple[int, int]], order: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """(N, 2) uint16 height and width of every image from its header, (0, 0) where it cannot be read."""
    from concurrent.futures import ThreadPoolExecutor

    pixels = np.zeros((count, 2), np.uint16)

    def fill(image: int) -> None:
        try:
            pixels[image] = size_of(image)
        except (ValueError, OSError, OverflowError):
            pixels[image] = 0

    with (
        ThreadPoolExecutor(threads or available_cores()) as pool,
        tqdm(total=count, unit="image", desc="headers", disable=None) as bar,
    ):
        for first in range(0, count, 10_000):
            part = order[first : first + 10_000].tolist()
            list(pool.map(fill, part))
            bar.update(len(part))
    return pixels
