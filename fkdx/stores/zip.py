"""Images inside zip files: stored entries are read in place, deflated ones one after the other."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from fkdx.errors import expect, refuse
from fkdx.stores.shards import Entry, Shards, shard_files
from fkdx.stores.store import Place, is_image, left_behind
from fkdx.stores.unpacking import LARGEST_IMAGE, unpack

_LOCAL_HEADER = struct.Struct("<4s2xH18xHH")  # magic, flags, lengths of the name and of the extra field
_ENCRYPTED, _UTF8 = 1, 1 << 11
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(slots=True)
class ZipEntry(Entry):
    """Also the bytes that it takes in the file, where it is deflated (otherwise -1), and its CRC-32."""

    packed: int = -1
    crc: int = 0


class ZipFiles(Shards):
    """Zip files whose entries are images; a name is the key.

    Where an entry is deflated, the store is sequential.
    """

    def __init__(
        self, paths: list[str | os.PathLike], part: str = "", classes: list[str] | None = None
    ) -> None:
        paths = list(shard_files(paths))
        path = paths[0] if len(paths) == 1 else os.path.dirname(paths[0]) or "."
        super().__init__(path, paths, _scan, part, classes)

    def _keep(self, entries: list[ZipEntry]) -> None:
        self._packed = np.array([entry.packed for entry in entries], np.int64)
        self._crcs = np.array([entry.crc for entry in entries], np.uint32)
        self.sequential = bool((self._packed >= 0).any())

    def place(self, image: int) -> Place:
        path, offset, length = super().place(image)
        return (f"{self.keys[image]} in {path}", 0, -1) if self.sequential else (path, offset, length)

    def encoded(self, image: int) -> bytes:
        path, offset, length = super().place(image)
        packed, where = int(self._packed[image]), f"{self.keys[image]} in {path}"
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length if packed < 0 else packed)
        if packed >= 0:
            data = unpack(data, "deflate", length, where)
        crc = zlib.crc32(data)
        expect("ZipFiles", crc == self._crcs[image], "CRC", crc, f"{self._crcs[image]}; copy it again", where)
        return data

    def head(self, image: int) -> bytes:
        return self.encoded(image) if self.sequential else super().head(image)


def _scan(path: str) -> Iterator[ZipEntry]:
    if os.path.exists(os.path.splitext(path)[0] + ".z01"):
        expected = f"a whole one; join the parts: zip -s 0 {path} --out WHOLE.zip"
        refuse("ZipFiles", "archive", "a part of a split one", expected, path)
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            for info in archive.infolist():
                if not (info.is_dir() or left_behind(info.filename)) and is_image(info.filename):
                    yield _entry(info, file, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, IndexError, struct.error) as error:
        raise ValueError(f"ZipFiles: not a whole zip file ({error}); copy it again, {path}") from error


def _entry(info: zipfile.ZipInfo, file: BinaryIO, path: str) -> ZipEntry:
    if stat.S_ISLNK(info.external_attr >> 16):
        refuse("ZipFiles", info.filename, "a link", "a file; make the archive without -y", path)
    if info.flag_bits & _ENCRYPTED:
        refuse("ZipFiles", info.filename, "an encrypted entry", "a plain one; unpack it", path)
    if info.compress_type not in _METHODS:
        got = f"an entry compressed by {zipfile.compressor_names.get(info.compress_type, info.compress_type)}"
        refuse("ZipFiles", info.filename, got, "a stored or a deflated one; unpack it", path)
    offset = info.header_offset + _header_bytes(info, file, path)
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and info.compress_size != info.file_size:
        refuse("ZipFiles", f"bytes of {info.filename}", info.compress_size, info.file_size, path)
    if offset + info.compress_size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"ZipFiles: {info.filename} ends behind the file; copy the file again, {path}")
    if info.file_size > LARGEST_IMAGE:
        refuse("ZipFiles", f"bytes of {info.filename}", info.file_size, f"at most {LARGEST_IMAGE}", path)
    packed = info.compress_size if deflated else -1
    return ZipEntry(info.filename, offset, info.file_size, packed=packed, crc=info.CRC)


def _header_bytes(info: zipfile.ZipInfo, file: BinaryIO, path: str) -> int:
    """The length of an entry's own header, whose name must be that of the archive's directory."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    magic, flags, name_bytes, extra_bytes = (
        _LOCAL_HEADER.unpack(header) if len(header) == _LOCAL_HEADER.size else (b"", 0, 0, 0)
    )
    name = file.read(name_bytes).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    if magic != b"PK\x03\x04" or name != info.orig_filename:
        raise ValueError(
            f"ZipFiles: {info.filename}, got no header at its place; copy the file again, {path}"
        )
    return _LOCAL_HEADER.size + name_bytes + extra_bytes
